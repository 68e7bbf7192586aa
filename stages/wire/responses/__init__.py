"""OpenAI Responses API: requests to it, and its answers as events."""
