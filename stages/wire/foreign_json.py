"""JSON of others: read without trust, and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.json import Decoder

T = TypeVar("T")


# From here on Any is foreign JSON, see the first lines.
class TypedRecord(Struct):
    type: Any = ""

    def __post_init__(self) -> None:
        if type(self.type) is not str:
            self.type = ""


TEXT = Decoder(str)


LIST = Decoder(list[Raw])


_NULL = b"null"


# One escape sequence of a JSON string; group 1 is a UTF-16 surrogate that has lost its other half.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


class Malformed(ValueError):
    """These bytes are not JSON, or are nested deeper than anything that is meant."""


def read(decoder: Decoder[T], data: bytes | Raw) -> T | None:
    """Read a foreign value; None if it is absent or of another kind than the decoder's.

    Bytes that are not UTF-8, and lone surrogates (which JavaScript servers send when they cut a character in two), do
    not spoil the rest: they become U+FFFD.

    Raises:
        Malformed: if it is not JSON.
    """
    size = len(data)
    if not size or (size == len(_NULL) and bytes(data) == _NULL):  # usual, and no decoder here takes it
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
    """Read a foreign array, with None for each element of another kind than the decoder's."""
    return [read(decoder, element) for element in read(LIST, data) or ()]


def text(value: Any) -> str:
    """Give ``value`` if it is a string, else the empty string."""
    return value if isinstance(value, str) else ""


def index(value: object) -> int:
    """Give ``value`` if it can be a position in a list, else 0, which is right where an upstream counts nothing."""
    return value if type(value) is int and value >= 0 else 0


def count(value: object) -> int | None:
    """Give ``value`` as a whole number, else None."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    return None


def _repaired(data: bytes) -> bytes:
    def lone(escape: re.Match[str]) -> str:
        return "\\ufffd" if escape[1] else escape[0]

    return _ESCAPE.sub(lone, data.decode("utf-8", "replace")).encode()


Json: TypeAlias = Any  # JSON of a foreign shape: only looking tells what it is


def is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    return isinstance(value, dict)


def is_list(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
"""Give any value as JSON."""


def json_text(text: str) -> bytes:
    """Give ``text`` as a JSON string."""
    try:
        return encode(text)
    except UnicodeEncodeError:
        return encode(whole(text))


def whole(text: str) -> str:
    """Join surrogates to characters, and replace lone ones, which have no form in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
