"""The real command, ``headrace serve``, in a process of its own, and its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import trio
from kit.service.running import KEY
from kit.time.patience import patiently_with_processes

ROOT = Path(__file__).parents[3]


class Command:
    """A running ``headrace serve``.

    Attributes:
        process: the supervisor.
        config: its configuration file.
        log: what it and its workers have logged, but for the records of requests, as of the last `logged`.
        ended: set at its end.
    """

    def __init__(self, process: trio.Process, config: Path, log: BinaryIO) -> None:
        self.process = process
        self.config = config
        self.log = b""
        self.ended = trio.Event()
        self._file = log
        self._rest = b""

    async def wait(self) -> None:
        """Wait for its end."""
        await self.process.wait()
        self.ended.set()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def read(self) -> None:
        """Read what has been logged meanwhile."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        self.log += b"".join(line + b"\n" for line in lines if b'"event":"request"' not in line)

    async def logged(self, words: bytes, times: int = 1) -> None:
        """Wait until ``words`` have been logged so many times."""
        with patiently_with_processes():
            while True:
                has_ended = self.ended.is_set()
                self.read()
                if self.log.count(words) >= times:
                    return
                assert not has_ended, self.log.decode()
                await trio.sleep(0.01)

    async def exit(self) -> int | None:
        """Wait for its end, and return its status."""
        with patiently_with_processes():
            await self.ended.wait()
        self.read()
        return self.process.returncode

    @property
    def port(self) -> int:
        """The port that the log names."""
        named = re.search(rb"workers? on 127\.0\.0\.1 port (\d+)", self.log)
        assert named is not None, self.log
        return int(named[1])

    @property
    def metrics_port(self) -> int:
        """The port of ``metrics_address``."""
        named = re.search(rb"metrics on 127\.0\.0\.1 port (\d+)", self.log)
        assert named is not None, self.log
        return int(named[1])

    def pid_of_worker(self, number: int) -> int:
        """The first process that was the worker of this number."""
        named = re.search(rb"worker %d is process (\d+)" % number, self.log)
        assert named is not None, self.log
        return int(named[1])


def configured(models: str, settings: str = "") -> str:
    """Return a configuration for any free port. Nothing is refused for lag: a busy machine would fail the test."""
    return (
        f"model_list:\n{models}"
        f"general_settings: {{master_key: {KEY}}}\n"
        "pipeline_settings: {port: 0, host: 127.0.0.1, graceful_timeout_s: 600, max_lag_ms: 0"
        f"{settings and ', '}{settings}}}\n"
    )


Kind = TypeVar("Kind", bound=Command)


@asynccontextmanager
async def headrace_serve(
    folder: Path, text: str, *, workers: int, command: Sequence[str] = ("serve",), packages: Sequence[Path] = ()
) -> AsyncIterator[Command]:
    """Run it, or another command that serves, and wait until all workers do; at the end kill it.

    Args:
        folder: where its configuration and its log are written.
        text: the configuration.
        workers: how many processes serve.
        command: with its arguments.
        packages: folders of packages that come before the installed ones.
    """
    config = folder / "config.yaml"
    config.write_text(text)
    arguments = [*command, "--config", str(config), "--workers", str(workers)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *packages]))}
    async with running_command(folder, config, arguments, environ, workers=workers) as running:
        yield running


@asynccontextmanager
async def running_command(
    folder: Path, config: Path, arguments: Sequence[str], environ: Mapping[str, str], *, workers: int
) -> AsyncIterator[Command]:
    """Run it with a configuration that exists, and wait until all workers serve; at the end kill it.

    Args:
        folder: where its log is written.
        config: its configuration file.
        arguments: of the command, with ``--config``.
        environ: its environment.
        workers: how many processes serve.
    """
    words = [sys.executable, "-m", "pipeline.gateway", *arguments]
    async with started(Command, words, folder, config, environ) as running:
        await running.logged(b"is up after", times=workers)
        yield running


@asynccontextmanager
async def started(
    kind: type[Kind], words: Sequence[str], folder: Path, config: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Kind]:
    """Start a program; at the end kill it.

    Args:
        kind: what is returned.
        words: its command line.
        folder: where what it prints is written.
        config: its configuration file.
        environ: its environment; None for that of this process.
    """
    # A file and no pipe: what does not fit into a pipe is not logged.
    with (folder / "log").open("wb") as log, (folder / "log").open("rb") as to_read:
        process = await trio.lowlevel.open_process(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        running = kind(process, config, to_read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.wait)
            try:
                yield running
            finally:
                if process.returncode is None:
                    running.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
