"""The benchmarks work: each runs briefly and yields real figures in the form that the report reads."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from kit.needs import LINUX, needs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks import __main__ as everything  # noqa: E402
from benchmarks import (  # noqa: E402
    bench_arounds,
    bench_codec,
    bench_engine,
    bench_gateway,
    bench_meters,
    bench_overload,
    bench_peers,
    bench_records,
    profile_service,
    report,
)
from benchmarks.behaviour import STAMP, script  # noqa: E402
from benchmarks.children import open_child  # noqa: E402
from benchmarks.engine_work import WORKS  # noqa: E402
from benchmarks.gateways import KEY, SILENT, configuration  # noqa: E402
from benchmarks.loads import (  # noqa: E402
    LOADS,
    TITLES,
    Subject,
    Tools,
    compare,
    flags,
    measure,
    open_tools,
    run_load,
    shape,
)
from benchmarks.processes import free_port, python  # noqa: E402
from benchmarks.recording import Recording, begin, load, number, table  # noqa: E402
from benchmarks.service_turns import services, side_by_side  # noqa: E402
from benchmarks.turns import COST, Measure, Ratio, comparison, ratio, verdict  # noqa: E402

pytestmark = [
    needs(LINUX),
    pytest.mark.timeout(300),  # some start several processes, one after the other
]
SECONDS = 0.3
"""The length of each round: even on a slow or busy machine something must finish within it."""


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    with open_tools() as opened:
        yield opened


@pytest.fixture(scope="module")
def service(tools: Tools) -> Iterator[tuple[Subject, Path]]:
    """One service for all tests that only put loads on it: it has the stage `burn`, and can be profiled."""
    settings = "stages: [{use: burn, after: decode_events}]"
    with (
        bench_records.plugin() as path,
        profile_service.profiled(tools, settings=settings, path=path) as (subject, file),
    ):
        yield subject, file


@pytest.fixture(scope="module")
def records(tools: Tools, service: tuple[Subject, Path]) -> Recording:
    """The records of a few requests, some of them beside a blocked loop."""
    recording = begin("records", is_quick=True)
    with bench_records.splicing(tools) as splice:
        bench_records.measure(recording, tools, [service[0], splice], requests=160, rounds=1)
    return recording


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One turn at each work of the engine."""
    output = tmp_path_factory.mktemp("engine") / "engine.json"
    bench_engine.main(["--turns", "1", "--sessions", "1", "--length", "0.05", "--output", str(output)])
    return results(output, "engine")


def direct(tools: Tools, dialect: str) -> Subject:
    path = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}[dialect]
    return Subject("upstream", tools.port, [tools.upstream.pid], settings={"path": path, "dialect": dialect})


def results(path: Path, name: str) -> Recording:
    raw = json.loads(path.read_text())
    assert set(raw) == {
        *("name", "schema", "started", "duration_s", "command", "is_quick", "tools", "machine", "versions", "notes"),
        "rows",
    }
    assert (raw["name"], raw["schema"]) == (name, 1)
    assert raw["machine"]["cores"] >= 1
    assert {"python", "trio", "headrace", "commit"} <= set(raw["versions"])
    assert all(row["rounds"] for row in raw["rows"])
    return load(path)


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_a_stream_from_the_mock_upstream_is_counted_to_its_end(tools: Tools, dialect: str) -> None:
    subject = direct(tools, dialect)
    figures, _ = measure(tools, subject, shape("short", subject, mode="once", connections=3, open_per_s=0.0))
    assert (figures["complete"], figures["events"], figures["errors"]) == (3, 60, {})
    assert figures["first_ms"]["n"] == 3


def test_connections_are_reused(tools: Tools) -> None:
    subject = direct(tools, "responses")
    measure(tools, subject, shape("requests", subject, seconds=SECONDS))
    counters = tools.stats()
    assert counters["requests"] > 100
    assert counters["accepted"] < 20  # ten of the load generator, and those that request the figures


def test_a_free_port_is_unused_and_below_the_ephemeral_ports() -> None:
    state = random.getstate()
    with socket.socket() as taken:
        port = free_port()
        assert 20_000 <= port < 30_000
        taken.bind(("127.0.0.1", port))
        random.setstate(state)  # the same port is tried first again
        assert free_port() != port


def test_time_stamps_yield_the_added_latency(tools: Tools) -> None:
    subject = direct(tools, "responses")
    model = "mock-n5-d10000-t1"
    figures, _ = measure(tools, subject, shape("", subject, model=model, mode="once", connections=4, events=5))
    assert figures["added_ms"]["n"] == 20
    assert figures["added_ms"]["p50"] > 0
    assert tools.stats()["lag_ms"]["n"] == 20


def test_a_wrong_answer_counts_as_an_error_and_not_as_a_request(tools: Tools) -> None:
    subject = direct(tools, "chat")

    def errors(model: str, **changes: Any) -> dict[str, int]:
        figures, reasons = measure(tools, subject, shape("", subject, model=model, mode="once", **changes))
        assert figures["complete"] == 0
        assert any("1 errors" in reason for reason in reasons)
        counts: dict[str, int] = figures["errors"]
        return counts

    assert errors("mock-h503") == {"status 503": 1}
    assert errors("mock-n9-x3-d1000") == {"cut": 1}
    assert errors("mock-n9-t0", events=10) == {"short": 1}
    assert errors("mock-n9-t0", dialect="responses") == {"no end": 1}


def test_chunk_sizes_of_stamped_deltas_are_right() -> None:
    answer = script("mock-n12-d1000-t1-e1", chat=False, stream=True)
    for template in answer.deltas:
        size, _, data = (template % 1234567890).partition(b"\r\n")
        assert int(size, 16) == len(data) - 2
        assert STAMP.findall(data) == [b"%016x" % 1234567890]


def test_every_load_has_a_title_and_is_a_valid_load() -> None:
    assert list(LOADS) == list(TITLES)
    for name in LOADS:
        assert shape(name, Subject("any", 1)).model.startswith("mock-")


def test_rounds_that_measure_the_tools_instead_of_the_service_are_flagged() -> None:
    figures = {"tools_cpu": 0.95, "server_cpu": 0.5, "foreign_cpu": 0.0, "error_count": 0, "errors": {}}
    assert flags(figures, Subject("any", 1, [1])) == ["limited by the load generator"]
    assert flags({**figures, "server_cpu": 0.95}, Subject("any", 1, [1])) == []
    assert flags({**figures, "server_cpu": 0.95}, Subject("any", 1, [1], cores=2)) == ["limited by the load generator"]


def test_a_load_of_so_many_requests_ends_with_the_last_one(tools: Tools) -> None:
    subject = direct(tools, "chat")
    load = shape("requests", subject, requests=50, ids="some-")
    figures, _ = measure(tools, subject, load)
    assert (figures["complete"], figures["errors"]) == (50, {})
    assert set(figures["total_ns_of"]) == {f"some-{number}" for number in range(50)}
    assert all(0 < ns < 5_000_000_000 for ns in figures["total_ns_of"].values())


def test_a_child_that_fails_is_reported_with_what_it_printed() -> None:
    with open_child(python("-c", "raise SystemExit('no such luck')")) as child:
        child.order({})
        with pytest.raises(RuntimeError, match="no such luck"):
            child.reply()


def test_bench_engine_measures_every_work_of_every_engine(engine: Recording) -> None:
    ours, copy = engine.subjects()
    for work in WORKS:
        for side in (ours, copy):
            assert (engine.median(side, work, COST) or 0) > 0.1
    # A stage that shares a task with others costs less than one that has its own.
    assert (engine.median(ours, "fused-1", COST) or 0) < (engine.median(ours, "codec-1", COST) or 0)
    assert "each further event of an answer" in bench_engine.summary(engine)


def test_an_engine_without_figures_takes_its_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "meters.json"
    arguments = ["--only", "engine", "--turns", "1", "--sessions", "1", "--length", "0.3"]
    assert bench_meters.main([*arguments, "--output", str(output)]) == 0
    found = ratio(results(output, "meters"), bench_meters.WITHOUT, bench_meters.OURS, "engine event")
    assert found is not None
    assert 0.2 < found.median < 2  # one turn tells no more
    assert "engine alone: an answer of one event" in capsys.readouterr().out


def test_a_service_without_figures_takes_its_turns(tools: Tools) -> None:
    sides: dict[str, dict[str, Any]] = {bench_meters.WITHOUT: {"module": "benchmarks.unmetered"}}
    with services(tools, sides, {"paced": SECONDS, "requests": SECONDS}, 0) as turn:
        for work, rate in (("paced", "events_per_s"), ("requests", "requests_per_s")):
            figures, reasons = turn(work)[bench_meters.WITHOUT]
            assert reasons == []
            assert figures[COST] > 10
            assert figures[rate] > 0


def test_a_service_without_figures_has_none(tools: Tools) -> None:
    """Whatever is measured of requests and of the process is left out, and no request is kept or traced."""
    options = {"module": "benchmarks.unmetered", "settings": "trace_one_in: 1"}
    with side_by_side(tools, {bench_meters.WITHOUT: options}) as [(subject, generator)]:
        assert run_load(generator, shape("requests", subject, requests=20))["complete"] == 20
        assert run_load(generator, shape("short", subject, requests=20))["complete"] == 20
        assert subject.server is not None
        while (printed := subject.server.printed()).count('"event":"request"') < 40:
            assert subject.server.process.poll() is None, printed

        def read(path: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {KEY}"}
            return httpx.get(f"http://127.0.0.1:{subject.port}{path}", headers=headers).raise_for_status()

        figures = [line for line in read("/metrics").text.splitlines() if not line.startswith(("#", "headrace_info"))]
        assert [line for line in figures if not re.search(r" 0(\.0)?$", line)] == []
        assert read("/latency/records").content == b""
    records = [json.loads(line) for line in printed.splitlines() if '"event":"request"' in line]
    assert {record["total_ms"] for record in records} == {0.0}


def test_bench_arounds_compares_configurations_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "arounds.json"
    arguments = ["--turns", "1", "--sessions", "1", "--length", str(SECONDS)]
    assert bench_arounds.main([*arguments, "--output", str(output)]) == 0
    recording = results(output, "arounds")
    assert {row.subject for row in recording.rows} == set(bench_arounds.SIDES)
    for row in recording.rows:
        assert row.measure in bench_arounds.MEASURES
        assert (row.flags, row.median("error_count")) == ([], 0)
    printed = capsys.readouterr().out
    assert re.search(r"a stream of 20 events +two healthy deployments .* us", printed)


def costs(**sides: Sequence[float]) -> Recording:
    """Make a recording of turns at one work, two to a session."""
    recording = Recording(name="any")
    for side, values in sides.items():
        for at, value in enumerate(values):
            recording.add(side, "work", {COST: value, "session": at // 2})
    return recording


def test_the_ratio_of_two_sides_is_that_of_their_turns() -> None:
    recording = costs(a=[10, 20, 10, 40], b=[11, 22, 11.1, 44])
    found = ratio(recording, "b", "a", "work")
    assert found is not None
    assert (round(found.median, 4), found.turns) == (1.1, 4)
    assert 1.1 <= round(found.low, 4) <= round(found.high, 4) <= 1.11
    assert ratio(recording, "b", "a", "work") == found, "the same recording has the same interval"
    assert ratio(recording, "b", "nobody", "work") is None


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (0.90, 0.95, "less, by more than 3%"),
        (1.04, 1.10, "more, by more than 3%"),
        (0.98, 1.02, "the same within 3%"),
        (0.95, 1.02, "at most 3% more"),
        (0.98, 1.05, "at most 3% less"),
        (0.90, 1.05, "undecided: more turns are needed"),
    ],
)
def test_a_verdict_is_about_the_whole_interval(low: float, high: float, meaning: str) -> None:
    found, control = Ratio((low + high) / 2, low, high, 64), Ratio(1.009, 0.99, 1.01, 64)
    assert verdict(found, control, 0.03) == meaning
    assert verdict(found, Ratio(1.011, 0.99, 1.01, 64), 0.03) == "no verdict: the copy differs by +1.10%"


def test_a_comparison_has_a_row_for_each_work_and_columns_for_each_other_side() -> None:
    recording = costs(a=[10, 10, 10, 10], copy=[10, 10, 10, 10], b=[8, 8, 8, 8])
    measures = {"work": Measure("some work", 0.01), "more": Measure("never done", 0.01)}
    head, row, *_ = comparison(recording, measures, side="a", copy="copy").splitlines()
    assert re.split(" {2,}", head) == ["CPU time", "a", "its copy", "against b", "so it is"]
    same, more = "+0.0% (+0.0% to +0.0%)", "+25.0% (+25.0% to +25.0%)"
    assert re.split(" {2,}", row) == ["some work", "10.0 us", same, more, "more, by more than 1%"]


def test_bench_records_finds_a_record_for_each_request(records: Recording) -> None:
    for phase in bench_records.PHASES:
        for subject in ("headrace", "byte splice"):
            row = records.row(subject, phase.name)
            assert row is not None
            assert row.flags == []
            assert (row.median("client_ms.p50") or 0) > 0
    assert records.median("headrace", bench_records.ALL, "requests") == 160
    assert records.median("headrace", bench_records.SUMS, "wrong") == 0
    assert (records.median("byte splice", bench_records.ALL, "within") or 0) > 0.8
    assert bench_records.error_at_p99(records) is not None
    assert "requests beside a blocked loop" in bench_records.summary(records)


def test_the_loop_is_blocked_beside_some_of_the_requests(records: Recording) -> None:
    blocked = [phase.name for phase in bench_records.PHASES if phase.is_blocked]
    longest = [records.median("headrace", name, "client_ms.max") or 0 for name in blocked]
    assert max(longest) > 50, "100 ms out of 300 ms"


def test_parts_of_a_record_that_do_not_sum_to_the_whole_are_counted() -> None:
    lane = {"stages": ["a"], "life_ms": 2.0, "starved_ms": 0.5, "busy_ms": 1.499}
    record: dict[str, Any] = {
        "total_ms": 3.125,
        "party_ms": {"client": 1.0, "ours": 1.125, "upstream": 0.999},
        "points_ms": {"head_read": 0.5, "ended": 3.125},
        "lanes": {"a": lane},
    }
    figures = bench_records.sums_of([record, {"total_ms": 1.5}])
    assert (figures["records"], figures["parties"], figures["points"], figures["lanes"]) == (2, 1, 1, 1)
    assert (figures["wrong"], figures["unit_ms"]) == (0, 0.001), "each part may have been rounded"
    wrong = {
        **record,
        "party_ms": {"client": 1.0, "ours": 1.125, "upstream": 0.9},
        "points_ms": {"ended": 3.0},
        "lanes": {"a": {**lane, "busy_ms": 1.6}},
    }
    figures = bench_records.sums_of([record, wrong])
    assert figures["wrong"] == 3
    assert figures["worst_ms"] == {"parties": 0.1, "points": 0.125, "lanes": 0.1}


def test_an_error_is_what_the_record_lacks_beyond_what_the_splice_lacks() -> None:
    def pair(client_ms: float, total_ms: float, **points: float) -> bench_records.Pair:
        record: Mapping[str, Any] = {"total_ms": total_ms, **({"points_ms": points} if points else {})}
        return bench_records.Pair(client_ms, record)

    pairs = [pair(10.0, 9.9), pair(10.0, 7.9), pair(10.0, 12.9, last_byte_out=9.8), pair(500.0, 496.0)]
    figures = bench_records.figures_of(pairs, 0.1, 3)
    assert figures["error_ms"] == {"n": 4, "min": -3.0, "p1": -3.0, "p50": 2.0, "p99": 3.9, "max": 3.9}
    assert (figures["within"], figures["without_record"]) == (0.5, 3)
    assert (figures["last_byte_within"], figures["last_byte_error_ms"]["max"]) == (1.0, 0.1)
    assert figures["missing_share"] == round(1 - 526.7 / 530, 5)


def test_bench_codec_measures_each_kind_of_stream(tmp_path: Path) -> None:
    bench_codec.main(["--rounds", "1", "--events", "256", "--output", str(tmp_path / "codec.json")])
    recording = results(tmp_path / "codec.json", "codec")
    assert recording.subjects() == ["text", "argument", "reasoning", "ignored"]
    assert all((row.median("both_ns_per_event") or 0) > 100 for row in recording.rows)


def test_the_configuration_of_the_service_has_a_log_level_and_settings() -> None:
    own = "pipeline_settings: {log_level: "
    assert configuration(4001).splitlines()[-1] == own + "info}"
    assert configuration(4001, "warning", "execution: tasks").splitlines()[-1] == own + "warning, execution: tasks}"


def test_bench_gateway_and_the_page_of_its_results(
    tools: Tools, service: tuple[Subject, Path], tmp_path: Path, records: Recording, engine: Recording
) -> None:
    output = tmp_path / "2026-01-01-gateway.json"
    arguments = ["--only", "ceiling", "--loads", "short", "--seconds", str(SECONDS), "--log-level", "warning"]
    assert bench_gateway.main([*arguments, "--rounds", "1", "--quick", "--output", str(output)]) == 0
    recording = results(output, "gateway")
    assert (recording.median("tools alone", "short", "requests_per_s") or 0) > 0
    assert recording.notes == ["the loads were put on a service at log level warning"]

    compare(recording, tools, [service[0]], ["short"], rounds=1, seconds=SECONDS)
    assert (recording.median("headrace", "short", "requests_per_s") or 0) > 0
    assert (recording.median("headrace", "short", "cpu_us_per_request") or 0) > 10
    assert recording.median("headrace", "short", "error_count") == 0
    recording.save(output)

    for other in (records, engine):
        other.save(tmp_path / f"2026-01-01-{other.name}.json")
    (tmp_path / "docs").mkdir()
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "1-before.txt").write_text("py-spy top\n 50 % sse.py\n")
    folders = ["--results", str(tmp_path), "--docs", str(tmp_path / "docs"), "--profiles", str(tmp_path / "profiles")]
    assert report.main([*folders, "--quick"]) == 0
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert re.search(r"\| short streams of 20 events +\| +>= 1,500 /s \| +[\d,.]+ \|", page)
    assert "not measured" in page
    assert "| streams beside a blocked loop " in page
    assert "| each further event of an answer " in page
    assert "```text\npy-spy top\n 50 % sse.py\n```" in page
    output.unlink()
    assert report.main(folders) == 0
    assert "streams beside" not in (tmp_path / "docs" / "performance.md").read_text(), "a quick run is not used"


def test_the_page_has_plots_of_what_can_be_plotted() -> None:
    gateway = Recording(name="gateway")
    for count, name in ((100, "paced-100"), (500, "paced-500")):
        gateway.add("headrace", name, {"added_ms": {"p50": count / 100, "p99": count / 10}})
    gateway.add("headrace", "memory, speaking, 5000 streams", {"kb_per_stream": 40.5})
    text, images = report.page({"gateway": gateway}, Path("nowhere"))
    assert set(images) == {"paced.svg", "memory.svg"} == set(re.findall(r"\(img/([\w.-]+)\)", text))
    assert all(ElementTree.fromstring(image).tag.endswith("svg") for image in images.values())


def test_the_cost_of_the_record_is_that_of_a_request_with_it() -> None:
    gateway = Recording(name="gateway")
    for side, cost in ((bench_gateway.OURS, 105.0), (bench_gateway.COPY, 106.0), (SILENT, 100.0)):
        gateway.add(side, "log requests", {COST: cost, "session": 0})
    assert bench_gateway.cost_of_record(gateway) == pytest.approx(0.05)
    assert "+5.0%" in bench_gateway.summary(gateway)
    gateway.rows[1].rounds[0][COST] = 108.0
    assert bench_gateway.cost_of_record(gateway) is None, "a copy must not differ by a third of the limit"


def test_the_share_of_the_figures_is_that_of_an_event_with_them() -> None:
    meters = Recording(name="meters")
    for side, cost in ((bench_meters.OURS, 125.0), (bench_meters.COPY, 126.0), (bench_meters.WITHOUT, 100.0)):
        meters.add(side, bench_meters.PACED, {COST: cost, "session": 0})
    assert bench_meters.share_of_figures(meters) == pytest.approx(0.2)
    assert "a share of 20.0%" in bench_meters.summary(meters)
    meters.rows[1].rounds[0][COST] = 127.0
    assert bench_meters.share_of_figures(meters) is None


def test_traces_cost_the_share_of_requests_that_have_one() -> None:
    meters = Recording(name="meters")
    for side, cost in ((bench_meters.OURS, 100.0), (bench_meters.COPY, 100.2), (bench_meters.TRACED, 112.0)):
        meters.add(side, bench_meters.TRACED_PACED, {COST: cost, "session": 0})
    printed = bench_meters.summary(meters)
    assert printed.endswith("Traces of 1% of all requests add 0.12% (0.12% to 0.12%) to a paced event.")
    assert re.search(r"an event of a paced stream, beside traced ones +100 us", printed)


def test_a_service_that_traces_every_request_takes_its_turns(tmp_path: Path) -> None:
    output = tmp_path / "meters.json"
    arguments = ["--only", "tracing", "--turns", "1", "--sessions", "1", "--length", str(SECONDS)]
    assert bench_meters.main([*arguments, "--output", str(output)]) == 0
    recording = results(output, "meters")
    assert {row.subject for row in recording.rows} == {bench_meters.OURS, bench_meters.COPY, bench_meters.TRACED}
    for row in recording.rows:
        assert (row.measure, row.flags) == (bench_meters.TRACED_PACED, [])


def test_memory_is_measured_on_a_fresh_service(tools: Tools) -> None:
    recording = Recording(name="gateway")
    bench_gateway.memory(recording, tools, [10], SECONDS, kinds=["speaking"])
    assert recording.median("headrace", "memory, speaking, 10 streams", "active") == 10


def test_a_profile_orders_the_functions_by_their_own_time(tools: Tools, service: tuple[Subject, Path]) -> None:
    text = profile_service.top_list(tools, *service, "requests", ROOT, SECONDS)
    what, _, head, everything, *functions = text.splitlines()
    assert what.endswith(", requests, per request")
    assert head.split()[0] == "own"
    assert "everything" in everything
    assert len(functions) == profile_service.TOP
    assert any(re.search(r"pipeline/line\.py: _forward$", line) for line in functions)
    own_us = [float(line.split()[0]) for line in functions]
    assert own_us == sorted(own_us, reverse=True)


def test_bench_overload_counts_streams_checks_and_who_is_refused(tools: Tools) -> None:
    recording = begin("overload", is_quick=True)
    bench_overload.measure_tree(
        recording, tools, "headrace", ROOT, [50], bounds=(20, 22), seconds=2 * SECONDS, rounds=1, stream_s=0.5
    )
    for coming, streams in (("50/s, 1 x capacity", 20), ("50/s, 2 x capacity", 40)):
        assert recording.median("headrace", coming, "streams") == streams
        for figure in ("events_per_s", "answered_per_s", "check_ms.p99", "first_ms.p50"):
            assert (recording.median("headrace", coming, figure) or 0) > 0, figure
    at_capacity, at_twice, goodput = (
        recording.median("headrace", f"50/s, {coming} x capacity", figure)
        for coming, figure in ((1, "events_per_s"), (2, "events_per_s"), (2, "times.goodput"))
    )
    assert at_capacity
    assert at_twice
    assert goodput == pytest.approx(at_twice / at_capacity, rel=0.01)
    assert re.search(r"50/s, 2 x capacity +headrace +40", bench_overload.summary(recording))


def test_bench_peers_measures_the_peers_it_finds(
    tools: Tools, service: tuple[Subject, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recording = begin("peers", is_quick=True)
    peers = bench_peers.found(["byte splice"])
    assert re.search(r"LiteLLM .* not selected", capsys.readouterr().out)
    bench_peers.measure_peers(recording, tools, [service[0]], peers, ["short"], rounds=1, seconds=SECONDS)
    for name in ("byte splice", "headrace", "tools alone"):
        assert (recording.median(name, "short", "requests_per_s") or 0) > 0
        assert recording.median(name, "short", "error_count") == 0
    assert "nginx: not measured" in recording.notes
    assert re.search(r"short +byte splice .* 1\.00\b", bench_peers.summary(recording)), "the ratio to itself"


def test_bench_peers_prints_how_to_install_missing_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.peers.FOLDER", tmp_path)
    assert bench_peers.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "LiteLLM" in printed
    assert "not found; to install: python3 -m venv benchmarks/.peers" in printed


def test_help_is_printed_and_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        everything.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: python -m benchmarks")
    assert "==" not in printed


def test_tables_and_figures_are_readable() -> None:
    assert [number(value) for value in (None, 0.1234, 12.34, 1234.5)] == ["-", "0.12", "12.3", "1,234"]
    assert table([["a", "b"], ["x", "1"]], markdown=True) == "| a | b |\n|---|--:|\n| x | 1 |"
