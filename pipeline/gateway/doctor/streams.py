"""A streamed answer with the times at which its parts arrived."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import httpx
import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.doctor.client import ErrorOf, failure_text, posting
from pipeline.gateway.doctor.target import Target
from stages.wire.sse import Parser

MAX_ERROR_BYTES: Final = 4096
DONE: Final = b"[DONE]"


class StreamCall(Struct):
    """A part of a call of a tool."""

    index: int | None = None


class StreamDelta(Struct):
    """What a chunk adds to the answer."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[StreamCall] | None = None


class StreamChoice(Struct):
    """The one answer that a chunk is part of."""

    delta: StreamDelta = msgspec.field(default_factory=StreamDelta)
    finish_reason: str | None = None


class StreamChunk(Struct):
    """One event of a stream of Chat Completions, as far as it is read."""

    choices: list[StreamChoice] = []
    error: ErrorOf | None = None


class Arrival(Struct, frozen=True):
    """A part of an answer.

    Attributes:
        at_s: when it arrived, in seconds after the request was sent.
        tokens: how many parts of the answer's text it completed.
        is_comment: whether it is comments of the event stream, and nothing else.
    """

    at_s: float
    tokens: int = 0
    is_comment: bool = False


class Streamed(Struct, frozen=True, kw_only=True):
    """An answer to a streaming request.

    Attributes:
        status: of HTTP; 0 if no head came.
        headers: names in lower case.
        arrivals: when parts of it came.
        ended_s: when it was over.
        is_done: whether it ended with ``[DONE]``.
        failure: why it broke off; empty if it did not.
        error: an error document, or the start of what came instead of a stream.
        chunks: the events, decoded.
    """

    status: int
    headers: dict[str, str] = {}
    arrivals: tuple[Arrival, ...] = ()
    ended_s: float = 0.0
    is_done: bool = False
    failure: str = ""
    error: bytes = b""
    chunks: tuple[StreamChunk, ...] = ()

    @property
    def is_stream(self) -> bool:
        """Whether it is an event stream."""
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def token_times_s(self) -> list[float]:
        """When each token arrived."""
        return [arrival.at_s for arrival in self.arrivals for _ in range(arrival.tokens)]

    @property
    def longest_silence_s(self) -> float:
        """The longest time without any byte, from the request to the end."""
        times_s = [0.0, *(arrival.at_s for arrival in self.arrivals), self.ended_s]
        return max(later - earlier for earlier, later in pairwise(times_s))


async def stream(
    client: httpx.AsyncClient, target: Target, url: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> Streamed:
    """Send a request and read its answer to the end; nothing is raised if the connection breaks.

    Args:
        client: sends it.
        target: whose headers are sent.
        url: where to.
        body: without ``stream``.
        headers: instead of the target's.
    """
    began_s = trio.current_time()
    content = msgspec.json.encode({**body, "stream": True})
    reading = _Reading(began_s)
    try:
        async with posting(client, url, headers or target.headers(), [content], len(content)) as response:
            await reading.read(response)
    except httpx.HTTPError as error:
        reading.failure = failure_text(error)
    return reading.result()


class _Reading:
    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._parser = Parser()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._arrivals: list[Arrival] = []
        self._chunks: list[StreamChunk] = []
        self._error = b""
        self._is_done = False
        self.failure = ""

    async def read(self, response: httpx.Response) -> None:
        self._status, self._headers = response.status_code, dict(response.headers)
        is_stream = self._headers.get("content-type", "").startswith("text/event-stream")
        async for data in response.aiter_bytes():
            if data and is_stream:
                self._arrivals.append(self._arrival(data))
            elif len(self._error) < MAX_ERROR_BYTES:
                self._error += data[:MAX_ERROR_BYTES]

    def _arrival(self, data: bytes) -> Arrival:
        at_s, tokens = trio.current_time() - self._began_s, 0
        for event in self._parser.feed([data]):
            if event == DONE:
                self._is_done = True
                continue
            try:
                chunk = msgspec.json.decode(event, type=StreamChunk)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            self._chunks.append(chunk)
            tokens += any(choice.delta.content for choice in chunk.choices)
        return Arrival(at_s, tokens, is_comment=not tokens and data.lstrip(b"\r\n").startswith(b":"))

    def result(self) -> Streamed:
        return Streamed(
            status=self._status,
            headers=self._headers,
            arrivals=tuple(self._arrivals),
            ended_s=trio.current_time() - self._began_s,
            is_done=self._is_done,
            failure=self.failure,
            error=self._error,
            chunks=tuple(self._chunks),
        )
