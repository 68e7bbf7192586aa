"""What Cursor or an SDK posts to the chat path, brought into one normal form.

The content decides which shape it is, not the path: Cursor posts Responses bodies to ``/chat/completions`` for some
models and chat bodies for others, and mixes the dialects of tools and items within one body (docs/facts/cursor.md,
"Which body for which model").

One decode to plain dicts and lists, one pass over the items; parts that need no change are passed on, not copied. A
large body is decoded in slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from stages.request import ResponsesRequest
from stages.wire.bad_request import BadRequest, json_kind, wrong_type
from stages.wire.downstream.conversation import History
from stages.wire.downstream.pairing import pair_calls
from stages.wire.downstream.parameters import check_types, native_parameters
from stages.wire.downstream.tools import Toolbox, flat_tool_choice, forbids_parallel, open_functions, open_toolbox
from stages.wire.foreign_json import Json, is_list, is_object, whole_characters
from stages.wire.normal_form import LATE_TOOLS, LOGPROBS, is_reference
from stages.wire.sliced_json import NotUtf8, TooDeep, decode_sliced
from stages.wire.slices import Pause, current_pause, paced
from stages.wire.tool_names import ToolNames

MAX_MODEL_CHARS = 512
"""Our limit: the name appears in logs and in messages."""

MAX_DEPTH_LEVELS = 200
"""Our limit: msgspec recurses within Python's limit of 1000 frames, and the code that encodes the body again later may
have fewer of them left. JSON schemas of real tools stay below 20."""

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_CONTAINERS: Final = frozenset({dict, list})
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")


def parse_body(body: bytes | bytearray, *, model: str | None = None, keeps_sent: bool = False) -> ResponsesRequest:
    """Read the body of a request, in any of the dialects.

    ``ResponsesRequest.body`` can always be encoded as JSON again. Null means absent everywhere. Of a duplicate key the
    last value counts.

    Args:
        body: all of it.
        model: the model that the path names (``/openai/deployments/<name>/``); it overrides the one in the body.
        keeps_sent: whether a body of Chat Completions is also kept as it is (`ResponsesRequest.sent`).

    Raises:
        BadRequest: if the body is not a JSON object, the model or the conversation is missing, or a field is of the
            wrong type; ``param`` names the field.
    """
    mended: set[str] = set()
    raw = _decode(body, mended)
    model = _model(raw if model is None else {"model": model})
    check_types(raw)
    names = ToolNames()
    toolbox = open_toolbox(raw.get("tools"), names=names)
    if not toolbox.tools and raw.get("functions"):
        toolbox = open_functions(raw["functions"], names)
    field, conversation = _conversation(raw)
    conversation, late = _with_late_tools(field, conversation, names)
    custom = toolbox.custom | late.custom
    native = native_parameters(raw)
    if isinstance(conversation, str):
        native["input"] = conversation
    else:
        native["input"] = _items(raw, conversation, History(custom, field, names, mended))
    if toolbox.tools:
        native["tools"] = toolbox.tools
    if toolbox.tools or late.tools:
        # Several upstreams refuse these two without tools, OpenAI among them.
        _put_choice(native, raw, custom, names)
        if raw.get("parallel_tool_calls") is not None:
            native["parallel_tool_calls"] = raw["parallel_tool_calls"]
        elif forbids_parallel(raw.get("tool_choice")):
            native["parallel_tool_calls"] = False
    if names.clients:
        mended.add("tool_name")
    return ResponsesRequest(
        mended=mended,
        tool_names=names.clients,
        requested_model=model,
        size_bytes=len(body),
        sent={**raw, "model": model} if keeps_sent and field == "messages" else None,
        stream=bool(raw.get("stream")),
        include_usage=_include_usage(raw),
        body=native,
        shape="responses" if field == "input" else "messages",
        custom_tools=custom,
        has_hosted_tools=toolbox.has_hosted or late.has_hosted,
        wants_logprobs=LOGPROBS in native.get("include", ()),
    )


def _decode(body: bytes | bytearray, mended: set[str]) -> dict[str, Json]:
    if body.startswith(_UTF8_BOM):
        body = body[len(_UTF8_BOM) :]
    if not body or body.isspace():
        raise BadRequest("The request body is empty; it must be a JSON object.")
    if body.startswith(_UTF16_BOMS) or b"\0" in body[:4]:
        raise BadRequest("The request body looks like UTF-16 or UTF-32; JSON must be sent as UTF-8.")
    pause = current_pause()
    if pause is not None:
        raw = _json_in_slices(body, mended, pause)
    else:
        raw = _json(body)
        if isinstance(raw, BadRequest) and (repaired := whole_characters(body)) is not None:
            raw = _json(repaired)
            mended.add("lone_surrogate")
    if isinstance(raw, BadRequest):
        raise raw
    if not is_object(raw):
        raise BadRequest(f"The request body must be a JSON object, not {json_kind(raw)}.")
    if (
        pause is None and body.count(b"{") + body.count(b"[") > MAX_DEPTH_LEVELS
    ):  # else there is nothing to go down into
        for key, value in raw.items():
            if type(value) in _CONTAINERS:
                _check_depth(value, key)
    return raw


def _json(body: bytes | bytearray) -> Json | BadRequest:
    """Decode the body, or return what is wrong with it.

    It is returned, not raised here: a UnicodeDecodeError holds the whole body, and an error's context may be logged.
    """
    try:
        return msgspec.json.decode(body)
    except UnicodeDecodeError:
        return _not_utf8()
    except RecursionError:
        return _too_deep()
    except msgspec.DecodeError as error:
        return _malformed(error)


def _json_in_slices(body: bytes | bytearray, mended: set[str], pause: Pause) -> Json | BadRequest:
    """Do the same in slices, mend halves of surrogate pairs, and check the depth."""
    try:
        return decode_sliced(body, max_levels=MAX_DEPTH_LEVELS, mended=mended, pause=pause)
    except NotUtf8:
        return _not_utf8()
    except TooDeep:
        return _too_deep()
    except msgspec.DecodeError as error:
        return _malformed(error)


def _not_utf8() -> BadRequest:
    return BadRequest("The request body is not valid UTF-8.")


def _too_deep() -> BadRequest:
    return BadRequest(f"The request body is nested too deeply: {MAX_DEPTH_LEVELS} levels are allowed.")


def _malformed(error: msgspec.DecodeError) -> BadRequest:
    """Return the fault; the error's text names positions, never content."""
    reason = str(error).removeprefix("JSON is malformed: ").partition(" - at `")[0]
    return BadRequest(f"The request body is not valid JSON: {reason}.")


def _check_depth(value: Json, key: str) -> None:
    """Check level by level: recursion would reach the very limit that this guards."""
    level: list[Json] = [value]
    for _ in range(1, MAX_DEPTH_LEVELS):
        below: list[Json] = []
        for container in level:
            children: Iterable[Json] = container.values() if is_object(container) else container
            below += [child for child in children if type(child) in _CONTAINERS]
        if not below:
            return
        level = below
    shown = key if len(key) <= 40 else f"{key[:40]}..."
    raise BadRequest(f"{shown} is nested too deeply: {MAX_DEPTH_LEVELS} levels are allowed.", shown)


def _model(raw: dict[str, Json]) -> str:
    model = raw.get("model")
    if model is None:
        raise BadRequest("model is missing; it must be the name of a model.", "model")
    if not isinstance(model, str) or not model or model.isspace():
        raise wrong_type("model", "the name of a model", model)
    if len(model) > MAX_MODEL_CHARS:
        raise BadRequest(f"model has {len(model)} characters; {MAX_MODEL_CHARS} are allowed.", "model")
    return model


def _conversation(raw: dict[str, Json]) -> tuple[Literal["input", "messages"], Json]:
    """Pick the conversation and its dialect; ``input`` if both are usable."""
    native, chat = raw.get("input"), raw.get("messages")
    if native and (isinstance(native, str) or is_list(native)):
        return "input", native
    if chat and is_list(chat):
        return "messages", chat
    if chat is not None and native is None:
        raise wrong_type("messages", "a non-empty array of messages", chat)
    if native is not None:
        raise wrong_type("input", "a non-empty string or a non-empty array of items", native)
    raise BadRequest("The request has neither input nor messages; one of them must hold the conversation.", "input")


def _with_late_tools(field: Literal["input", "messages"], conversation: Json, names: ToolNames) -> tuple[Json, Toolbox]:
    """Bring the tools that items of the conversation declare into Responses form; return them, too, all together."""
    if isinstance(conversation, str):
        return conversation, Toolbox()
    looked_at = enumerate(paced(conversation))
    places = [at for at, item in looked_at if is_object(item) and item.get("type") == LATE_TOOLS]
    if not places:
        return conversation, Toolbox()
    flat: list[Json] = list(conversation)
    tools: list[Json] = []
    for place in places:
        declared = open_toolbox(flat[place].get("tools"), f"{field}[{place}].tools", names).tools
        tools += declared
        flat[place] = {**flat[place], "tools": declared} if declared else None
    return flat, open_toolbox(tools, names=names)


def _items(raw: dict[str, Json], conversation: list[Json], history: History) -> list[Json]:
    field = history.field
    if field == "messages" and raw.get("system"):
        # Anthropic's field: for Claude's names some clients write Anthropic's dialect.
        history.add({"role": "system", "content": raw["system"]}, "system")
    for index, element in enumerate(paced(conversation)):
        history.add(element, f"{field}[{index}]")
    items = history.items
    if raw.get("store") is False:
        # An item that is not stored cannot be referred to: OpenAI answers 404 "Item with id ... not found".
        items = [item for item in items if not is_reference(item)]
    is_whole = raw.get("previous_response_id") is None and raw.get("conversation") is None
    paired = pair_calls(items, is_whole=is_whole and not any(map(is_reference, items)))
    if paired is not items:
        history.mended.add("unpaired_call")
    items = paired
    if not items:
        raise BadRequest(f"{field} has no content: its items are blank, or belong to items that are missing.", field)
    return items


def _put_choice(native: dict[str, Json], raw: dict[str, Json], custom: frozenset[str], names: ToolNames) -> None:
    for param in ("tool_choice", "function_call"):
        if raw.get(param) is not None:
            native["tool_choice"] = flat_tool_choice(raw[param], custom, param, names)
            return


def _include_usage(raw: dict[str, Json]) -> bool:
    options = raw.get("stream_options")
    include_usage = options.get("include_usage") if is_object(options) else None
    if include_usage is not None and not isinstance(include_usage, bool):
        raise wrong_type("stream_options.include_usage", "true or false", include_usage)
    return bool(include_usage)
