"""Custom calls from Responses upstreams without custom tools, which were offered functions with one string.

``request.py`` wraps the tools; this module takes the text out of their calls again, as it streams.
"""

from __future__ import annotations

from collections.abc import Iterable

from stages.events import Failed, Finished, StreamEvent, ToolCallDelta, ToolCallStarted
from stages.wire.responses.decoder import ResponsesDecoder
from stages.wire.unwrap import StringFieldUnwrapper


class WrappedCalls:
    """Turn the calls of the named functions back into custom calls. Holds what the unwrapper of each call holds."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._open: dict[int, StringFieldUnwrapper] = {}

    def feed(self, events: Iterable[StreamEvent]) -> list[StreamEvent]:
        """Return the events with raw arguments; text that a call still holds comes before the end of the stream."""
        out: list[StreamEvent] = []
        for event in events:
            match event:
                case ToolCallStarted(index=index, name=name) if name in self._names:
                    self._open[index] = StringFieldUnwrapper()
                    out.append(ToolCallStarted(index, event.call_id, name, is_custom=True))
                case ToolCallDelta(index=index) if index in self._open:
                    self._emit(index, self._open[index].feed(event.arguments), out)
                case Finished() | Failed():
                    for index, unwrapper in self._open.items():
                        self._emit(index, unwrapper.flush(), out)
                    self._open.clear()
                    out.append(event)
                case _:
                    out.append(event)
        return out

    @staticmethod
    def _emit(index: int, text: str, out: list[StreamEvent]) -> None:
        if text:
            out.append(ToolCallDelta(index, text))


class UnwrappingDecoder:
    """An `AnswerDecoder` whose calls of the named functions come out as custom calls."""

    def __init__(self, decoder: ResponsesDecoder, names: frozenset[str]) -> None:
        self._decoder = decoder
        self._calls = WrappedCalls(names)

    @property
    def is_complete(self) -> bool:
        return self._decoder.is_complete

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        return self._calls.feed(self._decoder.feed(batch))

    def flush(self) -> list[StreamEvent]:
        return self._calls.feed(self._decoder.flush())

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        return self._calls.feed(self._decoder.break_off(failed))
