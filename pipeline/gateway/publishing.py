"""What a process shows of itself once a second, while anybody watches: `pipeline.gateway.board`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from pipeline.gateway.board import board_text, write_board
from pipeline.gateway.generations import Generations
from pipeline.gateway.recorder import Recorder
from pipeline.observe import Observed
from pipeline.segments import Segment, SegmentFile

PUBLISH_EVERY_S: Final = 1.0


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
        self._last: tuple[float, dict[str, float]] | None = None

    async def run(self) -> None:
        """Publish until it is cancelled."""
        while True:
            self._observed.note_recorder(self._recorder.used_bytes)
            if self._file.is_watched:
                self.publish()
            await trio.sleep(PUBLISH_EVERY_S)

    def publish(self) -> None:
        """Write the board now."""
        self._flush()
        running = [request.ctx for one in self._generations.living for request in one.bridge.active]
        text, at_s = board_text(running, self._segment.worker, self._observed.party_s()), trio.current_time()
        if self._last is not None and at_s > self._last[0]:
            last_s, party_s = self._last
            text.per_s = {party: (value - party_s[party]) / (at_s - last_s) for party, value in text.party_s.items()}
        self._last = at_s, text.party_s
        write_board(self._segment.board, text)
