"""The embedded upstream: real event bytes without a network, to try out, demonstrate and test the gateway.

``echo`` repeats the last user text word by word; ``story`` tells a story at a model's pace; ``agent`` reasons, calls
tools, and ends when it has their outputs; ``timed:<script>`` says words when its script says;
``replay:<file.sse>`` returns the bytes of a recorded stream.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec
import trio
from msgspec import Raw, Struct

from pipeline.errors import UpstreamFault
from stages.request import ResponsesRequest
from stages.upstreams import Mark, UpstreamAnswer, UpstreamCall
from stages.upstreams.canned.answers import agent, echo, story
from stages.upstreams.canned.events import Frame, Head, Output, count_tokens, stream_answer, whole_answer
from stages.upstreams.canned.timed_answer import TimedAnswer
from stages.upstreams.canned.timing import Timing, is_timed, parse_timing
from stages.wire.sse import EventTooLarge, Parser

STORY_TOKENS_PER_S: Final = 40.0
"""About the pace of a large model; the story takes seven seconds."""

REPLAY_CHUNK_BYTES: Final = 64 * 1024
"""As much as one read of a socket returns."""

_REPLAY: Final = "replay:"
_ANSWERS: Final[dict[str, Callable[[ResponsesRequest], tuple[Output, ...]]]] = {
    "echo": echo,
    "story": story,
    "agent": agent,
}
_PACES_S: Final = {"story": 1 / STORY_TOKENS_PER_S}

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})


class CannedUpstream:
    """An `Upstream` that answers by itself, in the bytes of a real Responses upstream.

    Args:
        now: returns the wall clock, in seconds since the epoch.
        new_key: returns hexadecimal digits that no other answer has.
    """

    def __init__(
        self,
        *,
        now: Callable[[], int] = lambda: int(datetime.now(UTC).timestamp()),
        new_key: Callable[[], str] = lambda: secrets.token_hex(24),
    ) -> None:
        self._now = now
        self._new_key = new_key

    def prepare(self, call: UpstreamCall, /) -> UpstreamCall:
        """Return ``call``: there is nothing to encode."""
        return call

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
        """Start the answer; a paced one without a stream takes its whole time here, as a model's would.

        Raises:
            UpstreamFault: ``upstream_unreachable`` if a recording cannot be read, ``upstream_not_found`` if the model
                does not exist or its script is not valid, ``upstream_protocol`` if a recording without a response
                object is requested without a stream.
        """
        mark("upstream_sent")
        answer = await self._answer(prepared)
        mark("upstream_head")
        return answer

    async def _answer(self, call: UpstreamCall) -> UpstreamAnswer:
        began_s = trio.current_time()
        # Never `call.model`: the client's text for a wildcard must not become a file name.
        model = call.deployment.model
        is_stream = call.request.stream
        if model.startswith(_REPLAY):
            recording = await _read(model.removeprefix(_REPLAY))
            if not is_stream:
                recording = _last_snapshot(recording, model)
            starts = range(0, len(recording), REPLAY_CHUNK_BYTES)
            frames = (Frame(recording[start : start + REPLAY_CHUNK_BYTES], is_token=False) for start in starts)
            return _CannedAnswer(frames, is_stream=is_stream, pace_s=0)
        if is_timed(model):
            timing = _timing(model)
            return await self._timed(timing, (timing.text(),), self._head(call), began_s)
        if model not in _ANSWERS:
            known = ", ".join(f"canned/{name}" for name in _ANSWERS)
            raise UpstreamFault(
                f"the embedded model canned/{model} does not exist: use {known}, canned/timed:<script> or "
                "canned/replay:<file.sse>",
                code="upstream_not_found",
            )
        outputs, head = _ANSWERS[model](call.request), self._head(call)
        pace_s = _PACES_S.get(model, 0)
        if is_stream:
            return _CannedAnswer(stream_answer(outputs, head), is_stream=True, pace_s=pace_s)
        await trio.sleep(pace_s * count_tokens(outputs))
        return _whole(outputs, head)

    def _head(self, call: UpstreamCall) -> Head:
        name = f"canned/{call.deployment.model}"
        return Head(key=self._new_key(), created_at=self._now(), model=name, request=call.request)

    async def _timed(self, timing: Timing, outputs: tuple[Output, ...], head: Head, began_s: float) -> UpstreamAnswer:
        if head.request.stream:
            await trio.sleep_until(began_s + timing.head_s)
            return TimedAnswer(stream_answer(outputs, head), timing, began_s + timing.head_s)
        await trio.sleep_until(began_s + timing.whole_s)
        return _whole(outputs, head)


def _timing(model: str) -> Timing:
    try:
        return parse_timing(model)
    except ValueError as error:  # the configuration is checked when it is read: this deployment was made otherwise
        raise UpstreamFault(f"the embedded model canned/{model}: {error}", code="upstream_not_found") from error


def _whole(outputs: tuple[Output, ...], head: Head) -> UpstreamAnswer:
    frames = (Frame(document, is_token=False) for document in (whole_answer(outputs, head),))
    return _CannedAnswer(frames, is_stream=False, pace_s=0)


class _CannedAnswer:
    """Returns frames one by one; those with a token not before their time."""

    arrived_ns = 0
    is_backing_off = False

    def __init__(self, frames: Iterator[Frame], *, is_stream: bool, pace_s: float) -> None:
        self._frames = frames
        self._is_stream = is_stream
        self._pace_s = pace_s
        self._due_at = trio.current_time()

    @property
    def is_stream(self) -> bool:
        return self._is_stream

    async def receive(self) -> bytes:
        frame = next(self._frames, None)
        if frame is not None and frame.is_token and self._pace_s:
            # The pace is kept over the whole answer, but a slow reader does not get a burst to catch up.
            self._due_at = max(self._due_at + self._pace_s, trio.current_time())
            await trio.sleep_until(self._due_at)
        else:
            await trio.lowlevel.checkpoint()
        return b"" if frame is None else frame.data

    async def back_off(self) -> None:
        """Do nothing: it never backs off."""

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Do nothing: there is nothing to close."""


async def _read(file: str) -> bytes:
    try:
        return await trio.Path(file).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UpstreamFault(
            f"the recording {file} cannot be read: check the path in canned/replay:<file.sse>",
            code="upstream_unreachable",
        ) from error


class _TerminalEvent(Struct):
    type: str = ""
    response: Raw = Raw()


def _last_snapshot(recording: bytes, model: str) -> bytes:
    """Return the response object of the terminal event, byte for byte: the upstream's answer without a stream."""
    parser = Parser()
    try:
        events = parser.feed([recording]) + parser.flush() if recording else []
    except EventTooLarge as too_large:
        events = too_large.before
    for data in reversed(events):
        try:
            event = msgspec.json.decode(data, type=_TerminalEvent)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # `[DONE]`, or a broken event in the recording
        if event.type in _TERMINAL and bytes(event.response):
            return bytes(event.response)
    raise UpstreamFault(
        f"canned/{model} ends without a response object: it can answer only requests with stream: true",
        code="upstream_protocol",
    )
