"""Split a byte stream into server-sent events, and frame them.

Follows the event stream format of the HTML Living Standard (section 9.2.6, read 2026-10): lines end in LF, CR or CRLF
and in nothing else (not in U+2028 or VT, which are ordinary text within JSON). Only ``data`` matters to us, and the
name of an event whose data do not say what it is: ids, retry times and comments are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

MIB = 1 << 20
MAX_EVENT_BYTES = 16 * MIB
"""Our limit for one event, which bounds the memory of a request. The largest events seen so far are partial images of a
few MB (base64)."""

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """One event is larger than the parser's limit; nothing after it can be read.

    Attributes:
        before: the data of the events before it in the same feed; they are valid.
    """

    def __init__(self, max_event_bytes: int, before: list[bytes]) -> None:
        super().__init__(f"one server-sent event is larger than {max_event_bytes} bytes")
        self.before = before


class Parser:
    """Split a byte stream into the ``data`` of its events, however the stream was cut.

    Events without data are dropped. Holds at most one unfinished event. The time is linear in the bytes, even if they
    arrive one by one: an unfinished event is kept in pieces and joined once.

    Args:
        max_event_bytes: the largest event, counted with its field names and with line ends as one byte.
    """

    __slots__ = ("_after_cr", "_at_start", "_last", "_max", "_names", "_pieces", "_size")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._pieces: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._at_start = True
        self._last = b""
        self._names: Iterator[tuple[str, bytes]] = iter(())

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        """Take what was read and return the data of every event that is complete now.

        Raises:
            EventTooLarge: if an event, complete or not, is larger than the limit. The parser cannot be used afterwards.
        """
        chunk = batch[0] if len(batch) == 1 else b"".join(batch)
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf_only(chunk)
        if not self._pieces:
            chunk = chunk.lstrip(b"\n") if chunk.startswith(b"\n") else chunk
        elif chunk:
            ends_here = b"\n\n" in chunk or (chunk[0] == 10 and self._pieces[-1][-1] == 10)
            if not ends_here:
                self._hold(chunk, [])
                return []
            chunk = b"".join((*self._pieces, chunk))
            self._pieces = []
            self._size = 0
        end = chunk.rfind(b"\n\n") + 2
        if end == 1:
            self._hold(chunk, [])
            return []
        if end == len(chunk):
            return self._data_of(chunk)
        events = self._data_of(chunk[:end])
        self._hold(chunk[end:], events)
        return events

    def flush(self) -> list[bytes]:
        """Take the end of the stream and return the last event if only its empty line is missing.

        The standard drops such an event. We leave that to the reader of its JSON, which sees whether it is whole,
        because some servers close the connection right after their last event.
        """
        rest = b"".join(self._pieces).rstrip(b"\n")
        self._pieces = []
        return self._data_of(rest + b"\n\n")

    def name_of(self, data: bytes) -> str:
        """Return the name (``event:``) of one of the last events that were returned; empty if it has none.

        Ask for them in their order: the lines are searched only once.
        """
        if self._last:
            self._names = map(_name_and_data, self._last.split(b"\n\n"))
            self._last = b""
        return next((name for name, of_data in self._names if of_data == data), "")

    def _with_lf_only(self, chunk: bytes) -> bytes:
        """Turn every line end into LF. JSON holds no raw CR, so every CR is a line end."""
        if chunk and self._after_cr:
            self._after_cr = False
            if chunk[0] == 10:  # the other half of a CRLF that was cut in two
                chunk = chunk[1:]
        if chunk.endswith(b"\r"):
            self._after_cr = True
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, piece: bytes, before: list[bytes]) -> None:
        """Keep a piece of an unfinished event."""
        if not piece:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        # A line end at the end may be half of the empty line, which is not counted.
        if self._size > self._max and self._size - (piece[-1] == 10) > self._max:
            raise EventTooLarge(self._max, before)

    def _data_of(self, whole: bytes) -> list[bytes]:
        """Return the data of whole events.

        The two layouts that servers send, ``event: x``, ``data: y`` and an empty line, or ``data: y`` and an empty
        line, are taken by slicing: one event, or the list of lines, which is three times as fast as looking at each.
        """
        if self._at_start:
            self._at_start = False
            whole = whole.removeprefix(_BOM)
        self._last = whole
        if len(whole) <= self._max:
            before, _, data = whole.partition(b"data: ")
            # One event, of at most one line before its data, whose end is the first empty line.
            if data.find(b"\n") == len(data) - 2 > 0 and (
                not before or (before.find(b"\n") == len(before) - 1 and not before.startswith(b"data"))
            ):
                return [data[:-2]]
            if (sliced := _slice_data_lines(whole)) is not None:
                return sliced
        events: list[bytes] = []
        for block in whole.split(b"\n\n"):
            if len(block) > self._max and len(block.strip(b"\n")) > self._max:
                raise EventTooLarge(self._max, events)
            if data := _join_data_lines(block):
                events.append(data)
        return events


def _slice_data_lines(whole: bytes) -> list[bytes] | None:
    """Return the data of events that all have one data line, at the same place in each; None if they do not."""
    lines = whole.split(b"\n")
    data_lines = whole.count(b"\ndata") + whole.startswith(b"data")
    for width in (3, 2):
        events, rest = divmod(len(lines) - 1, width)
        if rest == 0 and data_lines == events == lines[width - 1 :: width].count(b""):
            found = [line[6:] for line in lines[width - 2 : -1 : width] if line[:6] == b"data: "]
            if len(found) == events and b"" not in found:
                return found
    return None


def _join_data_lines(block: bytes) -> bytes:
    return b"\n".join(_values_of(b"data", block))


def _name_and_data(block: bytes) -> tuple[str, bytes]:
    names = _values_of(b"event", block)
    return names[-1].decode("utf-8", "replace") if names else "", _join_data_lines(block)


def _values_of(field: bytes, block: bytes) -> list[bytes]:
    values: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == field:
            values.append(value.removeprefix(b" "))
    return values


def frame(data: bytes) -> bytes:
    """Frame ``data`` as one event. It must hold no line end; JSON without whitespace never does."""
    return b"data: " + data + b"\n\n"
