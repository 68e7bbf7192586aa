"""The page at ``/latency`` of a real service with two workers: it shows what they have counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from kit.needs import CHROMIUM, needs
from kit.page.browser import chromium
from kit.service.command import configured, headrace_serve
from kit.service.running import KEY, PLAIN

pytestmark = [needs(CHROMIUM), pytest.mark.timeout(300)]

REQUESTS = 6
AGENT = "  - {model_name: agent, litellm_params: {model: canned/agent}}\n"
ROW = "#request-list tbody tr"


async def test_it_shows_the_requests_of_all_workers(tmp_path: Path) -> None:
    async with headrace_serve(tmp_path, configured(AGENT), workers=2) as command:
        seen = await trio.to_thread.run_sync(look_at, command.port)
    assert seen["ids"] == seen["sent"]
    assert sum(seen["phases"]) == pytest.approx(seen["record"]["total_ms"])
    assert len(seen["phases"]) == len(seen["record"]["points_ms"])
    assert seen["problems"] == []


def look_at(port: int) -> dict[str, Any]:
    """Open the page, send requests, and return what the page shows of them."""
    with chromium() as browser, browser.tab() as tab:
        tab.open(f"http://127.0.0.1:{port}/latency#key={KEY}")
        tab.until("document.querySelector('#empty')?.hidden === false")
        sent = sorted(send(port) for _ in range(REQUESTS))
        tab.click("#tab-recent")
        tab.until(f"document.querySelectorAll('{ROW}').length === {REQUESTS}")
        tab.until("document.querySelector('#links tbody tr')")
        ids = sorted(tab.run(f"[...document.querySelectorAll('{ROW}')].map((row) => row.cells[1].title)"))
        tab.click(ROW)
        tab.until("document.querySelector('#waterfall .phase')")
        return {
            "sent": sent,
            "ids": ids,
            "phases": tab.run("[...document.querySelectorAll('.phase')].map((row) => +row.dataset.ms)"),
            "record": get(port, f"/latency/requests/{tab.text('#waterfall-title')}").json(),
            "problems": tab.problems(),
        }


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
