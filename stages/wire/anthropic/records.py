"""What is read from the JSON of an Anthropic upstream: only the fields that are needed, in two ways.

The *hot* reading is typed, serves the deltas of text, thinking and arguments, and fails on anything else. The *cold*
one accepts every event in every shape: its fields are ``Any`` or unread ``Raw``, and a value of the wrong type counts
as absent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from stages.wire.foreign_json import Index, TypedRecord


class HotText(Struct, gc=False, tag="text_delta"):
    text: str


class HotThinking(Struct, gc=False, tag="thinking_delta"):
    thinking: str


class HotArguments(Struct, gc=False, tag="input_json_delta"):
    partial_json: str


class HotBlockDelta(Struct, tag="content_block_delta"):
    delta: HotText | HotThinking | HotArguments
    index: Index = 0


# The cold reading: from here on Any is foreign JSON.
class AnthropicEvent(TypedRecord):
    """Any event of a stream, or an error that stands alone."""

    index: Any = None
    code: Any = None
    content_block: Raw = Raw()
    delta: Raw = Raw()
    usage: Raw = Raw()
    error: Raw = Raw()
    message: Raw = Raw()
    """An object in ``message_start``; a string in the errors of some gateways."""


class Message(TypedRecord):
    """A whole message, or its head in ``message_start``."""

    id: Any = None
    model: Any = None
    stop_reason: Any = None
    stop_details: Raw = Raw()
    content: Raw = Raw()
    usage: Raw = Raw()


class Block(TypedRecord):
    id: Any = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    input: Raw = Raw()
    citations: Raw = Raw()


class BlockDelta(TypedRecord):
    """The delta of a block or, with ``stop_reason``, of the message."""

    text: Any = None
    thinking: Any = None
    signature: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    stop_details: Raw = Raw()
    citation: Raw = Raw()


class StopDetails(Struct):
    """Why the model refused."""

    category: Any = None
    explanation: Any = None


class Cited(TypedRecord):
    url: Any = None
    """The page of a ``web_search_result_location``."""
    source: Any = None
    """The client's name of its search result in a ``search_result_location``, usually its URL."""
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
STOP_DETAILS = Decoder(StopDetails)
MESSAGE_USAGE = Decoder(MessageUsage)
OUTPUT_DETAILS = Decoder(OutputDetails)
