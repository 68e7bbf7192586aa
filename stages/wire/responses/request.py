"""The request to an upstream that has the Responses API: the normal form, less what the upstream cannot take.

Most of a request passes unchanged and uncopied. Removed everywhere: what belongs to other APIs (``cache_control``,
signed thinking, ``stop`` and similar, which the Responses API does not have), and reasoning that no upstream could use.
``include_usage`` is never sent: it is 400 "Unknown parameter" (litellm#18200), and usage is reported without it. What
a family of OpenAI's models cannot take is in `openai_models`, and what a single provider cannot take in its `quirks`.
The assistant's texts are brought into one form, so that a conversation has the same bytes whichever shape it arrived in
(ADR 0012).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

from stages.wire.custom_tools import as_function, as_function_item, object_arguments, usable_choice
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import (
    ENCRYPTED,
    LATE_TOOLS,
    LOGPROBS,
    all_tools,
    group,
    kind_of,
    leave_out,
    nothing_to_answer,
)
from stages.wire.openai_models import ModelFamily, family_of
from stages.wire.responses.quirks import ResponsesQuirks
from stages.wire.slices import paced

_FOREIGN: Final = frozenset(
    # Fields of Chat Completions and Anthropic, kept in the normal form for upstreams with those APIs.
    (
        *("stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "prediction", "web_search_options"),
        *("thinking", "cache_control", "speed", "inference_geo"),
    )
)
_ITEM_NOTES: Final = ("cache_control", "is_error", "anthropic_blocks", "reasoning_details")
_CACHE: Final = "cache_control"
_TOOL_NOTES: Final = (_CACHE, "eager_input_streaming")
_BASIC_ITEMS: Final = frozenset({"message", "function_call", "function_call_output", "reasoning"})
_CUSTOM_ITEMS: Final = frozenset({"custom_tool_call", "custom_tool_call_output"})
_NOT_SAID: Final = frozenset({"user", "system", "developer"})
_NOT_PRODUCED: Final = ("additional_tools", "configuration_update")
"""Items of the client that have no role, or one that does not matter."""
_SUMMARIES: Final = frozenset({"summary", "generate_summary"})
_SAID: Final = ("output_text", "input_text", "text", "refusal")


def native_request(
    body: dict[str, Json], *, quirks: ResponsesQuirks, model: str, stream: bool, mended: set[str] | None = None
) -> dict[str, Json]:
    """Return the body to post.

    Args:
        body: a body in normal form; it is read, not changed.
        quirks: what the upstream cannot take.
        model: the upstream's name for the model.
        stream: whether to ask for server-sent events.
        mended: receives the words for what had to be mended.

    Raises:
        BadRequest: if the upstream can take none of the items.
    """
    mended = set[str]() if mended is None else mended
    request = {key: value for key, value in body.items() if key not in _FOREIGN and key not in quirks.refused}
    request["model"] = model
    request["stream"] = stream
    limit = request.get("max_output_tokens")
    if limit is not None and limit < quirks.min_output_tokens:
        request["max_output_tokens"] = quirks.min_output_tokens
    if stream and quirks.hides_obfuscation:
        request["stream_options"] = {"include_obfuscation": False}
    family = family_of(model) if quirks.has_families else None
    if family is not None:
        _put_family(request, family)
    _put_include(request, quirks)
    _put_reasoning_and_text(request, quirks)
    if not quirks.has_late_tools and (tools := all_tools(body)):
        request["tools"] = tools
    _put_tools(request, quirks)
    if is_list(items := request["input"]):
        if family is not None and family.thinks == "never":
            items = [item for item in items if item.get("type") != "reasoning"]
        form = _form_of_texts(quirks, model)
        request["input"] = _items(items, quirks, form, mended, is_stored=body.get("store") is not False)
        if not request["input"]:
            raise nothing_to_answer()
    return request


def _put_family(request: dict[str, Json], family: ModelFamily) -> None:
    """Leave out what the model's family refuses, and ask for the thinking that it does anyway to be shown.

    A model thinks as much as without the summary, which is only a way to see it.
    """
    reasoning = group(request, "reasoning")
    effort = reasoning.get("effort")
    if not family.may_sample(effort):
        for name in ("temperature", "top_p", "top_logprobs"):
            request.pop(name, None)
        _leave_out(request, LOGPROBS)
    if request.get("service_tier") in family.refused_tiers:
        del request["service_tier"]
    if family.thinks == "never":
        request.pop("reasoning", None)
        _leave_out(request, ENCRYPTED)
        return
    if isinstance(effort, str) and (name := family.effort(effort)) != effort:
        request["reasoning"] = reasoning = {**reasoning, "effort": name}
    if family.has_summary and family.thinks_with(effort) and _SUMMARIES.isdisjoint(reasoning):
        request["reasoning"] = {**reasoning, "summary": "auto"}


def _leave_out(request: dict[str, Json], include: str) -> None:
    if include in request.get("include", ()):
        request["include"] = [name for name in request["include"] if name != include]


_Form = Literal["parts", "string"] | None


def _form_of_texts(quirks: ResponsesQuirks, model: str) -> _Form:
    """Return the one form for the assistant's texts; None if each keeps the form in which it arrived.

    OpenAI's models get the form that they produce, other providers the form that every server takes. A model with
    another name under ``openai/`` may be on any server: it gets what the client wrote.
    """
    if not quirks.takes_bare_parts:
        return "string"
    return "parts" if family_of(model).reasons else None


def _put_include(request: dict[str, Json], quirks: ResponsesQuirks) -> None:
    include: list[Json] = request.get("include", [])
    wanted = [name for name in include if quirks.includes is None or name in quirks.includes]
    if not quirks.has_encrypted_reasoning:
        wanted = [name for name in wanted if name != ENCRYPTED]
    elif request.get("store") is False and "reasoning" in request and ENCRYPTED not in wanted:
        # Otherwise the reasoning is lost with this turn. Only where the client mentions reasoning: a model without it
        # answers 400 "Encrypted content is not supported with this model" (draive#399, OpenHands#11406).
        wanted.append(ENCRYPTED)
    if wanted:
        request["include"] = wanted
    else:
        request.pop("include", None)


def _put_reasoning_and_text(request: dict[str, Json], quirks: ResponsesQuirks) -> None:
    reasoning = request.get("reasoning")
    if reasoning is not None and quirks.efforts is not None:
        effort = reasoning.get("effort")
        if isinstance(effort, str) and (name := quirks.efforts.get(effort, effort)) != effort:
            request["reasoning"] = {**reasoning, "effort": name}
    text = request.get("text")
    if text is not None and not quirks.has_verbosity and "verbosity" in text:
        request["text"] = {key: value for key, value in text.items() if key != "verbosity"}
        if not request["text"]:
            del request["text"]


def _put_tools(request: dict[str, Json], quirks: ResponsesQuirks) -> None:
    tools: list[dict[str, Json]] = request.get("tools", [])
    usable: list[dict[str, Json]] = []
    for tool in tools:
        kind = tool["type"]
        if not quirks.has_custom_tools and kind in ("custom", "namespace"):
            tool = _without_custom(tool)
        if kind not in ("function", "custom") and quirks.tool_types is not None and kind not in quirks.tool_types:
            continue
        for note in _TOOL_NOTES:
            if note in tool:
                tool = _without(tool, note)
        usable.append(tool)
    if not tools:
        return
    if not usable:
        for key in ("tools", "tool_choice", "parallel_tool_calls"):
            request.pop(key, None)
        return
    request["tools"] = usable
    if "tool_choice" in request:
        choice = usable_choice(request["tool_choice"], usable, is_wrapped=not quirks.has_custom_tools)
        if choice is None:
            del request["tool_choice"]
        else:
            request["tool_choice"] = choice


def _without_custom(tool: dict[str, Json]) -> dict[str, Json]:
    """Return a custom tool as a function, and a namespace with its custom tools as functions."""
    if tool["type"] == "custom":
        return as_function(tool)
    inner: list[Json] = tool["tools"] if is_list(tool.get("tools")) else []
    plain = [as_function(one) if _is_custom(one) else one for one in inner]
    return {**tool, "tools": plain} if any(map(_is_custom, inner)) else tool


def _is_custom(tool: Json) -> bool:
    return is_object(tool) and tool.get("type") == "custom" and isinstance(tool.get("name"), str)


def _items(
    items: list[dict[str, Json]], quirks: ResponsesQuirks, form: _Form, mended: set[str], *, is_stored: bool
) -> list[dict[str, Json]]:
    """Translate the items, from the last to the first, to know for each reasoning item whether its result follows.

    Raises:
        BadRequest: if a part of the conversation is stored where the upstream does not find it.
    """
    sent: list[dict[str, Json]] = []
    is_answer_next = False
    for position, item in enumerate(paced(items[::-1]), 1):
        kind = item.get("type")
        if kind == "reasoning":
            reasoning = _reasoning(item, quirks, is_stored=is_stored) if is_answer_next else None
            if reasoning is not None:
                sent.append(reasoning)
            continue
        usable = _item(item, kind, quirks, form, mended)
        if usable is None:
            if kind != LATE_TOOLS:
                leave_out(kind_of(item), item, f"input[{len(items) - position}]", mended)
            continue
        # Produced by the model: everything but messages of other roles, outputs, and references to unknown items.
        is_answer_next = (
            not (isinstance(role := item.get("role"), str) and role in _NOT_SAID)
            and kind not in _NOT_PRODUCED
            and not (isinstance(kind, str) and kind.endswith("_output"))
        )
        sent.append(usable)
    sent.reverse()
    return sent


def _reasoning(item: dict[str, Json], quirks: ResponsesQuirks, *, is_stored: bool) -> dict[str, Json] | None:
    """Return reasoning in a form that the upstream can use; its item follows, without which OpenAI answers 400."""
    item = _noted_off(item, quirks)
    encrypted = item.get("encrypted_content")
    if encrypted and quirks.has_encrypted_reasoning:
        return item
    if quirks.has_plain_reasoning and (item.get("content") or item.get("summary")):
        plain = _without(item, "encrypted_content") if "encrypted_content" in item else item
        if isinstance(plain.get("id"), str):
            return plain
        # vLLM requires an id; it must be the same in each turn, like everything that is sent again.
        digest = sha256(repr(plain.get("content")).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return {**plain, "id": f"rs_{digest}"}
    if is_stored and quirks.has_encrypted_reasoning and isinstance(item.get("id"), str):
        return item  # the upstream knows it
    return None


def _item(
    item: dict[str, Json], kind: Json, quirks: ResponsesQuirks, form: _Form, mended: set[str]
) -> dict[str, Json] | None:
    if kind == LATE_TOOLS:
        return item if quirks.has_late_tools else None
    item = _noted_off(item, quirks)
    role = item.get("role")
    if role is not None and (kind is None or kind == "message"):
        content = item.get("content")
        if is_list(content):
            item = _with_content(item, "content", content)
            if role == "assistant" and quirks.is_basic:
                item = {**item, "content": _said(item["content"])}
        if role == "assistant" and form is not None:
            item = _in_form(item, form)
        return {**item, "role": "system"} if role == "developer" and not quirks.has_developer else item
    if is_list(output := item.get("output")):
        item = _with_content(item, "output", output)
    if kind in _CUSTOM_ITEMS and not quirks.has_custom_tools:
        return as_function_item(item)
    if kind == "function_call" and quirks.parses_arguments:
        return {**item, "arguments": object_arguments(item["arguments"], mended)}
    return item if not quirks.is_basic or kind in _BASIC_ITEMS else None


def _noted_off(item: dict[str, Json], quirks: ResponsesQuirks) -> dict[str, Json]:
    for key in _ITEM_NOTES:
        if key in item:
            item = _without(item, key)
    if not quirks.has_status and "status" in item and item.get("type") in ("message", "reasoning"):
        item = _without(item, "status")
    return item


def _with_content(item: dict[str, Json], key: str, parts: list[Json]) -> dict[str, Json]:
    if not any(is_object(part) and _CACHE in part for part in parts):
        return item
    return {**item, key: [_without(part, _CACHE) if is_object(part) else part for part in parts]}


def _in_form(item: dict[str, Json], form: Literal["parts", "string"]) -> dict[str, Json]:
    """Return the assistant's message in one form if it is only a text; then nothing is lost."""
    content = item.get("content")
    if form == "parts":
        is_text = isinstance(content, str) and bool(content)
        return {**item, "content": [{"type": "output_text", "text": content}]} if is_text else item
    if is_list(content) and len(content) == 1 and "id" not in item and _is_bare(content[0]):
        return {**item, "content": content[0]["text"]}
    return item


def _is_bare(part: Json) -> bool:
    return (
        is_object(part)
        and part.keys() == {"type", "text"}
        and part["type"] == "output_text"
        and isinstance(part["text"], str)
    )


def _said(content: list[Json]) -> str:
    texts = [part.get("text", part.get("refusal")) for part in content if part["type"] in _SAID]
    return "".join(text for text in texts if isinstance(text, str))


def _without(fields: dict[str, Json], key: str) -> dict[str, Json]:
    return {name: value for name, value in fields.items() if name != key}
