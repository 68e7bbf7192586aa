"""What the chart makes is served by the real command: mounted as the kubelet does it, changed, and scraped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held, open_stream, read_body
from kit.clients.raw import RawClient
from kit.deploy.chart import NAMESPACE, ROOT, Rendered, helm, render
from kit.deploy.mounted import MountedVolume, files_of
from kit.metrics.prometheus import prometheus
from kit.needs import DEPLOY_TOOLS, PROMETHEUS, needs
from kit.service.command import Command, running_command
from kit.service.running import model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import ScriptedUpstream, scripted_upstream

pytestmark = [pytest.mark.deploy, needs(DEPLOY_TOOLS), pytest.mark.timeout(300)]

pytest.importorskip("watchfiles", reason="the extra `watch` is not installed")

MASTER, NEW_MASTER = "sk-first-master-key-0123456789", "sk-second-master-key-0123456789"
ECHO = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
OTHER = "  - {model_name: other, litellm_params: {model: canned/echo}}\n"
ADAPTER = ROOT / "deploy" / "prometheus" / "prometheus-adapter.values.yaml"
HERE = {"HEADRACE_HOST": "127.0.0.1", "HEADRACE_PORT": "0", "HEADRACE_METRICS_ADDRESS": "127.0.0.1:0"}
"""What differs from a pod: only this machine may ask, and several tests run at a time."""
PATIENT = {"HEADRACE_MAX_LAG_MS": "0"}
"""Nothing is refused because this machine is busy."""


def env_file(master: str, upstream: str) -> str:
    return f"HEADRACE_MASTER_KEY={master}\nUP_KEY={upstream}\n"


def values(upstream: ScriptedUpstream, more: str = "", **other: Any) -> dict[str, Any]:
    """Return values for a model that the upstream answers, and ``echo``."""
    models = model("up", upstream.url, api_key="os.environ/UP_KEY") + ECHO + more
    return {"configFile": f"model_list:\n{models}", **other}


@asynccontextmanager
async def pod(folder: Path, volume: MountedVolume, rendered: Rendered) -> AsyncIterator[Command]:
    """Run what the container runs, where its folder is that of the volume."""
    container = rendered.container
    (mount,) = (one["mountPath"] for one in container["volumeMounts"] if one["name"] == "config")
    arguments = [argument.replace(mount, str(volume.folder)) for argument in container["args"]]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **HERE, **PATIENT}
    config = volume.folder / "config.yaml"
    workers = int(rendered.config["pipeline_settings"]["workers"])
    async with running_command(folder, config, arguments, environ, workers=workers) as running:
        yield running


async def status_of(running: Command, name: str, key: str) -> int:
    async with await RawClient.open(("127.0.0.1", running.port)) as client:
        await client.send(post_bytes(ask(name, stream=False), key=key))
        return (await client.read_answer()).status


def bearers(upstream: ScriptedUpstream) -> list[str]:
    """Return the keys that the upstream got."""
    return [dict(request.headers)["authorization"].removeprefix("Bearer ") for request in upstream.requests]


async def test_the_files_that_init_writes_are_all_that_an_installation_needs(tmp_path: Path) -> None:
    """``--set-file configFile=config.yaml --set-file keys.envFile=headrace.env``, and then a streamed answer."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "pipeline.gateway",
        "init",
        "--provider",
        "openai",
        "--env-file",
        "--key-from",
        "-",
    ]
    subprocess.run(command, cwd=tmp_path, env=environ, input=b"sk-upstream-secret\n", capture_output=True, check=True)
    files = {"configFile": tmp_path / "config.yaml", "keys.envFile": tmp_path / "headrace.env"}
    given = helm().parse_set_file(",".join(f"{name}={file}" for name, file in files.items()))
    rendered = render(given)
    volume = MountedVolume(tmp_path / "config")
    volume.write(files_of(rendered, "config"))
    assert "OPENAI_API_KEY=sk-upstream-secret\n" in given["keys"]["envFile"]
    assert "WARNING" not in rendered.notes
    (master,) = re.findall(r"^HEADRACE_MASTER_KEY=(.+)$", given["keys"]["envFile"], re.MULTILINE)
    async with (
        pod(tmp_path, volume, rendered) as running,
        await RawClient.open(("127.0.0.1", running.port)) as client,
    ):
        await client.send(post_bytes(ask("headrace-echo"), key=master))
        answer = await client.read_answer()
        assert (answer.status, fold_stream(answer.body).is_done) == (200, True)


async def test_a_changed_release_is_served_without_a_restart_and_its_streams_end_whole(tmp_path: Path) -> None:
    """``helm upgrade`` with another model, another master key and another key of the upstream, while a stream runs."""
    held = Held()
    async with scripted_upstream(held) as upstream:
        before = render(values(upstream, keys={"envFile": env_file(MASTER, "sk-up-one")}))
        after = render(values(upstream, OTHER, keys={"envFile": env_file(NEW_MASTER, "sk-up-two")}))
        assert after.pod == before.pod, "Kubernetes would replace the pods"
        volume = MountedVolume(tmp_path / "config")
        volume.write(files_of(before, "config"))
        async with pod(tmp_path, volume, before) as running, AsyncExitStack() as stack:
            stream = await stack.enter_async_context(await open_stream(running.port, key=MASTER))
            assert await status_of(running, "other", MASTER) == 404

            volume.write(files_of(after, "config"))
            await running.logged(b"configuration reloaded: 3 models")
            assert await status_of(running, "other", NEW_MASTER) == 200
            assert await status_of(running, "echo", MASTER) == 401

            held.go.set()
            body = await read_body(stream)
            assert fold_stream(body).content == "Hello, you"
            assert body.rstrip().endswith(b"data: [DONE]")
            async with await open_stream(running.port, key=NEW_MASTER) as again:
                assert fold_stream(await read_body(again)).content == "Hello, you"
            assert bearers(upstream) == ["sk-up-one", "sk-up-two"]
            assert running.log.count(b"is up after") == 1


async def test_a_key_that_changes_in_an_existing_secret_is_noticed_alone(tmp_path: Path) -> None:
    """Nothing but the text of headrace.env changes, as by ``kubectl apply`` or an operator for secrets."""
    held = Held()
    held.go.set()
    async with scripted_upstream(held) as upstream:
        rendered = render(values(upstream, keys={"existingSecret": "ours", "existingSecretKey": "env"}))
        secrets = [{"ours": {"env": env_file(MASTER, key).encode()}} for key in ("sk-up-one", "sk-up-two")]
        volume = MountedVolume(tmp_path / "config")
        volume.write(files_of(rendered, "config", secrets=secrets[0]))
        async with pod(tmp_path, volume, rendered) as running:
            async with await open_stream(running.port, key=MASTER) as stream:
                await read_body(stream)
            volume.write(files_of(rendered, "config", secrets=secrets[1]))
            await running.logged(b"configuration reloaded")
            async with await open_stream(running.port, key=MASTER) as stream:
                await read_body(stream)
            assert bearers(upstream) == ["sk-up-one", "sk-up-two"]


async def test_a_release_with_a_mistake_changes_nothing_in_running_pods(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        keys = {"envFile": env_file(MASTER, "sk-up-one")}
        before = render(values(upstream, keys=keys))
        after = render(values(upstream, "pipeline_settings: {max_body_md: 5}\n", keys=keys))
        volume = MountedVolume(tmp_path / "config")
        volume.write(files_of(before, "config"))
        async with pod(tmp_path, volume, before) as running:
            volume.write(files_of(after, "config"))
            await running.logged(b"is invalid, so nothing changes")
            assert b"did you mean max_body_mb?" in running.log
            assert await status_of(running, "echo", MASTER) == 200


def test_check_config_says_nothing_bad_of_what_it_makes(tmp_path: Path) -> None:
    config = f"model_list:\n{model('up', 'https://up.example/v1', api_key='os.environ/UP_KEY')}"
    rendered = render({"configFile": config, "keys": {"envFile": env_file(MASTER, "sk-up-one")}})
    volume = MountedVolume(tmp_path / "config")
    volume.write(files_of(rendered, "config"))
    command = [sys.executable, "-m", "pipeline.gateway", "check-config", "--strict", str(volume.folder / "config.yaml")]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, "usable, 0 warnings" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def asked_by_adapter(rule: Mapping[str, Any], series: str, pods: Sequence[str]) -> str:
    """Return the query that prometheus-adapter sends for a metric of pods."""
    names = {"<<.Series>>": series, "<<.GroupBy>>": rule["resources"]["overrides"]["pod"]["resource"]}
    names["<<.LabelMatchers>>"] = f'namespace="{NAMESPACE}",pod=~"{"|".join(pods)}"'
    return re.sub(r"<<[^>]+>>", lambda found: names[found[0]], rule["metricsQuery"])


@needs(PROMETHEUS)
async def test_the_adapter_finds_the_metrics_by_which_pods_are_scaled(tmp_path: Path) -> None:
    """A real Prometheus scrapes two workers with three streams, with the labels that a ServiceMonitor leads to."""
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    held = Held()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(scripted_upstream(held))
        rendered = render(
            values(
                upstream,
                keys={"envFile": env_file(MASTER, "sk-up-one")},
                pipelineSettings={"workers": 2},
                autoscaling={"enabled": True},
                serviceMonitor={"enabled": True},
            )
        )
        scaled_by = [
            one["pods"]["metric"]["name"] for one in rendered.one("HorizontalPodAutoscaler")["spec"]["metrics"]
        ]
        volume = MountedVolume(tmp_path / "config")
        volume.write(files_of(rendered, "config"))
        running = await stack.enter_async_context(pod(tmp_path, volume, rendered))
        streams = [await stack.enter_async_context(await open_stream(running.port, key=MASTER)) for _ in range(3)]
        (endpoint,) = rendered.one("ServiceMonitor")["spec"]["endpoints"]
        job = {
            "job_name": "headrace",
            "metrics_path": endpoint["path"],
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{running.metrics_port}"],
                    "labels": {"namespace": NAMESPACE, "pod": "headrace-1"},
                }
            ],
        }
        scraping = await stack.enter_async_context(prometheus(tmp_path, job))
        await scraping.has_scraped("headrace")
        found: dict[str, dict[str, float]] = {}
        for rule in rules:
            assert await scraping.query(rule["seriesQuery"])
            series = rule["seriesQuery"].partition("{")[0]
            query = asked_by_adapter(rule, series, ["headrace-1", "headrace-2"])
            with patiently_with_processes():
                while not (values_of_pods := await scraping.query(query)):
                    await trio.sleep(0.05)
            found[series] = values_of_pods
        assert list(found) == scaled_by
        assert found["headrace_in_flight"] == {"headrace-1": 3}
        assert found["headrace_loop_lag_seconds"].keys() == {"headrace-1"}
        assert 0 <= found["headrace_loop_lag_seconds"]["headrace-1"] < 5
        held.go.set()
        for stream in streams:
            assert fold_stream(await read_body(stream)).content == "Hello, you"
