"""What a resolver asks, in tests: instead of ``getaddrinfo``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

from kit.time.patience import PATIENCE_S

Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
HERE = (socket.AF_INET, "127.0.0.1")
SEVERAL = ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.9"), HERE)
"""Only the last one is listened at."""


class Names:
    """Resolves every name to the given addresses; to none, if there are none.

    Attributes:
        asked: the names, in the order in which they were asked for.
        failure: raised instead of an answer.
        answers: while it is not set, nobody gets an answer, as from a dead resolver.
    """

    def __init__(self, *addresses: tuple[socket.AddressFamily, str], is_dead: bool = False) -> None:
        self.addresses = addresses
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.answers = threading.Event()
        if not is_dead:
            self.answers.set()

    def __call__(self, host: str) -> Sequence[Found]:
        self.asked.append(host)
        self.answers.wait(2 * PATIENCE_S)
        if self.failure is not None:
            raise self.failure
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, 0, 0, 0) if family == socket.AF_INET6 else (address, 0))
            for family, address in self.addresses
        ]
