"""The addresses of upstreams: each name is looked up once for everyone who waits for it, and the answer is kept.

What we want: a dead or slow resolver of one name delays nobody else. Why it is hard: ``getaddrinfo`` blocks, for as
long as the system's resolver is configured to wait (10 s and more), and cannot be cancelled. What does not work: a
thread for each connection, out of trio's 40. They are soon all stuck, and with them every other name and everything
else that needs a thread. What we do: one thread for each name at most, none of them trio's, and however many calls wait
for it; a cancelled call only stops waiting. Threads are not waited for at shutdown.

An answer is used for `FRESH_S`, because ``getaddrinfo`` does not report its TTL, or until a connection to it fails.
After that it is still used, for a day, if a new lookup takes longer than `PATIENCE_S` or fails; only the answer that
the name does not exist replaces it (RFC 8767). Failures are not kept: the next call asks again. How it can still fail:
a thread that never returns blocks its own name until the process ends, once the last answer is a day old.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import outcome
import trio

FRESH_S: Final = 30.0
"""As long as Go and browsers that do not know the TTL keep an answer, at most."""
PATIENCE_S: Final = 1.8
"""How long a lookup may take if there is an older answer (RFC 8767 section 5: 1.8 s)."""
STALE_S: Final = 86_400.0
"""How old an answer may become if it cannot be renewed (RFC 8767 section 5: 1 to 3 days)."""
RECHECK_S: Final = 5.0
"""How long after a failed renewal to ask again."""

_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

AddrInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
"""As ``getaddrinfo`` returns them: family, type, protocol, canonical name, address. Any: IPv6 has four parts."""


def look_up(host: str) -> Sequence[AddrInfo]:
    """Return the addresses of a name, with port 0; blocks.

    Raises:
        OSError, UnicodeError: if there are none. It is not a `socket.gaierror` if no file descriptor was left.
    """
    try:
        return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except socket.gaierror:
        socket.socket().close()  # getaddrinfo does not say that it could not open its own
        raise


class _Known:
    __slots__ = ("addresses", "found_s", "fresh_until_s")

    def __init__(self, addresses: Sequence[AddrInfo], found_s: float) -> None:
        self.addresses = addresses
        self.found_s = found_s
        self.fresh_until_s = found_s + FRESH_S


class _Lookup:
    __slots__ = ("began_s", "done", "result")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.done = trio.Event()
        self.result: outcome.Outcome[Sequence[AddrInfo]] | None = None


class Resolver:
    """Looks up names; one for all transports of a process, so that each name has one thread.

    Args:
        look_up: returns the addresses of a name or raises, as `look_up` does; runs in a thread.
    """

    def __init__(self, look_up: Callable[[str], Sequence[AddrInfo]] = look_up) -> None:
        self._look_up = look_up
        # Both hold as many names as the configuration has.
        self._known: dict[str, _Known] = {}
        self._running: dict[str, _Lookup] = {}

    async def addresses(self, host: str, port: int) -> Sequence[AddrInfo]:
        """Return the addresses of a name, or the one that ``host`` itself is, in the order of preference.

        Raises:
            OSError, UnicodeError: if there are none.
        """
        try:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name
        known = self._usable(host)
        if known is None:
            lookup = self._running.get(host) or self._start(host)
            await lookup.done.wait()
        elif trio.current_time() >= known.fresh_until_s:
            lookup = self._running.get(host) or self._start(host)
            with trio.CancelScope(deadline=lookup.began_s + PATIENCE_S):
                await lookup.done.wait()
        else:
            return _at_port(known.addresses, port)
        if (known := self._usable(host)) is not None:
            return _at_port(known.addresses, port)
        assert isinstance(lookup.result, outcome.Error)
        failure = lookup.result.error
        raise type(failure)(*failure.args)  # a new one: each caller adds its own traceback

    def doubt(self, host: str) -> None:
        """Look the name up anew for the next connection: one to its addresses has failed."""
        if (known := self._known.get(host)) is not None:
            known.fresh_until_s = 0.0

    def _usable(self, host: str) -> _Known | None:
        known = self._known.get(host)
        return known if known is not None and trio.current_time() < known.found_s + STALE_S else None

    def _start(self, host: str) -> _Lookup:
        """Start a thread that looks a name up; nobody needs to wait for it."""
        lookup = _Lookup(trio.current_time())
        token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[Sequence[AddrInfo]]) -> None:
            with suppress(trio.RunFinishedError):  # it took longer than we lived
                token.run_sync_soon(self._end, host, lookup, result)

        try:
            trio.lowlevel.start_thread_soon(lambda: self._look_up(host), deliver, name="resolver")
        except RuntimeError as error:
            raise OSError(errno.ENOMEM, "no thread can be started") from error
        self._running[host] = lookup
        return lookup

    def _end(self, host: str, lookup: _Lookup, result: outcome.Outcome[Sequence[AddrInfo]]) -> None:
        del self._running[host]
        now_s = trio.current_time()
        if isinstance(result, outcome.Value):
            self._known[host] = _Known(result.value, now_s)
        else:
            assert isinstance(result, outcome.Error)
            failure = result.error
            if isinstance(failure, socket.gaierror) and failure.errno in _NO_SUCH_NAME:
                self._known.pop(host, None)
            elif (known := self._known.get(host)) is not None:
                known.fresh_until_s = now_s + RECHECK_S
        lookup.result = result
        lookup.done.set()


def _at_port(addresses: Sequence[AddrInfo], port: int) -> list[AddrInfo]:
    return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in addresses]
