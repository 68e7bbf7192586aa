"""What Chat Completions servers take differently: one table, by provider.

The names are LiteLLM's prefixes. A server that is not in the table gets the form that all servers understand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from msgspec import Struct

OPENAI_ONLY: Final = frozenset(
    """store metadata service_tier prompt_cache_key prompt_cache_retention prompt_cache_options safety_identifier user
    moderation logit_bias seed stop frequency_penalty presence_penalty prediction""".split()  # noqa: SIM905 - a text of words
)
"""Parameters that OpenAI itself takes; others answer 400 or 422 to most of them."""

USUAL: Final = frozenset(
    """user seed stop frequency_penalty presence_penalty logit_bias top_k min_p repetition_penalty chat_template_kwargs
    thinking enable_thinking thinking_budget guided_json guided_regex structured_outputs""".split()  # noqa: SIM905 - as above
)
"""Parameters that are passed on to servers which take what they know, as vLLM and LM Studio do."""

_ROUTING: Final = frozenset({"provider", "models", "transforms", "route", "plugins", "service_tier"})
"""OpenRouter's own."""

_ALL_EFFORTS: Final = {word: word for word in ("none", "minimal", "low", "medium", "high", "xhigh", "max")}
_THREE_EFFORTS: Final = MappingProxyType(
    {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
)


class Dialect(Struct, frozen=True, kw_only=True):
    """What one provider takes.

    Attributes:
        is_openai: OpenAI's own API: the ``developer`` role, custom tools, ``verbosity`` and so on.
        limit: the name of the parameter that bounds the answer.
        has_stream_options: whether it takes ``stream_options``; those that do not send usage unasked.
        passes: which parameters without a rule of their own are passed on.
        efforts: how it calls each reasoning effort; an effort that is missing is not sent.
        efforts_for: which models take an effort, where others refuse it.
        no_thinking: what is sent for effort ``none`` if that is no effort of its own.
        reasoning: what it wants as ``reasoning_content`` of a message with calls if the real one is lost. None: it
            does not take the field at all.
        empty_content: the content of a message that only calls tools.
        required: its word for the tool choice ``required``.
        short_ids: whether call ids must be nine letters and digits.
        answers_tools: whether only the assistant may speak after a tool.
        signs_calls: whether calls must carry Gemini's thought signature.
    """

    is_openai: bool = False
    limit: str = "max_tokens"
    has_stream_options: bool = True
    passes: frozenset[str] = USUAL
    efforts: Mapping[str, str] = _THREE_EFFORTS
    efforts_for: re.Pattern[str] | None = None
    no_thinking: Mapping[str, object] | None = None
    reasoning: str | None = None
    empty_content: str | None = ""
    required: str = "required"
    short_ids: bool = False
    answers_tools: bool = False
    signs_calls: bool = False


_PLAIN: Final = frozenset({"seed", "stop", "frequency_penalty", "presence_penalty"})
_NO_THINKING: Final = {"thinking": {"type": "disabled"}}
_OPENAI = Dialect(
    is_openai=True, limit="max_completion_tokens", passes=OPENAI_ONLY, efforts=_ALL_EFFORTS, empty_content=None
)
# DeepSeek wants the reasoning of tool turns back and takes "" for a lost one; Moonshot wants it too and takes " ", but
# counts "" as missing (llmgateway#2093, pi#4178). api-docs.deepseek.com/guides/thinking_mode, 2026-10.
_DEEPSEEK = Dialect(
    passes=_PLAIN | {"thinking"},
    efforts=_ALL_EFFORTS,
    no_thinking=_NO_THINKING,
    reasoning="",
)
_MOONSHOT = Dialect(passes=_PLAIN | {"thinking"}, efforts={}, no_thinking=_NO_THINKING, reasoning=" ")
# Gemini 3 refuses calls without a signature (ai.google.dev/gemini-api/docs/thought-signatures); the fields that its
# OpenAI-compatible endpoint does not know are 400 "Unknown name".
_GEMINI = Dialect(
    passes=frozenset({"stop"}),
    efforts={**_THREE_EFFORTS, "minimal": "minimal", "none": "none"},
    empty_content=None,
    signs_calls=True,
)
_OLLAMA = Dialect(  # "does not support thinking" is 400, so only models that are known to think get an effort
    efforts={**_THREE_EFFORTS, "none": "none"}, efforts_for=re.compile("gpt-oss")
)

DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "deepseek": _DEEPSEEK,
    "moonshot": _MOONSHOT,
    "moonshotai": _MOONSHOT,
    "gemini": _GEMINI,
    "vertex_ai": _GEMINI,
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    # Mistral: unknown fields are 422 extra_forbidden, stream_options among them (anon-kode#53); ids: opencode#1680;
    # "Unexpected role 'user' after role 'tool'": litellm#6323.
    "mistral": Dialect(
        has_stream_options=False,
        passes=frozenset({"stop", "frequency_penalty", "presence_penalty", "safe_prompt"}),
        efforts={},
        required="any",
        short_ids=True,
        answers_tools=True,
    ),
    "codestral": Dialect(has_stream_options=False, passes=frozenset({"stop"}), efforts={}, short_ids=True),
    # Groq: reasoning_effort of models that do not reason is 400; console.groq.com/docs/reasoning.
    "groq": Dialect(limit="max_completion_tokens", passes=_PLAIN | {"user"}, efforts_for=re.compile("gpt-oss")),
    # xAI: penalties and stop are 400 for models that reason, and an effort for those without levels.
    "xai": Dialect(
        passes=frozenset({"seed", "user"}),
        efforts={**_THREE_EFFORTS, "medium": "high"},
        efforts_for=re.compile("mini"),
    ),
    "openrouter": Dialect(passes=USUAL | _ROUTING, efforts=_ALL_EFFORTS, reasoning=""),
}

_USUAL_DIALECT = Dialect()
_ECHOING_DIALECT = Dialect(reasoning="")
_ECHOING_KIMI = Dialect(reasoning=" ")

_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def dialect_of(provider: str, model: str) -> Dialect:
    """Give the dialect of a provider; DeepSeek's and Kimi's models are known by name where the server is any."""
    dialect = DIALECTS.get(provider)
    if dialect is not None:
        return dialect
    name = model.lower()
    if "kimi" in name:
        return _ECHOING_KIMI
    return _ECHOING_DIALECT if "deepseek" in name else _USUAL_DIALECT


def short_id(call_id: str) -> str:
    """Give a call id in the form of Mistral: nine letters and digits, always the same ones for the same id."""
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(sha256(call_id.encode("utf-8", "replace")).digest()[:8])
    digits: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)
