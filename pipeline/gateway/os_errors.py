"""What the system refuses a command, as a sentence that says what to do: never a bare number."""

from __future__ import annotations

import errno

from pipeline.gateway.help_text import LAST_PORT
from pipeline.gateway.http.sockets import ListenError

FIRST_FREE_PORT = 1024
"""The first one that needs no privilege, unless the machine is set up otherwise (ip_unprivileged_port_start)."""


def sentence_of(error: OSError) -> str:
    """Return what the system has refused, and what to do where that is known."""
    if isinstance(error, ListenError):
        return listen_sentence(error)
    # Where we raise one ourselves, its text is a sentence already.
    said = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return said
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else str(error.filename)
    return f"{name}: {said}: check its name, its permissions, and those of its folder"


def listen_sentence(error: ListenError, *, is_flag: bool = True) -> str:
    """Return why an address cannot be listened on, and what to do.

    Args:
        error: what was refused.
        is_flag: whether the flags ``--host`` and ``--port`` can change it.
    """
    where = f"cannot listen on {error.host} port {error.port}"

    def flag(name: str, value: object) -> str:
        return f"--{name} {value}" if is_flag else str(value)

    if error.is_unknown_name:
        return f"{where}: no address is known for that host: write one of this machine, such as 127.0.0.1"
    match error.errno:
        case errno.EADDRINUSE:
            other = error.port + 1 if error.port < LAST_PORT else error.port - 1
            return (
                f"{where}, which another program uses: choose another port, such as {flag('port', other)}, or stop "
                "that program"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"{where}, which this user may not use: choose a port from {FIRST_FREE_PORT} on, such as "
                f"{flag('port', 4000)}"
            )
        case errno.EADDRNOTAVAIL:
            return (
                f"{where}: this machine does not have that address: write one that it has, or "
                f"{flag('host', '0.0.0.0')} for all of them"
            )
        case _:
            return str(error.strerror)
