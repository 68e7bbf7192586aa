"""Anthropic's Messages API: requests to it, and its answers as events."""
