"""Benchmarks of headrace, for users and developers: README.md says how they measure, and what not."""
