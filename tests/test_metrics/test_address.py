"""``metrics_address``: the supervisor answers, whatever its workers do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held, open_stream
from kit.clients.raw import Answer, RawClient
from kit.service.command import ROOT, Command, configured, headrace_serve
from kit.service.running import KEY, model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import scripted_upstream

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.metrics.address import open_address

pytestmark = pytest.mark.timeout(300)  # processes


CANNED = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
ADDRESS = "metrics_address: '127.0.0.1:0'"
LIMITED = "sk-limited-key-0123456789"
NEW_KEY = "sk-new-master-key-0123456789"


@contextmanager
def stopped(running: Command) -> Generator[None]:
    """Stop both workers; the supervisor gives them 5 s."""
    for number in (1, 2):
        os.kill(running.pid_of_worker(number), signal.SIGSTOP)
    try:
        yield
    finally:
        for number in (1, 2):
            os.kill(running.pid_of_worker(number), signal.SIGCONT)


async def get(running: Command, path: str, key: str | None = KEY, method: str = "GET") -> Answer:
    """Ask ``metrics_address``."""
    headers = "" if key is None else f"authorization: Bearer {key}\r\n"
    async with await RawClient.open(("127.0.0.1", running.metrics_port)) as client:
        return await client.ask(method, path, headers=headers)


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["error"]["code"])


async def test_metrics_address_answers_while_no_worker_does(tmp_path: Path) -> None:
    text = configured(CANNED, f"{ADDRESS}, metrics: false, keys: [{{name: limited, key: {LIMITED}}}]")
    async with headrace_serve(tmp_path, text, workers=2) as running:
        with stopped(running):
            metrics = await get(running, "/metrics", key=None)
            assert (metrics.status, metrics.headers["content-type"]) == (
                200,
                "text/plain; version=0.0.4; charset=utf-8",
            )
            assert b'headrace_resident_bytes{worker="2"}' in metrics.body
            page = await get(running, "/latency", key=None)
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            for path in ("/latency/now", "/latency/records", "/latency/running", "/latency/requests/x/trace"):
                for key, status, code in (
                    (None, 401, "unauthorized"),
                    (LIMITED, 403, "master_key_required"),
                ):
                    answer = await get(running, path, key)
                    assert (answer.status, code_of(answer)) == (status, code), path
            now = json.loads((await get(running, "/latency/now")).body)
            assert [(one["worker"], one["alive"]) for one in now["workers"]] == [(1, True), (2, True)]
            for path in ("/", "/other", "/health", "/v1/models", "/latency/static/../../keys.py"):
                answer = await get(running, path)
                assert (answer.status, code_of(answer)) == (404, "route_not_found"), path
            answer = await get(running, "/metrics", method="POST")
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
            since = trio.current_time()
            for _ in range(4):
                assert (await get(running, "/latency/now", "sk-wrong-key-0123456789")).status == 401
            assert trio.current_time() - since > 0.2  # the fourth
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit() == 0
        assert KEY.encode() not in running.log


async def test_the_live_commands_work_while_no_worker_does(tmp_path: Path) -> None:
    held = Held()
    async with scripted_upstream(held) as upstream:
        text = configured(CANNED + model("up", upstream.url), f"{ADDRESS}, recorder_mb: 1")
        async with headrace_serve(tmp_path, text, workers=2) as running:
            async with await RawClient.open(("127.0.0.1", running.port)) as client:
                await client.send(post_bytes({**ask("echo", stream=False), "input": "hi"}))
                assert (await client.read_answer()).status == 200
            streams = [await open_stream(running.port) for _ in range(8)]
            with patiently_with_processes():
                while len(json.loads((await get(running, "/latency/running")).body)) < len(streams):
                    await trio.sleep(0.05)
            said = dict[str, str]()

            async def command(*arguments: str) -> None:
                url = f"http://127.0.0.1:{running.metrics_port}"
                ran = await trio.run_process(
                    [sys.executable, "-m", "pipeline.gateway", *arguments, "--url", url],
                    capture_stdout=True,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_MASTER_KEY": KEY},
                )
                said[arguments[0] + arguments[1]] = ran.stdout.decode()

            with stopped(running), patiently_with_processes():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(command, "top", "--once", "--json", "--interval", "0.2")
                    nursery.start_soon(command, "why", "--slowest")
                    nursery.start_soon(command, "why", "--now", "--json")
            assert json.loads(said["top--once"])["in_flight"] == len(streams)
            assert said["why--slowest"].startswith("request ")
            assert {one["waits_for"] for one in json.loads(said["why--now"])} == {"upstream"}
            held.go.set()
            for stream in streams:
                stream.close()


async def test_a_reload_changes_its_master_key(tmp_path: Path) -> None:
    text = configured(CANNED, ADDRESS)
    async with headrace_serve(tmp_path, text, workers=1) as running:
        assert (await get(running, "/latency/now", NEW_KEY)).status == 401
        running.config.write_text("general_settings: {master_key: 5}\n")
        running.process.send_signal(signal.SIGHUP)
        await running.logged(b"the configuration is invalid")
        assert (await get(running, "/latency/now")).status == 200
        running.config.write_text(text.replace(KEY, NEW_KEY))
        running.process.send_signal(signal.SIGHUP)
        await running.logged(b"configuration reloaded")
        assert (await get(running, "/latency/now", NEW_KEY)).status == 200
        assert (await get(running, "/latency/now")).status == 401
        running.config.write_text(
            text.replace(f"general_settings: {{master_key: {KEY}}}\n", "").replace(
                "max_lag_ms: 0", "max_lag_ms: 0, allow_anonymous: true"
            )
        )
        running.process.send_signal(signal.SIGHUP)
        await running.logged(b"configuration reloaded", times=2)
        answer = await get(running, "/latency/now", NEW_KEY)
        assert (answer.status, code_of(answer)) == (404, "route_not_found")
        assert (await get(running, "/metrics", key=None)).status == 200


def test_ipv6_addresses_are_in_brackets() -> None:
    with open_address("[::1]:0") as listener:
        assert listener.getsockname()[0] == "::1"


def test_an_address_that_cannot_be_bound_is_named() -> None:
    with open_address("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CommandError, match=f"metrics_address: cannot listen on 127.0.0.1 port {port}, which another program uses"
        ):
            open_address(f"127.0.0.1:{port}")


def test_a_supervisor_without_these_settings_loads_neither_a_server_nor_the_exporter() -> None:
    large = ("pipeline.gateway.http.server", "pipeline.gateway.metrics", "httptools", "hypercorn", "opentelemetry")
    code = f"import sys, pipeline.gateway.supervision; print([name for name in {large!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"
