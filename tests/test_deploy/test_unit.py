"""The unit under systemd itself, which is process 1 of a machine of its own, with the commands of docs/deploying.md."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kit.deploy.sandbox_probe as sandbox_probe
import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held, open_stream
from kit.clients.raw import RawClient
from kit.deploy.unit import PAUSE_S, UNIT, Machine, Service, booted, fresh_service
from kit.needs import SYSTEMD, SYSTEMD_BOOT, needs
from kit.service.command import configured
from kit.service.running import KEY, model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import scripted_upstream

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

EXPOSURE = 1.2
"""What ``systemd-analyze security`` makes of the unit, from 0 to 10; nothing may raise it."""
ECHO = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
STORE = "restore_reasoning: true, reasoning_store: sqlite, reasoning_store_file: /var/lib/headrace/reasoning.db"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture
async def service(machine: Machine) -> AsyncIterator[Service]:
    async with fresh_service(machine) as service:
        yield service


async def answered(port: int, model: str) -> int:
    """Ask for a short answer; return its status."""
    async with await RawClient.open(("127.0.0.1", port)) as client:
        await client.send(post_bytes(ask(model, stream=False)))
        return (await client.read_answer()).status


@needs(SYSTEMD)
def test_its_exposure_does_not_grow() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", "--no-pager"]
    ran = subprocess.run([*command, UNIT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"Overall exposure level for headrace.service: {EXPOSURE} OK" in ran.stdout
    assert "unit" not in ran.stderr.lower(), ran.stderr


@needs(SYSTEMD_BOOT)
async def test_systemd_finds_nothing_to_complain_about(machine: Machine) -> None:
    assert await machine.run("systemd-analyze", "verify", "headrace.service") == ""


@needs(SYSTEMD_BOOT)
async def test_start_returns_when_it_serves_and_reload_and_stop_cut_no_stream(service: Service) -> None:
    held = Held()
    async with scripted_upstream(held) as upstream:
        up = model("up", upstream.url)
        service.configure(configured(up, f"workers: 2, {STORE}"))
        await service.systemctl("start")
        port = await service.port()
        assert await answered(port, "echo") == 404
        assert 'Status: "1 model, 2 workers"' in await service.systemctl("status")

        client = await open_stream(port)
        async with client, trio.open_nursery() as nursery:
            await client.read_until(b"Hello, ")

            service.configure(configured(up + ECHO, f"workers: 2, {STORE}"))
            await service.systemctl("reload")
            await service.reached(ActiveState="active", StatusText="2 models, 2 workers")
            with patiently_with_processes():
                while await answered(port, "echo") != 200:
                    await trio.sleep(PAUSE_S)

            nursery.start_soon(service.systemctl, "stop")
            await service.reached(ActiveState="deactivating", StatusText="draining")
            held.go.set()
            assert b"[DONE]" in await client.read_until(LAST_CHUNK)
        state = await service.state()
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("inactive", "success", "0")


@needs(SYSTEMD_BOOT)
async def test_a_drain_may_take_longer_than_the_unit_says_if_the_configuration_says_so(service: Service) -> None:
    await service.override("TimeoutStopSec=1")
    held = Held()
    async with scripted_upstream(held) as upstream:
        service.configure(configured(model("up", upstream.url), "keep_alive_interval_s: 0.5"))
        await service.systemctl("start")
        client = await open_stream(await service.port())
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(service.systemctl, "stop")
            await service.reached(ActiveState="deactivating")
            for _ in range(5):  # more than two seconds
                await client.read_until(b": keepalive")
            held.go.set()
            assert b"[DONE]" in await client.read_until(LAST_CHUNK)
        assert (await service.state())["Result"] == "success"


@needs(SYSTEMD_BOOT)
async def test_a_reload_of_an_invalid_configuration_fails_and_changes_nothing(service: Service) -> None:
    service.configure(configured(ECHO))
    await service.systemctl("start")
    service.configure(configured(ECHO, "prot: 4100"))
    status, _ = await service.machine.attempt("systemctl", "reload", "headrace")
    assert status == 1
    assert "pipeline_settings.prot: is not a setting; did you mean port?" in await service.log()
    assert (await service.state())["ActiveState"] == "active"
    assert await answered(await service.port(), "echo") == 200


@needs(SYSTEMD_BOOT)
async def test_a_start_with_an_invalid_configuration_fails_and_is_not_tried_again(service: Service) -> None:
    service.configure("model_list: 3\n")
    status, printed = await service.machine.attempt("systemctl", "start", "headrace")
    assert (status, "journalctl -xeu headrace.service" in printed) == (1, True)
    state = await service.state()
    assert (state["ActiveState"], state["ExecMainStatus"], state["NRestarts"]) == ("failed", "2", "0")
    assert "config.yaml:1: model_list: found 3" in await service.log()


@needs(SYSTEMD_BOOT)
async def test_a_supervisor_that_is_killed_is_started_again(service: Service) -> None:
    await service.override("RestartSec=10ms")
    service.configure(configured(ECHO))
    await service.systemctl("start")
    before = await service.state()
    await service.systemctl("kill", "--kill-whom=main", "--signal=KILL")
    after = await service.reached(NRestarts="1", ActiveState="active", SubState="running")
    assert after["MainPID"] != before["MainPID"]
    assert await answered(await service.port(), "echo") == 200


@needs(SYSTEMD_BOOT)
async def test_the_service_reaches_what_it_needs_and_nothing_more(service: Service) -> None:
    """A token command tries it: it is a process of the service, as workers are."""
    shutil.copy(sandbox_probe.__file__, service.machine.root / "opt/probe.py")
    (service.machine.root / "tmp/of-others").touch()
    token_command = "/opt/headrace/bin/python /opt/probe.py /var/lib/headrace/probe.json"
    service.configure(
        f"model_list:\n{ECHO}"
        f"  - {{model_name: up, litellm_params: {{model: openai/m, token_command: {token_command}}}}}\n"
        f"general_settings: {{master_key: {KEY}}}\npipeline_settings: {{port: 0, host: 127.0.0.1, {STORE}}}\n"
    )
    await service.systemctl("start")
    found: dict[str, Any] = json.loads((service.machine.root / "var/lib/headrace/probe.json").read_text())
    uid = (service.machine.root / "var/lib/headrace").stat().st_uid
    read_only, not_permitted = "Read-only file system", "Operation not permitted"
    assert found == {
        **dict.fromkeys(map("write {}".format, ("/", "/etc", "/etc/headrace", "/opt/headrace", "/usr")), read_only),
        "write /var/lib": read_only,
        "write /var/lib/headrace": "ok",
        "write /tmp": "ok",
        "files in /tmp": [],
        "list /home": "Permission denied",
        "list /root": "Permission denied",
        "devices": ["null"],
        "/proc/sys": False,
        "users of processes": [uid],
        "uid": uid,
        "home": "/var/lib/headrace",
        "umask": "0o77",
        "core files": [0, 0],
        "no new privileges": "1",
        "has capabilities": False,
        "AF_INET": "ok",
        "AF_INET6": "ok",
        "localhost": "ok",
        **dict.fromkeys(("AF_PACKET", "AF_NETLINK"), "Address family not supported by protocol"),
        **dict.fromkeys(("write and execute", "chown", "chroot", "nice", "set-user-id file"), not_permitted),
        "notify socket": None,
    }
    assert {path.name for path in (service.machine.root / "var/lib/headrace").iterdir()} >= {"reasoning.db"}
    assert await answered(await service.port(), "echo") == 200
    assert "has failed" not in await service.log()
