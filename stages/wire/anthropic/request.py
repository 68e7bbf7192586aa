"""A request in normal form, as a body of Anthropic Messages.

`models` says what each model accepts; `history`, `content` and `tools` translate the parts.

Source: Anthropic's Messages reference, https://platform.claude.com/docs/en/api/messages (2026-11, API
version 2023-06-01); docs/facts/translation.md, "Requests".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from stages.request import ResponsesRequest
from stages.wire.anthropic.caching import put_breakpoints
from stages.wire.anthropic.content import content_blocks
from stages.wire.anthropic.history import AnthropicHistory
from stages.wire.anthropic.models import ClaudeModel, claude_model
from stages.wire.anthropic.output_format import output_format
from stages.wire.anthropic.tools import AnthropicTools, forces
from stages.wire.api import NO_HEADERS
from stages.wire.foreign_json import Json, count, is_list
from stages.wire.normal_form import all_tools, group, nothing_to_answer

_GO_ON: Final = "Continue."
"""The user's text where a user message must come first or last and is missing (litellm-cursor-proxy)."""

_UNKNOWN_MODELS_OUTPUT: Final = 8192
"""Tokens of an answer where the model's limit is unknown and the client sets none; our choice."""

MIN_BUDGET: Final = 1024
"""Anthropic's smallest thinking budget, in tokens."""

_BUDGETS: Final = {"minimal": MIN_BUDGET, "low": 4000, "medium": 10_000, "high": 31_999, "xhigh": 31_999, "max": 31_999}
"""Thinking budgets in tokens: Claude Code's steps ("think" to "ultrathink")."""

_OPAQUE: Final = re.compile(r"(?=.*[A-Za-z])[\w.:|-]{1,256}", re.ASCII)
"""A user id that Anthropic accepts. Others are hashed: email addresses ("user_id appears to contain an email address",
litellm's anthropic tests), telephone numbers, and ids of more than 256 characters are 400."""

_THOUGHTS: Final = ("thinking", "redacted_thinking")
_TIERS: Final = {"auto": "auto", "priority": "auto", "default": "standard_only", "standard_only": "standard_only"}

_DISPLAYS: Final = ("summarized", "omitted", "updates")
"""What a client may ask to see of the thinking; ``updates`` are only the model's notes between its calls."""

_PASSED: Final[Mapping[str, type | tuple[type, ...]]] = MappingProxyType(
    {"speed": str, "context_management": dict, "inference_geo": str, "container": (str, dict)}
)
"""Anthropic's own parameters, and their types; OpenAI's ``context_management`` is a list."""

# What a body needs the header for: platform.claude.com/docs/en/build-with-claude/preserved-thinking, .../fast-mode
# (research preview on Opus 5, deprecated on 4.8), .../thinking, .../context-editing (2026-11).
_BINDING_BETA: Final = "thinking-binding-controls-2026-08-01"
_FAST_BETA: Final = "fast-mode-2026-02-01"
_UPDATES_BETA: Final = "thinking-display-updates-2026-08-18"
_CONTEXT_BETA: Final = "context-management-2025-06-27"


def anthropic_request(request: ResponsesRequest, *, model: str) -> dict[str, Json]:
    """Return the body, without ``stream``, that asks Anthropic for the same.

    Fields without a counterpart (``include``, ``truncation``, ``text.verbosity`` ...) and hosted tools are left out.
    Except for the cache breakpoints, the same conversation has the same bytes in every turn. The request is not
    changed or kept, but the result shares parts of it.

    Args:
        request: what the client asks for.
        model: the upstream's name for the model.

    Raises:
        BadRequest: if the request cannot be translated without losing its meaning: it names files by id, or may use
            none of the remaining tools.
    """
    body = request.body
    claude = claude_model(model)
    tools = AnthropicTools(all_tools(body))
    history = _history(request, claude, tools)
    result: dict[str, Json] = {"model": model, "max_tokens": 0}
    layout, hint = output_format(group(body, "text").get("format"), has_formats=claude.has_formats)
    if hint is not None:
        history.add_system(hint)
    if history.system:
        result["system"] = history.system
    result["messages"] = history.messages
    _put_thinking(body, claude, history, result)
    _put_tools(body, claude, tools, history, result)
    if layout is not None:
        result.setdefault("output_config", {})["format"] = layout
    _end(history, result, may_prefill=claude.has_prefill and layout is None)
    _put_parameters(body, claude, result)
    put_breakpoints(result)
    return result


def beta_headers(body: dict[str, Json]) -> Mapping[str, str]:
    """Return the header that a body needs for what is not yet in the stable version of the API."""
    thinking = group(body, "thinking")
    betas = [
        beta
        for is_needed, beta in (
            ("block_binding" in thinking, _BINDING_BETA),
            (thinking.get("display") == "updates", _UPDATES_BETA),
            (body.get("speed") == "fast", _FAST_BETA),
            ("context_management" in body, _CONTEXT_BETA),
        )
        if is_needed
    ]
    return {"anthropic-beta": ",".join(betas)} if betas else NO_HEADERS


def tool_names(request: ResponsesRequest) -> dict[str, str]:
    """Return the client's name for each tool that has another name in the body, to translate calls back."""
    return AnthropicTools(all_tools(request.body)).names


def _history(request: ResponsesRequest, claude: ClaudeModel, tools: AnthropicTools) -> AnthropicHistory:
    body = request.body
    # Without thinking there is no `block_binding`, and a block that does not fit any more would be refused.
    has_thinking = claude.thinking != "none" and not (claude.binds_prefix and _is_off(body, claude))
    history = AnthropicHistory(tools, request.mended, has_thinking=has_thinking)
    history.add_system(body.get("instructions"))
    if isinstance(body["input"], str):
        history.add_user(content_blocks(body["input"], "input"))
    else:
        history.add_all(body["input"])
    if not history.messages:
        if not history.system:
            raise nothing_to_answer()
        history.add_user(content_blocks(_GO_ON, "input"))
    if history.messages[0]["role"] == "assistant":
        history.messages.insert(0, {"role": "user", "content": content_blocks(_GO_ON, "input")})
    return history


def _end(history: AnthropicHistory, result: dict[str, Json], *, may_prefill: bool) -> None:
    """Make a user message the last one, unless the model can continue a text that the client began for it."""
    last = history.messages[-1]
    if last["role"] == "user":
        return
    final = last["content"][-1]
    if may_prefill and final["type"] == "text" and not _is_thinking(result):
        final["text"] = final["text"].rstrip()  # "final assistant content cannot end with trailing whitespace"
        # "When `thinking` is disabled, an `assistant` message in the final position cannot contain `thinking`."
        last["content"] = [block for block in last["content"] if block["type"] not in _THOUGHTS]
    else:
        history.add_user(content_blocks(_GO_ON, "input"))


# Thinking.


def _is_off(body: dict[str, Json], claude: ClaudeModel) -> bool:
    """Return whether the client switches thinking off, and the model has a setting for that."""
    is_unwanted = group(body, "thinking").get("type") == "disabled" or _effort(body)[0] == "none"
    return is_unwanted and claude.no_thinking is not None


def _put_thinking(
    body: dict[str, Json], claude: ClaudeModel, history: AnthropicHistory, result: dict[str, Json]
) -> None:
    limit = body.get("max_output_tokens")
    most = claude.max_output or (limit or _UNKNOWN_MODELS_OUTPUT) + max(_BUDGETS.values())
    result["max_tokens"] = min(limit or claude.max_output or _UNKNOWN_MODELS_OUTPUT, most)
    effort, budget = _effort(body)
    own = group(body, "thinking")
    if own.get("type") == "disabled" and claude.no_thinking is not None:
        result["thinking"] = dict(claude.no_thinking)
        if claude.thinking == "adaptive" and effort is not None and effort in claude.quiet_efforts:
            result["output_config"] = {"effort": claude.quiet_efforts[effort]}
    elif effort == "none" and claude.no_thinking is not None:
        result["thinking"] = dict(claude.no_thinking)
    elif claude.thinking == "adaptive":
        if effort is not None:
            result["output_config"] = {"effort": claude.efforts["low" if effort == "none" else effort]}
        if effort is not None or claude.thinks_by_default:
            display = own.get("display")
            thinking: dict[str, Json] = {
                "type": "adaptive",
                "display": display if display in _DISPLAYS else "summarized",
            }
            if claude.binds_prefix:
                thinking["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
            result["thinking"] = thinking
    elif claude.thinking == "budget" and effort is not None and not _has_lost_thoughts(history):
        budget = max(MIN_BUDGET, budget or _BUDGETS[effort])
        answer = min(limit or _UNKNOWN_MODELS_OUTPUT, most // 2)
        result["max_tokens"] = min(limit + budget, most) if limit else claude.max_output or answer + budget
        result["thinking"] = {"type": "enabled", "budget_tokens": min(budget, result["max_tokens"] - answer)}


def _effort(body: dict[str, Json]) -> tuple[str | None, int]:
    """Return the reasoning effort, and its token budget if the client sets one in Anthropic's dialect."""
    effort = group(body, "reasoning").get("effort")
    if isinstance(effort, str) and (effort in _BUDGETS or effort == "none"):
        return effort, 0
    thinking = group(body, "thinking")
    match thinking.get("type"):
        case "disabled":
            return "none", 0
        case "enabled" | "adaptive":
            budget = thinking.get("budget_tokens")
            return "medium", budget if isinstance(budget, int) else 0
        case _:
            return None, 0


def _has_lost_thoughts(history: AnthropicHistory) -> bool:
    """Return whether the calls that are being answered came after thinking that is no longer there.

    With a budget that is 400 "Expected `thinking` or `redacted_thinking`, but found `tool_use`"; so the model continues
    without thinking until the next turn.
    """
    turns: list[list[dict[str, Json]]] = [it["content"] for it in history.messages if it["role"] == "assistant"]
    kinds = [block["type"] for block in turns[-1]] if turns else []
    return "tool_use" in kinds and kinds[0] not in _THOUGHTS


def _is_thinking(result: dict[str, Json]) -> bool:
    return result.get("thinking", {}).get("type") in ("enabled", "adaptive")


# Tools and the other parameters.


def _put_tools(
    body: dict[str, Json],
    claude: ClaudeModel,
    tools: AnthropicTools,
    history: AnthropicHistory,
    result: dict[str, Json],
) -> None:
    if not tools.tools:
        if history.called:
            # "Requests which include `tool_use` or `tool_result` blocks must define tools"
            result["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in history.called]
            result["tool_choice"] = {"type": "none"}
        return
    choice = body.get("tool_choice")
    if _is_thinking(result) and claude.thinks_by_default and claude.takes_forced_tools and forces(choice):
        del result["thinking"]  # these models think and can be forced, but their thinking is not shown then
    chosen = tools.choose(
        choice,
        may_force=claude.takes_forced_tools and not _is_thinking(result),
        is_parallel=body.get("parallel_tool_calls") is not False,
    )
    result["tools"] = tools.tools
    if chosen is not None:
        result["tool_choice"] = chosen


def _put_parameters(body: dict[str, Json], claude: ClaudeModel, result: dict[str, Json]) -> None:
    if claude.has_sampling and not _is_thinking(result):
        for name in ("temperature", "top_p"):
            if body.get(name) is not None:
                result[name] = min(max(body[name], 0), 1)
                break  # "temperature and top_p cannot both be specified for this model"
        if count(body.get("top_k")) is not None:
            result["top_k"] = body["top_k"]
    stop = body.get("stop")
    stops: list[Json] = stop if is_list(stop) else [stop]
    if sequences := [text for text in stops if isinstance(text, str) and text and not text.isspace()]:
        result["stop_sequences"] = sequences
    user = body.get("safety_identifier") or body.get("user")
    if isinstance(user, str) and user:
        is_opaque = _OPAQUE.fullmatch(user) is not None
        hashed = sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
        result["metadata"] = {"user_id": user if is_opaque else hashed}
    for name, kind in _PASSED.items():
        if isinstance(body.get(name), kind):
            result[name] = body[name]
    if result.get("speed") == "fast" and not claude.has_fast:
        del result["speed"]
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS and claude.has_tiers and "speed" not in result:
        result["service_tier"] = _TIERS[tier]
