"""What the records of requests say together, and in words."""
