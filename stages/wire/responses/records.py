"""What is read from the JSON of a Responses upstream: only the fields that are needed, and in two ways.

Thousands of the events that real upstreams send do not satisfy the types of OpenAI's own SDK
(docs/facts/translation.md, "Lenient reading"). So there are two readings. The *hot* one is typed and fails on anything
unexpected; it serves the deltas. The *cold* one accepts every event in every shape: its fields are ``Any`` or unread
``Raw``, and a value of the wrong type counts as absent. Fields that are not named here (tools, instructions, images
...) are skipped without being built.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from stages.wire.foreign_json import Index, TypedRecord


# The hot reading. `output_index` is required: a delta without it is identified by its item's id (`places.py`), and
# reading ids would cost time in every stream that has the index. So such a delta is read cold.
class OutputTextDelta(Struct, gc=False, tag="response.output_text.delta"):
    delta: str
    output_index: Index
    content_index: Index = 0


class ArgumentsDelta(Struct, gc=False, tag="response.function_call_arguments.delta"):
    delta: str
    output_index: Index


class InputDelta(Struct, gc=False, tag="response.custom_tool_call_input.delta"):
    delta: str
    output_index: Index


class SummaryDelta(Struct, gc=False, tag="response.reasoning_summary_text.delta"):
    delta: str
    output_index: Index
    summary_index: Index = 0


class RawReasoningDelta(Struct, gc=False, tag="response.reasoning_text.delta"):
    delta: str
    output_index: Index
    content_index: Index = 0


# The cold reading: from here on Any is foreign JSON.
class ResponsesEvent(TypedRecord):
    """Any event of a stream."""

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
    input_transformations: Raw = Raw()
    """What was left out of the input: reasoning, for example, after what came before it was edited (GPT-6.2)."""


class Item(TypedRecord):
    id: Any = None
    call_id: Any = None
    status: Any = None
    phase: Any = None
    name: Any = None
    namespace: Any = None
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
    server_label: Any = None
    """The MCP server of an approval request."""
    result: Raw = Raw()
    """The image of an image generation call, in base64."""
    output_format: Any = None


class Part(TypedRecord):
    text: Any = None
    refusal: Any = None
    annotations: Raw = Raw()
    logprobs: Raw = Raw()


class Annotation(TypedRecord):
    url: Any = None
    title: Any = None
    start_index: Any = None
    end_index: Any = None


class TokenUsage(Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    input_tokens_details: Raw = Raw()
    output_tokens_details: Raw = Raw()


class Reason(Struct):
    """``incomplete_details``."""

    reason: Any = None


class EventKind(TypedRecord):
    """An object whose type is all that matters."""


HOT = Decoder(OutputTextDelta | ArgumentsDelta | InputDelta | SummaryDelta | RawReasoningDelta)
HOT_WITHOUT_TEXT = Decoder(ArgumentsDelta | InputDelta | SummaryDelta | RawReasoningDelta)
"""For requests that want log probabilities, which are in the text deltas and are read cold."""

EVENT = Decoder(ResponsesEvent)
RESPONSE = Decoder(Response)
ITEM = Decoder(Item)
PART = Decoder(Part)
ANNOTATION = Decoder(Annotation)
TOKEN_USAGE = Decoder(TokenUsage)
REASON = Decoder(Reason)
KIND = Decoder(EventKind)
