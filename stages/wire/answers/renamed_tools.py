"""Calls with the client's own names of its tools, where the upstream knows them by others."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from stages.events import Failed, StreamEvent, ToolCallStarted
from stages.wire.api import AnswerDecoder


class RenamingDecoder:
    """An `AnswerDecoder` whose calls have the client's names.

    Args:
        decoder: decodes the answer.
        names: the client's name for each tool that has another name at the upstream.
    """

    def __init__(self, decoder: AnswerDecoder, names: Mapping[str, str]) -> None:
        self._decoder = decoder
        self._names = names

    @property
    def is_complete(self) -> bool:
        return self._decoder.is_complete

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        return self._renamed(self._decoder.feed(batch))

    def flush(self) -> list[StreamEvent]:
        return self._renamed(self._decoder.flush())

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        return self._renamed(self._decoder.break_off(failed))

    def _renamed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        for place, event in enumerate(events):
            if type(event) is ToolCallStarted and event.name in self._names:
                events[place] = replace(event, name=self._names[event.name])
        return events
