"""Requests that are traced batch by batch: whose they are, and that what is kept of them adds up to their records."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import pytest
import trio
import trio.testing
from kit.clients.chat_posts import CREATED, ask, completed, delta
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.running import CONFIG, KEY, Logged, Service, as_kept, serving
from kit.upstreams.scripted import sse

from pipeline import UpstreamFault
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.config.keys import KeySettings, key_digest
from pipeline.gateway.config.settings import Execution
from pipeline.gateway.event_log import fold
from pipeline.gateway.request_record import FinishedRequest, as_recorded, request_record
from pipeline.gateway.traced_requests import TracedRequests
from pipeline.lane import STATES
from pipeline.observe import Observed, read_all
from pipeline.segments import SegmentFile

HELLO = sse(CREATED) + sse(delta("Hello"))
END = sse(completed("Hello"))
TRACED_KEY, OTHER_KEY = "sk-traced-key-0123456789", "sk-other-key-0123456789"
KEYS = [
    KeySettings("traced", key_digest(TRACED_KEY), may_trace=True),
    KeySettings("other", key_digest(OTHER_KEY)),
]
ROUNDED_MS = 0.001


def keeping(bridge: Bridge) -> list[FinishedRequest]:
    """Return a list to which each finished request is added."""
    finished: list[FinishedRequest] = []
    bridge.on_end = lambda one: finished.append(one())
    return finished


def assert_adds_up(kept: Logged) -> None:
    """Check the spans of a request against the other figures of its record, those of its attempts included."""
    trace = kept["trace"]
    assert trace["lost"] == 0
    spent_ms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    work_ms, waits_ms = Counter[str](), Counter[str]()
    for kind, index, start_us, us, batch in trace["spans"]:
        assert us > 0
        assert start_us >= 0
        assert start_us + us <= kept["total_ms"] * 1000 + 1
        assert batch >= 0
        if kind == 0:
            work_ms[trace["stages"][index]] += us / 1000
        elif kind <= len(STATES):
            spent_ms[trace["lanes"][index]][STATES[kind - 1]] += us / 1000
        else:
            waits_ms[trace["links"][index]] += us / 1000
    parts = [kept, *(attempt for attempt in kept.get("attempts", []) if attempt["lanes"])]
    lanes_ms: defaultdict[str, Counter[str]] = defaultdict(Counter)
    stages_ms, links_ms = Counter[str](), Counter[str]()
    for part in parts:
        for name, lane in part["lanes"].items():
            lanes_ms[name].update({state: lane[f"{state}_ms"] for state in STATES})
        for name, stage in part["stages"].items():
            stages_ms[name] += stage["busy_ms"] + stage["flush_ms"]
        for name, link in part["links"].items():
            links_ms[name] += link["ready_ms"] + link["queued_ms"]
    rounded_ms = 2 * len(parts) * ROUNDED_MS
    assert set(trace["lanes"]) == lanes_ms.keys()
    for name, states_ms in lanes_ms.items():
        for state, ms in states_ms.items():
            assert spent_ms[name][state] == pytest.approx(ms, abs=rounded_ms), (name, state)
    assert set(trace["stages"]) == stages_ms.keys()
    for name, ms in stages_ms.items():
        assert work_ms[name] == pytest.approx(ms, abs=rounded_ms), name
    for name, ms in links_ms.items():
        assert waits_ms[name] == pytest.approx(ms, abs=rounded_ms), name
    for stage, lane in zip(trace["stages"], trace["lane_of_stage"], strict=True):
        name = trace["lanes"][lane]
        assert any(stage in part["lanes"][name]["stages"] for part in parts if name in part["lanes"])


@pytest.mark.parametrize("execution", ["fused", "tasks"])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_trace_of_an_answer_adds_up_to_its_record(
    execution: Execution, stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, 1.0, END), execution=execution, traced=TracedRequests(1))
    finished = keeping(bridge)
    await Browser(bridge, ask(stream=stream)).ask()
    kept = as_kept(finished[0])
    assert_adds_up(kept)
    waits = [span for span in kept["trace"]["spans"] if span[:2] == [4, kept["trace"]["lanes"].index("call_upstream")]]
    assert sum(us for _, _, _, us, _ in waits) == pytest.approx(1e6)


@pytest.mark.parametrize("execution", ["fused", "tasks"])
async def test_each_attempt_has_its_own_lanes(execution: Execution, autojump_clock: trio.testing.MockClock) -> None:
    refusal = UpstreamFault("slow down", code="upstream_rate_limited")
    upstream = FakeUpstream(before_head=(2.0, refusal))
    bridge, _ = bridge_to(upstream, execution=execution, count=2, retries=1, traced=TracedRequests(1))
    finished = keeping(bridge)
    await Browser(bridge, ask()).ask()
    kept = as_kept(finished[0])
    assert len(kept["attempts"]) > 1
    assert kept["trace"]["lanes"].count("call_upstream") == len(kept["attempts"])
    assert_adds_up(kept)


async def test_a_request_whose_client_leaves_adds_up(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, 100.0, END), traced=TracedRequests(1))
    finished = keeping(bridge)
    browser = Browser(bridge, ask())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(10)
        browser.disconnected.set()
    kept = as_kept(finished[0])
    assert kept["end"] == "DC"
    assert_adds_up(kept)


async def test_one_request_in_so_many_is_traced_also_over_a_reload() -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), traced=TracedRequests(3))
    finished = keeping(bridge)
    for _ in range(5):
        await Browser(bridge, ask()).ask()
    other, _ = bridge_to(FakeUpstream(HELLO, END), traced=TracedRequests(3))
    other.take_over(bridge)
    other.on_end = bridge.on_end
    await Browser(other, ask()).ask()
    assert [one.trace is not None for one in finished] == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("key", "header", "is_traced"),
    [
        (KEY, "1", True),
        (TRACED_KEY, "1", True),
        (OTHER_KEY, "1", False),
        ("sk-unknown-key-0123456789", "1", False),
        (KEY, "0", False),
        (KEY, "true", False),
    ],
)
async def test_a_header_asks_for_a_trace_if_its_key_may(
    key: str, header: str, is_traced: bool, autojump_clock: trio.testing.MockClock
) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=KEYS, traced=TracedRequests(0))
    finished = keeping(bridge)
    await Browser(bridge, ask(), authorization=f"Bearer {key}", x_headrace_trace=header).ask()
    assert (finished[0].trace is not None) is is_traced


async def test_the_answer_to_a_key_that_may_not_ask_is_not_traced_at_all() -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), keys=KEYS)
    finished = keeping(bridge)
    await Browser(bridge, ask(), authorization=f"Bearer {OTHER_KEY}", x_headrace_trace="1").ask()
    kinds = {lane.name: type(lane).__name__ for lane in finished[0].lanes}
    assert kinds == {"authenticate": "TracedLane", "call_upstream": "Lane", "decode_events": "Lane"}


async def test_the_trace_is_in_the_recording_and_not_in_the_record_that_is_logged() -> None:
    bridge, records = bridge_to(FakeUpstream(HELLO, END), traced=TracedRequests(1))
    finished = keeping(bridge)
    await Browser(bridge, ask()).ask()
    [one] = finished
    record = request_record(one)
    line = msgspec.json.encode(record)
    assert b'"trace"' not in line
    kept, kept_line = as_recorded(record, line, one)
    assert kept_line == msgspec.json.encode(kept)
    assert kept_line.startswith(line[:-1])
    assert record.trace is msgspec.UNSET
    one.trace = None
    assert as_recorded(record, line, one) == (record, line)
    assert records == []


async def test_the_turns_of_stages_are_counted_for_traced_requests_only() -> None:
    file = SegmentFile.create()
    observed = Observed(file.claim(1))
    bridge, _ = bridge_to(FakeUpstream(HELLO, END), traced=TracedRequests(2))
    finished = keeping(bridge)
    for _ in range(2):
        await Browser(bridge, ask()).ask()
    plain, traced = finished
    fold(plain, observed)
    assert "headrace_stage_busy_seconds" not in read_all(file)
    fold(traced, observed)
    observed.publish()
    assert traced.trace is not None
    family = read_all(file)["headrace_stage_busy_seconds"]
    counted = {series.labels: sum(series.slots.values()) for series in family.series}
    turns = traced.trace.stage_turns()
    assert counted == {(("stage", stage),): len(durations) for stage, durations in turns.items()}


async def test_the_running_service_traces_by_its_settings() -> None:
    config = CONFIG.replace('models: [echo, "team/*"]', "trace: true")

    async def is_traced(service: Service, key: str, **headers: str) -> bool:
        service.app.bridge.on_end = lambda finished: service.add_record(as_kept(finished()))
        number = len(service.records)
        answer = await service.post({"model": "echo", "stream": True, "input": "hello"}, key=key, **headers)
        assert answer.status_code == 200
        record = await service.record(number)
        if "trace" in record:
            assert_adds_up(record)
        return "trace" in record

    limited = "sk-limited-key-0123456789"
    async with serving(pipeline="  trace_one_in: 3", config=config) as service:
        assert [await is_traced(service, KEY) for _ in range(6)] == [False, False, True] * 2
        assert await is_traced(service, limited, x_headrace_trace="1")
    async with serving(config=CONFIG) as service:
        assert not await is_traced(service, limited, x_headrace_trace="1")
        assert await is_traced(service, KEY, x_headrace_trace="1")
