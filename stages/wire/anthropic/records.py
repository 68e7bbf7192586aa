"""What is read from the JSON of an Anthropic upstream, and how: the two readings of ``responses_records``.

The *hot* reading is typed, serves the deltas of text, thinking and arguments, and fails on anything else. The *cold*
one takes every event in every shape: a value of the wrong type counts as absent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from stages.wire.foreign_json import text


class HotText(Struct, gc=False, tag="text_delta"):
    text: str


class HotThinking(Struct, gc=False, tag="thinking_delta"):
    thinking: str


class HotArguments(Struct, gc=False, tag="input_json_delta"):
    partial_json: str


class HotBlockDelta(Struct, tag="content_block_delta"):
    delta: HotText | HotThinking | HotArguments
    index: int = 0


# From here on Any is foreign JSON, see the first lines.
class _Typed(Struct):
    type: Any = ""

    def __post_init__(self) -> None:
        self.type = text(self.type)


class AnthropicEvent(_Typed):
    """Any event of a stream, or an error that stands alone."""

    index: Any = None
    code: Any = None
    content_block: Raw = Raw()
    delta: Raw = Raw()
    usage: Raw = Raw()
    error: Raw = Raw()
    message: Raw = Raw()
    """An object in ``message_start``; a string in the errors of some gateways."""


class Message(_Typed):
    """A whole message, or its head as it stands in ``message_start``."""

    id: Any = None
    model: Any = None
    stop_reason: Any = None
    content: Raw = Raw()
    usage: Raw = Raw()


class Block(_Typed):
    id: Any = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    input: Raw = Raw()
    citations: Raw = Raw()


class BlockDelta(_Typed):
    """Of a block, or (``stop_reason``) of the message."""

    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    citation: Raw = Raw()


class Cited(_Typed):
    url: Any = None
    """Of ``web_search_result_location``."""
    source: Any = None
    """Of ``search_result_location``: what the client called its search result, as a rule its address."""
    title: Any = None


class MessageUsage(Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    service_tier: Any = None
    output_tokens_details: Raw = Raw()


class OutputDetails(Struct):
    thinking_tokens: Any = None


HOT_DELTA = Decoder(HotBlockDelta)
EVENT = Decoder(AnthropicEvent)
MESSAGE = Decoder(Message)
BLOCK = Decoder(Block)
DELTA = Decoder(BlockDelta)
CITED = Decoder(Cited)
MESSAGE_USAGE = Decoder(MessageUsage)
OUTPUT_DETAILS = Decoder(OutputDetails)
