"""Disturb an answer on purpose, to see how clients and other stages take it: delay, stall, drop and split.

Takes and gives StreamEvent (``chaos``) or the upstream's bytes (``chaos_bytes``); n:m. The last event of an answer may
come late, but is neither dropped nor split. Holds: one batch. Waits: for its pauses (declared).
What happens is a function of the seed, the request's id and the items, so a request with the same ``x-request-id`` has
the same faults if the upstream answers the same.
"""

from random import Random
from typing import Any

import trio
from msgspec import Struct

from pipeline import Inlet, Outlet, Plugin, RequestContext, Stage
from stages.events import Failed, Finished, StreamEvent, TextDelta


class Options(Struct, frozen=True):
    """How likely each fault is, for each item: from 0 to 1."""

    seed: int = 0
    delay: float = 0
    delay_s: float = 0.2
    stall: float = 0
    stall_s: float = 600
    drop: float = 0
    split: float = 0

    def __post_init__(self) -> None:
        if not all(0 <= chance <= 1 for chance in (self.delay, self.stall, self.drop, self.split)):
            raise ValueError("delay, stall, drop and split are probabilities, from 0 to 1")


class Chaos:
    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self._options = options

    # Any: events at one place, bytes at the other
    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        options = self._options
        random = Random(f"{options.seed} {ctx.request_id}")
        async for batch in inlet:
            for item in batch:
                # Always as many draws for an item, so that one fault can be switched off without moving the others.
                drop, split, delay, stall, where = (random.random() for _ in range(5))
                is_last = isinstance(item, Finished | Failed)
                pause_s = options.delay_s * (delay < options.delay) + options.stall_s * (stall < options.stall)
                if pause_s:
                    with outlet.outside():
                        await trio.sleep(pause_s)
                if is_last or drop >= options.drop:
                    for part in split_at(item, where) if split < options.split else [item]:
                        await outlet.send([part])


def split_at(item: Any, where: float) -> list[Any]:
    """Return two parts of bytes or of a text, and neither is empty; anything else stays whole."""
    content = item.text if isinstance(item, TextDelta) else item
    if not isinstance(content, bytes | str) or len(content) < 2:
        return [item]
    at = 1 + int(where * (len(content) - 1))
    halves = content[:at], content[at:]
    return [TextDelta(half) if isinstance(half, str) else half for half in halves]


def make_chaos(options: Options) -> Stage[StreamEvent, StreamEvent]:
    """Disturb the events of an answer: delay, stall, drop and split."""
    return Chaos("chaos", options)


def make_chaos_bytes(options: Options) -> Stage[bytes | Failed, bytes | Failed]:
    """Disturb the upstream's bytes: delay, stall, drop and split."""
    return Chaos("chaos_bytes", options)


events = Plugin("chaos", make_chaos, Options, accepts=StreamEvent, emits=StreamEvent)
upstream_bytes = Plugin("chaos_bytes", make_chaos_bytes, Options, accepts=bytes | Failed, emits=bytes | Failed)
