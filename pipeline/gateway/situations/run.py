"""Play a situation: a service of its own, the clients, and what each of them says of the time that was lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from pipeline.gateway.situations.clients import Seen, ask_all
from pipeline.gateway.situations.own_service import LOOK_PAUSE_S, RunningService, serving
from pipeline.gateway.situations.recorded import lost_ms, read_recording, typical
from pipeline.gateway.situations.table import Situation

LOGGED_WITHIN_S: Final = 3
"""Records are logged up to 50 ms after the end of their requests, stalls up to a second."""

ROUND_S: Final = 1.5
"""How long a round takes at least, if there are several: of each second only the longest stall is logged."""


async def play(
    situation: Situation,
    recording: Path,
    say: Callable[[str], None],
    *,
    seconds: float = 0,
    port: int = 0,
    keep_serving: bool = False,
) -> list[Seen]:
    """Serve the situation, send its requests, and say what was lost; return what the clients have seen.

    Args:
        situation: one of the table.
        recording: the file that becomes the service's JSON log, after a header line.
        say: takes the lines to show.
        seconds: the requests are sent again until so many seconds have passed; 0 stands for once, or for always if it
            keeps serving.
        port: of the service; 0 lets the system choose.
        keep_serving: go on until the process is interrupted, for the live commands and the page.

    Raises:
        CommandError: if the service does not start, or a request fails.
    """
    say(f"{situation.name}: {situation.about}")
    async with serving(situation, recording, port) as service:

        async def ask() -> list[Seen]:
            next_s = trio.current_time() + ROUND_S
            seen = await ask_all(service.port, service.key, situation.loads)
            if seconds or keep_serving:
                await trio.sleep_until(next_s)
            return seen

        until_s = trio.current_time() + seconds
        seen = await ask()
        while not keep_serving and trio.current_time() < until_s:
            seen += await ask()
        await _logged(situation, recording, len(seen))
        for line in _figures(situation, seen, recording):
            say(line)
        if keep_serving:
            say(_live_hints(service))
            while not seconds or trio.current_time() < until_s:
                await ask()
            await trio.sleep_forever()
    return seen


async def _logged(situation: Situation, recording: Path, requests: int) -> None:
    """Wait until all requests are in the log, and a stall if there is to be one."""
    with trio.move_on_after(LOGGED_WITHIN_S):
        while True:
            recorded = read_recording(recording)
            has_stall = situation.loss.kind != "stall" or recorded.stalls
            if len(recorded.requests) >= requests and has_stall:
                return
            await trio.sleep(LOOK_PAUSE_S)


def _figures(situation: Situation, seen: list[Seen], recording: Path) -> list[str]:
    loss = situation.loss

    if loss.kind == "stall":
        each = "once"
    elif loss.is_longest:
        each = "in the request that waits longest"
    else:
        each = f"in each request of deployment {loss.deployment}" if loss.deployment else "in each request"
    recorded = read_recording(recording)
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


def hints(recording: Path) -> str:
    """Return what to do next with a recording."""
    return f"""\

The recording is {recording}. Ask it what was wrong:

  headrace why --slowest {recording}
  headrace report {recording}"""


def _live_hints(service: RunningService) -> str:
    return f"""\

The same goes on at {service.url}, until you press Ctrl-C. In another shell:

  export HEADRACE_MASTER_KEY={service.key}
  headrace top --url {service.url}
  headrace why --now --url {service.url}

The page is {service.url}/latency#key={service.key}"""
