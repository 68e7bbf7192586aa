"""What clients say and see: requests in three dialects in, Chat Completions out."""
