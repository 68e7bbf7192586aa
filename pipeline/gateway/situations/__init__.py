"""Situations to learn from: in each, a known time is lost at a known place (docs/studying-latency.md)."""
