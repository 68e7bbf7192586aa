"""One connection of the load generator, as httptools calls it back."""

from __future__ import annotations

import socket
from collections.abc import Callable

import httptools


class Exchange:
    """One connection and its current request."""

    __slots__ = (
        "carry",
        "events",
        "is_done",
        "keeps_alive",
        "last",
        "last_byte_ns",
        "number",
        "parser",
        "pieces",
        "previous",
        "requests",
        "sent_ns",
        "socket",
        "started_ns",
        "status",
    )  # fmt: skip

    parser: httptools.HttpResponseParser

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.pieces: list[bytes] = []
        self.requests = 0  # sent on this connection
        self.number = 0  # of the current one, among all of the load
        self.sent_ns = self.last_byte_ns = 0  # on the wall clock, if the load has ids
        self.status = 0

    # The callbacks of httptools. `on_body` is a list's append, so it costs almost nothing.
    @property
    def on_body(self) -> Callable[[bytes], None]:
        return self.pieces.append

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        self.is_done = True
        self.keeps_alive = self.parser.should_keep_alive()  # llhttp knows it only here

    def begin(self, now_ns: int) -> None:
        """Discard the previous answer."""
        self.started_ns = now_ns
        self.carry = self.last = self.previous = b""
        self.events = self.status = 0
        self.is_done = self.keeps_alive = False
        self.requests += 1
