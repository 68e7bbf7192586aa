"""The page at ``/latency`` in a real Chromium: what it shows is what the service said."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.needs import CHROMIUM, needs
from kit.page.browser import Tab
from kit.page.figures import Figures, finished
from kit.page.stand_in import StandIn
from kit.service.running import KEY

from pipeline.histogram import SLOTS, limit_s, quantiles_s, slot_of

pytestmark = needs(CHROMIUM)

LIVE = "document.querySelector('#status')?.dataset.state === 'live'"
ROW = "#request-list tbody tr"


def tile(name: str) -> str:
    """Return the expression for the figure of a tile."""
    return f"document.getElementById('tile {name}').querySelector('dd').textContent"


def tick(tab: Tab, stand_in: StandIn) -> None:
    """Have the page read at once, and wait until it shows what it has read."""
    last = tab.run("performance.getEntriesByName('tick')[0]?.startTime ?? 0")
    reads = stand_in.reads
    tab.run("document.dispatchEvent(new Event('visibilitychange'))")
    tab.until(f"performance.getEntriesByName('tick')[0]?.startTime > {last}")
    assert stand_in.reads > reads


def enter(tab: Tab, stand_in: StandIn) -> None:
    """Open the page with its key, and wait for the first differences."""
    tab.open(f"{stand_in.url}#key={KEY}")
    tab.until(LIVE)
    tick(tab, stand_in)


@pytest.fixture
def page(tab: Tab, stand_in: StandIn) -> Iterator[Tab]:
    """The page, live; it must not have written an error at the end."""
    enter(tab, stand_in)
    yield tab
    assert tab.problems() == []


@pytest.fixture
def modules(tab: Tab, stand_in: StandIn) -> Tab:
    """A page whose modules are called; nothing is shown."""
    tab.open(stand_in.url)
    tab.until("document.activeElement?.id === 'key'")
    return tab


def test_the_figures_are_those_of_the_data(page: Tab, stand_in: StandIn) -> None:
    tick(page, stand_in)
    page.run("document.querySelector('#board').hidden = true")  # no more readings
    document = stand_in.figures.document
    assert page.run(tile("in flight")) == "40"
    assert "write_sse works most: 46 % of the" in page.run("document.querySelector('#stages-verdict').textContent")
    events = page.run("[...document.querySelectorAll('#stages tr')].at(-1).cells[4].textContent")
    assert events == "400"
    assert page.run("document.querySelector('#links tbody tr').cells[0].textContent") == "call_upstream>decode_events"
    assert page.run("document.querySelector('#workers tbody tr').cells[2].textContent") == "97 MiB"
    slow = page.run("[...document.querySelectorAll('#request-list tbody tr')].map((row) => row.cells[1].title)")
    assert slow == [one["request_id"] for one in document["recent"]["slow"]]


def test_parties_are_seconds_per_second(page: Tab, stand_in: StandIn) -> None:
    def fixed(document: dict[str, Any]) -> dict[str, Any]:
        second = stand_in.figures.seconds
        return {**document, "party_s": {"client": 2.0 * second, "ours": 0.25 * second, "upstream": 37.5 * second}}

    stand_in.change = fixed
    for _ in range(3):
        tick(page, stand_in)
    shown = (
        "Object.fromEntries([...document.querySelectorAll('#parties-legend b')]"
        ".map((one) => [one.dataset.party, one.textContent]))"
    )
    assert page.run(shown) == {"ours": "0.25", "client": "2", "upstream": "37.5"}
    assert page.run("document.querySelector('#parties').ariaLabel").endswith("client 2, ours 0.25, upstream 37.5")
    page.click("#parties-legend button:last-child")
    assert page.run("document.querySelector('#parties-legend button:last-child').ariaPressed") == "false"


def test_the_chart_has_the_parties_as_areas(page: Tab, stand_in: StandIn) -> None:
    for _ in range(8):
        tick(page, stand_in)
    found = page.run("""(() => {
        const canvas = document.querySelector('#parties canvas');
        const { data } = canvas.getContext('2d').getImageData(canvas.width - 8, 0, 1, canvas.height);
        const colours = new Set();
        for (let at = 0; at < data.length; at += 4) colours.add([...data.slice(at, at + 3)].join());
        return [...colours];
    })()""")
    assert "127,178,220" in found  # upstream
    assert "219,164,0" in found  # client


def test_the_heat_map_has_colour_where_the_values_are(page: Tab, stand_in: StandIn) -> None:
    slot = slot_of(4_200_000)

    def fixed(document: dict[str, Any]) -> dict[str, Any]:
        count = 1000 * stand_in.figures.seconds
        return {**document, "histograms": {"transit": {"step": 1, "slots": [[slot, count]], "sum_s": 1.0}}}

    stand_in.change = fixed
    for _ in range(4):
        tick(page, stand_in)
    coloured = page.run("""(() => {
        const canvas = document.querySelector('#heat');
        const [width, height] = [canvas.width, canvas.height];
        const { data } = canvas.getContext('2d').getImageData(width - 3, 0, 1, height - 20);
        const rows = [];
        for (let y = 0; y < height - 20; y++) if (data[4 * y + 3] === 255 && data[4 * y + 2] > 90) rows.push(y);
        return { first: rows[0], last: rows.at(-1), left: canvas.getBoundingClientRect().left,
            top: canvas.getBoundingClientRect().top, right: canvas.getBoundingClientRect().right };
    })()""")
    assert 3 <= coloured["last"] - coloured["first"] <= 12  # one row
    page.move(coloured["right"] - 2, coloured["top"] + coloured["last"] - 1)
    value = page.text("#heat-value")
    assert value.endswith("100 % of that second")
    assert "3.75 ms to 4.38 ms: 1000" in value
    page.click("[data-kind=gap_client]")
    assert page.text("#heat-value").startswith("gap to client: — p50 ")


def test_readings_that_come_early_or_late_leave_no_hole_in_the_heat_map(page: Tab, stand_in: StandIn) -> None:
    late_s = [0.0, 0.45, -0.45, 0.45, -0.3, 0.0, 0.2]

    def fixed(document: dict[str, Any]) -> dict[str, Any]:
        second = stand_in.figures.seconds
        histogram = {"step": 1, "slots": [[slot_of(4_200_000), 1000 * second]], "sum_s": 1.0}
        now_s = document["now_s"] + late_s[second % len(late_s)]
        return {**document, "now_s": now_s, "histograms": {"transit": histogram}}

    stand_in.change = fixed
    for _ in range(9):
        tick(page, stand_in)
    page.run("document.querySelector('#heat').focus()")
    page.press("ArrowRight")
    for _ in range(8):
        assert page.text("#heat-value").endswith("000, 100 % of that second")  # two may come in one
        page.press("ArrowLeft")


def test_slots_are_those_of_the_service(modules: Tab) -> None:
    times_ns = [int(1000 * 2**power * factor) for power in range(26) for factor in (1.0, 1.03, 1.49, 1.97)]
    module = "import('/latency/static/slots.js')"
    theirs = modules.run(f"{module}.then(({{ slotOf }}) => {json.dumps(times_ns)}.map((ns) => slotOf(ns / 1e6)))")
    assert theirs == [slot_of(ns) for ns in times_ns]
    limits_ms = modules.run(f"{module}.then(({{ limitMs }}) => [...Array({SLOTS}).keys()].map(limitMs))")
    assert limits_ms == pytest.approx([limit_s(slot) * 1e3 for slot in range(SLOTS)], rel=1e-12)
    is_inverse = modules.run(
        f"{module}.then(({{ slotOf, limitMs, floorMs }}) => [...Array({SLOTS}).keys()].every("
        "(slot) => slotOf(floorMs(slot)) === slot && slotOf(limitMs(slot)) === slot + 1))"
    )
    assert is_inverse is True


def test_slots_that_were_added_up_change_neither_counts_nor_medians(modules: Tab) -> None:
    fine: dict[str, Any] = {"step": 1, "slots": [[slot, 10] for slot in range(100, 140)]}
    coarse = [[slot, 40 if slot < 132 else 80] for slot in range(100, 140, 4)]  # 40 more in the upper two
    later: dict[str, Any] = {"step": 4, "slots": coarse}
    given = [{"now_s": second, "histograms": {"transit": histogram}} for second, histogram in ((1, fine), (2, later))]
    counted = modules.run(
        "import('/latency/static/history.js').then(({ History }) => { const history = new History();"
        f"for (const now of {json.dumps(given)}) history.add(now); return history.samples[0].histograms.transit; }})"
    )
    assert counted == {"step": 4, "slots": [[132, 40], [136, 40]]}
    module = "import('/latency/static/slots.js')"
    shares = (0.01, 0.5, 0.99, 1.0)
    histograms: list[dict[str, Any]] = [fine, later, {"step": 4, "slots": [[132, 1]]}]
    for one in histograms:
        call = f"quantilesMs({json.dumps(one)}, {', '.join(map(str, shares))})"
        quantiles_ms = modules.run(f"{module}.then(({{ quantilesMs }}) => {call})")
        expected_s = quantiles_s(dict(one["slots"]), *shares, step=one["step"])
        assert quantiles_ms == pytest.approx([value * 1e3 for value in expected_s])


def test_the_heat_map_spreads_what_was_added_up_over_its_rows(page: Tab, stand_in: StandIn) -> None:
    first = slot_of(4_200_000) // 16 * 16

    def fixed(document: dict[str, Any]) -> dict[str, Any]:
        counts = [[first, 1000 * stand_in.figures.seconds]]
        return {**document, "histograms": {"transit": {"step": 16, "slots": counts, "sum_s": 1.0}}}

    stand_in.change = fixed
    for _ in range(3):
        tick(page, stand_in)
    page.run("document.querySelector('#heat').focus()")
    page.press("ArrowRight")  # to the lowest row that has something
    for _ in range(4):  # an octave has so many
        assert page.text("#heat-value").endswith("250, 25 % of that second")
        page.press("ArrowUp")
    assert page.text("#heat-value").endswith(" 0, 0 % of that second")


def test_what_was_published_only_when_somebody_looked_is_not_a_peak(modules: Tab) -> None:
    given: list[dict[str, Any]] = [{"now_s": 1, "is_watched": False, "party_s": {"upstream": 5}}]
    given += [{"now_s": second, "is_watched": True, "party_s": {"upstream": 900 + second}} for second in (2, 3)]
    shares = modules.run(
        "import('/latency/static/history.js').then(({ History }) => { const history = new History();"
        f"for (const now of {json.dumps(given)}) history.add(now);"
        "return history.samples.map((sample) => sample.party.upstream); })"
    )
    assert shares == [1]


def test_whose_time_it_is_is_divided_by_the_time_between_two_boards(modules: Tab) -> None:
    boards = [(1, 1.0, 0), (2, 2.5, 15), (3, 2.5, 16), (4, 4.0, 45)]
    given = [{"now_s": now_s, "party_at_s": at_s, "party_s": {"ours": ours}} for now_s, at_s, ours in boards]
    shares = modules.run(
        "import('/latency/static/history.js').then(({ History }) => { const history = new History();"
        f"for (const now of {json.dumps(given)}) history.add(now);"
        "return history.samples.map((sample) => sample.party.ours); })"
    )
    assert shares == [10, 10, 20]


def test_the_phases_of_a_waterfall_sum_to_the_total(page: Tab, stand_in: StandIn) -> None:
    page.click(ROW)
    page.until("document.querySelector('#waterfall .phase')")
    request_id = page.text("#waterfall-title")
    record = stand_in.figures.records[request_id]
    phases = page.run("[...document.querySelectorAll('.phase')].map((row) => +row.dataset.ms)")
    assert len(phases) == len(record["points_ms"])
    assert sum(phases) == pytest.approx(record["total_ms"])
    module = "import('/latency/static/phases.js')"
    parts = page.run(f"{module}.then(({{ phasesOf }}) => phasesOf({json.dumps(record)}).map((one) => one.parts))")
    for party, ms in record["party_ms"].items():
        assert sum(part.get(party, 0) for part in parts) == pytest.approx(ms), party
    widths = page.run("[...document.querySelectorAll('.phase > div > div')].map((one) => parseFloat(one.style.width))")
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert "we waited for the upstream. Longest phase: upstream_end" in page.text("#waterfall .why")


def test_a_traced_request_shows_its_batches(page: Tab, stand_in: StandIn) -> None:
    for _ in range(8):
        tick(page, stand_in)
    page.click("[data-kind=traced]")
    page.until(f"document.querySelector('{ROW}')")
    page.click(ROW)
    page.until("document.querySelector('#waterfall canvas')")
    trace = stand_in.figures.records[page.text("#waterfall-title")]["trace"]
    label = page.run("document.querySelector('#waterfall canvas').ariaLabel")
    assert label.startswith(f"Trace of {len(trace['spans'])} spans in 8 tracks.")
    page.run("document.querySelector('#waterfall canvas').focus()")
    page.press("+", "ArrowRight", "n", "n")
    value = page.text("#waterfall .readout")
    spans = [(start_us, us) for _, _, start_us, us, batch in trace["spans"] if batch == 2]
    begins_us, ends_us = min(spans)[0], max(start_us + us for start_us, us in spans)
    duration = "import('/latency/static/units.js').then(({ duration }) => duration(%s))"
    took, at = (page.run(duration % (us / 1000)) for us in (ends_us - begins_us, begins_us))
    assert value == f"batch 2: {took} at {at}"
    page.press("p", "p")
    assert page.text("#waterfall .readout").startswith("Wheel or + and")


def test_the_trace_is_saved(page: Tab, stand_in: StandIn, tmp_path: Path) -> None:
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click(ROW)
    page.until("document.querySelector('#waterfall .phase')")
    request_id = page.text("#waterfall-title")
    page.click("#save-trace")
    page.until("document.querySelector('#waterfall').innerText.includes('Saved: open it at ui.perfetto.dev.')")
    saved = tmp_path / f"{request_id}.pftrace"
    while not saved.exists():
        page.run("new Promise((resolve) => setTimeout(resolve, 20))")
    assert saved.read_bytes() == b"a trace"


def test_why_a_trace_cannot_be_made_is_said(page: Tab, stand_in: StandIn) -> None:
    stand_in.no_trace = "Perfetto traces need the package perfetto: pip install 'headrace[trace]'"
    page.click(ROW)
    page.until("document.querySelector('#waterfall .phase')")
    page.click("#save-trace")
    page.until("document.querySelector('#waterfall').innerText.includes('That failed')")
    assert f"That failed: {stand_in.no_trace}." in page.text("#waterfall")
    page.browser.events.clear()  # Chromium reports the 409


def test_why_names_what_was_ours(modules: Tab) -> None:
    record = finished("1", "2026-11-30T12:00:10.000Z", "OK", random.Random(1))
    record["total_ms"] = 1000.0
    ours = {"client": 0.0, "ours": 990.0, "upstream": 10.0}
    waiting: dict[str, Any] = {**record["lanes"]["decode_events"], "ready_ms": 900.0}
    stall = {"ts": "2026-11-30T12:00:09.900Z", "stage": "shout", "ms": 800.0}
    cases: list[tuple[dict[str, Any], list[Any], str]] = [
        ({"points_ms": {"head_read": 1.0, "admitted": 951.0, "ended": 1000.0}}, [], "queued for its turn"),
        ({"lanes": {"decode_events": waiting}}, [stall], "other requests; shout held it for 800 ms (900 ms)"),
        ({"stages": {"slow": {"busy_ms": 950.0, "flush_ms": 0.0, "outside_ms": 0.0}}}, [], "the stage slow worked"),
    ]
    for changed, stalls, expected in cases:
        given = json.dumps({**record, "party_ms": ours, "lanes": {}, "stages": {}, **changed})
        module = "import('/latency/static/phases.js')"
        why = modules.run(f"{module}.then(({{ whyOf }}) => whyOf({given}, {json.dumps(stalls)}))")
        assert why.startswith("990 ms of 1.00 s was ours: ")
        assert expected in why


def test_the_bottleneck_is_named(modules: Tab) -> None:
    link = {"name": "a>b", "batches": 10, "full": 0.4, "readyMs": 1, "queuedMs": 1}
    cases = {
        "b is the bottleneck: a waits 40 % of its time for room.": link,
        "The loop is busy: batches wait 30.0 ms for it in a>b.": {**link, "full": 0, "readyMs": 30},
        "Batches wait 30.0 ms in a>b: its taker is at work on others.": {**link, "full": 0, "queuedMs": 30},
        "No bottleneck: no giver waits for room, and batches hardly wait.": {**link, "full": 0},
    }
    for sentence, one in cases.items():
        module = "import('/latency/static/flow.js')"
        assert modules.run(f"{module}.then(({{ bottleneck }}) => bottleneck([{json.dumps(one)}]))") == sentence


def test_the_key_is_asked_for_and_checked(tab: Tab, stand_in: StandIn) -> None:
    tab.open(stand_in.url)
    tab.until("document.activeElement?.id === 'key'")
    tab.call("Input.insertText", text="sk-wrong")
    tab.press("Enter")
    tab.until("document.querySelector('#key-error').innerText")
    assert tab.text("#key-error") == "The service refuses this key: it needs the master key of its configuration."
    assert not tab.run("document.querySelector('#door').hidden")
    tab.call("Input.insertText", text=KEY)
    tab.press("Enter")
    tab.until(LIVE)
    assert tab.run("sessionStorage.getItem('headrace-key')") == KEY
    assert tab.run("localStorage.length") == 0
    tab.click("#forget")
    assert tab.run("sessionStorage.length") == 0
    assert tab.run("document.activeElement.id") == "key"


def test_a_key_in_the_fragment_leaves_the_address(page: Tab, stand_in: StandIn) -> None:
    assert page.run("location.href") == stand_in.url


def test_what_a_client_named_is_shown_as_text(page: Tab, stand_in: StandIn) -> None:
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
    slow = stand_in.figures.document["recent"]["slow"][0]
    for name in ("model", "deployment", "key", "error"):
        stand_in.figures.records[slow["request_id"]][name] = evil
    stand_in.change = lambda document: {**document, "recent": {**document["recent"], "slow": [{**slow, "model": evil}]}}
    tick(page, stand_in)
    assert page.run(f"document.querySelector('{ROW}').cells[3].textContent").startswith(evil)
    page.click(ROW)
    page.until("document.querySelector('#waterfall .phase')")
    assert evil in page.text("#waterfall .facts")
    assert page.run("document.querySelectorAll('img, #waterfall script').length") == 0
    assert page.run("window.hit") is None


def test_a_focused_row_keeps_the_focus_while_lists_change(page: Tab, stand_in: StandIn) -> None:
    slow = stand_in.figures.document["recent"]["slow"]
    page.run(f"document.querySelectorAll('{ROW}')[1].focus()")
    for order in ([*slow[1:], slow[0]], slow[1:3], [slow[2], slow[1]]):
        stand_in.change = lambda document, order=order: {**document, "recent": {"slow": order}}  # type: ignore[misc]
        tick(page, stand_in)
        assert page.run("document.activeElement.cells?.[1].title") == slow[1]["request_id"]


def test_it_can_be_used_by_keyboard(page: Tab, stand_in: StandIn) -> None:
    page.run("document.querySelector('#tab-slow').focus()")
    page.press("ArrowRight")
    assert page.run("document.activeElement.id") == "tab-failed"
    page.press("ArrowLeft", "Tab")
    assert page.run(f"document.activeElement === document.querySelector('{ROW}')")
    page.press("ArrowDown")
    assert page.run(f"document.activeElement === document.querySelectorAll('{ROW}')[1]")
    chosen = page.run("document.activeElement.cells[1].title")
    page.press("Enter")
    page.until("document.querySelector('#waterfall .phase')")
    assert page.text("#waterfall-title") == chosen
    page.press("z")
    assert page.run("document.querySelector('#zoom').ariaPressed") == "true"
    page.press("Escape")
    page.until("!document.querySelector('#waterfall').open")
    assert page.run(f"document.activeElement.matches('{ROW}')")
    page.press("?")
    page.until("document.querySelector('#help-text').open")
    page.press("Escape")
    page.until("!document.querySelector('#help-text').open")
    page.run("document.querySelector('#heat').focus()")
    page.press("ArrowLeft")
    assert "of that second" in page.text("#heat-value")
    page.press("w")
    assert page.text("#span") == "5 min"


def test_every_stop_of_the_tab_key_has_a_name_and_shows_where_it_is(page: Tab) -> None:
    page.run("document.activeElement.blur()")
    names: list[str] = []
    while True:
        page.press("Tab")
        if page.run("document.activeElement === document.body"):
            break  # past the last one
        name, outline = page.run(
            "[document.activeElement.ariaLabel || document.activeElement.innerText || document.activeElement.value,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert name, page.run("document.activeElement.outerHTML.slice(0, 200)")
        assert outline != "none", name
        names.append(name)
    assert names[0] == "Skip to the requests"
    assert len(set(names)) == len(names) >= 13


def test_colours_are_the_systems_or_chosen(page: Tab) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.run(background) == "rgb(243, 244, 246)"
    page.prefer(dark=True)
    page.until(f"{background} === 'rgb(15, 18, 22)'")
    page.press("t")
    assert page.text("#theme") == "light"
    assert page.run(background) == "rgb(243, 244, 246)"
    page.press("t")
    assert page.run(background) == "rgb(15, 18, 22)"


def test_nothing_is_wider_than_the_window(page: Tab) -> None:
    for width in (1280, 800):
        page.resize(width, 900)
        page.run("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
        assert page.run("document.documentElement.scrollWidth") <= width


def test_a_failing_service_is_reported_and_tried_again(page: Tab, stand_in: StandIn) -> None:
    stand_in.failing = 503
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.until("document.querySelector('#status').dataset.state === 'bad'")
    said = page.text("#status")
    assert said.startswith("Cannot reach the service since ")
    assert "the stand-in fails. Next try in " in said
    stand_in.failing = 0
    tick(page, stand_in)
    assert page.text("#status") == "live"
    page.browser.events.clear()  # Chromium reports each 503


def test_a_hidden_tab_reads_nothing(page: Tab, stand_in: StandIn) -> None:
    page.run("Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true })")
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    page.until("document.querySelector('#status').innerText === 'paused while this tab is hidden'")
    page.run("fetch('/latency/static/units.js').then((response) => response.text())")  # one on its way has arrived
    reads = stand_in.reads
    page.run("new Promise((resolve) => setTimeout(resolve, 1300))")
    assert stand_in.reads == reads
    page.run("delete document.visibilityState")
    tick(page, stand_in)


def test_a_restart_of_the_service_is_not_a_peak(page: Tab, stand_in: StandIn) -> None:
    seconds = stand_in.figures.seconds
    stand_in.figures = Figures(streams=40, seed=2)
    stand_in.figures.seconds = seconds + 5
    tick(page, stand_in)
    tick(page, stand_in)
    assert page.run(tile("in flight")) == "40"
    assert page.run("+document.querySelector('#parties-legend b[data-party=upstream]').innerText") == pytest.approx(
        40, abs=2
    )


def test_an_idle_service_says_what_to_do(page: Tab, stand_in: StandIn) -> None:
    nothing: dict[str, Any] = {"ended": {}, "in_flight": 0, "running": [], "stalls": [], "histograms": {}}
    nothing |= {"recent": {"slow": [], "failed": [], "cancelled": [], "stalled": []}, "party_s": {}, "lanes_s": {}}
    stand_in.change = lambda document: {**document, **nothing, "stages": {}, "links": {}}
    page.click("#forget")
    page.call("Input.insertText", text=KEY)
    page.press("Enter")
    page.until("!document.querySelector('#empty').hidden")
    tick(page, stand_in)
    origin = stand_in.url.removesuffix("/latency")
    assert page.text("#curl").startswith(f"curl -N {origin}/cursor/chat/completions")
    assert page.text("#request-none") == "No request was slow; all are under recent."
    assert page.text("#stalls-none") == "None: no stage has held the loop for more than 20 ms."


def test_running_requests_are_listed_and_followed_to_their_end(page: Tab, stand_in: StandIn) -> None:
    page.click("#tab-running")
    page.until(f"document.querySelectorAll('{ROW}').length === 20")
    assert page.text("#tab-running") == "running 40"
    page.click(ROW)
    page.until("document.querySelector('#waterfall').innerText.includes('It is running: it waits for upstream')")
    record = next(iter(stand_in.figures.records.values()))
    stand_in.figures.records[page.text("#waterfall-title")] = record
    page.until("document.querySelector('#waterfall .phase')")
    page.browser.events.clear()  # Chromium reports each 404


def test_two_thousand_streams_take_no_long_task(tab: Tab, stand_in: StandIn) -> None:
    stand_in.figures = Figures(streams=2000)
    for _ in range(20):
        stand_in.figures.tick()
    enter(tab, stand_in)
    tab.call("Performance.enable", timeDomain="threadTicks")
    before_s = task_s(tab)
    for _ in range(10):
        tick(tab, stand_in)
    assert (task_s(tab) - before_s) / 10 < 0.050  # CPU of the page's thread; also of the questions of this test
    assert len(json.dumps(stand_in.figures.document, separators=(",", ":"))) <= 20_000
    assert tab.problems() == []


def task_s(tab: Tab) -> float:
    """Return the CPU time of all tasks of the page so far."""
    metrics = {one["name"]: one["value"] for one in tab.call("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])
