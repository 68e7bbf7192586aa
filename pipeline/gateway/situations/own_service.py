"""The service of a situation: ``headrace serve`` in processes of its own, whose JSON log is the recording."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.new_key import new_key
from pipeline.gateway.situations.table import Situation
from pipeline.study.files import unwritable
from pipeline.study.recording import header_now

STARTS_WITHIN_S: Final = 60
LOOK_PAUSE_S: Final = 0.02
SHOWN_BYTES: Final = 2000

_PORT = re.compile(rb"worker on 127\.0\.0\.1 port (\d+)")
_IS_UP = b"is up after"


class RunningService(Struct, frozen=True):
    """A service that answers, and its master key."""

    port: int
    key: str

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(situation: Situation, recording: Path, port: int) -> AsyncGenerator[RunningService]:
    """Serve a situation for the duration of a block.

    Raises:
        CommandError: if the service does not start; with what it has logged.
    """
    key = new_key()
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        process = await _start(Path(folder, "config.yaml"), situation.config(port), recording, _header(situation), key)
        try:
            yield RunningService(await _port(process, recording), key)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()


async def _start(config: Path, text: str, recording: Path, header: bytes, key: str) -> trio.Process:
    await trio.Path(config).write_text(text, encoding="utf-8")
    try:
        await trio.Path(recording).write_bytes(header)
    except OSError as error:
        raise CommandError(unwritable(str(recording), error)) from None
    # Settings of the shell would change the situation.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environ |= {"HEADRACE_MASTER_KEY": key, "HEADRACE_LOG_FORMAT": "json", "HEADRACE_LOG_LEVEL": "info"}
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)]
    async with await trio.open_file(recording, "ab") as log:
        return await trio.lowlevel.open_process(command, stderr=log.fileno(), env=environ)


def _header(situation: Situation) -> bytes:
    header = header_now(f"headrace situation {situation.name}", headrace=version("headrace"))
    return msgspec.json.encode(header) + b"\n"


async def _port(process: trio.Process, recording: Path) -> int:
    """Wait until the service's worker is up; return the port that the log names."""
    log = trio.Path(recording)
    with trio.move_on_after(STARTS_WITHIN_S):
        while process.poll() is None:
            text = await log.read_bytes()
            if _IS_UP in text and (named := _PORT.search(text)) is not None:
                return int(named[1])
            await trio.sleep(LOOK_PAUSE_S)
    logged = (await log.read_bytes()).partition(b"\n")[2][-SHOWN_BYTES:].decode(errors="replace")
    raise CommandError(f"the service of the situation did not start; its log says:\n{logged}")
