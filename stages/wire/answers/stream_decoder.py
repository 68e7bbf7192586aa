"""What the stream decoders of all upstream APIs share: bytes in, however they were cut, events out, and one end.

An API's own part is an `AnswerSoFar`, which takes events one by one in any shape, and a fast loop over the common ones
(`StreamDecoder.decode_all`): see ``responses/decoder.py``, ``chat/decoder.py`` and ``anthropic/decoder.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Generic, Protocol, TypeVar

from msgspec.json import Decoder

from stages.events import Failed, StreamEvent
from stages.wire import sse
from stages.wire.answers.failures import broken_protocol
from stages.wire.answers.split_characters import SplitCharacters, may_be_split
from stages.wire.foreign_json import Malformed, TypedRecord, json_text, read

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

_KIND = Decoder(TypedRecord)
TYPE_FIRST = (b'{"type":"', b'{"type": "')
"""How an event begins that says itself what it is, as those of all known servers do."""


class StreamDecoder(ABC, Generic[AnswerT]):
    """Decode a stream of server-sent events, however it was cut.

    The last event is Finished or Failed. Input after it is ignored.

    Args:
        answer: keeps what the upstream has sent.
        mended: words of `stages.mending.MENDS`, for what is mended in this stream.
    """

    has_types: ClassVar[bool]
    """Whether the JSON of an event says what it is, in ``type``. If it does not, the event's name (``event:``) does."""

    def __init__(self, answer: AnswerT, mended: set[str]) -> None:
        self._parser = sse.Parser()
        self._answer = answer
        self._mended = mended
        self._halves = SplitCharacters(mended)

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
                rest = iter(self._parser.feed(batch))
                if self._halves.is_waiting:
                    rest = self._past_halves(rest, out)
                self.decode_all(rest, out)
            except sse.EventTooLarge as error:
                self.decode_all(self._past_halves(iter(error.before), out), out)
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
                self.decode_cold(data, iter(()), out)
            except Malformed:
                break
        self._flush_halves(out)
        if not self._answer.is_over:
            self._answer.end(out)
        return out

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        """Take the failure that ended the input; if only what nobody needs is missing, it is the answer's end."""
        if self._answer.is_complete:
            return self.flush()
        out: list[StreamEvent] = []
        self._flush_halves(out)
        return [*out, failed]

    @abstractmethod
    def decode_all(self, datas: Iterator[bytes], out: list[StreamEvent], /) -> None:
        """Decode events until the answer is over: the common ones on a fast path, the others with `decode_cold`.

        Raises:
            Malformed: if an event is not JSON; those before it are decoded.
        """

    def decode_cold(self, data: bytes, rest: Iterator[bytes], out: list[StreamEvent]) -> None:
        """Decode an event in any shape; if it ends with half a character, those after it too, until that is whole.

        Args:
            data: the event.
            rest: the events after it, of which those that are decoded here are taken.
            out: receives what they mean.

        Raises:
            Malformed: if an event is not JSON.
        """
        answer, halves = self._answer, self._halves
        while True:
            if self.has_types and not data.startswith(TYPE_FIRST):
                data = self._with_type(data)
            if not halves.is_waiting and not may_be_split(data):
                answer.decode(data, out)
                return
            for mended in halves.mend(data):
                answer.decode(mended, out)
                if answer.is_over:
                    return
            if not halves.is_waiting or (following := next(rest, None)) is None:
                return
            data = following

    def _past_halves(self, rest: Iterator[bytes], out: list[StreamEvent]) -> Iterator[bytes]:
        """Decode events until no character waits for its second half, and return those after them."""
        if self._halves.is_waiting and (data := next(rest, None)) is not None:
            self.decode_cold(data, rest, out)
        return iter(()) if self._answer.is_over else rest

    def _with_type(self, data: bytes) -> bytes:
        """Return an event whose JSON says what it is, if its name does."""
        kind = read(_KIND, data)
        if kind is None or kind.type or not (name := self._parser.name_of(data)):
            return data
        self._mended.add("event_name")
        fields = data.rstrip()[:-1].rstrip()
        return b'%b%b"type":%b}' % (fields, b"" if fields.endswith(b"{") else b",", json_text(name))

    def _flush_halves(self, out: list[StreamEvent]) -> None:
        for data in self._halves.flush():
            self._answer.decode(data, out)
