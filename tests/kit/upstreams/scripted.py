"""An upstream that follows a script, byte for byte, over real sockets; for all tests of the project.

    async with scripted_upstream(sse_head(), event({"type": "x"}), wait(0.05), reset()) as up:
        ...  # call f"{up.url}/v1/responses"
        assert up.requests[0].json()["model"] == "m"
        await up.connection_closed()
        assert up.connections[0].closed_at - left_at < AT_ONCE_S

**A script** is a sequence of steps; it runs once for each request. A step is `bytes`, which are sent unchanged, or a
function ``async (exchange) -> None``, like those that the functions below return. After the last step the connection
waits for the next request, so end a response properly, or with `close()` or `reset()`. For full control pass one
function that takes the `Exchange` and does everything. `in_turn(script, script, ...)` answers the first request with
the first script, and so on; the last one answers all later requests.

Ready steps:

    sse_head(...)         200, text/event-stream, chunked (or length=..., or until_close=True)
    event(payload, ...)   one SSE event as one HTTP chunk; payload is a dict (JSON) or ready bytes
    events(payloads, per="event" | "write", gap_s=0)  many: each in its own chunk and write, or all in one
    pieces(data, size)    `data` as raw bytes, in writes of `size`
    end()                 the final chunk
    json_answer(body, status=200, headers=())     a whole JSON response with a content-length
    error(status, body=b"", content_type=..., headers=())   a whole response of any kind
    wait(seconds)         a delay in real time
    stall()               nothing until the client disconnects
    close()               FIN now, whatever was sent before
    reset()               RST now (SO_LINGER 0)

Whatever the script does, the client's side is watched: when the client closes, the script is cancelled, and the
connection records when (`Connection.closed_at`, trio's clock) and how (`Connection.ended`). The server reads while it
writes, except with ``reads=False``: then the script runs as soon as a connection is accepted, nothing is read, and only
a step that reads (``exchange.stream``) or writes notices that the client has closed.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httptools
import trio
from kit.time.patience import patiently

Action = Callable[["Exchange"], Awaitable[None]]
Step = bytes | Action
Script = Sequence[Step]


@dataclass(eq=False)  # two may be equal in virtual time, and `in_turn` tells them apart
class Received:
    """A request as it arrived, with header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    """By name; of those that came several times, the last."""
    header_lines: list[tuple[str, str]]
    """All of them."""
    body: bytes
    at: float
    """When the request was complete, on trio's clock."""
    connection: Connection

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


@dataclass(eq=False)
class Connection:
    """One accepted connection."""

    opened_at: float
    closed: trio.Event = field(default_factory=trio.Event)
    """Set when either side has closed the connection."""
    closed_at: float | None = None
    ended: Literal["open", "fin", "rst", "by us"] = "open"
    requests: int = 0

    def _note_end(self, how: Literal["fin", "rst", "by us"]) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
            self.ended = how
            self.closed.set()


class _Left(Exception):
    """The script or the client has ended the connection."""


class Exchange:
    """What a step acts on: one request and its connection."""

    def __init__(self, upstream: ScriptedUpstream, stream: trio.abc.Stream, request: Received | None) -> None:
        self.upstream = upstream
        self.stream = stream
        self._request = request

    @property
    def request(self) -> Received:
        """The request that is answered; with ``reads=False`` there is none."""
        assert self._request is not None, "this upstream does not read"
        return self._request

    async def send(self, data: bytes) -> None:
        """Write ``data`` unchanged."""
        await self.stream.send_all(data)

    async def send_chunk(self, data: bytes) -> None:
        """Write ``data`` as one HTTP chunk."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Close with a RST."""
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Left

    def close(self) -> None:
        """Close with a FIN (without TLS's closing alert)."""
        raise _Left

    def _socket(self) -> trio.socket.SocketType:
        stream = self.stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        assert isinstance(stream, trio.SocketStream)
        return stream.socket


# --- steps -----------------------------------------------------------------------------------------------------------


def head(status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return a response's head with exactly these headers."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def sse_head(
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    *,
    content_type: str | None = "text/event-stream",
    length: int | None = None,
    until_close: bool = False,
) -> bytes:
    """Return the head of a stream: chunked, or of ``length`` bytes, or ending with the connection."""
    framing = [("transfer-encoding", "chunked")]
    if length is not None:
        framing = [("content-length", str(length))]
    elif until_close:
        framing = [("connection", "close")]
    kind = [] if content_type is None else [("content-type", content_type)]
    return head(status, [*kind, *framing, *headers])


def sse(payload: dict[str, Any] | bytes) -> bytes:
    """Return one server-sent event with ``payload``; bytes are returned unchanged."""
    if isinstance(payload, bytes):
        return payload
    name = f"event: {payload['type']}\n" if "type" in payload else ""
    return f"{name}data: {json.dumps(payload)}\n\n".encode()


def event(payload: dict[str, Any] | bytes) -> Action:
    """Send one event as one HTTP chunk."""
    return events([payload])


def events(
    payloads: Iterable[dict[str, Any] | bytes], *, per: Literal["event", "write"] = "event", gap_s: float = 0
) -> Action:
    """Send events: each in its own chunk and write, ``gap_s`` apart; or all in one chunk."""
    encoded = [sse(payload) for payload in payloads]

    async def step(exchange: Exchange) -> None:
        if per == "write":
            await exchange.send_chunk(b"".join(encoded))
            return
        for data in encoded:
            await exchange.send_chunk(data)
            if gap_s:
                await trio.sleep(gap_s)

    return step


def pieces(data: bytes, size: int) -> Action:
    """Send ``data`` in writes of ``size`` bytes."""

    async def step(exchange: Exchange) -> None:
        for at in range(0, len(data), size):
            await exchange.send(data[at : at + size])

    return step


def end() -> bytes:
    """End a chunked body."""
    return b"0\r\n\r\n"


def json_answer(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Send a whole JSON response."""
    return error(status, json.dumps(body).encode(), headers=headers)


def error(
    status: int,
    body: bytes = b"",
    *,
    content_type: str = "application/json",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Send a whole response of any status and kind."""
    return head(status, [("content-type", content_type), ("content-length", str(len(body))), *headers]) + body


def wait(seconds: float) -> Action:
    """Wait in real time."""

    async def step(exchange: Exchange) -> None:
        await trio.sleep(seconds)

    return step


def stall() -> Action:
    """Do nothing until the client disconnects."""

    async def step(exchange: Exchange) -> None:
        await trio.sleep_forever()

    return step


def close() -> Action:
    """Close the connection."""

    async def step(exchange: Exchange) -> None:
        exchange.close()

    return step


def reset() -> Action:
    """Reset the connection."""

    async def step(exchange: Exchange) -> None:
        exchange.reset()

    return step


def in_turn(*scripts: Script) -> Action:
    """Answer the first request with the first script, and so on; the last one answers all later requests."""

    async def step(exchange: Exchange) -> None:
        served = exchange.upstream.requests.index(exchange.request)
        await _play(scripts[min(served, len(scripts) - 1)], exchange)

    return step


async def _play(script: Script, exchange: Exchange) -> None:
    for step in script:
        if isinstance(step, bytes):
            await exchange.send(step)
        else:
            await step(exchange)


# --- the server ------------------------------------------------------------------------------------------------------


class ScriptedUpstream:
    """A running upstream; see the module's docstring."""

    def __init__(self, script: Script, url: str, *, reads: bool) -> None:
        self.url = url
        """``http://127.0.0.1:PORT``, or ``https://localhost:PORT`` with TLS; no path."""
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self._script = script
        self._reads = reads
        self._news = trio.Event()

    @property
    def open_connections(self) -> int:
        """The number of connections that neither side has closed."""
        return sum(1 for connection in self.connections if connection.closed_at is None)

    async def connection_closed(self, at: int = 0) -> Connection:
        """Wait until connection number ``at`` is closed, and return it."""
        with patiently():
            while len(self.connections) <= at:
                await self._news.wait()
            await self.connections[at].closed.wait()
        return self.connections[at]

    async def request_received(self, at: int = 0) -> Received:
        """Wait until request number ``at`` has arrived completely, and return it."""
        with patiently():
            while len(self.requests) <= at:
                await self._news.wait()
        return self.requests[at]

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _serve(self, stream: trio.abc.Stream) -> None:
        connection = Connection(trio.current_time())
        self.connections.append(connection)
        self._tell()
        try:
            if self._reads:
                await self._serve_requests(stream, connection)
            else:
                await _play(self._script, Exchange(self, stream, None))
                await trio.sleep_forever()
        except _Left:
            connection._note_end("by us")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            connection._note_end("rst")
        finally:
            connection._note_end("by us")
            await trio.aclose_forcefully(stream)

    async def _serve_requests(self, stream: trio.abc.Stream, connection: Connection) -> None:
        """Read as long as the connection is open; play the script for each request, one at a time."""
        left = False
        send_request, receive_request = trio.open_memory_channel[Received](100)

        async def answer() -> None:
            nonlocal left
            async for request in receive_request:
                self.requests.append(request)
                self._tell()
                try:
                    await _play(self._script, Exchange(self, stream, request))
                except (_Left, trio.BrokenResourceError, trio.ClosedResourceError):
                    left = True
                    nursery.cancel_scope.cancel()
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            reader = _RequestReader(connection, send_request)
            try:
                while data := await stream.receive_some(65536):
                    reader.feed(data)
                connection._note_end("fin")
            except trio.BrokenResourceError:
                connection._note_end("rst")
            nursery.cancel_scope.cancel()
        if left:
            raise _Left


class _RequestReader:
    def __init__(self, connection: Connection, out: trio.MemorySendChannel[Received]) -> None:
        self._connection = connection
        self._out = out
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def feed(self, data: bytes | bytearray) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", list[tuple[str, str]](), bytearray()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._connection.requests += 1
        self._out.send_nowait(
            Received(
                method=self._parser.get_method().decode(),
                path=self._path.decode(),
                headers=dict(self._headers),
                header_lines=self._headers,
                body=bytes(self._body),
                at=trio.current_time(),
                connection=self._connection,
            )
        )


@asynccontextmanager
async def scripted_upstream(
    *script: Step, tls: ssl.SSLContext | None = None, reads: bool = True, backlog: int | None = None
) -> AsyncGenerator[ScriptedUpstream]:
    """Serve ``script`` on a free port of 127.0.0.1 until the block ends; see the module's docstring.

    Args:
        script: steps, or one function that takes the `Exchange`.
        tls: a server context, for example with a certificate of trustme's for ``localhost``; the URL is then https.
        reads: whether requests are read at all; see above.
        backlog: the backlog of the listening socket.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=backlog)
    port = listeners[0].socket.getsockname()[1]
    url = f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
    upstream = ScriptedUpstream(script, url, reads=reads)

    async def serve(stream: trio.SocketStream) -> None:
        await upstream._serve(stream if tls is None else trio.SSLStream(stream, tls, server_side=True))

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        try:
            yield upstream
        except Exception as error:  # the test's own failure, which must not be wrapped in a group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@contextmanager
def full_backlog() -> Generator[int]:
    """Yield the port of a listener that completes no more handshakes: a connect to it hangs."""
    with socket.socket() as listener, ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
