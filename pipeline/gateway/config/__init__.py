"""From config.yaml to `Settings`: reads, checks and describes the configuration."""
