"""What the decoders of all upstreams share: bytes in, however they were cut, events out, and one end.

A format's own part is an `AnswerSoFar`, which takes events one by one in any shape, and a loop over the usual ones
(`StreamDecoder.decode_all`): see `responses`, `chat_events` and `anthropic_events`.
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
    """What an upstream has said so far."""

    is_over: bool
    """Whether Finished or Failed was given; nothing may be decoded after it."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although its end has not been given."""
        ...

    def decode(self, data: bytes, out: list[StreamEvent], /) -> None:
        """Decode any event, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        ...

    def end(self, out: list[StreamEvent], /) -> None:
        """Take the end of the input: good if the answer is complete, and a failure if it is not."""
        ...

    def fail(self, failed: Failed, out: list[StreamEvent], /) -> None:
        """Break the answer off."""
        ...


AnswerT = TypeVar("AnswerT", bound=AnswerSoFar)


class StreamDecoder(ABC, Generic[AnswerT]):
    """Decode a stream of server-sent events, however it was cut.

    The last event is Finished or Failed. What comes in after it is ignored.

    Args:
        answer: keeps what the upstream says.
    """

    def __init__(self, answer: AnswerT) -> None:
        self._parser = sse.Parser()
        self._answer = answer

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although its end has not been given: a break now cuts off no part of it."""
        return self._answer.is_complete

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        """Take what was read, give the events in it."""
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
        """Take the end of the input: if the upstream has not said that its answer is complete, then it is not."""
        out: list[StreamEvent] = []
        if self._answer.is_over:
            return out
        for data in self._parser.flush():  # an event that lacks its empty line; it may have been cut anywhere
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
        """Decode events until the answer is over: the usual ones in a hurry, all others as `AnswerSoFar.decode` does.

        Raises:
            Malformed: if one is not JSON; those before it are decoded.
        """
