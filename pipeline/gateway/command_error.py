"""What a command of ``headrace`` ends with if it was called in a way that cannot work."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what it was asked to; the message says why, and what to change."""
