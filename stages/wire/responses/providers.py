"""What providers of the Responses API cannot take: one line for each that differs from OpenAI.

The names are the prefixes of ``litellm_params.model``. A provider that is not here is taken for one that does as OpenAI
does; what it does not know it must refuse by itself, since unknown fields are passed on.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Provider(Struct, frozen=True, kw_only=True):
    """How one provider differs from what OpenAI's reference says.

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


ENCRYPTED: Final = "reasoning.encrypted_content"

_MIN_OUTPUT_TOKENS: Final = 16
"""OpenAI: "Expected a value >= 16" (400 ``integer_below_min_value``). Cursor's check of an Azure key sends 10
(cursor/cursor#1922), which Chat Completions takes, and a title may ask for less than 16 too."""

_OPENAI_ONLY: Final = frozenset({"prompt_cache_retention", "safety_identifier", "service_tier", "truncation"})

OPENAI: Final = Provider(min_output_tokens=_MIN_OUTPUT_TOKENS, refuses_sampling=True)
COMPATIBLE: Final = Provider()
"""Who is not in the table."""

_VLLM: Final = Provider(
    # Encrypted content is a ValueError (vllm#28248), hence a 500; reasoning comes and goes as text. An assistant's
    # parts of ``output_text`` are refused without the id and status that they came with (vllm#33089,
    # DSpark#138), a string is not. Harmony knows three efforts; chat templates read the arguments of calls as JSON.
    parses_arguments=True,
    efforts=("none", "low", "medium", "high"),
    includes=frozenset({"message.output_text.logprobs", "code_interpreter_call.outputs"}),
    has_custom_tools=False,
    has_encrypted_reasoning=False,
    has_plain_reasoning=True,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)
_OLLAMA: Final = Provider(
    # openai/responses.go: any other type of item or part is 400 "unknown input item type", any other effort is 400
    # "invalid reasoning value", so are arguments that are no JSON object; reasoning is kept, unencrypted, in
    # encrypted_content.
    parses_arguments=True,
    efforts=("none", "low", "medium", "high", "max"),
    tool_types=frozenset(),
    has_custom_tools=False,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": OPENAI,
    # Azure takes no ``status`` on items (litellm#13484) and no ``context_management`` (litellm azure/responses).
    "azure": Provider(
        min_output_tokens=_MIN_OUTPUT_TOKENS,
        refused=frozenset({"context_management"}),
        refuses_sampling=True,
        has_status=False,
    ),
    # "Argument not supported: metadata" (CLIProxyAPI#5648); custom calls match no variant of its input, 422
    # (CLIProxyAPI#3704); of include it knows one (langchain-xai's types); output_text is refused (sglang#11511).
    "xai": Provider(
        refused=_OPENAI_ONLY | {"metadata", "context_management"},
        includes=frozenset({ENCRYPTED}),
        efforts=("none", "low", "medium", "high"),
        tool_types=frozenset(
            ("web_search", "x_search", "code_interpreter", "code_execution", "file_search", "collections_search", "mcp")
        ),
        has_custom_tools=False,
        has_developer=False,
        has_verbosity=False,
        is_basic=True,
    ),
    "hosted_vllm": _VLLM,
    "vllm": _VLLM,
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    # "Invalid discriminator value. Expected 'function' | 'mcp'" (lmstudio-bug-tracker#1383). Reasoning comes as text.
    "lm_studio": Provider(
        efforts=("none", "low", "medium", "high"),
        includes=frozenset({"message.output_text.logprobs"}),
        tool_types=frozenset({"mcp"}),
        has_custom_tools=False,
        has_encrypted_reasoning=False,
        has_plain_reasoning=True,
        has_developer=False,
        has_verbosity=False,
        is_basic=True,
    ),
    # Tools are functions, MCP servers and Fireworks' own; encrypted reasoning is OpenAI's (docs.fireworks.ai).
    "fireworks_ai": Provider(
        tool_types=frozenset({"mcp", "sse", "python"}),
        has_custom_tools=False,
        has_encrypted_reasoning=False,
        has_developer=False,
        has_verbosity=False,
    ),
    "perplexity": Provider(
        tool_types=frozenset({"web_search", "fetch_url"}),
        has_custom_tools=False,
        has_encrypted_reasoning=False,
        has_developer=False,
        has_verbosity=False,
    ),
}
