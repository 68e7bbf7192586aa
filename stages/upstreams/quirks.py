"""How the servers of providers differ, one value for each API in which they do; `providers` says whose they are."""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from stages.wire.chat.quirks import ALL_EFFORTS, OPENAI_ONLY, THREE_EFFORTS, USUAL, ChatQuirks
from stages.wire.normal_form import ENCRYPTED, nearest_efforts
from stages.wire.responses.quirks import ResponsesQuirks

# The Responses API.

_MIN_OUTPUT_TOKENS: Final = 16
"""OpenAI: "Expected a value >= 16" (400 ``integer_below_min_value``). Cursor's check of an Azure key sends 10
(cursor/cursor#1922), which Chat Completions takes, and a title may ask for less than 16 too."""

_OPENAI_ONLY: Final = frozenset({"prompt_cache_retention", "safety_identifier", "service_tier", "truncation"})

OPENAI_RESPONSES: Final = ResponsesQuirks(
    min_output_tokens=_MIN_OUTPUT_TOKENS,
    has_families=True,
    hides_obfuscation=True,
    has_late_tools=True,
    takes_bare_parts=True,
)

# `openai/...` on another server: a gateway may forward to OpenAI, but `stream_options` is 400 on many.
OPENAI_ELSEWHERE_RESPONSES: Final = replace(OPENAI_RESPONSES, hides_obfuscation=False)

# Azure takes no ``status`` on items (litellm#13484) and no ``context_management`` (litellm azure/responses).
AZURE_RESPONSES: Final = ResponsesQuirks(
    min_output_tokens=_MIN_OUTPUT_TOKENS,
    refused=frozenset({"context_management"}),
    has_families=True,
    hides_obfuscation=True,
    has_status=False,
    has_late_tools=True,
    takes_bare_parts=True,
)

# Azure's dated versions know the parameters of their date only, and refuse others.
AZURE_DATED_RESPONSES: Final = replace(AZURE_RESPONSES, hides_obfuscation=False)

# "Argument not supported: metadata" (CLIProxyAPI#5648); custom calls match no variant of its input, 422
# (CLIProxyAPI#3704); of include it knows one (langchain-xai's types); output_text is refused (sglang#11511).
XAI_RESPONSES: Final = ResponsesQuirks(
    refused=_OPENAI_ONLY | {"metadata", "context_management"},
    includes=frozenset({ENCRYPTED}),
    efforts=nearest_efforts("none", "low", "medium", "high"),
    tool_types=frozenset(
        (
            "web_search",
            "x_search",
            "code_interpreter",
            "code_execution",
            "file_search",
            "collections_search",
            "mcp",
        )
    ),
    has_custom_tools=False,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)

VLLM_RESPONSES: Final = ResponsesQuirks(
    # Encrypted content is a ValueError (vllm#28248), hence a 500; reasoning comes and goes as text. An assistant's
    # parts of ``output_text`` are refused without the id and status that they came with (vllm#33089,
    # DSpark#138), a string is not. Harmony knows three efforts; chat templates read the arguments of calls as JSON.
    parses_arguments=True,
    efforts=nearest_efforts("none", "low", "medium", "high"),
    includes=frozenset({"message.output_text.logprobs", "code_interpreter_call.outputs"}),
    has_custom_tools=False,
    has_encrypted_reasoning=False,
    has_plain_reasoning=True,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)

OLLAMA_RESPONSES: Final = ResponsesQuirks(
    # openai/responses.go: any other type of item or part is 400 "unknown input item type", any other effort is 400
    # "invalid reasoning value", so are arguments that are not a JSON object; reasoning is kept, unencrypted, in
    # encrypted_content.
    parses_arguments=True,
    efforts=nearest_efforts("none", "low", "medium", "high", "max"),
    tool_types=frozenset(),
    has_custom_tools=False,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)

# "Invalid discriminator value. Expected 'function' | 'mcp'" (lmstudio-bug-tracker#1383). Reasoning comes as text.
LM_STUDIO_RESPONSES: Final = ResponsesQuirks(
    efforts=nearest_efforts("none", "low", "medium", "high"),
    includes=frozenset({"message.output_text.logprobs"}),
    tool_types=frozenset({"mcp"}),
    has_custom_tools=False,
    has_encrypted_reasoning=False,
    has_plain_reasoning=True,
    has_developer=False,
    has_verbosity=False,
    is_basic=True,
)

# Tools are functions, MCP servers and Fireworks' own; encrypted reasoning is OpenAI's (docs.fireworks.ai).
FIREWORKS_RESPONSES: Final = ResponsesQuirks(
    tool_types=frozenset({"mcp", "sse", "python"}),
    has_custom_tools=False,
    has_encrypted_reasoning=False,
    has_developer=False,
    has_verbosity=False,
)

PERPLEXITY_RESPONSES: Final = ResponsesQuirks(
    tool_types=frozenset({"web_search", "fetch_url"}),
    has_custom_tools=False,
    has_encrypted_reasoning=False,
    has_developer=False,
    has_verbosity=False,
)

# The efforts of DeepSeek V4 are low, high and max; it does not know the others' names (api-docs.deepseek.com, 2026-11).
_DEEPSEEK_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "high",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}

# Bedrock runs no tools on bedrock-runtime ("web search is not supported for this request") and takes no random
# characters away; its models are OpenAI's (LiteLLM 1.110.2, bedrock/responses).
BEDROCK_RESPONSES: Final = replace(
    OPENAI_ELSEWHERE_RESPONSES,
    tool_types=frozenset({"mcp", "apply_patch", "namespace", "tool_search", "computer"}),
    refused=frozenset({"background"}),
)

# Stateless; reasoning comes and goes as text, which every account can read (api-docs.deepseek.com, 2026-11).
DEEPSEEK_RESPONSES: Final = ResponsesQuirks(
    refused=_OPENAI_ONLY | {"metadata", "context_management", "store"},
    includes=frozenset(),
    efforts=_DEEPSEEK_EFFORTS,
    tool_types=frozenset(),
    has_encrypted_reasoning=False,
    has_plain_reasoning=True,
    has_developer=False,
    has_verbosity=False,
)

# Chat Completions.

_ROUTING: Final = frozenset({"provider", "models", "transforms", "route", "plugins", "service_tier"})
"""OpenRouter's own."""

_PLAIN: Final = frozenset({"seed", "stop", "frequency_penalty", "presence_penalty"})
_NO_THINKING: Final = {"thinking": {"type": "disabled"}}

OPENAI_CHAT: Final = ChatQuirks(
    is_openai=True,
    hides_obfuscation=True,
    limit="max_completion_tokens",
    passes=OPENAI_ONLY,
    efforts=ALL_EFFORTS,
    empty_content=None,
)
AZURE_DATED_CHAT: Final = replace(OPENAI_CHAT, hides_obfuscation=False)

# OpenAI's models on Bedrock: as OpenAI's, but `stop` is 400, and it has no identity of OpenAI's users (LiteLLM 1.110.2,
# bedrock/chat/chat_completions).
BEDROCK_GPT_CHAT: Final = replace(
    OPENAI_CHAT, hides_obfuscation=False, passes=frozenset({"seed", "prompt_cache_key", "service_tier"})
)

# Grok on Bedrock answers penalties with 503 and stop with 400, gpt-oss refuses logit_bias (the same).
BEDROCK_CHAT: Final = ChatQuirks(passes=frozenset({"seed"}))

# DeepSeek wants the reasoning of tool turns back and takes "" for a lost one; Moonshot wants it too and takes " ", but
# counts "" as missing (llmgateway#2093, pi#4178). api-docs.deepseek.com/guides/thinking_mode, 2026-10.
DEEPSEEK_CHAT: Final = ChatQuirks(
    passes=_PLAIN | {"thinking"},
    efforts=_DEEPSEEK_EFFORTS,
    no_thinking=_NO_THINKING,
    reasoning="",
)

MOONSHOT_CHAT: Final = ChatQuirks(passes=_PLAIN | {"thinking"}, efforts={}, no_thinking=_NO_THINKING, reasoning=" ")

# Gemini 3 refuses calls without a signature (ai.google.dev/gemini-api/docs/thought-signatures); the fields that its
# OpenAI-compatible endpoint does not know are 400 "Unknown name".
GEMINI_CHAT: Final = ChatQuirks(
    passes=frozenset({"stop"}),
    efforts={**THREE_EFFORTS, "minimal": "minimal", "none": "none"},
    empty_content=None,
    signs_calls=True,
    shows_thoughts=True,
    tags_thoughts=True,
)

# "does not support thinking" is 400, so only models that are known to think get an effort.
OLLAMA_CHAT: Final = ChatQuirks(efforts={**THREE_EFFORTS, "none": "none"}, efforts_for=re.compile("gpt-oss"))

# Unknown fields are 422 extra_forbidden, stream_options among them (anon-kode#53); ids: opencode#1680;
# "Unexpected role 'user' after role 'tool'": litellm#6323.
MISTRAL_CHAT: Final = ChatQuirks(
    has_stream_options=False,
    passes=frozenset({"stop", "frequency_penalty", "presence_penalty", "safe_prompt"}),
    efforts={},
    required="any",
    short_ids=True,
    answers_tools=True,
)

CODESTRAL_CHAT: Final = ChatQuirks(has_stream_options=False, passes=frozenset({"stop"}), efforts={}, short_ids=True)

# reasoning_effort of models that do not reason is 400; console.groq.com/docs/reasoning.
GROQ_CHAT: Final = ChatQuirks(
    limit="max_completion_tokens", passes=_PLAIN | {"user"}, efforts_for=re.compile("gpt-oss")
)

# Penalties and stop are 400 for models that reason, and so is an effort for those without levels.
XAI_CHAT: Final = ChatQuirks(
    passes=frozenset({"seed", "user"}),
    efforts={**THREE_EFFORTS, "medium": "high"},
    efforts_for=re.compile("mini"),
)

OPENROUTER_CHAT: Final = ChatQuirks(passes=USUAL | _ROUTING, efforts=ALL_EFFORTS, reasoning="", takes_details=True)

# Without `reasoning_split` the thinking is text in <think> tags (platform.minimax.io/docs/guides/text-m2-function-call;
# vellum-assistant#34556). It does not switch thinking on, which these models do anyway.
MINIMAX_CHAT: Final = ChatQuirks(
    takes_reasoning=True,
    takes_details=True,
    asks=((re.compile("minimax-m"), {"reasoning_split": True}),),
)

# Its list of parameters (docs.cohere.com/docs/compatibility-api, 2026-11) has no others of ours, and the efforts none
# and high.
COHERE_CHAT: Final = ChatQuirks(
    passes=_PLAIN,
    efforts={
        "none": "none",
        "minimal": "high",
        "low": "high",
        "medium": "high",
        "high": "high",
        "xhigh": "high",
        "max": "high",
    },
    efforts_for=re.compile("reasoning"),
)

# GLM and Qwen read the reasoning of tool turns if it is there, and can do without
# (docs.z.ai/guides/capabilities/thinking-mode; help.aliyun.com/zh/model-studio/deep-thinking).
ZAI_CHAT: Final = ChatQuirks(takes_reasoning=True)
DASHSCOPE_CHAT: Final = ChatQuirks(takes_reasoning=True)
