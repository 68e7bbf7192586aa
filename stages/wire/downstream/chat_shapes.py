"""The shapes of what clients of Chat Completions are sent, as types: whole answers, chunks and errors.

The writers (`chat_document`, `chat_stream`, `errors`) build them by hand, because they are hot. These are for whoever
must know the shape without reading them: ``/openapi.json`` is made of them, and all tests of answers hold them to it.

Source: OpenAI's API reference and schemas (openai-openapi 2.3.0); ``reasoning_content`` is what clients of reasoning
models read.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from stages.events import FinishReason
from stages.wire.downstream.chat_parts import ServiceTier


class FunctionCall(TypedDict):
    """The call of a tool.

    Attributes:
        name: of the tool.
        arguments: JSON as the model wrote it, which need not be valid; of a custom tool its text.
    """

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call that the client is to make; custom tools are called as functions, too."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class CitedUrl(TypedDict):
    """A page that the answer refers to, and the characters of the text that do so."""

    url: str
    title: str
    start_index: int
    end_index: int


class MessageAnnotation(TypedDict):
    """What belongs to a part of the text."""

    type: Literal["url_citation"]
    url_citation: CitedUrl


class TopLogprob(TypedDict):
    """A token that the model might have chosen."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TypedDict):
    """A token of the answer."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class Logprobs(TypedDict):
    """The log probabilities of the answer's tokens, if the request asked for them and the upstream sends them."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None


class PromptTokensDetails(TypedDict, total=False):
    """What is known of the prompt's tokens."""

    cached_tokens: int
    cache_write_tokens: int


class CompletionTokensDetails(TypedDict, total=False):
    """What is known of the answer's tokens."""

    reasoning_tokens: int


class CompletionUsage(TypedDict):
    """How many tokens the upstream has counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: NotRequired[PromptTokensDetails]
    completion_tokens_details: NotRequired[CompletionTokensDetails]


class ChatMessage(TypedDict):
    """The answer.

    Attributes:
        content: null if there are only calls, or a refusal.
        reasoning_content: what the model thought, if the upstream shows it.
    """

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    annotations: NotRequired[list[MessageAnnotation]]


class ChatChoice(TypedDict):
    """The answer, and why it ended. There is one choice only."""

    index: Literal[0]
    message: ChatMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(TypedDict):
    """A whole answer.

    Attributes:
        id: ends with the request's id.
        created: in seconds since the epoch.
        model: the name that the client asked for.
        usage: missing if the upstream does not report it.
    """

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: NotRequired[CompletionUsage]
    service_tier: NotRequired[ServiceTier]


class FunctionCallChunk(TypedDict):
    """A part of a call: its name in the first one only."""

    name: NotRequired[str]
    arguments: str


class ToolCallChunk(TypedDict):
    """A part of a call: its id and its type in the first one only.

    Attributes:
        index: which call it belongs to.
    """

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionCallChunk


class ChunkDelta(TypedDict, total=False):
    """What a chunk adds to the message; nothing in the last one."""

    role: Literal["assistant"]
    content: str
    refusal: str
    reasoning_content: str
    tool_calls: list[ToolCallChunk]
    annotations: list[MessageAnnotation]


class ChunkChoice(TypedDict):
    """A part of the answer.

    Attributes:
        finish_reason: null in all chunks but the last that has a choice.
    """

    index: Literal[0]
    delta: ChunkDelta
    logprobs: NotRequired[Logprobs | None]
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """One event of a stream.

    Attributes:
        created: in seconds since the epoch.
        model: the name that the client asked for.
        choices: one; none in the chunk with the usage.
        usage: in the chunk after the last choice, if ``stream_options.include_usage`` asks for it; then it is null in
            those before. Cursor always gets it.
    """

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[CompletionUsage | None]
    service_tier: NotRequired[ServiceTier]


class ErrorDetails(TypedDict):
    """What went wrong.

    Attributes:
        message: a sentence for people: what happened, and what to do.
        type: OpenAI's kind of error.
        param: the field of the request that is to blame, as ``input[3].role``.
        code: one of the codes that each status lists.
        upstream_code: the upstream's own code, if it sent one.
    """

    message: str
    type: str
    param: str | None
    code: str
    upstream_code: NotRequired[str]


class ErrorDocument(TypedDict):
    """An error in OpenAI's shape."""

    error: ErrorDetails
