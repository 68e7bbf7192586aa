"""What the adapters of other APIs have in common: how they read the normal form that they translate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stages.wire.bad_request import BadRequest
from stages.wire.foreign_json import Json, encode, is_list, is_object

_STORED: Final = ("previous_response_id", "conversation", "prompt")
"""Parameters that name something which is stored at OpenAI."""

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

CALLS: Final = frozenset({"function_call", "custom_tool_call", *NATIVE_CALLS})
OUTPUTS: Final = frozenset(f"{kind}_output" for kind in CALLS)


def refuse_stored(body: dict[str, Json]) -> None:
    """Refuse a request that builds on what only OpenAI has.

    Raises:
        BadRequest: if it does.
    """
    for name in _STORED:
        if body.get(name) is not None:
            raise BadRequest(
                f"{name} names something that is stored at another service; the upstream of this model does not have "
                "it. Send the whole conversation as input.",
                name,
            )


def refuse_unreadable(kind: str, item: dict[str, Json], where: str) -> None:
    """Refuse an item that stands for a part of the conversation. References to reasoning may be left out.

    Raises:
        BadRequest: if it is one.
    """
    if kind == "compaction" or (kind == "item_reference" and not str(item.get("id")).startswith("rs_")):
        raise BadRequest(
            f"{where} is of the type {kind}: a part of the conversation that only the upstream which wrote it "
            "can read. Send the conversation itself, or start a new chat.",
            where,
        )


def group(body: dict[str, Json], name: str) -> dict[str, Json]:
    """Give a parameter that is an object; an empty one if it is missing or something else."""
    value = body.get(name)
    return value if is_object(value) else {}


def kind_of(item: dict[str, Json]) -> str:
    """Give the type of an item, which messages and references may leave out."""
    return item.get("type") or ("message" if "role" in item else "item_reference")


def call_id_of(item: dict[str, Json]) -> str:
    """Give the id that a call and its output have in common."""
    return str(item.get("call_id") or item.get("id") or "")


def native_task(kind: str, item: dict[str, Json]) -> tuple[str, Json] | None:
    """Give the tool and the task of a call that is none of a function or custom tool; None if it is one."""
    if kind not in NATIVE_CALLS:
        return None
    name, fields = NATIVE_CALLS[kind]
    return name, next((item[field] for field in fields if field in item), None)


def output_places(items: list[dict[str, Json]]) -> dict[int, int]:
    """Find the output of each call: from the position of the call to that of its output.

    An output belongs to the last call of its id that has none yet; others have no call and are not sent.
    """
    places: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        kind = item.get("type")
        if kind in CALLS:
            waiting.setdefault(call_id_of(item), []).append(position)
        elif kind in OUTPUTS and (calls := waiting.get(call_id_of(item))):
            places[calls.pop()] = position
    return places


def output_of(item: dict[str, Json]) -> Json:
    """Give what a tool gave back: text or parts."""
    output = item.get("output")
    if item.get("type") == "shell_call_output" and is_list(output):  # a list of stdout, stderr and outcome
        return encode(output).decode()
    return output


_NAMED = ("function", "custom")  # no set: what is looked up may be unhashable


def flat_tools(tools: list[Json]) -> list[tuple[dict[str, Json], str | None, str]]:
    """Give each tool with its namespace and the name that it has where there are no namespaces.

    It is the tool's own name, with the namespace's before it if that is taken. Of a namespace only functions and custom
    tools with names are given.

    Args:
        tools: in Responses form.
    """
    flat: list[tuple[dict[str, Json], str | None, str]] = []
    taken = {tool["name"] for tool in tools if tool["type"] in _NAMED}
    for tool in tools:
        if tool["type"] != "namespace":
            flat.append((tool, None, tool["name"] if tool["type"] in _NAMED else ""))
            continue
        namespace, inner = str(tool.get("name")), tool.get("tools")
        for one in inner if is_list(inner) else []:
            if is_object(one) and one.get("type") in _NAMED and isinstance(own := one.get("name"), str):
                name = f"{namespace}__{own}" if own in taken else own
                taken.add(name)
                flat.append((one, namespace, name))
    return flat


EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How hard a model is to think, as the API spells it, from little to much."""


def call_ids_of(body: Mapping[str, Any]) -> frozenset[str]:  # JSON of the client's
    """Give the ids of the calls in a request's history."""
    items: object = body.get("input")
    ids = [item.get("call_id") for item in items if is_object(item)] if is_list(items) else []
    return frozenset(call_id for call_id in ids if isinstance(call_id, str))
