"""Clients that follow their plan: what they send, when they leave, and what they have received."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httptools
import trio
from kit.clients.chat_posts import CURSOR, OPENAI_LIKE
from simulator.configurations import KEYS, MAX_BODY_BYTES
from simulator.network import End, Network
from simulator.plans import ClientBehaviour, ClientPlan, RequestPlan

GARBAGE: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
"""The start of a TLS handshake."""


LONG_S: Final = 1.9
"""A connection that was idle for so long may be closed by a server that ends, just when the next request comes."""


@dataclass
class Received:
    """A response, as far as it came."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    request_id: str = ""
    is_complete: bool = False
    closes: bool = False
    retry_after: str = ""


class _Responses:
    """What a client receives, split into responses; a parser's callbacks."""

    def __init__(self, found: list[Received]) -> None:
        self.found = found
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.found.append(Received())

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self.found[-1].request_id = value.decode()
        elif name.lower() == b"retry-after":
            self.found[-1].retry_after = value.decode()
        elif name.lower() == b"connection":
            self.found[-1].closes = value.lower() == b"close"

    def on_headers_complete(self) -> None:
        self.found[-1].status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.found[-1].body += body

    def on_message_complete(self) -> None:
        self.found[-1].is_complete = True


def request_bytes(plan: RequestPlan, behaviour: ClientBehaviour) -> tuple[bytes, bytes]:
    """Return the head and the body of a request."""
    size = 2 * MAX_BODY_BYTES if behaviour == "sends too large a body" else plan.padding_bytes
    chat = {
        "model": plan.model,
        "stream": plan.is_stream,
        "messages": [{"role": "user", "content": f"#{plan.number}# " + "y" * size}],
    }
    body = json.dumps(chat).encode()
    if behaviour == "sends bad JSON":
        body = body[:-1]
    lines = [
        "POST /cursor/chat/completions HTTP/1.1",
        "Host: simulated",
        f"User-Agent: {CURSOR if plan.is_cursor else OPENAI_LIKE}",
        f"Authorization: Bearer {KEYS[plan.key] if behaviour != 'has a wrong key' else 'sk-wrong'}",
        f"X-Request-Id: r{plan.number}",
    ]
    if behaviour == "sends Connection: close":
        lines.append("Connection: close")
    if behaviour == "uploads in chunks":
        half = len(body) // 2
        parts = [body[:half], body[half:]]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    else:
        length = 100 * MAX_BODY_BYTES if behaviour == "declares too large a body" else len(body)
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode(), body


class Client:
    """One client and its connection; a further one only if the server is replaced (`ClientPlan.thinking_s`).

    Attributes:
        received: the responses, in their order; those to requests that were never sent are missing.
        asked: the requests of which anything was sent.
        left_at: when it closed, reset or half-closed its connection; infinite if it did not.
        answered: how many responses were complete then.
        broke: what was wrong with the bytes that it received.
        was_refused: whether nobody listened.
        was_reset: whether the server reset the connection.
        connected_at: for each request, when its connection was opened.
        heard_at: when it last received anything.
        closed_at: when the server last closed a connection; 0 if it has closed none.
    """

    def __init__(
        self,
        plan: ClientPlan,
        network: Network,
        log_of_request: Callable[[str, object, int], None],
        log: Callable[..., object],
    ) -> None:
        self.plan = plan
        self._network = network
        self._log_of_request = log_of_request
        self._log = log
        self._news = trio.Event()
        self._reading = trio.CancelScope()
        self._is_over = False
        self.asked: list[RequestPlan] = []
        self.left_at = math.inf
        self.answered = 0
        self.broke = ""
        self.was_refused = self.was_reset = False
        self.received: list[Received] = []
        self.connected_at: dict[int, float] = {}
        self.heard_at = self.closed_at = 0.0
        self._responses = _Responses(self.received)
        self._next = self._first = 0
        self._opened_at = 0.0

    async def run(self) -> None:
        """Do what the plan says."""
        await trio.sleep(self.plan.starts_s)
        while await self._ask_over_a_connection():
            pass

    async def _ask_over_a_connection(self) -> bool:
        """Ask over a new connection; return whether to go on over another one."""
        plan = self.plan
        try:
            end = self._network.connect_client()
        except OSError:
            self.was_refused = True
            self._log("client refused", plan.number)
            return False
        self._responses = _Responses(self.received)
        self._reading, self._is_over = trio.CancelScope(), False
        self._first, self._opened_at = self._next, trio.current_time()
        goes_on = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, end)
                goes_on = await self._ask_all(end)
                nursery.cancel_scope.cancel()
        finally:
            if end.fileno() >= 0:
                trio.lowlevel.notify_closing(end)
                end.close()
            self._log("client ends", plan.number, len(self.received))
        return goes_on

    async def _ask_all(self, end: End) -> bool:
        """Ask what is left to ask; return whether to go on over another connection."""
        plan, connects_again = self.plan, self.plan.thinking_s is not None
        while self._next < len(plan.requests):
            index, is_last = self._next, self._next == len(plan.requests) - 1
            is_pipelined = plan.behaviour.startswith("pipelines") and index == len(plan.requests) - 2
            behaviour = plan.behaviour if is_last or is_pipelined else "reads well"
            was_sent = is_last and plan.behaviour.startswith("pipelines") and index > self._first
            idle_s = 0.0
            if not was_sent:
                if index > self._first and plan.thinking_s:
                    idle_s = plan.thinking_s
                    await trio.sleep(idle_s)
                if index > self._first and connects_again and self._is_over:
                    return True
                try:
                    await self._ask(end, plan.requests[index], behaviour, plan.requests[-1] if is_pipelined else None)
                except OSError:
                    await self._until(math.inf)  # it may have answered before it closed
                    return connects_again and idle_s >= LONG_S and len(self.received) == index
            if await self._leave(end, behaviour):
                return False
            if not await self._until(index + 1):
                # The server may close a connection that was idle for long, and cross a request.
                return connects_again and idle_s >= LONG_S and len(self.received) == index
            self._next += 1
            if self.received[index].closes:
                if connects_again:
                    return self._next < len(plan.requests)
                break
        if plan.behaviour == "sends Connection: close" or plan.idles:
            await self._until(math.inf)
        return False

    async def _ask(
        self, end: End, request: RequestPlan, behaviour: ClientBehaviour, pipelined: RequestPlan | None
    ) -> None:
        """Send a request, and perhaps the next one with it.

        Raises:
            OSError: if the server closes the connection meanwhile.
        """
        end.link.request = request.number
        data = b"".join(request_bytes(request, behaviour))
        self._note_asked(request)
        if pipelined is not None:
            self._note_asked(pipelined)
            data += b"".join(request_bytes(pipelined, behaviour))
        self._log_of_request("client asks", self.plan.number, request.number)
        await self._send(end, data, request, behaviour)

    def _note_asked(self, request: RequestPlan) -> None:
        self.connected_at[request.number] = self._opened_at
        if request not in self.asked:
            self.asked.append(request)

    async def _send(self, end: End, data: bytes, request: RequestPlan, behaviour: ClientBehaviour) -> None:
        match behaviour:
            case "stalls" | "stalls and closes":
                self._reading.cancel()
                await end.send_everything(data)
            case "sends stray CRLF" | "sends stray CRLF and closes":
                await end.send_everything(data + b"\r\n")
            case "closes during its upload" | "stalls during its upload":
                await end.send_everything(data[:-5])
            case "uploads slowly":
                third = len(data) // 3
                for part in (data[:third], data[third : 2 * third], data[2 * third :]):
                    await end.send_everything(part)
                    await trio.sleep(0.5)
            case "sends garbage":
                self.asked.remove(request)
                await end.send_everything(GARBAGE)
            case _:
                await end.send_everything(data)

    async def _leave(self, end: End, behaviour: ClientBehaviour) -> bool:
        """Leave, if the behaviour is to do so; return whether nothing more is expected."""
        plan = self.plan
        if behaviour == "stalls":
            await end.link.ours_closed.wait()
            await self._read_now(end)
            return True
        if behaviour not in (
            "closes",
            "resets",
            "half-closes",
            "stalls and closes",
            "pipelines and closes",
            "sends stray CRLF and closes",
            "closes during its upload",
        ):
            return False
        await trio.sleep(plan.after_s)
        self.answered = sum(response.is_complete for response in self.received)
        self.left_at = trio.current_time()
        self._log("client leaves", plan.number, behaviour)
        if behaviour == "half-closes":
            try:
                end.shutdown(1)
            except OSError:
                return True
            await self._until(math.inf)
        elif behaviour == "resets":
            end.reset()
        else:
            trio.lowlevel.notify_closing(end)
            end.close()
        return True

    async def _until(self, count: float) -> bool:
        """Wait for so many complete responses; return False if the connection ends before that."""
        while sum(response.is_complete for response in self.received) < count:
            if self._is_over:
                return False
            self._news = trio.Event()
            await self._news.wait()
        return True

    async def _read(self, end: End) -> None:
        plan = self.plan
        with self._reading:
            while not self._is_over:
                try:
                    chunk = await end.receive(plan.reads_bytes)
                except OSError:
                    self.was_reset = True
                    chunk = b""
                except trio.ClosedResourceError:
                    chunk = b""
                self._feed(chunk)
                if plan.pause_s and chunk:
                    await trio.sleep(plan.pause_s)
        self._is_over = True
        self._news.set()

    async def _read_now(self, end: End) -> None:
        """Read what has arrived before the server closed."""
        try:
            while chunk := await end.receive():
                self._feed(chunk)
        except OSError:
            self.was_reset = True

    def _feed(self, chunk: bytes) -> None:
        if chunk:
            self.heard_at = trio.current_time()
            try:
                self._responses.parser.feed_data(chunk)
            except httptools.HttpParserError as error:
                self.broke = f"{type(error).__name__} on {chunk[:60]!r}"
                self._is_over = True
        else:
            self._is_over = True
            self.closed_at = trio.current_time()
        self._log("client received", self.plan.number, len(chunk))
        self._news.set()
