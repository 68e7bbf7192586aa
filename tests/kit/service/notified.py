"""The side of the service manager: a socket on which a service reports that it is ready, reloads, or stops."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager

import trio
from kit.time.patience import patiently_with_processes

Report = dict[str, str]
"""The lines of one datagram, by name."""


class Notified:
    """A socket that receives reports."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def report(self) -> Report:
        """Wait for the next report."""
        with patiently_with_processes():
            await trio.lowlevel.wait_readable(self._sock)
        (report,) = self.reports(1)
        return report

    def reports(self, most: int = 100) -> list[Report]:
        """Return those that have come."""
        found: list[Report] = []
        while len(found) < most:
            try:
                datagram = self._sock.recv(65536)
            except BlockingIOError:
                break
            found.append(dict(line.split("=", 1) for line in datagram.decode().split("\n")))
        return found


@contextmanager
def notified(address: str) -> Generator[Notified]:
    """Listen on an address as NOTIFY_SOCKET has it: a path, or ``@`` and an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind("\0" + address[1:] if address.startswith("@") else address)
        yield Notified(sock)
