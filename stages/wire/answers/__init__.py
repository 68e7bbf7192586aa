"""What the decoders of all upstream APIs share: one end per answer, failures, finish reasons, usage, tool calls."""
