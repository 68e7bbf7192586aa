"""What the stream decoders of all upstream APIs share: bytes in, however they were cut, events out, and one end.

An API's own part is an `AnswerSoFar`, which takes events one by one in any shape, and a fast loop over the common ones
(`StreamDecoder.decode_all`): see ``responses/decoder.py``, ``chat/decoder.py`` and ``anthropic/decoder.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from stages.events import Failed, StreamEvent
from stages.wire import sse
from stages.wire.answers.failures import broken_protocol
from stages.wire.foreign_json import Malformed

EARLY_END = "The upstream's stream ended before its answer was complete; try again."
_NOT_JSON = "The upstream sent an event that is not JSON; the answer ends here. Try again."
_TOO_LARGE = f"The upstream sent an event of more than {sse.MAX_EVENT_BYTES >> 20} MiB; the answer ends here."


class AnswerSoFar(Protocol):
    """What an upstream has sent so far of one answer."""

    is_over: bool
    """Whether Finished or Failed was emitted; nothing may be decoded after it."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although neither Finished nor Failed was emitted."""
        ...

    def decode(self, data: bytes, out: list[StreamEvent], /) -> None:
        """Decode any event, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        ...

    def end(self, out: list[StreamEvent], /) -> None:
        """Take the end of the input: Finished if the answer is complete, Failed if it is not."""
        ...

    def fail(self, failed: Failed, out: list[StreamEvent], /) -> None:
        """End the answer with a failure."""
        ...


AnswerT = TypeVar("AnswerT", bound=AnswerSoFar)


class StreamDecoder(ABC, Generic[AnswerT]):
    """Decode a stream of server-sent events, however it was cut.

    The last event is Finished or Failed. Input after it is ignored.

    Args:
        answer: keeps what the upstream has sent.
    """

    def __init__(self, answer: AnswerT) -> None:
        self._parser = sse.Parser()
        self._answer = answer

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although neither Finished nor Failed was emitted: a disconnect is harmless."""
        return self._answer.is_complete

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        """Decode what was read and return its events."""
        out: list[StreamEvent] = []
        if self._answer.is_over:
            return out
        try:
            try:
                self.decode_all(self._parser.feed(batch), out)
            except sse.EventTooLarge as error:
                self.decode_all(error.before, out)
                if not self._answer.is_over:
                    self._answer.fail(broken_protocol(_TOO_LARGE), out)
        except Malformed:
            self._answer.fail(broken_protocol(_NOT_JSON), out)
        return out

    def flush(self) -> list[StreamEvent]:
        """Take the end of the input: an answer that the upstream has not declared complete has failed."""
        out: list[StreamEvent] = []
        if self._answer.is_over:
            return out
        for data in self._parser.flush():  # an event without its empty line; it may be cut anywhere
            try:
                self._answer.decode(data, out)
            except Malformed:
                break
        if not self._answer.is_over:
            self._answer.end(out)
        return out

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        """Take the failure that ended the input; if only what nobody needs is missing, it is the answer's end."""
        return self.flush() if self._answer.is_complete else [failed]

    @abstractmethod
    def decode_all(self, datas: list[bytes], out: list[StreamEvent], /) -> None:
        """Decode events until the answer is over: the common ones on a fast path, the others with `AnswerSoFar.decode`.

        Raises:
            Malformed: if an event is not JSON; those before it are decoded.
        """
