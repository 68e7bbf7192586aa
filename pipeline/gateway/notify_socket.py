"""What ``headrace serve`` reports to the service manager that has started it: that it is ready, reloads, or stops.

The service manager, such as systemd with ``Type=notify``, names a socket in ``NOTIFY_SOCKET``. Each report is one
datagram of lines ``NAME=value`` (sd_notify(3)). Without the variable nothing is sent.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import MutableMapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
SEND_LIMIT_S: Final = 1.0
"""How long a report may wait in a full queue. The supervisor does nothing else meanwhile; it serves no chats."""
STOP_MARGIN_S: Final = 10.0
"""What the service manager is to wait beyond the time after which the supervisor itself kills what still runs."""

log = logging.getLogger("headrace.supervisor")


class NotifySocket:
    """The socket of the service manager. Nothing is raised if it is gone: the service goes on.

    Args:
        address: a path, or ``@`` and an abstract name. Other addresses are for virtual machines and get no report.
    """

    def __init__(self, address: str | None) -> None:
        self._address = None
        if address is not None and address.startswith(("/", "@")):
            self._address = "\0" + address[1:] if address.startswith("@") else address
        self._is_ready = self._is_stopping = False

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> NotifySocket:
        """Return the socket that an environment names, and remove its name.

        A worker or a token command that inherited the name could report itself as the service.
        """
        return cls(environ.pop(VARIABLE, None))

    def ready(self, status: str) -> None:
        """Report that it serves, after the start or a reload, with a text for people."""
        if not self._is_stopping:
            self._is_ready = True
            self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that a reload begins; `reloaded` must follow. A reload before the service is ready is not reported."""
        if self._is_ready and not self._is_stopping:
            # The time is for Type=notify-reload, which ignores reports from before its signal.
            now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=reloading")

    def reloaded(self, status: str) -> None:
        """Report that a reload has ended, whatever has come of it."""
        if self._is_ready:
            self.ready(status)

    def stopping(self, limit_s: float) -> None:
        """Report that a drain begins, and that it may take so long, whatever ``TimeoutStopSec`` is."""
        self._is_stopping = True
        limit_us = int((limit_s + STOP_MARGIN_S) * 1e6)
        self._send("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={limit_us}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_LIMIT_S)
                sender.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            log.warning("the service manager does not get %s: %s", lines[0], error.strerror or error)
