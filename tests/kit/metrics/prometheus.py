"""A real Prometheus that scrapes, and its query API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio
from kit.service.running import PLAIN
from kit.time.patience import patiently_with_processes

Job = Mapping[str, Any]
"""An entry of ``scrape_configs``."""


@dataclass
class Prometheus:
    """A running Prometheus."""

    client: httpx.AsyncClient

    async def query(self, expression: str) -> dict[str, float]:
        """Return the value of each series of an instant query, by the values of its labels without the job's."""
        answer = await self.client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        found: dict[str, float] = {}
        for one in data["result"]:
            own = {name: value for name, value in one["metric"].items() if name not in ("__name__", "job", "instance")}
            found[",".join(own.values())] = float(one["value"][1])
        return found

    async def value(self, expression: str) -> float:
        """Return the value of a query of one series, as soon as it has one: on a busy machine a scrape may be late."""
        with patiently_with_processes():
            while not (found := await self.query(expression)):
                await trio.sleep(0.05)
        (value,) = found.values()
        return value

    async def has_scraped(self, job: str, times: int = 1) -> None:
        """Wait until a job has been scraped so many times from now on, each of them with success."""
        with patiently_with_processes():
            seen: set[float] = set()
            while len(seen) < times + 2:  # the last one, and the one that may be running, have begun before
                await trio.sleep(0.05)
                if set((await self.query(f'up{{job="{job}"}}')).values()) == {1}:
                    seen |= set((await self.query(f'timestamp(up{{job="{job}"}})')).values())

    async def problems(self) -> list[str]:
        """Return what went wrong in the last scrape of each target."""
        targets = (await self.client.get("/api/v1/targets")).json()["data"]["activeTargets"]
        return [target["lastError"] for target in targets if target["lastError"]]


@asynccontextmanager
async def prometheus(folder: Path, *jobs: Job, interval: str = "200ms") -> AsyncIterator[Prometheus]:
    """Run Prometheus, and wait until it is ready."""
    scrape = {"scrape_interval": interval, "scrape_timeout": interval}
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": scrape, "scrape_configs": jobs}))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "GOMAXPROCS": "1"}
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, verify=PLAIN) as client:
                with patiently_with_processes():
                    while not await _is_ready(client):
                        assert process.poll() is None, (folder / "prometheus.log").read_text()
                        await trio.sleep(0.05)
                yield Prometheus(client)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == 200
    except httpx.ConnectError:
        return False
