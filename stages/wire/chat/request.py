"""A request in normal form, as a body of Chat Completions.

Source: OpenAI's Responses and Chat Completions references (2026-08). What differs between servers is in `quirks`;
`history`, `content` and `tools` translate the parts.
"""

from __future__ import annotations

from stages.request import ResponsesRequest
from stages.wire.bad_request import BadRequest
from stages.wire.chat.gemini import thinking_config
from stages.wire.chat.history import ChatHistory
from stages.wire.chat.quirks import ChatQuirks
from stages.wire.chat.tools import ChatTools
from stages.wire.foreign_json import Json, is_object
from stages.wire.normal_form import all_tools, group, nothing_to_answer
from stages.wire.openai_models import family_of


def chat_request(request: ResponsesRequest, *, model: str, quirks: ChatQuirks) -> dict[str, Json]:
    """Return the body that asks a Chat Completions server for the same.

    Fields without a counterpart (``include``, ``truncation`` ...) and hosted tools are left out. The request is not
    changed or kept, but the result shares parts of it.

    Args:
        request: what the client asks for.
        model: the upstream's name for the model.
        quirks: how the server differs from others.

    Raises:
        BadRequest: if the request cannot be translated without losing its meaning: it names files by id, or is left
            without the tools that it forces.
    """
    body = request.body
    tools = ChatTools(all_tools(body), quirks, model)
    history = ChatHistory(quirks, model, tools, request.mended)
    result: dict[str, Json] = {"model": model, "messages": _messages(body, history)}
    if request.stream:
        result["stream"] = True
        if quirks.has_stream_options:
            result["stream_options"] = (
                {"include_usage": True, "include_obfuscation": False}
                if quirks.hides_obfuscation
                else {"include_usage": True}
            )
    _put_tools(body, tools, result)
    _put_parameters(request, quirks, model, result)
    return result


def _messages(body: dict[str, Json], history: ChatHistory) -> list[dict[str, Json]]:
    if body.get("instructions"):
        history.add("system", body["instructions"])
    if isinstance(body["input"], str):
        history.add("user", body["input"])
    else:
        history.add_all(body["input"])
    if not history.messages:
        raise nothing_to_answer()
    return history.messages


def _put_tools(body: dict[str, Json], tools: ChatTools, result: dict[str, Json]) -> None:
    if tools.searches:
        result["web_search_options"] = {}
    choice = body.get("tool_choice")
    if not tools.tools:
        if tools.dropped and choice != "none" and not tools.searches:
            kinds = ", ".join(sorted({kind[:40] for kind in tools.dropped}))
            raise BadRequest(
                f"The upstream of this model has no tools of these types: {kinds}. Use another model, or declare "
                "function tools.",
                "tools",
            )
        return
    if choice is not None:
        result["tool_choice"] = tools.choice(choice)
    result["tools"] = tools.tools
    if body.get("parallel_tool_calls") is False:  # true is the default, and some models refuse the field
        result["parallel_tool_calls"] = False


def _put_parameters(request: ResponsesRequest, quirks: ChatQuirks, model: str, result: dict[str, Json]) -> None:
    body = request.body
    result.update({name: value for name, value in body.items() if name in quirks.passes and value is not None})
    if not result.get("store"):  # OpenAI: "The 'metadata' parameter is only allowed when 'store' is enabled."
        result.pop("metadata", None)
    for names, parameters in quirks.asks:
        if names.search(model.lower()):
            result.update(parameters)
    family = family_of(model)
    effort = group(body, "reasoning").get("effort")
    if not quirks.is_openai or family.may_sample(effort):
        for name in ("temperature", "top_p"):
            if body.get(name) is not None:
                result[name] = body[name]
        if request.wants_logprobs or body.get("top_logprobs"):
            result["logprobs"] = True
            if body.get("top_logprobs"):
                result["top_logprobs"] = body["top_logprobs"]
    if quirks.is_openai:
        if result.get("service_tier") in family.refused_tiers:
            del result["service_tier"]
        if family.thinks == "never":
            effort = None
        elif isinstance(effort, str):
            effort = family.effort(effort)
    if body.get("max_output_tokens") is not None:
        result["max_completion_tokens" if family.reasons else quirks.limit] = body["max_output_tokens"]
    _put_effort(effort, quirks, model, result)
    text = group(body, "text")
    if (layout := _response_format(text.get("format"))) is not None:
        result["response_format"] = layout
    if quirks.is_openai and text.get("verbosity") is not None:
        result["verbosity"] = text["verbosity"]


def _put_effort(effort: Json, quirks: ChatQuirks, model: str, result: dict[str, Json]) -> None:
    if quirks.shows_thoughts and (config := thinking_config(model, effort)) is not None:
        result["extra_body"] = {"google": {"thinking_config": config}}
    elif effort == "none" and quirks.no_thinking is not None:
        for name, value in quirks.no_thinking.items():
            result.setdefault(name, value)
    elif (
        isinstance(effort, str)
        and effort in quirks.efforts
        and (quirks.efforts_for is None or effort == "none" or quirks.efforts_for.search(model.lower()))
    ):
        result["reasoning_effort"] = quirks.efforts[effort]


def _response_format(layout: Json) -> dict[str, Json] | None:
    """Return the nested form of a text format; None for plain text, which is the default."""
    if not is_object(layout) or layout.get("type") in (None, "text"):
        return None
    if layout["type"] != "json_schema":
        return {"type": layout["type"]}
    schema = {key: value for key, value in layout.items() if key != "type" and value is not None}
    return {"type": "json_schema", "json_schema": {"name": "answer", **schema}}
