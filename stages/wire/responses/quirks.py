"""How one server's Responses API may differ from OpenAI's reference. The values stand in the table of providers.

A server without quirks is taken to do as OpenAI does; it must refuse by itself what it does not know, since unknown
fields are passed on.
"""

from __future__ import annotations

from msgspec import Struct


class ResponsesQuirks(Struct, frozen=True, kw_only=True):
    """What one provider's Responses API cannot take.

    Attributes:
        min_output_tokens: the least ``max_output_tokens`` that is taken; a smaller one is raised to it.
        refused: parameters that are answered with an error.
        refuses_sampling: whether models that reason refuse temperature and top_p, unless their effort is none.
        includes: what ``include`` may ask for; None is anything.
        efforts: the efforts that are known, from little to much; another one becomes the nearest. None is any.
        tool_types: types of tools that are known beside functions and custom tools; None is any.
        has_custom_tools: whether tools that take raw text are known; else they become functions with one string.
        has_encrypted_reasoning: whether reasoning is given and taken encrypted.
        has_plain_reasoning: whether reasoning is taken as text.
        has_developer: whether the role ``developer`` is known; else it becomes ``system``.
        has_verbosity: whether ``text.verbosity`` is known.
        is_basic: whether only messages, functions and reasoning are known as items, and what the assistant said must
            be a string.
        has_status: whether items may carry the ``status`` that they were given with.
        parses_arguments: whether the arguments of earlier calls must be a JSON object.
        takes_bare_parts: whether parts of ``output_text`` are taken without the id and status that they came with.
            OpenAI's own types have no such message, and servers that check requests by them refuse it (vllm#33089;
            OpenRouter: cherry-studio#10477).
    """

    min_output_tokens: int = 0
    refused: frozenset[str] = frozenset()
    refuses_sampling: bool = False
    includes: frozenset[str] | None = None
    efforts: tuple[str, ...] | None = None
    tool_types: frozenset[str] | None = None
    has_custom_tools: bool = True
    has_encrypted_reasoning: bool = True
    has_plain_reasoning: bool = False
    has_developer: bool = True
    has_verbosity: bool = True
    is_basic: bool = False
    has_status: bool = True
    parses_arguments: bool = False
    takes_bare_parts: bool = False


_USUAL_QUIRKS = ResponsesQuirks()


def usual_quirks(_: str) -> ResponsesQuirks:
    """Return the quirks of a server that is not in the table, whatever the model."""
    return _USUAL_QUIRKS
