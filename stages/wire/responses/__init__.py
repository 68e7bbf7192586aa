"""The Responses API as an upstream API: requests to it, and its answers decoded into events."""
