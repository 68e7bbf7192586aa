"""The page at ``/latency`` of a real service with two workers: it shows what they have counted and traced."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from kit.needs import CHROMIUM, needs
from kit.page.browser import Tab
from kit.service.command import configured, headrace_serve
from kit.service.running import KEY, PLAIN

pytestmark = [needs(CHROMIUM), pytest.mark.timeout(300)]

REQUESTS = 6
AGENT = "  - {model_name: agent, litellm_params: {model: canned/agent}}\n"
ROW = "#request-list tbody tr"
TRACK_PX = 17


async def test_it_shows_the_requests_of_all_workers_and_their_traces(tab: Tab, tmp_path: Path) -> None:
    broken = tmp_path / "packages" / "perfetto"  # for the server the extra is missing as long as this is there
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError")
    text = configured(AGENT, "trace_one_in: 1")
    async with headrace_serve(tmp_path, text, workers=2, packages=[broken.parent]) as command:
        await trio.to_thread.run_sync(look_at, tab, command.port)
        await trio.to_thread.run_sync(save_traces, tab, broken)
    assert tab.problems() == []


def look_at(tab: Tab, port: int) -> None:
    """Open the page, send requests, and compare what it shows of them with their records."""
    tab.open(f"http://127.0.0.1:{port}/latency#key={KEY}")
    tab.until("document.querySelector('#empty')?.hidden === false")
    sent = sorted(send(port) for _ in range(REQUESTS))
    tab.click("#tab-traced")
    tab.until(f"document.querySelectorAll('{ROW}').length === {REQUESTS}")
    tab.until("document.querySelector('#links tbody tr')")
    assert sorted(tab.run(f"[...document.querySelectorAll('{ROW}')].map((row) => row.cells[1].title)")) == sent
    tab.click(ROW)
    tab.until("document.querySelector('#waterfall .phase')")
    record = get(port, f"/latency/requests/{tab.text('#waterfall-title')}").json()
    phases_ms = tab.run("[...document.querySelectorAll('.phase')].map((row) => +row.dataset.ms)")
    assert len(phases_ms) == len(record["points_ms"])
    assert sum(phases_ms) == pytest.approx(record["total_ms"])
    look_at_trace(tab, record)


def look_at_trace(tab: Tab, record: dict[str, Any]) -> None:
    """Compare the view of each batch with the spans of the record: point at the longest wait for the upstream."""
    trace = record["trace"]
    tracks = [f"lane {name}" for name in trace["lanes"]] + trace["stages"]
    tracks += [trace["links"][index] for index in sorted({span[1] for span in trace["spans"] if span[0] >= 10})]
    canvas = "document.querySelector('#waterfall canvas')"
    label = tab.run(f"{canvas}.ariaLabel")
    assert label.startswith(f"Trace of {len(trace['spans'])} spans in {len(tracks)} tracks.")
    lane = trace["lanes"].index("call_upstream")
    outside = [(start_us, us) for kind, index, start_us, us, _ in trace["spans"] if (kind, index) == (4, lane)]
    start_us, us = max(outside, key=lambda span: span[1])
    left = tab.run(f"import('/latency/static/spans.js').then(({{ xOf }}) => xOf({start_us + us / 2}, 0, "
        f"{1000 * record['total_ms']}, {canvas}.clientWidth))")  # fmt: skip
    tab.run(f"{canvas}.scrollIntoView()")
    box = tab.run(f"{canvas}.getBoundingClientRect().toJSON()")
    tab.move(box["x"] + left, box["y"] + TRACK_PX * (lane + 0.5))
    shown = tab.text("#waterfall .readout")
    assert shown.startswith("lane call_upstream: outside ")
    ms = "import('/latency/static/units.js').then(({ duration }) => duration(%s))"
    assert tab.run(ms % (us / 1000)) in shown
    assert tab.run(ms % (start_us / 1000)) in shown


def save_traces(tab: Tab, broken: Path) -> None:
    """Save the trace of the request that is shown, first without the extra ``trace`` and then with it."""
    folder = broken.parent.parent / "saved"
    tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    tab.click("#save-trace")
    tab.until("document.querySelector('#waterfall').innerText.includes('That failed: ')")
    assert "need the package perfetto: pip install 'headrace[trace]'; it is missing" in tab.text("#waterfall")
    tab.browser.events.clear()  # Chromium reports the 409
    if importlib.util.find_spec("perfetto") is None:
        return
    shutil.rmtree(broken)
    tab.click("#save-trace")
    tab.until("document.querySelector('#waterfall').innerText.includes('Saved: open it at ui.perfetto.dev.')")
    saved = folder / f"{tab.text('#waterfall-title')}.pftrace"
    while not saved.exists():
        tab.run("new Promise((resolve) => setTimeout(resolve, 20))")
    protos = importlib.import_module("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    packets = protos.Trace.FromString(saved.read_bytes()).packet
    assert sum(packet.HasField("track_event") for packet in packets) > 100


def get(port: int, path: str) -> httpx.Response:
    """Request a page with the key."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(trust_env=False, verify=PLAIN, timeout=30) as client:
        return client.get(f"http://127.0.0.1:{port}{path}", headers=headers)


def send(port: int) -> str:
    """Send one request, and return its id."""
    body = {"model": "agent", "input": "hi", "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(trust_env=False, verify=PLAIN, timeout=30) as client:
        response = client.post(f"http://127.0.0.1:{port}/cursor/chat/completions", json=body, headers=headers)
    assert response.status_code == 200
    return response.headers["x-request-id"]
