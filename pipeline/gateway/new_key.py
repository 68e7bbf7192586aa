"""``headrace new-key``: a key that nobody can guess, for the master key or one of ``pipeline_settings.keys``."""

from __future__ import annotations

import argparse
import hashlib
import secrets
import sys
from typing import Final

from pipeline.gateway.config.keys import HASH_PREFIX
from pipeline.gateway.help_text import Commands, add_command

RANDOM_BYTES: Final = 24
"""They are 32 characters, of 6 bits each."""


def add_new_key(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    command = add_command(
        commands,
        "new-key",
        summary="make a key for clients, or the master key",
        description="""
            Print a new key that nobody can guess, alone on its line: for the master key, or for one of
            pipeline_settings.keys. With --hash a second line has what the configuration may hold in its place; the key
            itself is then for the client only. Nothing is kept.
        """,
        example="""
            export HEADRACE_MASTER_KEY=$(headrace new-key)
            headrace new-key --hash
        """,
    )
    command.add_argument("--hash", action="store_true", help="print the line for the configuration as well")
    command.set_defaults(run=_new_key)


def new_key() -> str:
    """Return a key: ``sk-``, and 32 random characters that a URL may have."""
    return f"sk-{secrets.token_urlsafe(RANDOM_BYTES)}"


def _new_key(options: argparse.Namespace) -> int:
    key = new_key()
    sys.stdout.write(f"{key}\n")
    if options.hash:
        sys.stdout.write(f"{HASH_PREFIX}{hashlib.sha256(key.encode()).hexdigest()}\n")
    return 0
