"""What all upstreams share: the file descriptors of the process, and the system's resolver."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from kit.clients.chat_posts import ask, good_answer, post_bytes
from kit.clients.raw import Answer, RawClient
from kit.service.descriptors import no_descriptors
from kit.service.running import Service, model, serving
from kit.time.patience import PATIENCE_S, PROCESSES_S, patiently
from kit.upstreams.scripted import scripted_upstream


async def post(service: Service, name: str = "up") -> Answer:
    async with await RawClient.open(("127.0.0.1", service.port)) as client:
        await client.send(post_bytes(ask(name)))
        return await client.read_answer()


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_row_73_without_a_descriptor_for_the_upstream_the_gateway_is_overloaded(transport: str) -> None:
    """No file descriptor is left for a connection to the upstream: 503 `overloaded`, and its health does not suffer."""
    pipeline = f"  transport: {transport}"
    async with scripted_upstream(*good_answer()) as up, serving(model("up", up.url), pipeline) as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.ask(path="/livez")
            await client.send(post_bytes(ask()))
            with no_descriptors():
                answer = await client.read_answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            error = json.loads(answer.body)["error"]
            assert error["code"] == "overloaded"
            assert "limit of open files" in error["message"]
            assert "api_base" not in error["message"]
            record = await service.record()
            assert (record["end"], record["error"]) == ("OV", "overloaded")
            [health] = [
                one for one in (await service.get("/health")).json()["healthy_endpoints"] if one["model_name"] == "up"
            ]
            assert (health["state"], health["last_minute"].get("unavailable", 0)) == ("unknown", 0)
            await client.send(post_bytes(ask()))
            assert (await client.read_answer()).status == 200


@pytest.mark.timeout(300)
def test_row_73_a_limit_of_open_files_below_max_connections_is_a_warning_at_the_start(tmp_path: Path) -> None:
    """If the hard limit of open files is too low for `max_connections`, a warning at the start says what to do."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "model_list:\n  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
        "general_settings: {master_key: sk-files-test-0123456789abcdef}\n"
        "pipeline_settings: {max_connections: 200, host: 127.0.0.1}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends at once
        serve = ["-m", "pipeline.gateway", "serve", "--config", str(config), "--port", str(taken.getsockname()[1])]
        limited = 'ulimit -Sn 200 && ulimit -Hn 400 && exec "$@"'
        command = ["sh", "-c", limited, "sh", sys.executable, *serve]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PROCESSES_S, check=False)
    assert "the limit of open files was 200 and is now 400" in ran.stderr
    assert "at most 400 files may be open, but max_connections: 200 can need 464: raise the limit" in ran.stderr
    assert "or set max_connections to at most 168" in ran.stderr


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
async def test_row_85_a_dead_resolver_of_one_upstream_leaves_the_others_alone(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the resolver does not answer for one upstream, its requests wait in one thread; others are served."""
    resolves = socket.getaddrinfo
    stuck = threading.Event()
    asked: list[str] = []

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".example") or more.get("flags"):
            return resolves(host, *rest, **more)
        asked.append(host)
        if host == "dead.example":
            stuck.wait(2 * PATIENCE_S)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return resolves("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with scripted_upstream(*good_answer()) as up:
        url = up.url.replace("127.0.0.1", "good.example")
        models = model("up", url) + model("dead", url.replace("good", "dead"))
        async with serving(models, f"  transport: {transport}") as service, trio.open_nursery() as nursery:
            for _ in range(60):  # more than trio has threads
                nursery.start_soon(post, service, "dead")
            with patiently():
                while len(service.app.bridge.active) < 60 or not asked:
                    await trio.sleep(0.01)
            for _ in range(3):
                assert (await post(service)).status == 200
            nursery.cancel_scope.cancel()
        assert sorted(asked) == ["dead.example", "good.example"]
        assert [record["end"] for record in service.records].count("OK") == 3
    stuck.set()
