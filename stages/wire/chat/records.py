"""What is read from the JSON of a Chat Completions upstream: only the fields that are needed, in two ways.

The *hot* reading is typed, serves the deltas of text, reasoning and arguments, and fails on anything else in the
chunk. The *cold* one accepts every chunk in every shape: its fields are ``Any`` or unread ``Raw``, and a value of the
wrong type counts as absent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from stages.wire.foreign_json import Index


class HotFunction(Struct, gc=False):
    arguments: str | None = None
    name: str | None = None


class HotCall(Struct):
    index: Index
    function: HotFunction
    id: str | None = None
    custom: None = None
    extra_content: None = None


class HotChatDelta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[HotCall] | None = None
    reasoning_details: None = None
    refusal: None = None
    function_call: None = None
    annotations: None = None
    thinking: None = None
    images: None = None


class HotChoice(Struct):
    delta: HotChatDelta
    index: Index = 0
    finish_reason: None = None
    usage: None = None


class HotChunk(Struct):
    choices: tuple[HotChoice]
    usage: None = None
    error: None = None


# The cold reading: from here on Any is foreign JSON.
class Chunk(Struct):
    """A chunk, a whole completion, or an error in one of its shapes."""

    id: Any = None
    model: Any = None
    created: Any = None
    service_tier: Any = None
    object: Any = None
    type: Any = None
    code: Any = None
    message: Any = None
    detail: Any = None
    choices: Raw = Raw()
    usage: Raw = Raw()
    x_groq: Raw = Raw()
    error: Raw = Raw()
    citations: Raw = Raw()
    """Perplexity's and xAI's: the addresses of all pages that the answer cites."""
    search_results: Raw = Raw()
    """Perplexity's: the same pages with their titles."""


class Choice(Struct):
    index: Any = None
    finish_reason: Any = None
    delta: Raw = Raw()
    message: Raw = Raw()
    logprobs: Raw = Raw()
    usage: Raw = Raw()


class ChatDelta(Struct):
    """A delta, or a whole message."""

    content: Raw = Raw()
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    reasoning_details: Raw = Raw()
    refusal: Any = None
    tool_calls: Raw = Raw()
    function_call: Raw = Raw()
    annotations: Raw = Raw()
    images: Raw = Raw()


class ChatCall(Struct):
    index: Any = None
    id: Any = None
    function: Raw = Raw()
    custom: Raw = Raw()
    extra_content: Raw = Raw()


class Function(Struct):
    """What is called: a function with ``arguments``, or a custom tool with ``input``."""

    name: Any = None
    arguments: Raw = Raw()
    input: Any = None


class ContentPart(Struct):
    """A part of Mistral's typed content; ``thinking`` is itself a list of parts."""

    type: Any = None
    text: Any = None
    thinking: Raw = Raw()


class ReasoningDetail(Struct):
    """A piece of reasoning as OpenRouter and MiniMax send it: text, a summary, or what only the upstream can read.

    https://openrouter.ai/docs/use-cases/reasoning-tokens (2026-11).
    """

    text: Any = None
    summary: Any = None


class Image(Struct):
    """An image that the model made, as OpenRouter sends it."""

    image_url: Raw = Raw()


class SearchResult(Struct):
    """A page with its address; an ``image_url`` has the address only."""

    url: Any = None
    title: Any = None


class LogProbsOfChoice(Struct):
    content: Raw = Raw()


class UrlCitation(Struct):
    """OpenAI's nested form, or that of others with the fields at the top."""

    type: Any = None
    url: Any = None
    title: Any = None
    start_index: Any = None
    end_index: Any = None
    url_citation: Raw = Raw()


class ChatUsage(Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    cached_tokens: Any = None
    """Moonshot's field."""
    prompt_cache_hit_tokens: Any = None
    """DeepSeek's field."""
    prompt_tokens_details: Raw = Raw()
    completion_tokens_details: Raw = Raw()


class GroqExtras(Struct):
    usage: Raw = Raw()
    error: Raw = Raw()


HOT_CHUNK = Decoder(HotChunk)
CHUNK = Decoder(Chunk)
CHOICE = Decoder(Choice)
DELTA = Decoder(ChatDelta)
CALL = Decoder(ChatCall)
FUNCTION = Decoder(Function)
CONTENT_PART = Decoder(ContentPart)
REASONING_DETAIL = Decoder(ReasoningDetail)
IMAGE = Decoder(Image)
SEARCH_RESULT = Decoder(SearchResult)
LOGPROBS_OF_CHOICE = Decoder(LogProbsOfChoice)
URL_CITATION = Decoder(UrlCitation)
CHAT_USAGE = Decoder(ChatUsage)
GROQ_EXTRAS = Decoder(GroqExtras)
