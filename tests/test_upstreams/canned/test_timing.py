"""``canned/timed``: the grammar of its scripts, and answers that keep to them."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
import trio
from kit.upstreams.opened import open_answer
from openai.types.responses import Response

from pipeline.errors import UpstreamFault
from pipeline.loop import watch_loop
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.canned.timing import Timing, parse_timing
from stages.upstreams.canned.upstream import CannedUpstream
from stages.wire.downstream.request import parse_body

FULL = "timed:head=400ms;first=1.5s;tokens=50;gap=20ms;stall=2s@25;fail=40;bytes=9"


def call_of(model: str, **fields: Any) -> UpstreamCall:
    deployment = Deployment(id="d", model_name="m", model=model, provider="canned", kind="canned", url="")
    body = {"model": "m", "input": "hi", "stream": True} | fields
    return UpstreamCall(request=parse_body(json.dumps(body).encode()), deployment=deployment, model=model)


def deltas_of(chunk: bytes) -> list[str]:
    """Return the texts of the tokens in a chunk."""
    lines = [line.removeprefix("data: ") for line in chunk.decode().splitlines() if line.startswith("data: ")]
    return [event["delta"] for event in map(json.loads, lines) if "delta" in event]


async def timed(model: str, **fields: Any) -> tuple[float, list[tuple[float, int]]]:
    """Return when the head came, and for each read when it returned and how many tokens it had."""
    began_s = trio.current_time()
    reads: list[tuple[float, int]] = []
    async with aclosing(await open_answer(CannedUpstream(), call_of(model, **fields))) as answer:
        head_s = trio.current_time() - began_s
        while chunk := await answer.receive():
            reads.append((round(trio.current_time() - began_s, 6), len(deltas_of(chunk))))
    return round(head_s, 6), reads


# The grammar


def test_a_script_says_all_that_there_is() -> None:
    assert parse_timing(FULL) == Timing(0.4, 1.5, 50, 0.02, 2.0, 25, 40, 9)
    assert parse_timing("timed") == parse_timing("timed:") == parse_timing("timed: ;") == Timing()
    assert parse_timing("timed: gap=0 ; head=0.5ms ").head_s == 0.0005


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("head=400", "head=400 is not a duration: expected a number and its unit, such as 400ms or 1.5s"),
        ("gap=-1ms", "gap=-1ms is not a duration"),
        ("first=2h", "first=2h is not a duration"),
        ("head=3601s", "head=3601s is longer than an hour"),
        ("tokens=0", "tokens=0 is out of range: expected a whole number from 1 to 100000"),
        ("tokens=many", "tokens=many is out of range"),
        ("bytes=1", "bytes=1 is out of range: expected a whole number from 2"),
        ("stall=1s", "stall=1s has no token: expected a pause and a token, such as stall=1s@25"),
        ("stall=1s@0", "stall=0 is out of range"),
        ("tokens=5;stall=1s@6", "stall pauses before token 6, but there are 5"),
        ("tokens=5;fail=5", "fail=5 is not before the last of 5 tokens"),
        ("tokens=1000;bytes=10000", "the answer is longer than 8388608 bytes"),
        ("gap=1ms;gap=2ms", "gap is there twice"),
        ("speed=1", "'speed' is not known: expected head, first, tokens, gap, stall, fail or bytes"),
        ("head", "head= is not a duration"),
    ],
)
def test_a_script_that_makes_no_sense_says_so(script: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_timing(f"timed:{script}")
    assert str(caught.value).startswith(problem)


async def test_a_wrong_script_is_refused_at_the_call_too() -> None:
    with pytest.raises(UpstreamFault, match="gap=1 is not a duration") as caught:
        await timed("timed:gap=1")
    assert caught.value.code == "upstream_not_found"


# The answer


async def test_each_part_comes_when_it_is_due(autojump_clock: trio.testing.MockClock) -> None:
    head_s, reads = await timed("timed:head=400ms;first=100ms;tokens=5;gap=20ms;stall=1s@4")
    assert head_s == 0.4
    assert reads == [(0.4, 0), (0.5, 1), (0.52, 1), (0.54, 1), (1.56, 1), (1.58, 1)]


async def test_without_gaps_it_is_one_read(autojump_clock: trio.testing.MockClock) -> None:
    assert await timed("timed:tokens=7") == (0, [(0, 7)])


async def test_a_long_answer_is_read_in_parts(autojump_clock: trio.testing.MockClock) -> None:
    _, reads = await timed("timed:tokens=100;bytes=10000")
    assert sum(tokens for _, tokens in reads) == 100
    assert max(tokens for _, tokens in reads) == 7  # 64 KiB


async def test_what_became_due_meanwhile_is_there_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """As in a socket's buffer: the model does not wait for us."""
    began_s = trio.current_time()
    async with aclosing(await open_answer(CannedUpstream(), call_of("timed:tokens=10;gap=100ms"))) as answer:
        assert len(deltas_of(await answer.receive())) == 1
        await trio.sleep(0.55)
        assert len(deltas_of(await answer.receive())) == 5
        assert trio.current_time() - began_s == pytest.approx(0.55)
        while await answer.receive():
            ...
    assert trio.current_time() - began_s == pytest.approx(0.9)


async def test_an_answer_breaks_off_as_scripted(autojump_clock: trio.testing.MockClock) -> None:
    async with aclosing(await open_answer(CannedUpstream(), call_of("timed:tokens=10;gap=1s;fail=3"))) as answer:
        assert [len(deltas_of(await answer.receive())) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(UpstreamFault, match="as scripted") as caught:
            await answer.receive()
    assert caught.value.code == "upstream_protocol"


async def test_without_a_stream_it_takes_its_whole_time(autojump_clock: trio.testing.MockClock) -> None:
    began_s = trio.current_time()
    model = "timed:head=400ms;first=100ms;tokens=5;gap=20ms;stall=1s@4"
    async with aclosing(await open_answer(CannedUpstream(), call_of(model, stream=False))) as answer:
        assert trio.current_time() - began_s == pytest.approx(1.58)
        document = json.loads(await answer.receive())
        assert await answer.receive() == b""
    assert Response.model_validate(document, strict=True).output_text == " ".join(["xxxxx"] * 5)


async def test_an_answer_stops_at_the_limit_of_the_request(autojump_clock: trio.testing.MockClock) -> None:
    _, reads = await timed("timed:tokens=10;gap=1s", max_output_tokens=3)
    assert [tokens for _, tokens in reads] == [1, 1, 1]


async def test_bytes_that_came_while_the_loop_was_held_have_the_time_at_which_they_were_due() -> None:
    """As the kernel's stamps say for a socket; otherwise the upstream would be blamed."""
    with watch_loop(lambda stall: None) as loop:
        async with aclosing(
            await open_answer(CannedUpstream(), call_of("timed:tokens=2;first=30ms;gap=1ms"))
        ) as answer:
            await answer.receive()
            assert answer.arrived_ns == 0
            due_ns = loop.clock() + 30_000_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold_until, loop.clock, due_ns + 100_000_000)
                assert len(deltas_of(await answer.receive())) == 2
            late_ns = loop.clock() - answer.arrived_ns
    assert late_ns >= 95_000_000
    assert answer.arrived_ns <= due_ns


async def hold_until(clock: Any, until_ns: int) -> None:
    while clock() < until_ns:
        ...
