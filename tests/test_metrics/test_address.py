"""``metrics_address``: the supervisor answers, whatever its workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit.clients.raw import RawClient
from kit.service.command import configured, headrace_serve

from pipeline.gateway.metrics.address import open_address


@pytest.mark.timeout(300)
async def test_metrics_address_answers_while_no_worker_does(tmp_path: Path) -> None:
    text = configured(
        "  - {model_name: echo, litellm_params: {model: canned/echo}}\n", "metrics_address: '127.0.0.1:0'"
    )
    async with headrace_serve(tmp_path, text, workers=2) as running:
        address = ("127.0.0.1", running.metrics_port)
        for number in (1, 2):
            os.kill(running.pid_of_worker(number), signal.SIGSTOP)
        try:
            async with await RawClient.open(address) as client:
                await client.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                answer = await client.read_answer()
                assert (answer.status, answer.headers["content-type"]) == (
                    200,
                    "text/plain; version=0.0.4; charset=utf-8",
                )
                assert b'headrace_resident_bytes{worker="2"}' in answer.body
                await client.send(b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n")
                answer = await client.read_answer()
                assert (answer.status, b"there is only /metrics here" in answer.body) == (404, True)
                await client.send(b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
                answer = await client.read_answer()
                assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        finally:
            for number in (1, 2):
                os.kill(running.pid_of_worker(number), signal.SIGCONT)
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit() == 0


def test_ipv6_addresses_are_in_brackets() -> None:
    with open_address("[::1]:0") as listener:
        assert listener.getsockname()[0] == "::1"


def test_an_address_that_cannot_be_bound_is_named() -> None:
    with open_address("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=f"metrics_address: cannot listen on 127.0.0.1 port {port}: Address already in use"
        ):
            open_address(f"127.0.0.1:{port}")


def test_a_supervisor_without_these_settings_loads_neither_a_server_nor_the_exporter() -> None:
    large = ("pipeline.gateway.http.server", "pipeline.gateway.metrics", "httptools", "hypercorn", "opentelemetry")
    code = f"import sys, pipeline.gateway.supervision; print([name for name in {large!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"
