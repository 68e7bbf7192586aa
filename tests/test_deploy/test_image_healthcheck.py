"""The image's health check, run here against a service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from kit.service.certificates import issue
from kit.service.running import serving
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import error, scripted_upstream, stall

HEALTHCHECK = Path(__file__).parents[2] / "deploy" / "docker" / "healthcheck.py"

pytestmark = pytest.mark.timeout(300)  # processes


async def check(port: int | str, variable: str = "HEADRACE_PORT") -> subprocess.CompletedProcess[bytes]:
    """Run the health check as the image does, for this port."""
    environ = {name: value for name, value in os.environ.items() if name not in ("HEADRACE_PORT", "PORT")}
    with patiently_with_processes():
        return await trio.run_process(
            [sys.executable, "-I", "-S", str(HEALTHCHECK)],
            env={**environ, variable: str(port)},
            capture_stderr=True,
            check=False,
        )


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("variable", ["PORT", "HEADRACE_PORT"])
async def test_a_service_is_healthy_on_the_port_that_a_variable_names(variable: str) -> None:
    async with serving() as service:
        assert (await check(service.port, variable)).returncode == 0


async def test_a_service_with_tls_is_healthy_whoever_has_signed_its_certificate(tmp_path: Path) -> None:
    async with serving(certificate=issue(tmp_path)) as service:
        assert (await check(service.port)).returncode == 0


async def test_a_service_that_drains_is_healthy() -> None:
    async with serving(pipeline="  shutdown_delay_s: 60") as service:
        service.shutdown.set()
        with patiently_with_processes():
            while (await service.get("/readyz")).status_code != 503:
                await trio.sleep(0.01)
        assert (await check(service.port)).returncode == 0


async def test_another_answer_is_not_healthy_and_is_shown() -> None:
    async with scripted_upstream(error(503, b"no")) as other:
        ran = await check(port_of(other.url))
        assert ran.returncode == 1
        assert b"answers /livez with b'HTTP/1.1 503" in ran.stderr


async def test_a_port_on_which_nothing_listens_is_not_healthy() -> None:
    async with scripted_upstream(stall()) as other:
        port = port_of(other.url)
    ran = await check(port)
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"port %d does not answer: " % port)


@pytest.mark.parametrize("port", ["tcp://10.0.0.1:4000", "70000"])
async def test_a_value_that_cannot_be_a_port_is_not_healthy(port: str) -> None:
    ran = await check(port)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"port {port} does not answer: ".encode())
    assert ran.stderr.count(b"\n") == 1
