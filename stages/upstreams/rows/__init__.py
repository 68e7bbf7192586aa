"""The rows of the table of providers, which `stages.upstreams.providers` puts together."""
