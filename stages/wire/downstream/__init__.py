"""What clients write and read: requests in three dialects, and Chat Completions responses."""
