"""What the decoders of all upstream APIs share: one end per answer, failures, usage, tool calls."""
