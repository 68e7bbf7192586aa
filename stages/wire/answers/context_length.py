"""Recognises an upstream's error that says that the conversation is too long for the model, whoever words it.

Cursor summarises a chat and repeats the call only after an error that it knows as such. So all forms are reported
alike: code ``context_length_exceeded``, and a message that begins with OpenAI's own sentence (docs/facts/cursor.md,
"When the chat has become too long").

Errors about the rate of tokens, or about the output that was asked for, are different: a shorter chat does not help.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"
"""The code of such a failure, ours and OpenAI's."""

WINDOW_EXCEEDED: Final = frozenset({"model_context_window_exceeded", CONTEXT_LENGTH_EXCEEDED})
"""Reasons for the end of an answer (Anthropic's ``stop_reason`` since Claude 4.5, GLM's ``finish_reason``): the model's
window was full. An answer that has some output is valid, and ends with ``length``; without any, nothing but a shorter
chat helps."""

NO_NUMBERS: Final = (
    "Your input exceeds the context window of this model. Please adjust your input and try again."  # Responses, 2026-11
)

_EXAMINED_CHARACTERS: Final = 4000
"""Vendors' longest text is under 1000, but gateways wrap it."""

_CODES: Final = WINDOW_EXCEEDED | {
    "context_window_exceeded",
    "exceed_context_size_error",  # llama.cpp
    "model_max_prompt_tokens_exceeded",  # GitHub Copilot; forum.cursor.com t/154924
    "contextwindowexceedederror",  # LiteLLM's class
}
"""``code`` or ``type`` of an error, in lower case."""


class Form(Struct, frozen=True):
    """How one vendor says it.

    Attributes:
        vendor: who says so, and the source of the text.
        pattern: what it says. The groups ``limit`` (of the model), ``used`` (all that was asked for), ``input`` and
            ``output`` (the parts of ``used``) are numbers of tokens; any of them may be absent.
    """

    vendor: str
    pattern: re.Pattern[str]


_N: Final = r"\d[\d,]{0,14}"


def _form(vendor: str, pattern: str) -> Form:
    return Form(vendor, re.compile(pattern.replace("<N>", _N), re.IGNORECASE))


# The first form that matches counts, so a form with numbers comes before a more general one. Each repetition is
# bounded: the text is foreign. Sources: the issue or file that is named, else the tables and tests of public clients
# that quote the vendor's text (read 2026-11; above all pi-ai's overflow patterns); no vendor publishes a list.
FORMS: Final[tuple[Form, ...]] = (
    _form("OpenAI Responses; strands-agents", r"exceeds? (?:the|this|your) (?:model'?s )?context window"),
    _form(
        "vLLM before vllm#36197: about the output, but in a long chat it is the chat that has grown",
        r"max(?:_completion)?_tokens'? is too large: (?P<output><N>)\. ?This model's maximum context length is "
        r"(?P<limit><N>) tokens and your request has (?P<input><N>) input tokens",
    ),
    _form(
        "vLLM since vllm#36197 (2026-03), Cloudflare, Bedrock",
        r"maximum context length is (?P<limit><N>) tokens\. However, you requested (?P<output><N>) output tokens and "
        r"your (?:prompt|request) (?:contains|has)(?: at least)? (?P<input><N>) input tokens",
    ),
    _form(
        "vLLM, 2026-11",
        r"you passed (?:at least )?(?:(?P<input><N>) input tokens|<N> input characters) and requested (?P<output><N>) "
        r"output tokens\. However, the model's context length is only (?P<limit><N>) tokens",
    ),
    _form(
        "vLLM, 2026-11: the engine itself",
        r"prompt \(length (?P<used><N>)\) is longer than the maximum model length of (?P<limit><N>)",
    ),
    _form(
        "OpenAI Chat, Azure, DeepSeek (RooCode#1767), vLLM, OpenRouter",
        r"maximum context length is (?P<limit><N>) tokens?[.,] ?however,? you(?:r [a-z]{1,9})? "
        r"(?:requested|resulted in)(?: about)? (?P<used><N>) tokens?"
        r"(?: \([^()]{0,120}?(?P<output><N>) (?:in|for) the (?:completion|output)\))?",
    ),
    _form(
        "Anthropic; Fireworks",
        r"prompt is too long(?:: (?P<used><N>)(?: tokens)?(?: >|, model maximum context length:) (?P<limit><N>))?",
    ),
    _form(
        "Anthropic (continuedev/continue#6080)",
        r"input length and `?max_tokens`? exceed context limit"
        r"(?:: (?P<input><N>) \+ (?P<output><N>) > (?P<limit><N>))?",
    ),
    _form(
        "Gemini",
        r"input token count(?: \((?P<used><N>)\))? exceeds the maximum number of tokens allowed"
        r"(?: \(?(?P<limit><N>)\)?)?",
    ),
    _form("Vertex AI", r"input token count is (?P<used><N>) but model only supports up to (?P<limit><N>)"),
    _form(
        "Mistral",
        r"prompt contains (?P<used><N>) tokens[^.]{0,80}?too large for model with (?P<limit><N>) maximum context",
    ),
    _form("Bedrock Mantle", r"prompt tokens \((?P<used><N>)\) exceed model maximum \((?P<limit><N>)\)"),
    _form("Bedrock Converse", r"input is too long for requested model"),
    _form(
        "SGLang, LiteLLM",
        r"requested token count exceeds the model'?s maximum context length(?: of (?P<limit><N>) tokens)?"
        r"(?:\. You requested a total of (?P<used><N>) tokens: <N> tokens from the input messages and "
        r"(?P<output><N>) tokens for the completion)?",
    ),
    _form(
        "Together AI, SGLang (kimchi#794)",
        r"input \((?P<used><N>) tokens\) is longer than the model'?s context length \((?P<limit><N>) tokens\)",
    ),
    _form("gateways", r"input (?:is )?too long: (?:(?P<used><N>) )?input tokens,? limit is (?P<limit><N>)"),
    _form(
        "GLM (cursor-byok#129)",
        r"number of input tokens(?: \((?P<used><N>)\))? has exceeded max_prompt_tokens(?: \((?P<limit><N>)\))?",
    ),
    _form("Z.ai, code 1261", r"prompt exceeds max(?:imum)? length"),
    _form("GitHub Copilot", r"prompt token count of (?P<used><N>) exceeds the limit of (?P<limit><N>)"),
    _form("xAI", r"maximum prompt length is (?P<limit><N>)(?: but the request contains (?P<used><N>) tokens)?"),
    _form("Moonshot", r"input token length too long"),
    _form("Moonshot", r"exceeded model token limit(?:: (?P<limit><N>)(?: \(requested: (?P<used><N>)\))?)?"),
    _form("MiniMax", r"context window exceeds limit"),
    _form("Alibaba Model Studio", r"range of input length should be \[\d{1,9}, ?\d{1,9}\]"),
    _form(
        "llama.cpp (server-context.cpp)",
        r"request(?: \((?P<used><N>) tokens\))? exceeds the available context size(?: \((?P<limit><N>) tokens\))?",
    ),
    _form("llama.cpp, in the middle of an answer too; LM Studio", r"context size has been exceeded"),
    _form(
        "LM Studio",
        r"greater than the context length|model is loaded with context length of only <N> tokens",
    ),
    _form("Ollama", r"(?:prompt too long; exceeded|input length exceeds)(?: the)?(?: max(?:imum)?)? context length"),
    _form(
        "text-generation-inference",
        r"`inputs` tokens \+ `max_new_tokens` must be <= (?P<limit><N>)\. Given: (?P<input><N>) `inputs` tokens and "
        r"(?P<output><N>)",
    ),
    _form(
        "text-generation-inference",
        r"`inputs` must have less than (?P<limit><N>) tokens\. Given: (?P<used><N>)",
    ),
    _form("Cohere", r"tokens in the prompt cannot exceed (?P<limit><N>)(?: - received (?P<used><N>))?"),
    _form(
        "Cerebras, Groq",
        r"please reduce the length of the messages or completion"
        r"(?:\. Current length is (?P<used><N>) while limit is (?P<limit><N>))?",
    ),
    _form("OpenRouter (Poolside)", r"exceeds? (?:the )?(?:model'?s )?maximum (?:context|allowed input) length"),
    _form("any, as for OpenAI Chat, cut or reworded", r"maximum context length is (?P<limit><N>) tokens"),
    _form("LiteLLM and others that name the class", r"context[ _]?(?:length|window)[ _]?exceeded"),
)

_OTHER: Final = re.compile(
    r"rate[ _-]?limit|\bper[ _-](?:min|hour|day|second)|\b[TR]P[MD]\b|too many requests|throttl|\bquota\b",
    re.IGNORECASE,
)
"""What limits a rate does not limit a chat: "Request too large for gpt-5 on tokens per min (TPM)"."""

_ONLY_OUTPUT: Final = re.compile(
    r"(?P<sum>(?:\band|\bplus|\+) )?[`'\"]?\bmax_(?:[a-z]{1,10}_)?tokens\b[^.a-z]{0,24}(?:of \d[\d,]{0,14} )?exceeds? "
    r"(?:the|this|your) (?:model'?s )?context window",
    re.IGNORECASE,
)
"""An output larger than the window by itself, unless it is part of a sum, as in "prompt tokens and max_tokens"."""

_NO_ACCESS: Final = frozenset({"401", "403", "404", "authentication_error", "permission_error", "not_found_error"})
"""Whoever may not use a model, or not at this length, is not helped by a summary."""

_IS_OPENAIS: Final = re.compile(r"This model's maximum context length is \d|Your input exceeds the context window of")


def sentence_on_length(message: str, *words: str) -> str | None:
    """Return OpenAI's sentence for an error that says that the conversation is too long; None for any other error.

    Args:
        message: the upstream's own text.
        words: its ``code`` and ``type``, as far as it has them, and its status.
    """
    lower = [word.lower() for word in words]
    is_known = not _CODES.isdisjoint(lower)
    text = " ".join(message[:_EXAMINED_CHARACTERS].split())  # a gateway may have wrapped its lines
    if not is_known and (
        not text
        or _OTHER.search(text)
        or any(map(_OTHER.search, words))
        or not _NO_ACCESS.isdisjoint(lower)
        or ((found := _ONLY_OUTPUT.search(text)) is not None and not found["sum"])
    ):
        return None
    for form in FORMS:
        if (match := form.pattern.search(text)) is not None:
            limit, used, output = _numbers_of(match)
            if limit and output >= limit and not is_known:
                return None  # no chat is short enough for an output like that
            return sentence_of(limit, used, output)
    return NO_NUMBERS if is_known else None


def beginning_with(sentence: str, message: str) -> str:
    """Return ``message`` with ``sentence`` before it, unless it begins like that itself."""
    if _IS_OPENAIS.match(message):
        return message
    return f"{sentence} {message}" if message else sentence


def _numbers_of(match: re.Match[str]) -> tuple[int, int, int]:
    """Return the model's limit, all that was asked for, and the part of it that is output; 0 is unknown."""
    found = {name: int(digits.replace(",", "")) for name, digits in match.groupdict().items() if digits}
    output = found.get("output", 0)
    used = found.get("used") or (found["input"] + output if "input" in found else 0)
    return found.get("limit", 0), used, output


def sentence_of(limit: int, used: int, output: int = 0) -> str:
    """Return OpenAI's sentence.

    Args:
        limit: the model's, in tokens; 0 is unknown.
        used: all that was asked for; 0 is unknown.
        output: the part of it that is output.
    """
    if not 0 < limit < used:
        return NO_NUMBERS
    start = f"This model's maximum context length is {limit} tokens. However, "
    if output:
        parts = f"({used - output} in the messages, {output} in the completion)"
        return f"{start}you requested {used} tokens {parts}. Please reduce the length of the messages or completion."
    return f"{start}your messages resulted in {used} tokens. Please reduce the length of the messages."
