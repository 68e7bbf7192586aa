"""Events become chunks; a failure before the first one is raised."""

from __future__ import annotations

import json

import pytest
from kit.service.contexts import RECEIVED_S, call, context

from pipeline import UpstreamFault
from pipeline.testing import check_stage, collect
from stages.encode_chunks import encode_chunks
from stages.events import Failed, Finished, Started, StreamEvent, TextDelta, Usage
from stages.slots import FAILURE
from stages.wire.downstream.profiles import CURSOR

EVENTS: list[StreamEvent] = [
    Started("resp_1", "gpt-5-2026", 0),
    TextDelta("Hel"),
    TextDelta("lo"),
    Usage(3, 2, 5),
    Finished("stop"),
]


def chunks(frames: list[bytes]) -> list[dict[str, object]]:
    lines = [line for line in b"".join(frames).split(b"\n\n") if line and line != b"data: [DONE]"]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def joined(frames: list[bytes]) -> object:
    return b"".join(frames)


def test_it_passes_every_check() -> None:
    frames = check_stage(encode_chunks, *EVENTS, context=context, normalise=joined)
    assert b"".join(frames).endswith(b"data: [DONE]\n\n")
    first, *_, last = chunks(frames)
    assert (first["id"], first["model"], first["created"]) == ("chatcmpl-test-1", "gpt-5", RECEIVED_S)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


async def test_a_client_that_did_not_ask_for_usage_gets_none() -> None:
    frames = await collect(encode_chunks, *EVENTS, context=lambda: context(upstream_call=call(include_usage=False)))
    assert b"usage" not in b"".join(frames)


async def test_a_failure_before_any_output_is_raised() -> None:
    failed = Failed("upstream_rate_limited", "slow down", retry_after_s=20.0)
    with pytest.raises(UpstreamFault, match="slow down") as raised:
        await collect(encode_chunks, EVENTS[0], failed, context=context)
    assert (raised.value.code, raised.value.retry_after_s) == ("upstream_rate_limited", 20.0)


async def test_a_failure_after_output_is_reported_in_the_stream() -> None:
    failed = Failed("upstream_error", "it broke")
    given = await collect(encode_chunks, *EVENTS[:2], failed, context=context)
    frames = b"".join(given)
    assert b'"Hel"' in frames
    assert b'"error"' in frames
    assert b"it broke" in frames
    assert b"[DONE]" not in frames


async def test_cursor_gets_the_failure_as_text() -> None:
    failed = Failed("upstream_error", "it broke", upstream_code="server_error")
    given = await collect(encode_chunks, *EVENTS[:2], failed, context=lambda: context(profile=CURSOR))
    frames = b"".join(given)
    assert b'"error"' not in frames
    assert b"[upstream error: server_error: it broke]" in frames
    assert frames.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("last", [[], [Failed("upstream_error", "it broke")]])
async def test_what_the_client_is_told_in_the_stream_is_known_for_the_record(last: list[StreamEvent]) -> None:
    ctx = context()
    await collect(encode_chunks, *EVENTS[:2], *last, context=lambda: ctx)
    failed = ctx[FAILURE]
    assert failed.code == ("upstream_error" if last else "upstream_protocol")


async def test_a_complete_answer_has_no_failure() -> None:
    ctx = context()
    await collect(encode_chunks, *EVENTS, context=lambda: ctx)
    assert ctx.get(FAILURE) is None
