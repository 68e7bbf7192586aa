"""The paths under ``/latency``, answered from the shared file: documents, errors, sizes, and the page's files."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio.testing
from kit.service.records_of import record_line, request_record_of

from pipeline.gateway import recorded
from pipeline.gateway.admin import page_files
from pipeline.gateway.admin.access import Access
from pipeline.gateway.admin.dispatch import Admin
from pipeline.gateway.admin.now import MAX_BYTES, SHARED_S, Now
from pipeline.gateway.board import BoardText, RunningRequest, write_board
from pipeline.gateway.client_address import NO_PROXIES
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.http.asgi import Message, Scope
from pipeline.gateway.recorder import STALL, TRACED, Recorder
from pipeline.gateway.rings import RingReader
from pipeline.gateway.wrong_keys import WrongKeys
from pipeline.histogram import slot_of
from pipeline.lane import STATES
from pipeline.observe import Observed
from pipeline.segments import Segment, SegmentFile
from pipeline.series import Kind, count_duration
from pipeline.study import perfetto
from pipeline.study.records import RecordedRequest, RecordedStall

KEY = "sk-test-master-key-0123456789"
MIB = 1024 * 1024
"""Of each ring."""


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Process:
    """One process that counts and records."""

    def __init__(self, file: SegmentFile, number: int) -> None:
        self.segment: Segment = file.claim(number)
        self.observed = Observed(self.segment)
        self.recorder = Recorder(self.segment.ring)

    def end(self, number: int, end: str = "OK", at_s: float = 100.0, **fields: Any) -> None:
        """Count and record a request that has ended."""
        self.observed.begin()
        self.observed.end(end)
        record = request_record_of(f"r{number}", end, **fields)
        self.recorder.keep_requests([record_line(record)], [record], [at_s])


class Server:
    """The application, with two processes that it can read."""

    def __init__(self, key: str | None = KEY) -> None:
        self.file = SegmentFile.create(ring_bytes=MIB)
        self.processes = [Process(self.file, 1), Process(self.file, 2)]
        access = Access(Settings(deployments=(), master_key=key), KeyStore(key), NO_PROXIES, WrongKeys())
        self.app = Admin(self.file, lambda: access)

    async def get(self, target: str, method: str = "GET", key: str | None = KEY, **headers: str) -> Answer:
        path, _, query = target.partition("?")
        sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if key is not None:
            sent.append((b"authorization", f"Bearer {key}".encode()))
        scope: Scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": sent}
        answer = Answer()

        async def receive() -> Message:
            raise AssertionError("nothing is read of a GET")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message["body"]

        await self.app(scope, receive, send)
        return answer


@pytest.fixture
def server() -> Server:
    return Server()


def ids(lines: bytes) -> list[str]:
    return [json.loads(line)["request_id"] for line in lines.splitlines()]


@pytest.mark.parametrize("path", ["/latency/now", "/latency/records", "/latency/requests", "/latency/requests/r1"])
async def test_data_needs_the_key_and_may_not_be_kept(server: Server, path: str) -> None:
    server.processes[0].end(1)
    refused = await server.get(path, key=None)
    assert (refused.status, refused.json()["error"]["code"]) == (401, "unauthorized")
    answer = await server.get(path)
    assert answer.status == 200
    assert answer.headers["cache-control"] == refused.headers["cache-control"] == "no-store"
    assert int(answer.headers["content-length"]) == len(answer.body)
    head = await server.get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")


async def test_only_get_and_head_are_answered(server: Server) -> None:
    answer = await server.get("/latency/now", method="POST")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_without_a_master_key_in_the_configuration_a_sentence_says_how_to_get_one() -> None:
    server = Server(key=None)
    for path in ("/latency", "/latency/now", "/latency/static/app.js"):
        answer = await server.get(path)
        assert answer.status == 404
        assert "HEADRACE_MASTER_KEY" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/latency/x", "/latency/now/x", "/latency/requests/r1/x", "/latency/static/", "/latency/static/nope.js"]
)
async def test_other_paths_do_not_exist(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "route_not_found")


async def test_records_are_read_with_a_cursor(server: Server) -> None:
    first, second = server.processes
    for number in range(6):
        (first if number % 2 else second).end(number, at_s=float(number))
    answer = await server.get("/latency/records?limit=4")
    assert answer.headers["content-type"] == "application/jsonl"
    assert ids(answer.body) == ["r0", "r1", "r2", "r3"]
    assert (answer.headers["x-headrace-lost"], answer.headers["x-headrace-more"]) == ("0", "1")
    answer = await server.get(f"/latency/records?after={answer.headers['x-headrace-cursor']}")
    assert ids(answer.body) == ["r4", "r5"]
    assert "x-headrace-more" not in answer.headers
    now = await server.get("/latency/records?after=now")
    assert (now.body, now.headers["x-headrace-lost"]) == (b"", "0")
    first.end(7)
    assert ids((await server.get(f"/latency/records?after={now.headers['x-headrace-cursor']}")).body) == ["r7"]


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=1.2",
        f"after=0.0.{'9' * 4090}.1_{'1' * 4096}",
        "limit=0",
        "limit=x",
        "limit=-1",
        "limit=%C2%B2",
        "limit=1e3",
    ],
)
async def test_a_wrong_query_is_refused(server: Server, query: str) -> None:
    answer = await server.get(f"/latency/records?{query}")
    assert (answer.status, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_cursor_that_nobody_gave_out_reads_nothing_wrong(server: Server) -> None:
    server.processes[0].end(1)
    for cursor in ("0.0.8.1", "0.1.99999999999999999999999.5", "9.9.9.9", "0.0.18446744073709551616.1", "0.0.65536.0"):
        answer = await server.get(f"/latency/records?after={cursor}")
        assert (answer.status, ids(answer.body)) == (200, ["r1"]), cursor


async def test_a_list_of_requests_is_bounded_however_large_they_are(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MAX_ANSWER_BYTES", 100_000)
    for number in range(10):
        line = record_line(request_record_of(f"r{number}", "UT"), trace={"spans": ["x" * 40_000]})
        server.processes[0].recorder.keep(line, float(number), f"r{number}", marks=TRACED)
    listed = (await server.get("/latency/requests?kind=traced&limit=1000")).json()
    assert [one["request_id"] for one in listed] == ["r9", "r8"]


async def test_nothing_of_a_request_gets_into_a_header(server: Server) -> None:
    evil = "\r\nx-evil: 1"
    for path in (f"/latency/requests/r1{evil}", f"/latency/requests/r1{evil}/trace", f"/latency/{evil}"):
        answer = await server.get(path)
        assert answer.status == 404
        assert not any("\n" in value for value in answer.headers.values())
    refused = await server.get("/latency/now", method=f"GET{evil}")
    assert refused.status == 405
    assert not any("\n" in value for value in refused.headers.values())


async def test_requests_are_listed_by_kind(server: Server) -> None:
    first, second = server.processes
    first.end(1, "UT", at_s=1.0, model="m", total_ms=50.0)
    second.end(2, "DC", at_s=2.0)
    first.end(3, at_s=3.0)
    traced = request_record_of("r4", "OK")
    first.recorder.keep(record_line(traced, trace={"spans": []}), 4.0, "r4", marks=TRACED)

    async def listed(query: str) -> list[str]:
        return [one["request_id"] for one in (await server.get(f"/latency/requests{query}")).json()]

    assert await listed("") == ["r4", "r3", "r2", "r1"]
    assert await listed("?kind=recent&limit=2") == ["r4", "r3"]
    assert await listed("?kind=failed") == ["r1"]
    assert await listed("?kind=cancelled") == ["r2"]
    assert await listed("?kind=slow") == []
    [failed] = (await server.get("/latency/requests?kind=failed")).json()
    assert (failed["end"], failed["model"], failed["total_ms"]) == ("UT", "m", 50.0)
    assert "traced" not in failed
    [of_traced] = (await server.get("/latency/requests?kind=traced")).json()
    assert of_traced["traced"] is True
    assert "trace" not in of_traced
    wrong = await server.get("/latency/requests?kind=nope")
    assert (wrong.status, wrong.json()["error"]["param"]) == (400, "kind")


async def test_one_request_is_its_line(server: Server) -> None:
    server.processes[1].end(1, "UT")
    answer = await server.get("/latency/requests/r1")
    assert answer.body == record_line(request_record_of("r1", "UT"))
    for path in ("/latency/requests/r2", "/latency/requests/r2/trace", "/latency/requests/%00%ff"):
        missing = await server.get(path)
        assert (missing.status, missing.json()["error"]["code"]) == (404, "record_not_found")


async def test_now_adds_up_all_processes_and_says_what_the_dead_had(server: Server) -> None:
    first, second = server.processes
    first.end(1, "UT", at_s=1.0)
    second.end(2, at_s=2.0)
    second.observed.begin()
    second.observed.note_process(lag_s=0.25, resident_bytes=5000, sockets={"client": 3, "upstream": 2})
    second.recorder.keep(b'{"ts":"x","event":"stall","stage":"s","ms":50.0}', 3.0, None, marks=STALL)
    count_duration(second.observed.batches.transit, 1_000_000)
    write_board(first.segment.board, BoardText({"client": 0.0, "ours": 1.0, "upstream": 2.0}, []))
    found = (await server.get("/latency/now")).json()
    assert (found["ended"], found["in_flight"], found["lost"]) == ({"UT": 1, "OK": 1}, 1, 0)
    assert found["party_s"] == {"client": 0.0, "ours": 1.0, "upstream": 2.0}
    assert [one["worker"] for one in found["workers"]] == [1, 2]
    assert found["workers"][1] == {
        "worker": 2,
        "pid": found["workers"][0]["pid"],
        "alive": True,
        "is_silent": True,
        "lag_s": 0.25,
        "resident_bytes": 5000,
        "in_flight": 1,
        "client_sockets": 3,
        "upstream_sockets": 2,
    }
    assert [one["request_id"] for one in found["recent"]["failed"]] == ["r1"]
    assert [one["ms"] for one in found["stalls"]] == [50.0]
    assert found["histograms"]["transit"] == {"step": 1, "slots": [[slot_of(1_000_000), 1]], "sum_s": 0.001}
    assert found["is_watched"] is False
    assert server.file.is_watched
    del second, server.processes[1]  # it dies
    found = (await server.get("/latency/now")).json()
    assert (found["in_flight"], found["lost"], found["workers"][1]["alive"]) == (0, 1, False)
    assert (found["workers"][1]["in_flight"], found["is_watched"]) == (0, True)


def test_a_worker_that_was_replaced_is_left_out_while_another_has_its_number(server: Server) -> None:
    def shown() -> list[tuple[int, bool]]:
        document = json.loads(Now(server.file).document()[0])
        return [(one["worker"], one["alive"]) for one in document["workers"]]

    server.processes += [Process(server.file, 1)]
    assert shown() == [(1, True), (2, True), (1, True)]  # the old one drains
    del server.processes[0]
    assert shown() == [(2, True), (1, True)]
    del server.processes[0]
    assert shown() == [(1, True), (2, False)]


def count(process: Process, family: str, **labels: str) -> None:
    process.observed.series.cell(Kind.SECONDS, family, tuple(labels.items()))[0] += 123_456_789


async def test_now_has_at_most_20_kilobytes_whatever_there_is(server: Server) -> None:
    long = "x" * 180
    for process in server.processes:
        for number in range(40):
            process.end(number, ("UT", "DC")[number % 2], model=long, deployment=long, total_ms=50.0)
            process.recorder.keep(
                b'{"ts":"2026-11-30T12:00:00.000Z","event":"stall","stage":"%b","ms":50.0}' % long.encode(),
                3.0,
                None,
                marks=STALL,
            )
        for ns in range(0, 10**10, 10**7):
            for cell in (process.observed.batches.transit, process.observed.batches.client_gap):
                count_duration(cell, ns)
        for number in range(40):
            for family in ("stage_busy_seconds_total", "stage_outside_seconds_total"):
                count(process, f"headrace_{family}", stage=f"stage-{number}-{long[:60]}")
            for state in STATES:
                count(process, "headrace_lane_seconds_total", lane=f"lane-{number}-{long[:60]}", state=state)
            count(process, "headrace_link_full_seconds_total", link=f"link-{number}-{long[:120]}")
        running = [
            RunningRequest(
                request_id=f"{long}{number}",
                worker=1,
                age_ms=1.0,
                model=long,
                deployment=long,
                waits_for="ours",
                point="head_read",
                events=1,
                idle_ms=1.0,
            )
            for number in range(80)
        ]
        write_board(process.segment.board, BoardText({}, running))
    answer = await server.get("/latency/now")
    assert len(answer.body) <= MAX_BYTES
    found = answer.json()
    for part in ("stages", "lanes_s", "links", "workers"):
        assert found[part], part
    transit = found["histograms"]["transit"]
    assert transit["step"] in (2, 4, 8, 16)
    assert all(slot % transit["step"] == 0 for slot, _ in transit["slots"])
    assert sum(count for _, count in transit["slots"]) == 2000
    assert len((await server.get("/latency/running")).json()) > 100


async def test_viewers_share_one_document_a_second(server: Server, mock_clock: trio.testing.MockClock) -> None:
    first, second = server.processes

    async def ended() -> int:
        return sum((await server.get("/latency/now")).json()["ended"].values())

    first.end(1)
    assert await ended() == 1
    second.end(2)
    assert await ended() == 2  # not shared: the workers show nothing yet
    for process in server.processes:
        write_board(process.segment.board, BoardText())
    assert await ended() == 2
    first.end(3)
    assert await ended() == 2
    mock_clock.jump(SHARED_S)
    assert await ended() == 3


async def test_the_loop_reads_no_recorder(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    read = recorded.rings_of

    def noted(segments: Iterable[recorded.RingOwner]) -> Iterator[tuple[tuple[int, int], RingReader]]:
        threads.append(threading.get_ident())
        return read(segments)

    monkeypatch.setattr(recorded, "rings_of", noted)
    server.processes[0].end(1)
    for path in ("now", "records", "requests", "requests/r1"):
        assert (await server.get(f"/latency/{path}")).status == 200
    assert len(threads) == 4
    assert threading.get_ident() not in threads


async def test_the_dead_are_left_out_before_the_living_and_have_no_memory() -> None:
    server = Server()
    server.processes += [Process(server.file, number) for number in range(3, 41)]
    for process in server.processes:
        process.observed.note_process(lag_s=0.5, resident_bytes=5000, sockets={"client": 3, "upstream": 2})
    del process, server.processes[10:]
    workers = (await server.get("/latency/now")).json()["workers"]
    assert len(workers) == 32
    assert [one["worker"] for one in workers if one["alive"]] == [*range(1, 11)]
    assert {tuple(one.items())[4:] for one in workers if not one["alive"]} == {
        (("lag_s", 0), ("resident_bytes", 0), ("in_flight", 0), ("client_sockets", 0), ("upstream_sockets", 0))
    }
    assert {one["resident_bytes"] for one in workers if one["alive"]} == {5000}


async def test_now_takes_little_time_with_hundreds_of_requests_recorded(server: Server) -> None:
    for process in server.processes:
        for number in range(500):
            process.end(number, ("OK", "UT", "DC")[number % 3], total_ms=50.0)
    now = Now(server.file)
    now.document()
    fastest_s = 1.0
    for _ in range(10):
        since_s = time.thread_time()
        now.document()
        fastest_s = min(fastest_s, time.thread_time() - since_s)
    assert fastest_s < 0.005


async def test_the_page_needs_no_key_and_allows_nothing_inline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"index.html": b"<!doctype html>", "app.js": b"go()", "app.css": b"a{}"}
    kinds = {"index.html": "text/html", "app.js": "text/javascript", "app.css": "text/css"}
    monkeypatch.setattr(
        page_files, "_read", lambda name: files[name] if name in files else (_ for _ in ()).throw(FileNotFoundError)
    )
    page_files._file.cache_clear()
    for name, body in files.items():
        path = "/latency" if name == "index.html" else f"/latency/static/{name}"
        answer = await server.get(path, key=None)
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["content-type"] == f"{kinds[name]}; charset=utf-8"
        assert "script-src 'self';" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        again = await server.get(path, key=None, if_none_match=answer.headers["etag"])
        assert (again.status, again.body) == (304, b"")
    page_files._file.cache_clear()
    moved = await server.get("/latency/", key=None)
    assert (moved.status, moved.headers["location"]) == (308, "../latency")


@pytest.mark.parametrize("name", ["../now.py", "..%2Fnow.py", ".hidden.js", "a/b.js", "now.py", "index", "", "x.js\n"])
def test_nothing_but_the_page_s_own_files_is_served(name: str) -> None:
    assert page_files.page_answer(name, None) is None


async def test_a_trace_without_its_package_is_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "perfetto", None)
    for name in [name for name in sys.modules if name.startswith("perfetto.")]:
        monkeypatch.setitem(sys.modules, name, None)
    server.processes[0].end(1)
    answer = await server.get("/latency/requests/r1/trace")
    assert (answer.status, answer.json()["error"]["code"]) == (409, "not_installed")
    assert "headrace[trace]" in answer.json()["error"]["message"]


async def test_a_trace_is_made_of_the_request_and_of_the_stalls(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(requests: list[RecordedRequest], stalls: list[RecordedStall]) -> bytes:
        return repr(([one.request_id for one in requests], [one.ms for one in stalls])).encode()

    monkeypatch.setattr(perfetto, "perfetto_trace", listed)
    server.processes[0].end(1)
    stall = b'{"ts":"2026-11-30T12:00:00.000Z","event":"stall","stage":"s","request_id":"r1","ms":50.0,"streams":1}'
    server.processes[1].recorder.keep(stall, 3.0, None, marks=STALL)
    answer = await server.get("/latency/requests/r1/trace")
    assert answer.body == b"(['r1'], [50.0])"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="r1.pftrace"'
