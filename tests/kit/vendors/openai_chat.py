"""OpenAI's Chat Completions: GPT-5, and GPT-6, which has function tools only on /responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from kit.vendors.chat_shapes import REFERENCE, SHAPE, ChatDouble
from kit.vendors.double import Answer, Ask, Double, Refused, Rule
from kit.vendors.openai_responses import Gpt6Responses
from kit.vendors.openai_shapes import (
    GPT_5_EFFORTS,
    GPT_6_EFFORTS,
    check_effort,
    check_metadata,
    check_model,
    check_path,
    refuse,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

GPT_6: Final = "OpenAI's guide to GPT-6 (2026-11)"
_LISTS: Final = ("presence_penalty", "frequency_penalty", "logit_bias")


def _gpt_5_sampling(double: Double, ask: Ask) -> None:
    if ask.body.get("reasoning_effort") != "none":
        refuse(ask, "temperature", "top_p", "logprobs", "top_logprobs", *_LISTS)


def _gpt_6_sampling(double: Double, ask: Ask) -> None:
    refuse(ask, "temperature", "top_p", "logprobs", "top_logprobs", *_LISTS)


def _limit(double: Double, ask: Ask) -> None:
    refuse(ask, "max_tokens")


def _gpt_5_effort(double: Double, ask: Ask) -> None:
    check_effort(ask.body.get("reasoning_effort"), GPT_5_EFFORTS, "reasoning_effort")


def _gpt_6_effort(double: Double, ask: Ask) -> None:
    check_effort(ask.body.get("reasoning_effort"), GPT_6_EFFORTS, "reasoning_effort")


def _metadata(double: Double, ask: Ask) -> None:
    check_metadata(double, ask)
    if ask.body.get("metadata") and not ask.body.get("store"):
        raise Refused("The 'metadata' parameter is only allowed when 'store' is enabled.", "metadata")


def _no_functions(double: Double, ask: Ask) -> None:
    if ask.body.get("tools"):
        raise Refused(
            "Function tools are not supported with this model in /v1/chat/completions. Use /v1/responses.", "tools"
        )


class Gpt5Chat(ChatDouble):
    """GPT-5 on /chat/completions. It gives out no reasoning."""

    PATH = "/v1/chat/completions"
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("path", REFERENCE, check_path),
        *SHAPE,
        Rule("model exists", REFERENCE, check_model),
        Rule("no sampling", 'OpenAI, "Using GPT-5" (2025-08)', _gpt_5_sampling),
        Rule("max_completion_tokens", REFERENCE, _limit),
        Rule("efforts of GPT-5", REFERENCE, _gpt_5_effort),
        Rule("metadata only if stored", REFERENCE + "; 400 \"only allowed when 'store' is enabled\"", _metadata),
    )
    parameters = frozenset(CompletionCreateParamsBase.__annotations__) | {"stream"}
    roles = frozenset({"system", "developer", "user", "assistant", "tool"})
    message_fields = frozenset({"refusal", "name", "audio"})
    has_custom = True
    restores = "none"


class Gpt6Chat(Gpt5Chat):
    """GPT-6 on /chat/completions: for text only."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *(rule for rule in Gpt5Chat.RULES if rule.name not in ("no sampling", "efforts of GPT-5")),
        Rule("no sampling", GPT_6, _gpt_6_sampling),
        Rule("efforts of GPT-6", GPT_6, _gpt_6_effort),
        Rule("function tools only on /responses", GPT_6, _no_functions),
    )


class Gpt6(Gpt6Responses):
    """An account at OpenAI with GPT-6 on both APIs."""

    def __init__(self, models: tuple[str, ...], **settings: Any) -> None:
        super().__init__(models, **settings)
        self._chat = Gpt6Chat(models, **settings)
        self._chat.refusals = self.refusals
        self._chat.made = self.made

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request."""
        if path == Gpt6Chat.PATH:
            return self._chat(method, path, headers, body)
        return super().__call__(method, path, headers, body)
