"""JSON of others: read without trust, and written.

Clients and upstreams send values of the wrong type, bytes that are not UTF-8, and halves of surrogate pairs. What is
read here never fails on the shape of a value, only on bytes that are not JSON; what is written here is always UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias, TypeGuard, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder

Json: TypeAlias = Any  # a foreign value: its type is known only after a look at it

T = TypeVar("T")

TEXT = Decoder(str)
LIST = Decoder(list[Raw])

MAX_INDEX: Final = (1 << 20) - 1
"""The largest index of an item, a part or a call that is believed: a server that sends a larger one does not count."""

Index: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INDEX)]
"""An index that can be right, for typed readings. A negative one means nothing in JSON, but a lot to Python's lists."""

_NULL = b"null"

_SURROGATES = re.compile(
    r"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})",
)
"""What may be a surrogate that is written as an escape; group 1 is the second half of a pair.

It begins with plain characters, which are found fast, so a backslash that escapes this one is seen only afterwards. A
long chat has a hundred thousand other escapes: to match them, too, would cost a call for each.
"""

_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""What may be a surrogate: an escape, or three bytes as CESU-8 has them."""


class Malformed(ValueError):
    """These bytes are not JSON, or are nested more deeply than any real document."""


class TypedRecord(Struct):
    """A foreign object with a ``type``, which is the empty string if it is missing or not a string."""

    type: Any = ""  # foreign JSON

    def __post_init__(self) -> None:
        if type(self.type) is not str:
            self.type = ""


# Reading.


def read(decoder: Decoder[T], data: bytes | Raw) -> T | None:
    """Read a foreign value; None if it is absent or of another type than the decoder's.

    Bytes that are not UTF-8, and lone surrogates (which JavaScript servers send when they cut a character in two), do
    not spoil the rest: they become U+FFFD.

    Raises:
        Malformed: if ``data`` is not JSON.
    """
    size = len(data)
    if not size or (size == len(_NULL) and bytes(data) == _NULL):  # common, and null is not valid for any decoder here
        return None
    try:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError:
            return None
        except ValueError:
            return decoder.decode(_repaired(bytes(data)))
    except msgspec.ValidationError:
        return None
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error


def read_list(decoder: Decoder[T], data: Raw) -> list[T | None]:
    """Read a foreign array, with None for each element of another type than the decoder's."""
    return [read(decoder, element) for element in read(LIST, data) or ()]


def is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    """Return whether a decoded value is a JSON object."""
    return isinstance(value, dict)


def is_list(value: Json) -> TypeGuard[list[Json]]:
    """Return whether a decoded value is a JSON array."""
    return isinstance(value, list)


def text(value: Json) -> str:
    """Return ``value`` if it is a string, else the empty string."""
    return value if isinstance(value, str) else ""


def text_or_object(value: Json) -> str:
    """Return ``value`` if it is a string, its JSON if it is an object, as some servers send arguments; else ``""``."""
    return encode(value).decode() if is_object(value) else text(value)


def is_index(value: object) -> TypeGuard[int]:
    """Return whether ``value`` can be a position in a list."""
    return type(value) is int and 0 <= value <= MAX_INDEX


def index(value: object) -> int:
    """Return ``value`` if it can be a position in a list, else 0, which is right for an upstream that omits it."""
    return value if is_index(value) else 0


def count(value: object) -> int | None:
    """Return ``value`` as a whole number that is not negative, or None if it is not one."""
    if (type(value) is int or (type(value) is float and value.is_integer())) and value >= 0:
        return int(value)
    return None


def unix_time(value: object) -> int:
    """Return ``value`` as whole seconds since 1970, or 0 if it is not a time before the year 5138."""
    return int(value) if isinstance(value, int | float) and type(value) is not bool and 0 < value < 1e11 else 0


def whole_characters(data: bytes | bytearray) -> bytes | None:
    """Return JSON without halves of surrogate pairs, as escapes or as bytes (CESU-8).

    Pairs are joined, other halves are replaced. None if it holds none, or is not UTF-8 in another way.
    """
    if _HALF.search(data) is None:
        return None
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return whole(_SURROGATES.sub(_without_lone, text)).encode()


def _repaired(data: bytes) -> bytes:
    return _SURROGATES.sub(_without_lone, data.decode("utf-8", "replace")).encode()


def _without_lone(found: re.Match[str]) -> str:
    before = start = found.start()
    while before and found.string[before - 1] == "\\":
        before -= 1
    second: str | None = found[1]
    if (start - before) % 2:  # an escaped backslash and plain letters; what follows them is an escape of its own
        return found[0] if second is None else found[0].replace(second, "\\ufffd")
    return "\\ufffd" if second is None else found[0]


# Writing.

encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Write any value as JSON."""


def json_text(text: str) -> bytes:
    """Write ``text`` as a JSON string."""
    try:
        return encode(text)
    except UnicodeEncodeError:
        return encode(whole(text))


def whole(text: str) -> str:
    """Return ``text`` with surrogate pairs joined, and with lone surrogates, which UTF-8 cannot express, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
