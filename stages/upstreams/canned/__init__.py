"""The embedded upstream: real event bytes without a network."""
