"""The state of deployments as the operator sees it, and background checks of it, through the real server."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask, failed_event, good_answer, response_of
from kit.service.running import CONFIG, KEY, Service, model, serving
from kit.time.patience import patiently
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import (
    Exchange,
    Received,
    Step,
    end,
    error,
    event,
    in_turn,
    json_answer,
    scripted_upstream,
    sse_head,
    stall,
)

from pipeline.gateway import cli
from pipeline.gateway.health_page import fetch_health
from pipeline.study.live import LiveError

LIMITED = "sk-limited-key-0123456789"
CHECKED = CONFIG.replace(
    "{{master_key: {key}}}",
    "{{master_key: {key}, background_health_checks: true, health_check_interval: 0.1}}",
)


async def endpoints(service: Service) -> dict[str, dict[str, Any]]:
    """Return what the page says of each deployment that is not embedded, and whether it is among the healthy ones."""
    page = (await service.get("/health")).json()
    assert page["healthy_count"] == len(page["healthy_endpoints"])
    assert page["unhealthy_count"] == len(page["unhealthy_endpoints"])
    found = {
        one["id"]: {**one, "is_healthy": name == "healthy_endpoints"}
        for name in ("healthy_endpoints", "unhealthy_endpoints")
        for one in page[name]
    }
    return {id: one for id, one in found.items() if not one["model"].startswith("canned/")}


async def state(service: Service, wanted: str, id: str = "up") -> dict[str, Any]:
    """Wait until a deployment is in a state, and return what the page says of it."""
    with patiently():
        while (found := (await endpoints(service))[id])["state"] != wanted:
            await trio.sleep(0.01)
    return found


# --- GET /health ------------------------------------------------------------------------------------------------------


async def test_the_page_has_what_this_worker_knows_of_each_deployment() -> None:
    async with (
        scripted_upstream(in_turn(good_answer(), [error(429, headers=[("retry-after", "50")])])) as upstream,
        serving(model("up", f"{upstream.url}/v1?secret=hunter2")) as service,
    ):
        host = upstream.url.removeprefix("http://")
        assert (await endpoints(service))["up"] == {
            "model_name": "up", "model": "openai/gpt-5", "id": "up", "api_base": host, "state": "unknown",
            "ejected_for_s": 0, "ejections": 0, "in_flight": 0, "latency_s": None, "last_minute": {},
            "is_healthy": True,
        }  # fmt: skip
        await service.post(ask())
        found = await state(service, "healthy")
        assert (found["last_minute"], found["in_flight"]) == ({"answered": 1}, 0)
        assert found["latency_s"] >= 0
        await service.post(ask())
        found = await state(service, "ejected")
        assert (found["is_healthy"], found["ejections"]) == (False, 1)
        assert 0 < found["ejected_for_s"] <= 50
        assert found["last_minute"] == {"answered": 1, "rate_limit": 1}
        page = await service.get("/health")
        assert (page.json()["worker"], page.json()["workers"]) == (os.getpid(), 1)
        assert "hunter2" not in page.text
        assert "sk-" not in page.text
        assert len(upstream.requests) == 2


async def test_the_page_is_for_the_master_key() -> None:
    async with serving() as service:
        for key, status, code in (
            (None, 401, "unauthorized"),
            ("sk-unknown-0123456789", 401, "unauthorized"),
            (LIMITED, 403, "master_key_required"),
        ):
            response = await service.get("/health", key=key)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert (await service.get("/health")).status_code == 200
        assert (await service.get("/health", method="POST")).status_code == 405
        assert (await service.get("/health/liveness", key=None)).status_code == 200


# --- headrace graph --url ---------------------------------------------------------------------------------------------


async def graph(config: Path, *arguments: str) -> int:
    """Run the command in a thread, so that the server of this test can answer it."""
    return await trio.to_thread.run_sync(cli.main, ["graph", str(config), *arguments])


def two_models(url: str) -> str:
    params = {"model": "openai/gpt-5", "api_base": url, "api_key": "sk-upstream-secret-0123456789"}
    return f"model_list:\n  - {json.dumps({'model_name': 'up', 'litellm_params': params})}\n" + (
        "  - {model_name: other, litellm_params: {model: canned/echo}}\n"
    )


async def test_the_command_shows_the_state_of_a_running_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = error(429, headers=[("retry-after", "50")])
    async with scripted_upstream(limited) as upstream, serving(model("up", upstream.url)) as service:
        await service.post(ask())
        (config := tmp_path / "c.yaml").write_text(
            two_models(upstream.url) + f"general_settings: {{master_key: {KEY}}}\n"
        )
        assert await graph(config, "--url", f"{service.url}/") == 0
        out, err = capsys.readouterr()
        lines = out.partition("\nmodels: ")[2].splitlines()
        assert f"  with their state, as worker process {os.getpid()} knows it" in lines
        host, known = upstream.url.removeprefix("http://"), "responses, then chat if the server does not know it"
        at = lines.index(f"    order 0, weight 1: openai/gpt-5 ({known}, at {host})")
        assert lines[at + 1].startswith("      ejected for ")
        assert lines[at + 1].endswith(" s more; 0 in flight; last minute: 1 rate_limit")
        assert lines[-1] == "      the server does not know it: it has another configuration"
        assert "sk-" not in out + err


@pytest.mark.parametrize("digest", [True, False])
async def test_the_key_may_come_from_an_option_or_from_the_environment(
    digest: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = two_models("http://127.0.0.1:1/v1")
    general = (
        "general_settings: {master_key: 'sha256:" + "0" * 64 + "'}\n"
        if digest
        else ("pipeline_settings: {keys: [{name: a, key: sk-another-key-0123456789}]}\n")
    )
    (config := tmp_path / "c.yaml").write_text(text + general)
    monkeypatch.delenv("HEADRACE_MASTER_KEY", raising=False)
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    async with serving() as service:
        assert await graph(config, "--url", service.url) == 2
        assert "set the environment variable HEADRACE_MASTER_KEY" in capsys.readouterr().err
        assert await graph(config, "--url", service.url, "--key", KEY) == 0
        monkeypatch.setenv("HEADRACE_MASTER_KEY", KEY)
        assert await graph(config, "--url", service.url) == 0


async def test_a_server_that_cannot_be_asked_is_an_error_that_says_why() -> None:
    async with serving() as service, scripted_upstream(json_answer({"hello": 1})) as stranger:
        for url, key, message in (
            (service.url, LIMITED, r"refuses the key \(status 403\): it needs the master key"),
            (service.url, "sk-unknown", r"refuses the key \(status 401\)"),
            ("http://127.0.0.1:1", KEY, r"cannot be reached \(Connection refused\): is the service running there"),
            ("127.0.0.1:4000", KEY, "is not a URL such as"),
            ("http://[::1", KEY, "is not a URL such as"),
            (stranger.url, KEY, "does not answer as headrace does"),
            (f"{service.url}/v1", KEY, "/v1/health"),
        ):
            with pytest.raises(LiveError, match=message):
                await trio.to_thread.run_sync(fetch_health, url, key)


async def test_a_server_that_does_not_answer_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.study.live.TIMEOUT_S", 0.05)
    async with scripted_upstream(stall()) as silent:
        with pytest.raises(LiveError, match="has not answered within"):
            await trio.to_thread.run_sync(fetch_health, silent.url, KEY)


# --- background checks ------------------------------------------------------------------------------------------------

DOCUMENTS = {
    "openai/gpt-5": json.dumps(response_of("pong")).encode(),
    "deepseek/deepseek-chat": chat_stream.document({"content": "pong"}),
    "anthropic/claude-sonnet-4-5": anthropic_stream.document({"type": "text", "text": "pong"}),
}


def limit_of(request: Received) -> Any:
    body = request.json()
    return next(body[name] for name in ("max_output_tokens", "max_completion_tokens", "max_tokens") if name in body)


@pytest.mark.parametrize("upstream_model", DOCUMENTS)
async def test_each_deployment_is_asked_by_its_own_api(upstream_model: str) -> None:
    async with (
        scripted_upstream(error(200, DOCUMENTS[upstream_model], content_type="application/json")) as upstream,
        serving(model("up", upstream.url, upstream=upstream_model), config=CHECKED) as service,
    ):
        request = await upstream.request_received()
        assert (limit_of(request), request.json().get("stream")) in ((16, None), (16, False))
        assert request.json()["model"] == upstream_model.partition("/")[2]
        found = await state(service, "healthy")
        assert (found["latency_s"], found["in_flight"]) == (None, 0)
        assert found["last_minute"].keys() == {"answered"}
        await upstream.request_received(2)
        assert len({id(one.connection) for one in upstream.requests[:3]}) == 1
        assert service.records == []


async def test_a_check_ejects_and_brings_back_with_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace")
    is_good = False

    async def answer(exchange: Exchange) -> None:
        refusal = error(401, b"sk-upstream-secret-0123456789")
        await exchange.send(json_answer(response_of("pong")) if is_good else refusal)

    async with (
        scripted_upstream(answer) as upstream,
        serving(model("up", upstream.url), config=CHECKED.replace("num_retries: 0", "cooldown_time: 60")) as service,
    ):
        await state(service, "ejected")
        await upstream.request_received(2)
        is_good = True
        found = await state(service, "healthy")
        assert (found["last_minute"].keys(), found["ejections"]) == ({"answered"}, 1)
        await service.post(ask(stream=False))
    lines = [record.message for record in caplog.records if "deployment up" in record.message]
    assert lines == [
        "deployment up is left out for 60 s after upstream_unauthorized (ejection 1 in a row)",
        "deployment up answers again",
    ]
    assert "sk-" not in caplog.text


@pytest.mark.parametrize(
    "script",
    [(json_answer({"error": {"message": "no", "code": "server_error"}}),),
     (sse_head(), event(failed_event("server_error", "no")), end())],
    ids=["document", "stream"],
)  # fmt: skip
async def test_a_failure_in_a_good_head_is_a_failure(script: tuple[Step, ...]) -> None:
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url), config=CHECKED) as service,
    ):
        assert "answered" not in (await state(service, "ejected"))["last_minute"]


async def test_what_is_switched_off_embedded_or_a_wildcard_is_not_asked() -> None:
    async with scripted_upstream(json_answer(response_of("pong"))) as upstream:

        def entry(name: str, upstream_model: str, **info: Any) -> str:
            params = {"model": upstream_model, "api_base": f"{upstream.url}/{name.strip('/*')}", "api_key": "k"}
            return f"  - {json.dumps({'model_name': name, 'litellm_params': params, 'model_info': info})}\n"

        models = (
            entry("off", "openai/gpt-5", disable_background_health_check=True)
            + entry("wild/*", "openai/*")
            + entry("named/*", "openai/*", health_check_model="openai/gpt-5-nano")
            + entry("plain", "openai/gpt-5")
        )
        async with serving(models, config=CHECKED):
            await upstream.request_received(5)
    assert {(one.path, one.json()["model"]) for one in upstream.requests} == {
        ("/named/responses", "gpt-5-nano"),
        ("/plain/responses", "gpt-5"),
    }


async def test_a_check_that_runs_ends_at_once_with_the_server() -> None:
    async with scripted_upstream(stall()) as upstream:
        async with serving(model("up", upstream.url), config=CHECKED) as service:
            await upstream.request_received()
            service.shutdown.set()
            with patiently():
                await service.ended.wait()
        await upstream.connection_closed()


async def test_without_the_setting_nothing_is_asked() -> None:
    async with (
        scripted_upstream(json_answer(response_of("pong"))) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        assert service.app._health_checks is None
        assert upstream.requests == []
