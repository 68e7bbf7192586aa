"""How one server's Responses API may differ from OpenAI's reference; `stages.upstreams.quirks` has the values.

A server without quirks is expected to behave as OpenAI does. Unknown fields are passed on, and it must refuse by itself
what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class ResponsesQuirks(Struct, frozen=True, kw_only=True):
    """What one provider's Responses API cannot take.

    Attributes:
        min_output_tokens: the smallest ``max_output_tokens`` that it accepts; a smaller one is raised to it.
        refused: parameters that are answered with an error.
        has_families: whether its models are OpenAI's, so that the rules of `stages.wire.openai_models` hold.
        hides_obfuscation: whether ``stream_options.include_obfuscation`` may be switched off: the random characters in
            each event are traffic that nobody reads.
        includes: what ``include`` may ask for. None: anything.
        efforts: its name for each effort. None: any. Others are passed on.
        tool_types: types of tools that it knows besides functions and custom tools. None: any.
        has_custom_tools: whether it knows tools that take raw text; otherwise they become functions with one string.
        has_encrypted_reasoning: whether it returns and accepts encrypted reasoning.
        has_plain_reasoning: whether it accepts reasoning as text.
        has_developer: whether it knows the role ``developer``; otherwise that becomes ``system``.
        has_verbosity: whether it knows ``text.verbosity``.
        is_basic: whether it knows only messages, functions and reasoning as items, and requires the assistant's texts
            as strings.
        has_status: whether items may carry the ``status`` with which an answer returned them.
        parses_arguments: whether the arguments of earlier calls must be a JSON object.
        has_late_tools: whether it knows ``additional_tools``, items that declare tools; otherwise they go to
            ``tools``.
        takes_bare_parts: whether it accepts parts of ``output_text`` without the id and status that they had in the
            answer. OpenAI's own types have no such message, and servers that check requests by them refuse it
            (vllm#33089; OpenRouter: cherry-studio#10477).
    """

    min_output_tokens: int = 0
    refused: frozenset[str] = frozenset()
    has_families: bool = False
    hides_obfuscation: bool = False
    includes: frozenset[str] | None = None
    efforts: Mapping[str, str] | None = None
    tool_types: frozenset[str] | None = None
    has_custom_tools: bool = True
    has_encrypted_reasoning: bool = True
    has_plain_reasoning: bool = False
    has_developer: bool = True
    has_verbosity: bool = True
    is_basic: bool = False
    has_status: bool = True
    parses_arguments: bool = False
    has_late_tools: bool = False
    takes_bare_parts: bool = False


_USUAL_QUIRKS = ResponsesQuirks()


def usual_quirks(_: str) -> ResponsesQuirks:
    """Return the quirks of a server that is not in the table, whatever the model."""
    return _USUAL_QUIRKS
