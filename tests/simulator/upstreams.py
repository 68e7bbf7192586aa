"""Upstreams that follow their plan: one host for each kind of API, on connections of the simulated network."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import trio
from kit.clients.chat_posts import CREATED, completed, delta, failed_event, response_of
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import sse
from simulator.configurations import Kind
from simulator.network import End
from simulator.plans import AnswerFault, AnswerPlan

MARK: Final = re.compile(rb"#(\d+)#")
"""Where a request's body says which one it is."""
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
_SECRET: Final = re.compile(rb"(?i)\r\n(?:authorization: bearer|x-api-key:) ([^\r]*)\r\n")
_JUNK: Final = b": a comment\n\nid: 7\n\nretry: 5\n\n"
_FAILED: Final = "the simulated upstream failed"
_STATUSES: Final[dict[AnswerFault, bytes]] = {
    "status 500": b"500 Internal Server Error",
    "status 429": b"429 Too Many Requests",
    "status 400": b"400 Bad Request",
    "redirect": b"302 Found",
}


@dataclass
class Sent:
    """What an upstream has sent in one attempt.

    Attributes:
        host: who was asked.
        secret: with what.
        at: when.
        text: the text of the deltas that were sent, or were about to be.
        is_whole: whether the event that ends the answer well was sent.
    """

    plan: AnswerPlan
    host: str
    secret: str
    at: float
    text: str = ""
    is_whole: bool = False


class _Left(Exception):
    """The connection ends here."""


def stream_events(kind: Kind, texts: list[str]) -> Iterator[tuple[bytes, str, bool]]:
    """Yield each event of a stream, its text, and whether it is the one that ends the answer well."""
    whole = "".join(texts)
    if kind == "responses":
        yield sse(CREATED), "", False
        for text in texts:
            yield sse(delta(text)), text, False
        yield sse(completed(whole if len(whole) < 20_000 else "")), "", True
    elif kind == "chat":
        for text in texts:
            yield sse(chat_stream.chunk({"content": text})), text, False
        yield sse(chat_stream.chunk(finish="stop")), "", True
        yield b"data: [DONE]\n\n", "", False
    else:
        yield sse(anthropic_stream.head(usage={"input_tokens": 3})), "", False
        for text, event in zip(["", *texts, ""], anthropic_stream.text(0, *texts), strict=True):
            yield sse(event), text, False
        yield sse(anthropic_stream.last(output_tokens=2)), "", True
        yield sse(anthropic_stream.STOP), "", False


def error_event(kind: Kind) -> bytes:
    """Return the event by which an upstream says that it has failed."""
    if kind == "responses":
        return sse(failed_event("server_error", _FAILED))
    if kind == "chat":
        return sse({"error": {"message": _FAILED, "type": "server_error", "code": None}})
    return sse({"type": "error", "error": {"type": "overloaded_error", "message": _FAILED}})


def document(kind: Kind, text: str) -> bytes:
    """Return a whole answer for a client that does not stream."""
    if kind == "responses":
        return json.dumps(response_of(text)).encode()
    if kind == "chat":
        return chat_stream.document({"content": text})
    return anthropic_stream.document({"type": "text", "text": text}, usage={"input_tokens": 3, "output_tokens": 2})


@dataclass
class Upstreams:
    """All upstream hosts of a world.

    Args:
        kinds: the API of each host.
        next_answer: returns the plan of the next attempt at the request with this number.
        log_of_request: is told that an upstream is asked.
        log: is told what else happens.

    Attributes:
        sent: for each request, what was sent in each attempt.
    """

    kinds: dict[str, Kind]
    next_answer: Callable[[int], AnswerPlan]
    log_of_request: Callable[[str, object, int], None]
    log: Callable[..., object]
    sent: dict[int, list[Sent]] = field(default_factory=dict)

    async def serve(self, host: str, end: End) -> None:
        """Serve one connection until it ends."""
        closes_next = False
        end.link.host = host
        received = b""
        try:
            while True:
                while (head_end := received.find(b"\r\n\r\n")) < 0:
                    received += await self._more(end)
                length = _LENGTH.search(received)
                assert length is not None, "our transport declares the length of what it sends"
                whole = head_end + 4 + int(length[1])
                while (mark := MARK.search(received)) is None:
                    received += await self._more(end)
                number = end.link.request = int(mark[1])
                self.log_of_request("upstream asked", host, number)
                if closes_next:
                    self.log("upstream closes a kept connection", host, number)
                    raise _Left
                plan = self.next_answer(number)
                secret = _SECRET.search(received)
                assert secret is not None, "each deployment has one"
                sent = Sent(plan, host, secret[1].decode(), trio.current_time())
                self.sent.setdefault(number, []).append(sent)
                if plan.fault == "refuses the body early":
                    await end.send_everything(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
                    raise _Left
                while len(received) < whole:
                    received += await self._more(end)
                is_stream = b'"stream":true' in received[:whole].replace(b" ", b"")
                await self._answer(end, self.kinds[host], sent, is_stream=is_stream)
                self.log("upstream answered", host, number)
                end.link.request = None
                closes_next = plan.then_closes
                received = received[whole:]
        except (OSError, _Left, trio.ClosedResourceError):
            self.log("upstream connection ends", host, end.link.request)
        finally:
            if end.fileno() >= 0:
                end.close()

    async def _more(self, end: End) -> bytes:
        chunk = await end.receive()
        if not chunk:
            raise _Left
        return chunk

    async def _answer(self, end: End, kind: Kind, sent: Sent, *, is_stream: bool) -> None:
        plan, send = sent.plan, end.send_everything
        match plan.fault:
            case "closes before its head":
                raise _Left
            case "resets before its head":
                end.reset()
                raise _Left
            case "garbage as its head":
                await send(b"SSH-2.0-simulated\r\n\r\n")
                raise _Left
            case "silent before its head":
                await self._until_it_leaves(end)
            case "status 500" | "status 429" | "status 400" | "redirect" as status:
                more = b"retry-after: 1\r\n" if status == "status 429" else b"location: http://10.0.0.9/\r\n"
                body = json.dumps({"error": {"message": _FAILED, "type": "x"}}).encode()
                head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
                await send(head % (_STATUSES[status], more, len(body)) + body)
                return
            case _:
                pass
        pieces: Iterator[tuple[bytes, str, bool]]
        if is_stream:
            content_type, pieces = b"text/event-stream", stream_events(kind, plan.texts)
        else:
            content_type, pieces = b"application/json", self._parts(document(kind, "".join(plan.texts)), plan)
        await send(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % content_type)
        for index, (piece, text, is_end) in enumerate(pieces):
            if plan.gap_s and index:
                await trio.sleep(plan.gap_s)
            if index == plan.at or (is_end and index < plan.at):
                await self._maybe_fail(end, kind, plan, is_stream=is_stream)
                if is_end and plan.fault == "no terminal event":
                    break
            if plan.fault == "no terminal event" and is_end:
                break
            sent.text += text
            sent.is_whole = sent.is_whole or is_end
            await self._send_chunks(end, piece, plan.split_bytes)
        await send(b"0\r\n\r\n")

    def _parts(self, body: bytes, plan: AnswerPlan) -> Iterator[tuple[bytes, str, bool]]:
        """Yield a document in parts, like events; all of its text counts as sent with the first."""
        size = max(1, -(-len(body) // 4))
        for at in range(0, len(body), size):
            yield body[at : at + size], "".join(plan.texts) if at == 0 else "", at + size >= len(body)

    async def _maybe_fail(self, end: End, kind: Kind, plan: AnswerPlan, *, is_stream: bool) -> None:
        match plan.fault:
            case "reset":
                end.reset()
                raise _Left
            case "closes":
                raise _Left
            case "stalls":
                await self._until_it_leaves(end)
            case "bad chunk":
                await end.send_everything(b"zz\r\n")
                await self._until_it_leaves(end)
            case "bad json":
                await self._send_chunks(end, b"data: {nope\n\n" if is_stream else b"\x00{", plan.split_bytes)
            case "error event" if is_stream:
                await self._send_chunks(end, error_event(kind), plan.split_bytes)
                await self._until_it_leaves(end)
            case "junk lines" if is_stream:
                await self._send_chunks(end, _JUNK, plan.split_bytes)
            case _:
                pass

    async def _send_chunks(self, end: End, data: bytes, size: int) -> None:
        if len(data) <= size:
            await end.send_everything(b"%x\r\n%b\r\n" % (len(data), data))
            return
        for at in range(0, len(data), size):
            part = data[at : at + size]
            await end.send_everything(b"%x\r\n%b\r\n" % (len(part), part))

    async def _until_it_leaves(self, end: End) -> None:
        while await end.receive():
            pass
        raise _Left
