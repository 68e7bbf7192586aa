"""What operators read of a running service: metrics, and where the time goes."""
