"""Where connections come in: accepted in every turn of the loop, and within a turn that is long.

We want: however many streams there are, a health check is answered and a request refused within some ten milliseconds.
In the way: trio looks for IO once a turn, a turn goes through all tasks that can run, and a new connection needs three
turns until it is answered. With a thousand streams a turn lasts 0.1 s and more; with one accept a turn, eight
connections came in each second, and a health check took ten seconds. Several accepts a turn help only the first of the
three. A thread could answer at any time, but it would call a loop alive that has hung, and each of its answers would
take the interpreter from the loop twice, for up to 5 ms.

So every write to a client compares the clock with `Door.look_at_ns`, and if the loop is held, the door looks: it
accepts what waits, and reads, without taking it, what each new client has sent. A health check, or a request that is
refused because the loop is overloaded, is answered then and there, and its connection ends. All others become
connections like any other, and find their bytes untouched. What has not arrived yet is looked at again, for
`WAIT_NS` at most.

How it still fails: a single task that works for long looks at nothing meanwhile; so do turns in which nothing is
written. Requests on kept connections wait for their turns as before.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final

import trio

from pipeline.errors import places_of
from pipeline.gateway.http.http1 import Headers, RequestBuffer, RequestHead, response_head
from pipeline.gateway.http.refusals import RefusedRequest
from pipeline.kernel_time import Clock
from pipeline.loop import Loop

KIB: Final = 1024
LOOK_EVERY_NS: Final = 20_000_000
"""How long a held loop may keep new clients waiting. A look at an empty queue costs 1 us."""
MAX_ACCEPTS: Final = 64
"""At a time, while the loop is held; each takes about 0.1 ms if it is answered."""
WAIT_NS: Final = 250_000_000
"""How long a client that has connected may take to send its request, to be answered at the door."""
MAX_WAITING: Final = 256
"""Clients that may do so at a time."""
PEEK_BYTES: Final = 16 * KIB
"""A request with a longer head is not looked at here."""
ACCEPT_PAUSE_S: Final = 0.1
"""How long to wait before the next accept if the process has no file descriptor or memory for a connection."""
ACCEPT_LOG_PAUSE_S: Final = 10.0
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_BROKEN: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})
_HEALTH_METHODS: Final = ("GET", "HEAD")

log = logging.getLogger("headrace.server")


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """A response that needs no application.

    Attributes:
        headers: with ``content-length``; the server adds those of the connection.
    """

    status: int
    headers: Headers
    body: bytes


Answers = Mapping[str, Callable[[], OwnAnswer]]
"""What the server answers itself to GET and HEAD, by path; to a path that is percent-encoded it does not."""
Shed = Callable[[RequestHead], OwnAnswer | None]
"""Returns how to refuse a request while the loop is overloaded, or None if it is to be served nevertheless."""
NO_ANSWERS: Final[Answers] = {}
Admit = Callable[[socket.socket, Any, bool], None]
"""Takes an accepted socket, the client's address, and whether something of a request is known to have arrived."""
SeeOff = Callable[[socket.socket, Any], None]
"""Takes an accepted socket and the client's address."""


def shed_none(_: RequestHead) -> None:
    """Serve every request, however overloaded the loop is."""


def answer_to(head: RequestHead, answers: Answers) -> OwnAnswer | None:
    """Return what the server itself answers to a request; None if the application does."""
    make = answers.get(head.path)
    if make is None or head.method not in _HEALTH_METHODS or head.raw_path != head.path.encode():
        return None
    return make()


class Door:
    """The listeners of a server, and the clients that have just come.

    Args:
        listeners: non-blocking sockets.
        loop: the one that may be held.
        admit: serves a client as a connection; it spawns the task.
        see_off: closes a socket when the client has read its answer; it spawns the task.
        spawn: runs a task for as long as the server runs.
        answers: as the type says.
        shed: as the type says.
        date: returns the value of the ``date`` header.
        max_header_bytes: limit of one request head.
        can_read: whether the bytes of a client are HTTP, and not TLS.
        clock: the one of ``loop``.

    Attributes:
        look_at_ns: when to call `look` again, on the clock of the figures.
    """

    __slots__ = (
        "_admit",
        "_can_read",
        "_clock",
        "_context",
        "_date",
        "_is_watching",
        "_listeners",
        "_loop",
        "_max_header_bytes",
        "_see_off",
        "_shed",
        "_spawn",
        "_waiting",
        "answers",
        "look_at_ns",
    )

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        loop: Loop,
        *,
        admit: Admit,
        see_off: SeeOff,
        spawn: Callable[..., None],
        answers: Answers,
        shed: Shed,
        date: Callable[[], bytes],
        max_header_bytes: int,
        can_read: bool,
        clock: Clock = perf_counter_ns,
    ) -> None:
        self.answers = answers
        self.look_at_ns: float = 0
        self._listeners = tuple(listeners)
        self._loop = loop
        self._admit = admit
        self._see_off = see_off
        self._spawn = spawn
        self._shed = shed
        self._date = date
        self._max_header_bytes = max_header_bytes
        self._can_read = can_read
        self._clock = clock
        # Of the task that opens the server: a look runs in the task of any request, whose variables are its own.
        self._context: Context = copy_context()
        self._waiting: list[tuple[socket.socket, Any, int]] = []  # with the time of the accept
        self._is_watching = False

    def look(self) -> None:
        """Accept and answer what waits, if the loop is held. Never waits, and never raises."""
        now_ns = self._clock()
        self.look_at_ns = now_ns + LOOK_EVERY_NS
        if self._loop.is_held(now_ns):
            self._context.run(self._look, now_ns)

    async def accept_on(self, listener: socket.socket) -> None:
        """Accept until cancelled: one at a time, so that in a burst all workers that share this listener get some.

        Raises:
            OSError: if the listener itself is broken.
        """
        log_again_at = trio.current_time()
        while True:
            now_ns = self._clock()
            is_held = self._loop.is_held(now_ns)
            accepted, error = _accept(listener, MAX_ACCEPTS if is_held else 1)
            for sock, address in accepted:
                if is_held:
                    self._greet(sock, address, now_ns)
                else:
                    self._admit(sock, address, False)
            if isinstance(error, BlockingIOError):
                await trio.lowlevel.wait_readable(listener)
            elif error is not None and error.errno in _BROKEN:
                raise error
            elif error is not None and error.errno in _NO_ROOM:
                if trio.current_time() >= log_again_at:
                    log_again_at = trio.current_time() + ACCEPT_LOG_PAUSE_S
                    log.error(
                        "cannot accept connections: %s; raise the limit of open files (ulimit -n) "
                        "or lower max_connections",
                        error.strerror,
                    )
                await trio.sleep(ACCEPT_PAUSE_S)
            else:  # the other errors are those of one connection that has already ended: accept(2)
                await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Accept no more: who has come is served."""
        self.look_at_ns = math.inf
        self._listeners = ()
        waiting, self._waiting = self._waiting, []
        for sock, address, _ in waiting:
            self._context.run(self._admit, sock, address, False)

    def _look(self, now_ns: int) -> None:
        self._look_at_waiting(now_ns)
        for listener in self._listeners:
            accepted, _ = _accept(listener, MAX_ACCEPTS)  # an error is reported by the task that accepts
            for sock, address in accepted:
                self._greet(sock, address, now_ns)

    def _greet(self, sock: socket.socket, address: Any, now_ns: int) -> None:
        """Answer a new client, or else have it wait for its own request, or admit it."""
        if not self._can_read:
            self._admit(sock, address, False)
            return
        sock.setblocking(False)
        if self._is_unanswered(sock, address):
            if len(self._waiting) >= MAX_WAITING:
                self._admit(sock, address, False)
                return
            self._waiting.append((sock, address, now_ns))
            if not self._is_watching:
                self._is_watching = True
                self._spawn(self._watch_waiting)

    async def _watch_waiting(self) -> None:
        """Look at least once a turn, as long as a client waits: it is registered nowhere else."""
        try:
            while self._waiting:
                await trio.sleep(LOOK_EVERY_NS / 1e9)
                self._look_at_waiting(self._clock())
        finally:
            self._is_watching = False
            for sock, _, _ in self._waiting:  # only if it was cancelled: the server is being stopped
                sock.close()
            self._waiting.clear()

    def _look_at_waiting(self, now_ns: int) -> None:
        if not self._waiting:
            return
        is_held = self._loop.is_held(now_ns)
        waiting, self._waiting = self._waiting, []
        for sock, address, since_ns in waiting:
            if self._is_unanswered(sock, address):
                if is_held and now_ns - since_ns < WAIT_NS:
                    self._waiting.append((sock, address, since_ns))
                else:
                    self._admit(sock, address, False)

    def _is_unanswered(self, sock: socket.socket, address: Any) -> bool:
        """Answer or admit a client whose request has arrived; return whether it has not."""
        try:
            sent = sock.recv(PEEK_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            sock.close()
            return False
        is_strained = self._loop.is_strained
        if not sent.startswith((b"GET ", b"HEAD ")) and not is_strained:
            self._admit(sock, address, True)
            return False
        requests = RequestBuffer(self._max_header_bytes)
        requests.feed(sent)
        try:
            head = requests.maybe_head()
        except RefusedRequest:
            head = None  # a connection will find and report it
        else:
            if head is None and 0 < len(sent) < PEEK_BYTES:
                return True
        answer = None
        if head is not None:
            is_simple = not requests and requests.body_complete
            answer = self._answer(head, is_simple=is_simple, is_strained=is_strained)
        if answer is None or head is None:
            self._admit(sock, address, True)
        else:
            self._give(answer, head, sock, address, len(sent), is_read=requests.body_has_arrived)
        return False

    def _answer(self, head: RequestHead, *, is_simple: bool, is_strained: bool) -> OwnAnswer | None:
        """Return the answer to a request; None if it is to be served.

        Args:
            head: the request.
            is_simple: whether nothing follows it.
            is_strained: whether it may have to be refused.
        """
        try:
            answer = answer_to(head, self.answers) if is_simple else None
            return self._shed(head) if answer is None and is_strained else answer
        except Exception as failure:  # of the application's, and this is the task of somebody else's request
            log.error("no answer could be made at the door: %s", places_of(failure))
            return None

    def _give(
        self, answer: OwnAnswer, head: RequestHead, sock: socket.socket, address: Any, size: int, *, is_read: bool
    ) -> None:
        """Send an answer, and end the connection so that the client can read it."""
        data = response_head(
            answer.status,
            [*answer.headers, (b"date", self._date()), (b"server", b"headrace"), (b"connection", b"close")],
        )
        if head.method != "HEAD":
            data += answer.body
        try:
            sock.recv(size)
            sock.send(data)
        except OSError:  # it has left
            sock.close()
            return
        if is_read:
            sock.close()
        else:  # to close with unread bytes would reset the connection, and destroy the answer on its way
            self._see_off(sock, address)


def _accept(listener: socket.socket, most: int) -> tuple[list[tuple[socket.socket, Any]], OSError | None]:
    """Return new connections with their clients' addresses, and why there are no more."""
    accepted: list[tuple[socket.socket, Any]] = []
    try:
        while len(accepted) < most:
            accepted.append(listener.accept())
    except OSError as error:
        return accepted, error.with_traceback(None)
    return accepted, None
