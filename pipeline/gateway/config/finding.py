"""Which configuration file a command is for: the one that is named, that of a variable, or the one in this folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from pipeline.gateway.command_error import CommandError

CONFIG_VARIABLE: Final = "HEADRACE_CONFIG"
USUAL_FILE: Final = "config.yaml"


def find_config(named: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the configuration file; whether it can be read is found out by reading it.

    Args:
        named: what the command line says; None if it says nothing.
        environ: where `CONFIG_VARIABLE` is looked for. An empty one counts as absent.

    Raises:
        CommandError: if nothing names a file and there is none in this folder, or the variable's does not exist.
    """
    if named is not None:
        return named
    if variable := environ.get(CONFIG_VARIABLE, "").strip():
        if not os.path.exists(variable):
            raise CommandError(
                f"the environment variable {CONFIG_VARIABLE} names {variable}, and there is no such file: correct it, "
                f"or unset it to use ./{USUAL_FILE}"
            )
        return variable
    if os.path.exists(USUAL_FILE):
        return USUAL_FILE
    raise CommandError(
        f"there is no configuration: name a file (check-config and graph: FILE, the others: --config FILE), set the "
        f"environment variable {CONFIG_VARIABLE}, or go to a folder that has a {USUAL_FILE}. "
        "`headrace init` writes one."
    )
