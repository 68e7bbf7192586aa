"""``headrace openapi``: the document of `/openapi.json`, for programs that make clients, without a server."""

from __future__ import annotations

import argparse
import sys

from pipeline.gateway.help_text import Commands, add_command


def add_openapi(commands: Commands) -> None:
    """Add the command to the parser of ``headrace``."""
    command = add_command(
        commands,
        "openapi",
        summary="print what a server answers at /openapi.json",
        description="""
            Print the OpenAPI document of this version, as a server answers it at /openapi.json: all paths, requests,
            answers and errors, for programs that make clients or test servers. It is the same for every configuration.
        """,
        example="headrace openapi",
    )
    command.set_defaults(run=_openapi)


def _openapi(_: argparse.Namespace) -> int:
    from pipeline.gateway.openapi.document import published  # here because it takes a third of a second

    sys.stdout.write(published().body.decode() + "\n")
    return 0
