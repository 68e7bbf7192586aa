"""YAML to Settings: reading, checking and explaining config.yaml."""
