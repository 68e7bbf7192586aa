"""The upstream's bytes become events, whatever the upstream does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from kit.service.contexts import call, context, deployment
from kit.upstreams import anthropic_stream, chat_stream
from msgspec import structs

from pipeline import Inlet, Outlet, Pipeline, RequestContext
from pipeline.testing import check_stage, collect, virtual_ns
from stages.decode_events import END_GRACE_S, MAX_DOCUMENT_BYTES, decode_events
from stages.events import (
    Failed,
    Finished,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.slots import FAILURE, USAGE

COMPLETED = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_790_000_000,
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5},
}
EVENTS: list[dict[str, object]] = [
    {"type": "response.created", "response": {**COMPLETED, "status": "in_progress", "output": [], "usage": None}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "lo"},
    {"type": "response.completed", "response": COMPLETED},
]


def frame(event: object) -> bytes:
    """Return one server-sent event."""
    return b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n"


FRAMES = [frame(event) for event in EVENTS]


def text(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_it_passes_every_check() -> None:
    events = check_stage(decode_events, *FRAMES, context=context)
    assert text(events) == "Hello"
    assert events[-1] == Finished("stop")


async def test_usage_is_stored() -> None:
    ctx = context()
    await collect(decode_events, *FRAMES, context=lambda: ctx)
    assert ctx[USAGE] == Usage(3, 2, 5)
    assert ctx.get(FAILURE) is None


async def test_a_stream_without_its_end_is_a_failure_after_its_text() -> None:
    ctx = context()
    events = await collect(decode_events, *FRAMES[:2], context=lambda: ctx)
    assert text(events) == "Hel"
    assert isinstance(events[-1], Failed)
    assert ctx[FAILURE] is events[-1]
    assert events[-1].code == "upstream_protocol"


async def test_the_cause_of_an_early_end_is_reported_instead_of_the_missing_end() -> None:
    broken = Failed("upstream_timeout", "nothing came for 60 s")
    for batches_of in (1, 3):
        events = await collect(decode_events, *FRAMES[:2], broken, batches_of=batches_of, context=context)
        assert text(events) == "Hel"
        assert events[-1] == broken
        assert sum(isinstance(event, Failed) for event in events) == 1


async def test_a_connection_that_breaks_after_the_end_does_not_matter() -> None:
    events = await collect(decode_events, *FRAMES, Failed("upstream_protocol", "reset"), context=context)
    assert events[-1] == Finished("stop")


async def test_a_custom_tool_that_was_sent_as_a_function_is_unwrapped() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_a", "name": "ApplyPatch", "arguments": ""}
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"input":"*** Begin'}
    frames = [
        frame(event)
        for event in (
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            delta,
            {**delta, "delta": ' Patch"}'},
            {"type": "response.completed", "response": {**COMPLETED, "output": []}},
        )
    ]
    wrapped = call(custom_tools=frozenset({"ApplyPatch"}))
    wrapped = structs.replace(wrapped, deployment=deployment(provider="xai"))
    events = await collect(decode_events, *frames, context=lambda: context(upstream_call=wrapped))
    assert ToolCallStarted(0, "call_a", "ApplyPatch", is_custom=True) in events
    assert "".join(e.arguments for e in events if isinstance(e, ToolCallDelta)) == "*** Begin Patch"


def documents() -> RequestContext:
    return context(is_stream=False)


def test_a_document_becomes_the_same_events_as_its_stream() -> None:
    body = json.dumps(COMPLETED).encode()
    events = check_stage(decode_events, body[:40], body[40:41], body[41:], context=documents, holds_all=True)
    assert text(events) == "Hello"
    assert events[-1] == Finished("stop")


async def test_a_document_that_breaks_off_is_the_failure_that_ended_it() -> None:
    broken = Failed("upstream_timeout", "nothing came for 60 s")
    body = json.dumps(COMPLETED).encode()
    assert await collect(decode_events, body[:40], broken, context=documents) == [broken]


async def test_a_document_over_the_limit_is_a_failure() -> None:
    chunk = b" " * (MAX_DOCUMENT_BYTES // 2 + 1)
    events = await collect(decode_events, chunk, chunk, context=documents)
    assert [type(event) for event in events] == [Failed]


async def test_no_bytes_at_all_is_a_failure() -> None:
    (event,) = await collect(decode_events, context=context)
    assert isinstance(event, Failed)


def answered_by(kind: str, *, is_stream: bool = True) -> Callable[[], RequestContext]:
    """Return a function that makes the context of a request to an upstream of this kind, on trio's clock."""
    to_kind = structs.replace(call(), deployment=deployment(kind=kind))
    return lambda: context(upstream_call=to_kind, is_stream=is_stream, clock=virtual_ns)


@pytest.mark.parametrize(
    ("kind", "usage", "frames"),
    [
        (
            "chat",
            Usage(3, 2, 5),
            [
                frame(chat_stream.chunk({"content": "Hel"})),
                frame(chat_stream.chunk({"content": "lo"}, "stop")),
                frame({**chat_stream.chunk(), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
                frame("[DONE]"),
            ],
        ),
        (
            "anthropic",
            Usage(3, 2, 5, cached_tokens=0),
            [
                frame(anthropic_stream.head(usage={"input_tokens": 3})),
                *map(frame, anthropic_stream.text(0, "Hel", "lo")),
                frame(anthropic_stream.last(output_tokens=2)),
                frame(anthropic_stream.STOP),
            ],
        ),
    ],
)
def test_it_passes_every_check_on_other_apis(kind: str, usage: Usage, frames: list[bytes]) -> None:
    events = check_stage(decode_events, *frames, context=answered_by(kind))
    assert text(events) == "Hello"
    assert events[-2:] == [usage, Finished("stop")]


# --- the end of an answer --------------------------------------------------------------------------------------------


Script = list[bytes | float | Failed]


class Upstream:
    """Sends bytes, and waits for numbers of seconds.

    Attributes:
        sent: what has been taken of it.
    """

    name = "upstream"

    def __init__(self, script: Sequence[bytes | float | Failed]) -> None:
        self._script = script
        self.sent: list[bytes | Failed] = []

    async def run(self, inlet: Inlet[None], outlet: Outlet[bytes | Failed], ctx: RequestContext) -> None:
        async for _ in inlet:
            for item in self._script:
                if isinstance(item, int | float):
                    with outlet.outside():
                        await trio.sleep(item)
                else:
                    await outlet.send([item])
                    self.sent.append(item)


async def decoded(
    *script: bytes | float | Failed, context: Callable[[], RequestContext] = context
) -> tuple[list[StreamEvent], float, Upstream]:
    """Return the events of an answer, how many seconds it took, and what sent it."""
    upstream = Upstream(script)
    began = trio.current_time()
    events = await Pipeline(upstream).then(decode_events).run([[None]], context())
    return events, trio.current_time() - began, upstream


FOREVER = 1e6
TEXT_OF_CHAT = frame(chat_stream.chunk({"content": "Hello"}))
FINISH_OF_CHAT = frame(chat_stream.chunk(finish="stop"))
USAGE_OF_CHAT = frame(
    {**chat_stream.chunk(), "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
)
START_OF_ANTHROPIC = b"".join(
    map(frame, [anthropic_stream.head(usage={"input_tokens": 3}), *anthropic_stream.text(0, "Hello")])
)
FINISH_OF_ANTHROPIC = frame(anthropic_stream.last(output_tokens=2))


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("responses", [*FRAMES]),
        ("chat", [TEXT_OF_CHAT, FINISH_OF_CHAT, USAGE_OF_CHAT, frame("[DONE]")]),
        ("anthropic", [START_OF_ANTHROPIC, FINISH_OF_ANTHROPIC, frame(anthropic_stream.STOP)]),
    ],
)
async def test_the_terminal_event_ends_the_input_and_nothing_after_it_is_taken(
    kind: str, script: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    for rest in ([FOREVER], [b"data: late\n\n"] * 100):
        events, took_s, upstream = await decoded(*script, *rest, context=answered_by(kind))
        assert (text(events), events[-1], took_s) == ("Hello", Finished("stop"), 0)
        assert len(upstream.sent) <= len(script) + 2  # one in the link, and one that waits for room


async def test_a_failure_ends_the_input_too(autojump_clock: trio.abc.Clock) -> None:
    failed = {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}}
    events, took_s, _ = await decoded(*FRAMES[:2], frame(failed), FOREVER)
    assert isinstance(events[-1], Failed)
    assert took_s == 0


@pytest.mark.parametrize(
    ("kind", "script", "usage"),
    [
        ("chat", [TEXT_OF_CHAT, FINISH_OF_CHAT], None),
        ("chat", [TEXT_OF_CHAT, FINISH_OF_CHAT, USAGE_OF_CHAT], Usage(3, 2, 5)),
        ("chat", [TEXT_OF_CHAT, FINISH_OF_CHAT, 0.75, USAGE_OF_CHAT], Usage(3, 2, 5)),
        ("chat", [TEXT_OF_CHAT + FINISH_OF_CHAT + USAGE_OF_CHAT], Usage(3, 2, 5)),
        ("anthropic", [START_OF_ANTHROPIC, FINISH_OF_ANTHROPIC], Usage(3, 2, 5, cached_tokens=0)),
        ("anthropic", [START_OF_ANTHROPIC + FINISH_OF_ANTHROPIC], Usage(3, 2, 5, cached_tokens=0)),
    ],
)
async def test_a_whole_answer_whose_end_does_not_come_ends_after_a_second(
    kind: str, script: list[bytes | float], usage: Usage | None, autojump_clock: trio.abc.Clock
) -> None:
    ctx = answered_by(kind)()
    events, took_s, _ = await decoded(*script, FOREVER, context=lambda: ctx)
    assert (text(events), events[-1]) == ("Hello", Finished("stop"))
    assert took_s == pytest.approx(END_GRACE_S)
    assert ctx.get(USAGE) == usage
    assert ctx.get(FAILURE) is None


@pytest.mark.parametrize(
    ("kind", "finished", "idle"),
    [
        ("chat", TEXT_OF_CHAT + FINISH_OF_CHAT, b": still here\n\n"),
        ("chat", TEXT_OF_CHAT + FINISH_OF_CHAT, frame({**chat_stream.chunk(), "choices": []})),
        ("anthropic", START_OF_ANTHROPIC + FINISH_OF_ANTHROPIC, b": still here\n\n"),
        ("anthropic", START_OF_ANTHROPIC + FINISH_OF_ANTHROPIC, frame({"type": "ping"})),
    ],
)
async def test_what_only_keeps_the_connection_alive_does_not_put_the_end_off(
    kind: str, finished: bytes, idle: bytes, autojump_clock: trio.abc.Clock
) -> None:
    pause_and_idle: Script = [0.3, idle]
    script: Script = [finished, *pause_and_idle * 100]
    events, took_s, _ = await decoded(*script, context=answered_by(kind))
    assert (text(events), events[-1]) == ("Hello", Finished("stop"))
    assert took_s == pytest.approx(END_GRACE_S)


async def test_more_of_the_answer_puts_the_end_off(autojump_clock: trio.abc.Clock) -> None:
    script: Script = [TEXT_OF_CHAT, FINISH_OF_CHAT, 0.75, TEXT_OF_CHAT, FOREVER]
    events, took_s, _ = await decoded(*script, context=answered_by("chat"))
    assert (text(events), events[-1]) == ("HelloHello", Finished("stop"))
    assert took_s == pytest.approx(0.75 + END_GRACE_S)


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("responses", FRAMES[:3]),
        ("chat", [TEXT_OF_CHAT]),
        ("anthropic", [START_OF_ANTHROPIC]),
    ],
)
async def test_an_answer_that_is_not_whole_is_waited_for(
    kind: str, script: list[bytes], autojump_clock: trio.abc.Clock
) -> None:
    broken = Failed("upstream_timeout", "nothing came for 500 s")
    events, took_s, _ = await decoded(500.0, *script, 500.0, broken, context=answered_by(kind))
    assert (text(events), events[-1], took_s) == ("Hello", broken, 1000)


async def test_a_break_after_the_finish_reason_is_the_end(autojump_clock: trio.abc.Clock) -> None:
    broken = Failed("upstream_protocol", "reset")
    scripts: tuple[Script, ...] = (
        [TEXT_OF_CHAT, FINISH_OF_CHAT, broken],
        [TEXT_OF_CHAT + FINISH_OF_CHAT, 0.5, broken],
    )
    for script in scripts:
        events, _, _ = await decoded(*script, context=answered_by("chat"))
        assert (text(events), events[-1]) == ("Hello", Finished("stop"))


async def test_a_document_is_waited_for_however_slowly_it_comes(autojump_clock: trio.abc.Clock) -> None:
    body = json.dumps(COMPLETED).encode()
    events, took_s, _ = await decoded(body[:40], 10.0, body[40:], 10.0, context=documents)
    assert (text(events), events[-1], took_s) == ("Hello", Finished("stop"), 20)


# --- what it notes ---------------------------------------------------------------------------------------------------


def seconds_of(ctx: RequestContext) -> dict[str, float]:
    """Return when each point was passed, in seconds."""
    return {name: (ns - ctx.timeline.born_ns) / 1e9 for name, ns in ctx.timeline.points.items()}


async def test_reasoning_is_the_first_token_but_not_the_first_of_the_output(autojump_clock: trio.abc.Clock) -> None:
    ctx = answered_by("chat")()
    thought = frame(chat_stream.chunk({"reasoning_content": "hm"}))
    start = frame(chat_stream.chunk({"role": "assistant"}))
    script: Script = [1.0, start, 1.0, thought, 1.0, thought, 1.0, TEXT_OF_CHAT, 1.0, TEXT_OF_CHAT, FINISH_OF_CHAT]
    events, _, _ = await decoded(*script, 0.5, frame("[DONE]"), context=lambda: ctx)
    assert sum(isinstance(event, ReasoningDelta) for event in events) == 2
    assert seconds_of(ctx) == {
        "first_event": pytest.approx(1),
        "first_token": pytest.approx(2),
        "first_output_token": pytest.approx(4),
        "upstream_end": pytest.approx(5.5),
    }


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "Hello"},
        {"refusal": "I will not"},
        {"tool_calls": [chat_stream.call(0, "call_a", "search", "{}")]},
    ],
)
async def test_text_a_refusal_and_a_call_are_output(delta: Any, autojump_clock: trio.abc.Clock) -> None:
    ctx = answered_by("chat")()
    await decoded(1.0, frame(chat_stream.chunk(delta)), FINISH_OF_CHAT, frame("[DONE]"), context=lambda: ctx)
    passed = seconds_of(ctx)
    assert passed["first_event"] == passed["first_token"] == passed["first_output_token"] == pytest.approx(1)


async def test_an_answer_without_a_token_has_no_such_point(autojump_clock: trio.abc.Clock) -> None:
    ctx = answered_by("chat")()
    await decoded(FINISH_OF_CHAT, frame("[DONE]"), context=lambda: ctx)
    assert set(seconds_of(ctx)) == {"first_event", "upstream_end"}
