"""Tools that read where the time went: from a recording, without a server. docs/latency.md explains the figures."""
