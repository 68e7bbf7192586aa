"""The record of a request: whose time it was, when it passed which point, and that its figures add up.

In virtual time, in which code takes none: every figure is what the script of the upstream and of the client makes it.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask
from kit.service.bridges import COMMENT, Browser, FakeUpstream, bridge_to
from kit.service.records import assert_sums
from kit.service.running import Logged
from kit.upstreams import chat_stream
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import sse

from pipeline import ClientFault, Plugin, UpstreamFault, per_event
from pipeline.gateway.config.settings import Execution
from pipeline.registry import NoOptions
from pipeline.testing import virtual_ns
from stages.events import StreamEvent

CHAT = ANSWERS["chat"]
TEXT, FINISH, END = b"".join(CHAT.text), b"".join(CHAT.finish), b"".join(CHAT.end)
THOUGHT = sse(chat_stream.chunk({"reasoning_content": "hm"}))
DOCUMENT = chat_stream.document(
    {"content": "Hello"}, usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
)

LANE = ["stages", "life_ms", "starved_ms", "ready_ms", "busy_ms", "outside_ms", "blocked_ms", "closing_ms"]
STAGE = ["busy_ms", "outside_ms", "flush_ms", "batches_in", "events_in", "batches_out", "events_out"]
LINK = ["ready_ms", "queued_ms", "full_ms", "batches"]
ACCEPT = ["authenticate", "parse_request", "choose_deployment", "restore_reasoning"]
ANSWER = {
    True: ["call_upstream", "decode_events", "encode_chunks", "keep_alive", "write_sse"],
    False: ["call_upstream", "decode_events", "collect_completion", "write_json"],
}

both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])
each_execution = pytest.mark.parametrize("execution", ["fused", "tasks"])


async def recorded(upstream: FakeUpstream, *, stream: bool = True, stuck_s: float = 0, **settings: Any) -> Logged:
    """Return the record of one request to a chat upstream; ``stuck_s`` is how long each of our sends takes."""
    bridge, records = bridge_to(upstream, **{"kind": "chat", **settings})
    browser = Browser(bridge, ask(stream=stream))
    if stuck_s:
        browser.stuck = lambda: trio.sleep(stuck_s)
    await browser.ask()
    [record] = records
    assert_sums(record)
    return record


# --- the fields ------------------------------------------------------------------------------------------------------


@both_ways
@each_execution
async def test_a_record_has_all_fields_and_its_figures_add_up(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(1.0, TEXT, 2.0, FINISH, 0.5, END, before_head=(8.0,))
    record = await recorded(upstream, stream=stream, execution=execution)
    assert list(record) == [
        *("request_id", "client", "key", "model", "deployment", "stream", "end", "status", "bytes", "events"),
        *(
            "generation",
            "total_ms",
            "before_ms",
            "first_byte_ms",
            "first_token_ms",
            "prompt_tokens",
            "completion_tokens",
        ),
        *("party_ms", "points_ms", "lanes", "stages", "links", "transit_ms"),
    ]
    assert (record["key"], record["model"], record["deployment"], record["stream"]) == ("master", "up", "up-1", stream)
    assert (record["end"], record["status"], record["prompt_tokens"], record["completion_tokens"]) == ("OK", 200, 3, 2)
    assert list(record["stages"]) == [*ACCEPT, *ANSWER[stream]]
    for figures in record["stages"].values():
        assert list(figures) == STAGE
    answer = ANSWER[stream]
    lanes = {"call_upstream": answer[:1], "decode_events": answer[1:]}
    if execution == "tasks":
        lanes = {name: [name] for name in answer}
    accept = {"authenticate": ACCEPT} if execution == "fused" else {name: [name] for name in ACCEPT}
    assert {name: lane["stages"] for name, lane in record["lanes"].items()} == {**accept, **lanes}
    assert all(list(lane) == LANE for lane in record["lanes"].values())
    links = list(zip([*accept], [*accept][1:], strict=False)) + list(zip([*lanes], [*lanes][1:], strict=False))
    if execution == "fused" and not stream:
        links = []  # a document is answered in one task
    assert list(record["links"]) == [f"{giver}>{taker}" for giver, taker in links]
    assert all(list(link) == LINK for link in record["links"].values())
    assert list(record["transit_ms"]) == ["p50", "p99", "max"]


@both_ways
@each_execution
async def test_a_slow_upstream_has_the_time_and_each_point_is_where_it_was(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(1.0, THOUGHT, 1.0, TEXT, 0.5, FINISH, 0.25, END, before_head=(8.0,))
    record = await recorded(upstream, stream=stream, execution=execution)
    out = 9000 if stream else 10750
    assert record["party_ms"] == {"client": 0, "ours": 0, "upstream": 10750}
    assert record["points_ms"] == {
        "head_read": 0,
        "body_read": 0,
        "routed": 0,
        "upstream_sent": 0,
        "upstream_head": 8000,
        "first_event": 9000,
        "first_token": 9000,
        "first_output_token": 10000,
        "first_byte_out": out,
        "first_token_out": out,
        "upstream_end": 10750,
        "last_byte_out": 10750,
        "upstream_closed": 10750,
        "ended": 10750,
    }
    assert (record["first_byte_ms"], record["first_token_ms"], record["total_ms"]) == (out, out, 10750)
    assert record["lanes"]["call_upstream"]["outside_ms"] == 10750
    assert record["lanes"]["decode_events"]["starved_ms"] == 10750
    assert record["stages"]["call_upstream"]["outside_ms"] == 10750
    if stream or execution == "tasks":
        assert record["links"]["call_upstream>decode_events"] == {
            "ready_ms": 0, "queued_ms": 0, "full_ms": 0, "batches": 4
        }  # fmt: skip
    assert record["stages"]["decode_events"]["batches_in"] == 4
    assert record["events"] == record["stages"]["decode_events"]["events_out"]


@both_ways
@each_execution
async def test_an_answer_whose_end_did_not_come_has_its_first_token(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    record = await recorded(FakeUpstream(1.0, TEXT, 1.0, FINISH, 1000.0), stream=stream, execution=execution)
    assert (record["end"], record["total_ms"]) == ("OK", 3000)
    assert record["first_token_ms"] == record["first_byte_ms"] == (1000 if stream else 3000)
    assert record["points_ms"]["upstream_end"] == 3000


@both_ways
@each_execution
async def test_an_answer_that_is_one_document_has_the_same_points(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(DOCUMENT[:20], 1.0, DOCUMENT[20:], 1.0, before_head=(8.0,), is_stream=False)
    record = await recorded(upstream, stream=stream, execution=execution)
    points_ms = record["points_ms"]
    assert points_ms["upstream_head"] == 8000
    for point in ("first_event", "first_token", "first_output_token", "first_byte_out", "first_token_out", "ended"):
        assert points_ms[point] == 10000, point
    assert record["party_ms"] == {"client": 0, "ours": 0, "upstream": 10000}
    assert record["transit_ms"]["max"] == pytest.approx(1000, rel=0.03)  # its last part waited for the end
    assert (record["end"], record["prompt_tokens"]) == ("OK", 3)


# --- the client ------------------------------------------------------------------------------------------------------


@both_ways
@each_execution
async def test_a_client_that_reads_slowly_has_the_time_of_its_reads(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    record = await recorded(FakeUpstream(5.0, TEXT + FINISH + END), stream=stream, execution=execution, stuck_s=10)
    assert record["party_ms"] == {"client": 20_000, "ours": 0, "upstream": 5000}  # the head, and all of the body
    assert (record["first_byte_ms"], record["first_token_ms"]) == (25_000, 25_000)
    assert record["transit_ms"]["max"] == pytest.approx(20_000, rel=0.03)
    writer = "write_sse" if stream else "write_json"
    assert record["stages"][writer]["outside_ms"] == 20_000


async def test_a_client_that_uploads_slowly_has_the_time_of_its_upload(autojump_clock: trio.testing.MockClock) -> None:
    bridge, records = bridge_to(FakeUpstream(TEXT, FINISH, END), kind="chat")
    await Browser(bridge, ask(), pieces=3, gap_s=2).ask()
    [record] = records
    assert_sums(record)
    assert record["party_ms"] == {"client": 6000, "ours": 0, "upstream": 0}
    assert (record["points_ms"]["head_read"], record["points_ms"]["body_read"]) == (0, 6000)


async def test_a_request_counts_from_its_arrival_in_the_kernel(autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(10)
    now_ns = virtual_ns()
    bridge, records = bridge_to(FakeUpstream(TEXT, FINISH, END), kind="chat")
    # It arrived 300 ms ago. 200 ms later it was read for the first time, and 60 ms after that its head was complete.
    read_ns = (now_ns - 300_000_000, now_ns - 100_000_000, now_ns - 40_000_000)
    await Browser(bridge, ask(), read_ns=read_ns).ask()
    # The same without a stamp.
    await Browser(bridge, ask(), read_ns=(0, *read_ns[1:])).ask()
    for record in records:
        assert_sums(record)
    stamped, unstamped = records
    assert (stamped["before_ms"], stamped["points_ms"]["head_read"], stamped["total_ms"]) == (300, 300, 300)
    assert stamped["party_ms"] == {"client": 60, "ours": 240, "upstream": 0}
    assert (unstamped["before_ms"], unstamped["points_ms"]["head_read"], unstamped["total_ms"]) == (None, 100, 100)
    assert unstamped["party_ms"] == {"client": 60, "ours": 40, "upstream": 0}
    assert "client_arrived" not in {**stamped["points_ms"], **unstamped["points_ms"]}


async def test_on_another_server_everything_counts_from_the_head(autojump_clock: trio.testing.MockClock) -> None:
    record = await recorded(FakeUpstream(TEXT, FINISH, END))
    assert (record["before_ms"], record["points_ms"]["head_read"]) == (None, 0)


# --- bytes and tokens ------------------------------------------------------------------------------------------------


@each_execution
async def test_a_comment_that_keeps_the_connection_alive_is_not_the_first_byte(
    execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(40.0, TEXT, FINISH, END, before_head=(40.0,))
    bridge, records = bridge_to(upstream, kind="chat", execution=execution)
    browser = Browser(bridge, ask())
    await browser.ask()
    [record] = records
    assert_sums(record)
    assert browser.body.startswith(COMMENT * 5)
    assert (record["first_byte_ms"], record["first_token_ms"], record["total_ms"]) == (80_000, 80_000, 80_000)
    assert record["transit_ms"]["max"] == 0  # no comment has crossed
    assert record["stages"]["keep_alive"]["batches_out"] == record["stages"]["keep_alive"]["batches_in"] + 5


@each_execution
async def test_the_first_token_is_out_with_its_own_write_and_not_with_one_before_it(
    execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    # A comment is due after 15 s, and its two sends take until 35 s. The token is read at 20 s; its send takes 10 s.
    upstream = FakeUpstream(20.0, TEXT, FINISH, END)
    record = await recorded(upstream, execution=execution, stuck_s=10)
    decoded_ms = 20_000 if execution == "tasks" else 35_000
    assert record["points_ms"]["first_token"] == decoded_ms
    assert (record["first_byte_ms"], record["first_token_ms"]) == (45_000, 45_000)
    # The end was sent after it. It was read at once if there was room for it.
    longest_ms = 35_000 if execution == "tasks" else 25_000
    assert record["transit_ms"]["max"] == pytest.approx(longest_ms, rel=0.03)


async def test_reasoning_is_a_token_but_not_output_even_if_it_is_not_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = FakeUpstream(1.0, THOUGHT, 2.0, TEXT, 4.0, FINISH, END)
    record = await recorded(upstream)
    assert record["points_ms"]["first_token"] == record["points_ms"]["first_token_out"] == 1000
    assert record["points_ms"]["first_output_token"] == 3000


@both_ways
async def test_an_answer_without_any_token_has_a_first_byte_only(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    record = await recorded(FakeUpstream(1.0, FINISH, END), stream=stream)
    assert (record["first_byte_ms"], record["first_token_ms"]) == (1000, None)
    assert {"first_token", "first_output_token", "first_token_out"}.isdisjoint(record["points_ms"])


# --- our own time ----------------------------------------------------------------------------------------------------


@both_ways
@each_execution
async def test_a_stage_that_works_has_its_time_and_it_is_ours(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    worked_ns = 0

    @per_event
    def work(event: StreamEvent) -> list[StreamEvent]:
        nonlocal worked_ns
        worked_ns += 7_000_000
        return [event]

    insertion = ("decode_events", Plugin("work", lambda _: work, NoOptions, StreamEvent, StreamEvent))
    upstream = FakeUpstream(1.0, TEXT, 1.0, FINISH, END)
    bridge, records = bridge_to(upstream, kind="chat", execution=execution, insertion=insertion)
    bridge.clock = lambda: virtual_ns() + worked_ns
    await Browser(bridge, ask(stream=stream)).ask()
    [record] = records
    assert_sums(record)
    assert worked_ns == record["events"] * 7_000_000 > 0
    assert record["stages"]["work"]["busy_ms"] == worked_ns / 1e6
    assert record["party_ms"] == {"client": 0, "ours": worked_ns / 1e6, "upstream": 2000}


# --- how it ended ----------------------------------------------------------------------------------------------------


@both_ways
async def test_a_request_that_is_refused_has_no_points_of_an_upstream(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    bridge, records = bridge_to(FakeUpstream())
    await Browser(bridge, ask(stream=stream), authorization="Bearer sk-wrong").ask()
    await Browser(bridge, b"{").ask()
    await Browser(bridge, ask(model="nope", stream=stream)).ask()
    assert [record["error"] for record in records] == ["unauthorized", "invalid_request", "model_not_found"]
    assert [record["stage"] for record in records] == ["authenticate", "parse_request", "choose_deployment"]
    for record in records:
        assert_sums(record)
        assert (record["deployment"], record["events"], record["upstream_status"]) == (None, 0, None)
        points = list(record["points_ms"])
        assert points[0] == "head_read"
        assert points[-3:] == ["first_byte_out", "last_byte_out", "ended"]
        assert not any(point.startswith(("upstream", "first_e", "first_t", "routed", "left")) for point in points)
        assert list(record["lanes"]) == ["authenticate"]
        assert (record["first_byte_ms"], record["first_token_ms"]) == (0, None)
        assert "transit_ms" not in record
    assert [record["key"] for record in records] == [None, "master", "master"]


@both_ways
async def test_a_refusal_of_the_upstream_is_recorded_with_its_status(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    refusal = UpstreamFault("upstream answered 503", code="upstream_error", status_hint=503)
    record = await recorded(FakeUpstream(before_head=(2.0, refusal)), stream=stream)
    assert (record["end"], record["status"]) == ("UE", 502)
    assert (record["error"], record["stage"], record["upstream_status"]) == ("upstream_error", "call_upstream", 503)
    assert record["party_ms"] == {"client": 0, "ours": 0, "upstream": 2000}
    assert {"upstream_sent", "last_byte_out"} <= record["points_ms"].keys()
    assert {"upstream_head", "upstream_end", "first_event"}.isdisjoint(record["points_ms"])
    assert (record["model"], record["deployment"]) == ("up", "up-1")


async def test_an_answer_that_breaks_off_is_recorded_with_its_cause(autojump_clock: trio.testing.MockClock) -> None:
    broken = UpstreamFault("the connection broke", code="upstream_protocol")
    record = await recorded(FakeUpstream(1.0, TEXT, 1.0, broken))
    assert (record["end"], record["status"], record["error"]) == ("UP", 200, "upstream_protocol")
    assert "stage" not in record
    assert (record["first_token_ms"], record["points_ms"]["upstream_end"]) == (1000, 2000)


@pytest.mark.parametrize(
    ("reason", "end"), [(None, "DC"), ("left", "DC"), ("stalled", "DS"), ("malformed_request", "BR")]
)
@each_execution
async def test_a_client_that_disconnects_has_a_point_for_it(
    reason: str | None, end: str, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(1.0, TEXT, 1000.0)
    bridge, records = bridge_to(upstream, kind="chat", execution=execution)
    browser = Browser(bridge, ask())
    browser.disconnect_reason = reason
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(5)
        browser.disconnected.set()
    [record] = records
    assert_sums(record)
    assert (record["end"], record["status"], record["total_ms"]) == (end, 200, 5000)
    assert record["points_ms"]["left"] == record["points_ms"]["upstream_closed"] == 5000
    assert (record["first_token_ms"], "last_byte_out" in record["points_ms"]) == (1000, False)
    assert record["party_ms"] == {"client": 0, "ours": 0, "upstream": 5000}
    assert "error" not in record


async def test_a_client_that_disconnects_during_its_upload_has_only_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, records = bridge_to(FakeUpstream())
    browser = Browser(bridge, ask())
    browser.upload_stops = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(5)
        browser.disconnected.set()
    [record] = records
    assert_sums(record)
    assert (record["end"], record["status"], record["model"], record["bytes"]) == ("DC", None, None, 0)
    assert record["points_ms"] == {"head_read": 0, "left": 5000, "ended": 5000}
    assert record["party_ms"] == {"client": 5000, "ours": 0, "upstream": 0}
    assert (record["first_byte_ms"], record["first_token_ms"]) == (None, None)


async def test_a_request_that_is_refused_after_the_drain_has_seen_no_stage(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, records = bridge_to(FakeUpstream())
    bridge.cut_off()
    await Browser(bridge, ask()).ask()
    [record] = records
    assert_sums(record)
    assert (record["end"], record["status"], record["error"]) == ("DR", 503, "draining")
    assert (record["lanes"], record["stages"], record["links"]) == ({}, {}, {})


async def test_a_request_that_is_cancelled_with_its_server_has_a_record(autojump_clock: trio.testing.MockClock) -> None:
    bridge, records = bridge_to(FakeUpstream(1.0, TEXT, 1000.0), kind="chat")
    with trio.move_on_after(5):
        await Browser(bridge, ask()).ask()
    [record] = records
    assert_sums(record)
    assert (record["end"], record["status"], record["total_ms"]) == ("DR", 200, 5000)


async def test_a_stage_that_refuses_a_request_is_named(autojump_clock: trio.testing.MockClock) -> None:
    @per_event
    def refuse(event: StreamEvent) -> list[StreamEvent]:
        raise ClientFault("not on a Sunday")

    insertion = ("decode_events", Plugin("refuse", lambda _: refuse, NoOptions, StreamEvent, StreamEvent))
    record = await recorded(FakeUpstream(1.0, TEXT, 1000.0), insertion=insertion)
    assert (record["end"], record["status"], record["stage"]) == ("BR", 400, "refuse")
    assert (record["total_ms"], record["points_ms"]["upstream_closed"]) == (1000, 1000)
