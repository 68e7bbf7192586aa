"""Play a situation: a service of its own, the clients, and what each of them says of the time that was lost."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.situations.clients import Seen, ask_all
from pipeline.gateway.situations.recorded import lost_ms, read_recording, typical
from pipeline.gateway.situations.table import Situation

STARTS_WITHIN_S: Final = 60
LOOK_PAUSE_S: Final = 0.02
LOGGED_WITHIN_S: Final = 3
"""Records are logged up to 50 ms after the end of their requests, stalls up to a second."""
SHOWN_BYTES: Final = 2000

_PORT = re.compile(rb"worker on 127\.0\.0\.1 port (\d+)")
_IS_UP = b"is up after"


class Played(Struct):
    """How a situation went: what its clients have seen, and the recording of the service."""

    seen: list[Seen]
    recording: Path


class _Service(Struct):
    process: trio.Process
    port: int
    key: str
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


async def play(
    situation: Situation,
    recording: Path,
    say: Callable[[str], None],
    *,
    seconds: float = 0,
    port: int = 0,
    keep_serving: bool = False,
) -> Played:
    """Serve the situation, send its requests, and say what was lost; the service ends with it.

    Args:
        situation: one of the table.
        recording: the file that becomes the service's JSON log, after a header line.
        say: takes the lines to show.
        seconds: the requests are sent again until so many seconds have passed; once if it is 0.
        port: of the service; 0 lets the system choose.
        keep_serving: go on until the process is interrupted, for the live commands and the page.

    Raises:
        CommandError: if the service does not start, or a request fails.
    """
    say(f"{situation.name}: {situation.about}")
    seen: list[Seen] = []
    async with _serving(situation, recording, port) as service:
        until_s = trio.current_time() + seconds
        while not seen or trio.current_time() < until_s:
            seen += await ask_all(service.port, service.key, situation.loads)
        await _logged(situation, recording, len(seen))
        for line in _figures(situation, seen, recording):
            say(line)
        if keep_serving:
            say(_live_hints(service))
            await trio.sleep_forever()
    say(_hints(recording))
    return Played(seen, recording)


@asynccontextmanager
async def _serving(situation: Situation, recording: Path, port: int) -> AsyncGenerator[_Service]:
    key = f"sk-{secrets.token_urlsafe(24)}"
    # Settings of the shell would change the situation.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environ |= {"HEADRACE_MASTER_KEY": key, "HEADRACE_LOG_FORMAT": "json", "HEADRACE_LOG_LEVEL": "info"}
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(situation.config(port), encoding="utf-8")
        recording.write_bytes(_header(situation))
        with recording.open("ab") as log:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)], stderr=log, env=environ
            )
        try:
            yield _Service(process, await _port(process, recording), key, recording)
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()


def _header(situation: Situation) -> bytes:
    began = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = {"event": "recording", "format": 1, "headrace": version("headrace"), "began": began, "workers": 1}
    return msgspec.json.encode({**header, "source": f"headrace situation {situation.name}"}) + b"\n"


async def _port(process: trio.Process, log: Path) -> int:
    """Wait until the service's worker is up; return the port that the log names.

    Raises:
        CommandError: if it is not; with what was logged.
    """
    with trio.move_on_after(STARTS_WITHIN_S):
        while process.poll() is None:
            text = log.read_bytes()
            if _IS_UP in text and (named := _PORT.search(text)) is not None:
                return int(named[1])
            await trio.sleep(LOOK_PAUSE_S)
    told = log.read_bytes().partition(b"\n")[2][-SHOWN_BYTES:].decode(errors="replace")
    raise CommandError(f"the service of the situation did not start; its log says:\n{told}")


async def _logged(situation: Situation, recording: Path, requests: int) -> None:
    """Wait until all requests are in the log, and a stall if there is to be one."""
    with trio.move_on_after(LOGGED_WITHIN_S):
        while True:
            recorded, _ = read_recording(recording)
            has_stall = situation.loss.kind != "stall" or recorded.stalls
            if len(recorded.requests) >= requests and has_stall:
                return
            await trio.sleep(LOOK_PAUSE_S)


def _figures(situation: Situation, seen: list[Seen], recording: Path) -> list[str]:
    loss = situation.loss
    which = f"of deployment {loss.deployment}" if loss.deployment else "that waits longest" if loss.is_longest else ""
    each = "once" if loss.kind == "stall" else f"in each request {which}".rstrip()
    recorded, _ = read_recording(recording)
    first = [one.first_token_ms for one in seen]
    figures = {
        "injected": f"{loss.ms:.0f} ms {each}: {loss.kind} {loss.name}",
        "the log": typical(lost_ms(loss, recorded)),
        "clients": f"first token after {typical(first)}",
        "": f"total {typical([one.total_ms for one in seen])}",
    }
    lines = [f"  {name:10}{text}" for name, text in figures.items()]
    lines.append(f"  {'':10}longest silence {typical([one.silence_ms for one in seen])}")
    if any(one.paused_ms for one in seen):
        lines.append(f"  {'':10}they did not read for {typical([one.paused_ms for one in seen])}")
    if loss.is_longest:
        lines.append(f"  {'':10}waited for their turn for {typical([max(waits_ms(seen))])}")
    return lines


def waits_ms(seen: list[Seen]) -> list[float]:
    """Return how much later than the first each client had its first token: how long it was queued, in overload."""
    first_ms = min(one.first_token_ms for one in seen)
    return [one.first_token_ms - first_ms for one in seen]


def _hints(recording: Path) -> str:
    return f"""\

The recording is {recording}. Ask it what was wrong:

  headrace why --slowest {recording}
  headrace report {recording}"""


def _live_hints(service: _Service) -> str:
    return f"""\

The service goes on at {service.url}, until you press Ctrl-C. In another shell:

  export HEADRACE_MASTER_KEY={service.key}
  headrace top --url {service.url}
  headrace why --now --url {service.url}

The page is {service.url}/latency; it asks for the key above."""
