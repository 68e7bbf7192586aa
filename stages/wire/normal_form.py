"""The normal form of a request, as the adapters of all upstream APIs read it: items, calls, outputs and tools.

It is a Responses body; `stages.request.ResponsesRequest` carries it. This module holds what the adapters have in
common: which parts of it another service cannot serve, which items are calls and outputs and which belong together, and
what a tool is called where there are no namespaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stages.wire.bad_request import BadRequest
from stages.wire.call_ids import numbered_call_id
from stages.wire.foreign_json import Json, encode, is_list, is_object
from stages.wire.slices import paced
from stages.wire.tool_names import ToolNames

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Reasoning efforts in the API's words, from the lowest to the highest."""

NATIVE_CALLS: Final = {
    "local_shell_call": ("local_shell", ("action",)),
    "shell_call": ("shell", ("action",)),
    "apply_patch_call": ("apply_patch", ("operation",)),
    "computer_call": ("computer", ("action", "actions")),
}
"""Calls that the client carries out although they are not calls of functions: the tool, and the fields that may hold
its task, of which the first that is there counts."""

ENCRYPTED: Final = "reasoning.encrypted_content"
"""What ``include`` asks for to get a model's reasoning, encrypted, for the next turn."""

_WITHOUT_CONTENT: Final = frozenset(
    """additional_tools item_reference web_search_call file_search_call code_interpreter_call image_generation_call
    mcp_call mcp_list_tools mcp_approval_request mcp_approval_response tool_search_call tool_search_output program
    program_output compaction_trigger configuration_update""".split()  # noqa: SIM905 - reads better as text
)
"""Items that another upstream's tools or settings left: other models do not miss them."""
LOGPROBS: Final = "message.output_text.logprobs"
"""What ``include`` asks for to get token log probabilities."""

CALLS: Final = frozenset({"function_call", "custom_tool_call", *NATIVE_CALLS})
OUTPUTS: Final = frozenset(f"{kind}_output" for kind in CALLS)

LATE_TOOLS: Final = "additional_tools"
"""The type of an item that declares tools from there on: tools that come late would change the cached prefix."""

_IMAGE_STARTS: Final = {"iVBORw": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
"""How the formats start in base64."""

_NAMED: Final = ("function", "custom")  # not a set: a foreign value may be unhashable


# What no other service has.


def leave_out(kind: str, item: dict[str, Json], where: str, mended: set[str]) -> None:
    """Leave out an item that this upstream's API does not have, unless it stands for a part of the conversation.

    Raises:
        BadRequest: if it does. References to reasoning do not.
    """
    if kind not in _WITHOUT_CONTENT:
        mended.add("unknown_item")
    if kind == "compaction" or (kind == "item_reference" and not str(item.get("id")).startswith("rs_")):
        raise BadRequest(
            f"{where} is of the type {kind}: a part of the conversation that only the upstream that wrote it "
            "can read. Send the conversation itself, or start a new chat.",
            where,
        )


def nothing_to_answer() -> BadRequest:
    """Return the error for an ``input`` of which nothing is left that could be sent."""
    return BadRequest("input holds nothing that the upstream of this model could answer.", "input")


def image_url_of(part: dict[str, Json], where: str) -> str:
    """Return the URL of an image.

    Raises:
        BadRequest: if it is an image that is stored at OpenAI.
    """
    url = part.get("image_url")
    if isinstance(url, str) and url:
        return url
    raise BadRequest(
        f"{where} names an image by file_id, which the upstream of this model cannot read; send it as image_url, "
        "for example with a data: URL.",
        f"{where}.file_id",
    )


def image_type(data: str) -> str | None:
    """Return the media type of an image in base64, by its first bytes; None if it is of another format."""
    return next((kind for start, kind in _IMAGE_STARTS.items() if data.startswith(start)), None)


# Parameters and items.


def group(body: dict[str, Json], name: str) -> dict[str, Json]:
    """Return a parameter that is an object, or an empty one if it is missing or something else."""
    value = body.get(name)
    return value if is_object(value) else {}


def kind_of(item: dict[str, Json]) -> str:
    """Return the type of an item, which messages and references may omit."""
    return item.get("type") or ("message" if "role" in item else "item_reference")


def is_reference(item: dict[str, Json]) -> bool:
    """Return whether an item refers to a stored one; its type may be omitted."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "role" not in item)


def nearest_efforts(*known: str) -> dict[str, str]:
    """Return the nearest known effort for each of the API's, the lower of two; only ``none`` switches thinking off."""
    on = [effort for effort in known if effort != "none"]
    return {
        effort: effort if effort in known else min(on, key=lambda one: abs(EFFORTS.index(one) - EFFORTS.index(effort)))
        for effort in EFFORTS
    }


# Calls and their outputs.


def call_id_of(item: dict[str, Json]) -> str:
    """Return the id that a call and its output have in common."""
    return str(item.get("call_id") or item.get("id") or "")


def own_call_ids(items: list[dict[str, Json]], legal: Callable[[str], str]) -> dict[int, str]:
    """Map the position of each call to an id that no other call has.

    Args:
        items: the conversation.
        legal: returns an id in the form that the upstream accepts.
    """
    own_ids: dict[int, str] = {}
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for position, item in enumerate(paced(items)):
        if item.get("type") in CALLS:
            call_id = own_id = legal(call_id_of(item) or "call")
            while own_id in taken:  # perhaps by a call of another type: `pair_calls` knows functions and custom tools
                number = counts[call_id] = counts.get(call_id, 1) + 1
                own_id = legal(numbered_call_id(call_id, number))
            taken.add(own_id)
            own_ids[position] = own_id
    return own_ids


def call_ids_of(body: Mapping[str, Any]) -> frozenset[str]:  # the client's JSON
    """Return the ids of the calls in a request's history."""
    items: object = body.get("input")
    # No call for each item: a long conversation has 100 000 of them, and this is not sliced.
    ids = [item["call_id"] for item in items if "call_id" in item] if is_list(items) else []
    return frozenset([call_id for call_id in ids if isinstance(call_id, str)])


def native_task(kind: str, item: dict[str, Json]) -> tuple[str, Json] | None:
    """Return the tool and the task of a native call; None if it calls a function or a custom tool."""
    if kind not in NATIVE_CALLS:
        return None
    name, fields = NATIVE_CALLS[kind]
    return name, next((item[field] for field in fields if field in item), None)


def output_places(items: list[dict[str, Json]]) -> dict[int, int]:
    """Map the position of each call to the position of its output.

    An output belongs to the last call of its id before it that has none yet, or else to the first one after it; outputs
    without a call are not in the map. The output of a native call may name the call's item instead
    (``local_shell_call_output`` has only an ``id``).
    """
    places: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    early: dict[str, int] = {}
    for position, item in enumerate(paced(items)):
        kind = item.get("type")
        if kind in CALLS:
            call_id = call_id_of(item)
            if (output := early.pop(call_id, None)) is not None:
                places[position] = output
                continue
            waiting.setdefault(call_id, []).append(position)
            if kind in NATIVE_CALLS and isinstance(item_id := item.get("id"), str) and item_id != call_id:
                waiting[item_id] = waiting[call_id]
        elif kind in OUTPUTS:
            call_id = call_id_of(item)
            if calls := waiting.get(call_id):
                places[calls.pop()] = position
            else:
                early[call_id] = position
    return places


def output_of(item: dict[str, Json]) -> Json:
    """Return what a tool returned: text or parts."""
    output = item.get("output")
    if item.get("type") == "shell_call_output" and is_list(output):  # a list of stdout, stderr and outcome
        return encode(output).decode()
    return output


# Tools.


def late_tools(body: Mapping[str, Json]) -> list[Json]:
    """Return the tools that items of the conversation declare (``additional_tools``), in order."""
    items: Json = body.get("input")
    declared = [item["tools"] for item in items if item.get("type") == LATE_TOOLS] if is_list(items) else []
    return [tool for tools in declared for tool in tools]


def all_tools(body: Mapping[str, Json]) -> list[Json]:
    """Return the tools of a request and those that its conversation declares; of a name the last declaration counts."""
    tools: list[Json] = body.get("tools") or []
    late = late_tools(body)
    if not late:
        return tools
    named: dict[Json, Json] = {tool.get("name") or id(tool): tool for tool in (*tools, *late)}
    return list(named.values())


def flat_tools(tools: list[Json], names: ToolNames | None = None) -> list[tuple[dict[str, Json], str | None, str]]:
    """List each tool with its namespace and with its name where there are no namespaces.

    That is the tool's own name, prefixed with the namespace's if the own name is taken. Of a namespace only the
    functions and custom tools that have names are listed.

    Args:
        tools: in Responses form.
        names: receives the names that had to be changed.
    """
    names = ToolNames() if names is None else names
    flat: list[tuple[dict[str, Json], str | None, str]] = []
    taken = {tool["name"] for tool in tools if tool["type"] in _NAMED}
    for tool in tools:
        if tool["type"] != "namespace":
            flat.append((tool, None, tool["name"] if tool["type"] in _NAMED else ""))
            continue
        namespace, inner = str(tool.get("name")), tool.get("tools")
        for one in inner if is_list(inner) else []:
            if is_object(one) and one.get("type") in _NAMED and isinstance(own := one.get("name"), str):
                name = names.legal(f"{namespace}__{own}") if own in taken else own
                taken.add(name)
                flat.append((one, namespace, name))
    return flat
