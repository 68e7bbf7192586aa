"""What is read from the JSON of a Responses upstream, and how: only the needed fields, and never validated.

Of the events that real upstreams send, thousands do not satisfy the types of OpenAI's own SDK (mapping facts, rule
21). So there are two readings. The *hot* one is typed and fails on any surprise; it serves the deltas. The *cold* one
takes every other event and every surprise: its fields are ``Any`` or unread ``Raw``, and a value of the wrong type
counts as absent. Fields that are not named here (tools, instructions, images ...) are skipped without being built.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.json import Decoder

T = TypeVar("T")


# Their `output_index` is required: a delta without it is known by its item's id (`responses_places`), and to read ids
# costs time that the usual stream need not spend. So such a delta is read cold.
class OutputTextDelta(Struct, gc=False, tag="response.output_text.delta"):
    delta: str
    output_index: int
    content_index: int = 0


class ArgumentsDelta(Struct, gc=False, tag="response.function_call_arguments.delta"):
    delta: str
    output_index: int


class InputDelta(Struct, gc=False, tag="response.custom_tool_call_input.delta"):
    delta: str
    output_index: int


class SummaryDelta(Struct, gc=False, tag="response.reasoning_summary_text.delta"):
    delta: str
    output_index: int
    summary_index: int = 0


class RawReasoningDelta(Struct, gc=False, tag="response.reasoning_text.delta"):
    delta: str
    output_index: int
    content_index: int = 0


# From here on Any is foreign JSON, see the first lines.
class _Typed(Struct):
    type: Any = ""

    def __post_init__(self) -> None:
        if type(self.type) is not str:
            self.type = ""


class Event(_Typed):
    output_index: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None
    annotation_index: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    message: Any = None
    code: Any = None
    item: Raw = Raw()
    part: Raw = Raw()
    annotation: Raw = Raw()
    logprobs: Raw = Raw()
    response: Raw = Raw()
    error: Raw = Raw()


class Response(Struct):
    id: Any = None
    model: Any = None
    created_at: Any = None
    service_tier: Any = None
    status: Any = None
    incomplete_details: Raw = Raw()
    error: Raw = Raw()
    output: Raw = Raw()
    usage: Raw = Raw()


class Item(_Typed):
    id: Any = None
    call_id: Any = None
    status: Any = None
    phase: Any = None
    name: Any = None
    input: Any = None
    execution: Any = None
    arguments: Raw = Raw()
    """A string in a function call, an object in a tool search."""
    action: Raw = Raw()
    actions: Raw = Raw()
    operation: Raw = Raw()
    environment: Raw = Raw()
    content: Raw = Raw()
    summary: Raw = Raw()
    encrypted_content: Any = None


class Part(_Typed):
    text: Any = None
    refusal: Any = None
    annotations: Raw = Raw()
    logprobs: Raw = Raw()


class Annotation(_Typed):
    url: Any = None
    title: Any = None
    start_index: Any = None
    end_index: Any = None


class TopLogProb(Struct):
    token: Any = None
    logprob: Any = None
    bytes: Raw = Raw()


class TokenLogProb(Struct):
    token: Any = None
    logprob: Any = None
    bytes: Raw = Raw()
    top_logprobs: Raw = Raw()


class TokenDetails(Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    reasoning_tokens: Any = None


class TokenUsage(Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    input_tokens_details: Raw = Raw()
    output_tokens_details: Raw = Raw()


class Error(Struct):
    code: Any = None
    type: Any = None
    message: Any = None
    error: Raw = Raw()


class Reason(Struct):
    """``incomplete_details``."""

    reason: Any = None


class Kind(_Typed):
    """Of something whose type is all that matters."""


HOT = Decoder(OutputTextDelta | ArgumentsDelta | InputDelta | SummaryDelta | RawReasoningDelta)
HOT_WITHOUT_TEXT = Decoder(ArgumentsDelta | InputDelta | SummaryDelta | RawReasoningDelta)
"""For requests that want log probabilities, which stand in the text deltas and are read by the cold decoder."""

EVENT = Decoder(Event)
RESPONSE = Decoder(Response)
ITEM = Decoder(Item)
PART = Decoder(Part)
ANNOTATION = Decoder(Annotation)
TOKEN_LOGPROB = Decoder(TokenLogProb)
TOP_LOGPROB = Decoder(TopLogProb)
TOKEN_USAGE = Decoder(TokenUsage)
TOKEN_DETAILS = Decoder(TokenDetails)
ERROR = Decoder(Error)
REASON = Decoder(Reason)
KIND = Decoder(Kind)
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
