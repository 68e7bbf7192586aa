"""How one server's Chat Completions may differ from another's; `stages.upstreams.quirks` has the values.

The defaults are what all servers understand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from stages.wire.normal_form import EFFORTS

OPENAI_ONLY: Final = frozenset(
    """store metadata service_tier prompt_cache_key prompt_cache_retention prompt_cache_options safety_identifier user
    moderation logit_bias seed stop frequency_penalty presence_penalty prediction""".split()  # noqa: SIM905 - reads better as text
)
"""Parameters that OpenAI itself accepts; other servers answer most of them with 400 or 422."""

USUAL: Final = frozenset(
    """user seed stop frequency_penalty presence_penalty logit_bias top_k min_p repetition_penalty chat_template_kwargs
    thinking enable_thinking thinking_budget guided_json guided_regex structured_outputs""".split()  # noqa: SIM905 - as above
)
"""Parameters for servers that ignore what they do not know, as vLLM and LM Studio do."""

ALL_EFFORTS: Final[Mapping[str, str]] = MappingProxyType({effort: effort for effort in EFFORTS})
THREE_EFFORTS: Final[Mapping[str, str]] = MappingProxyType(
    {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
)


class ChatQuirks(Struct, frozen=True, kw_only=True):
    """What one provider's Chat Completions accept.

    Attributes:
        is_openai: OpenAI's own API: the ``developer`` role, custom tools, ``verbosity`` and so on, and the rules of
            `stages.wire.openai_models`.
        hides_obfuscation: whether ``stream_options.include_obfuscation`` may be switched off.
        limit: the name of the parameter that bounds the answer.
        has_stream_options: whether it accepts ``stream_options``; servers that do not send usage unasked.
        passes: the parameters without a rule of their own that are passed on.
        efforts: its name for each reasoning effort; an effort that is missing is not sent.
        efforts_for: the models that accept an effort, where the others refuse it.
        no_thinking: what is sent for the effort ``none`` if it has no such effort.
        reasoning: what it requires as ``reasoning_content`` of a message with calls if the real one is lost. None:
            nothing.
        takes_reasoning: whether it accepts ``reasoning_content``, even if it requires nothing.
        takes_details: whether it accepts ``reasoning_details``, which replace ``reasoning_content``.
        asks: what is always sent, for models whose name matches: pairs of a pattern and parameters.
        shows_thoughts: whether thoughts are shown only if Gemini's ``thinking_config`` asks for them.
        empty_content: the content of a message that only calls tools.
        required: its name for the tool choice ``required``.
        short_ids: whether call ids must be nine letters and digits.
        answers_tools: whether only an assistant's message may follow a tool's.
        signs_calls: whether calls must carry Gemini's thought signature.
        tags_thoughts: whether reasoning comes as ``<thought>`` within the text.
    """

    is_openai: bool = False
    hides_obfuscation: bool = False
    limit: str = "max_tokens"
    has_stream_options: bool = True
    passes: frozenset[str] = USUAL
    efforts: Mapping[str, str] = THREE_EFFORTS
    efforts_for: re.Pattern[str] | None = None
    no_thinking: Mapping[str, object] | None = None
    reasoning: str | None = None
    takes_reasoning: bool = False
    takes_details: bool = False
    asks: tuple[tuple[re.Pattern[str], Mapping[str, object]], ...] = ()
    shows_thoughts: bool = False
    empty_content: str | None = ""
    required: str = "required"
    short_ids: bool = False
    answers_tools: bool = False
    signs_calls: bool = False
    tags_thoughts: bool = False


_USUAL_QUIRKS = ChatQuirks()
_ECHOING = ChatQuirks(reasoning="")
_ECHOING_KIMI = ChatQuirks(reasoning=" ")
_TAKING = ChatQuirks(takes_reasoning=True)
_TAKES: Final = re.compile(r"glm|qwen|minimax")
"""Models whose chat templates read ``reasoning_content`` in tool turns (GLM 4.6 and Qwen 3 on, MiniMax M2)."""


def usual_quirks(model: str) -> ChatQuirks:
    """Return the quirks of a server that is not in the table, as far as the model's name shows them."""
    name = model.lower()
    if "kimi" in name:
        return _ECHOING_KIMI
    if "deepseek" in name:
        return _ECHOING
    return _TAKING if _TAKES.search(name) is not None else _USUAL_QUIRKS
