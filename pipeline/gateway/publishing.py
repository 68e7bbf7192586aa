"""What a process shows of itself once a second, while anybody watches: `pipeline.gateway.board`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio
import trio.lowlevel

from pipeline.gateway.board import board_text, last_board, write_board
from pipeline.gateway.generations import Generations
from pipeline.gateway.recorder import Recorder
from pipeline.loop import current_loop
from pipeline.observe import Observed
from pipeline.segments import Segment, SegmentFile

PUBLISH_EVERY_S: Final = 1.0
_SETTLING_TURNS: Final = 8
"""For so many turns a board waits for a loop that was held: until each task has run, it does not know that what it
waited for came long ago, and that the time since then was ours."""


class Publisher:
    """Writes the board of this process.

    Args:
        file: says whether anybody watches.
        segment: of this process.
        generations: the running requests.
        observed: the figures of those that have ended.
        recorder: whose size is noted.
        flush: adds up what has ended and is not in those figures yet, so that no request is missing from both.
    """

    def __init__(
        self,
        file: SegmentFile,
        segment: Segment,
        generations: Generations,
        observed: Observed,
        recorder: Recorder,
        flush: Callable[[], None],
    ) -> None:
        self._file = file
        self._segment = segment
        self._generations = generations
        self._observed = observed
        self._recorder = recorder
        self._flush = flush
        # What readers have seen must not go down: neither that of requests with which the process before has died, nor
        # what a wait was taken for before its end.
        self._least: dict[str, float] = {} if (before := last_board(segment)) is None else before.party_s
        ended_s = observed.party_s()
        self._lost_s: dict[str, float] = {
            party: max(0.0, self._least.get(party, 0.0) - value) for party, value in ended_s.items()
        }

    async def run(self) -> None:
        """Publish until it is cancelled."""
        while True:
            self._observed.note_recorder(self._recorder.used_bytes)
            next_s = trio.current_time() + PUBLISH_EVERY_S
            if self._file.is_watched:
                await self._settle()
                self.publish()
            await trio.sleep_until(next_s)

    async def _settle(self) -> None:
        loop = current_loop()
        for _ in range(_SETTLING_TURNS):
            if not loop.is_held(loop.clock()):
                break
            await trio.lowlevel.checkpoint()

    def publish(self) -> None:
        """Write the board now."""
        self._flush()
        running = [request.ctx for one in self._generations.living for request in one.bridge.active]
        text = board_text(running, self._segment.worker, self._observed.party_s())
        for party, value in text.party_s.items():
            text.party_s[party] = max(value + self._lost_s.get(party, 0.0), self._least.get(party, 0.0))
        self._least = text.party_s
        write_board(self._segment.board, text)
