"""Benchmarks of headrace, for users and developers: README.md describes what they measure and how."""
