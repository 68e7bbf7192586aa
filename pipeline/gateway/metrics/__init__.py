"""The figures of all workers for other programs: as Prometheus text, and by OTLP."""
