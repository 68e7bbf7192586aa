"""Fields that choose another model, or that name something stored in an account: sent only where the operator wants it.

Through ``models``, ``route`` or ``plugins`` OpenRouter answers with another model than the one that a key is for. An
answer of ours has no id at the vendor, so ``previous_response_id`` and the like were never ours: they name what another
user of the same account has stored. The conversation that came with them stands for itself.

Source: https://openrouter.ai/docs/features/model-routing (2026-11); docs/facts/translation.md, "Parameters".
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from stages.request import ResponsesRequest
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.pairing import pair_calls
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import LATE_TOOLS, is_reference

MODEL_FIELDS: Final = frozenset({"models", "route", "plugins", "preset", "prompt"})
"""Those that can choose another model; a stored prompt names one, and a plugin may be a router."""

_FILE_SEARCH: Final = "file_search"
_RUN_BY_CLIENT: Final = ("function", "custom", "namespace")

_STORED: Final = frozenset({"previous_response_id", "conversation"})

FORWARDABLE: Final = MODEL_FIELDS | _STORED | {"provider", "transforms"}
"""All of them: what ``forward_fields`` may list."""


def only_forwarded(request: ResponsesRequest, allowed: frozenset[str]) -> ResponsesRequest:
    """Return the request without the fields that may not be sent; the request itself if it has none of them.

    Args:
        request: in normal form.
        allowed: what the deployment forwards, and the key may use.

    Raises:
        BadRequest: if all that the request says is stored elsewhere.
    """
    body = request.body
    if FORWARDABLE.isdisjoint(body):  # nearly all requests
        return request
    withheld = {name for name in body if name in FORWARDABLE and name not in allowed}
    if not withheld:
        return request
    request.mended.add("unforwarded_field")
    left = {name: value for name, value in body.items() if name not in withheld}
    items: Json = left["input"]
    if is_list(items) and not withheld.isdisjoint(_STORED):
        # Outputs whose calls are stored elsewhere were kept until now.
        left["input"] = _paired(items, request.mended, is_whole=not any(map(is_reference, items)))
    return replace(request, body=left)


def _paired(items: list[Json], mended: set[str], *, is_whole: bool) -> list[Json]:
    paired = pair_calls(items, is_whole=is_whole)
    if not paired:
        raise BadRequest(
            "input has no conversation of its own: it continues one that is stored elsewhere, which this gateway "
            "does not forward. Send the whole conversation.",
            "input",
        )
    if paired is not items:
        mended.add("unpaired_call")
    return paired


def only_own(request: ResponsesRequest, allowed: frozenset[str]) -> ResponsesRequest:
    """Return the request of a key that is limited to some models, without what is deeper in it than a field.

    References to stored items and searches in stored files are left out, unless something stored is allowed; a tool
    that the vendor runs loses its ``model``. The request itself is returned if it has none of these.

    Args:
        request: in normal form, after `only_forwarded`.
        allowed: what the deployment forwards, and the key may use.

    Raises:
        BadRequest: if all that the request says is stored elsewhere.
    """
    is_stored_allowed = not allowed.isdisjoint(_STORED)
    body, items = request.body, request.body["input"]
    left = dict(body)
    if is_list(items):
        own: list[Json] = items
        if not is_stored_allowed and any(map(is_reference, items)):
            own = [item for item in items if not is_reference(item)]
        if any(item.get("type") == LATE_TOOLS for item in own):
            own = [_with_own_tools(item, is_stored_allowed) if item.get("type") == LATE_TOOLS else item for item in own]
            own = [item for item in own if item.get("type") != LATE_TOOLS or item["tools"]]
        if own != items:
            left["input"] = _paired(own, request.mended, is_whole=True)
    tools: Json = body.get("tools")
    if is_list(tools) and (left_tools := _own_tools(tools, is_stored_allowed)) != tools:
        left["tools"] = left_tools
        kinds = {tool["type"] for tool in left_tools}
        choice: Json = left.get("tool_choice")
        if not kinds or (is_object(choice) and choice.get("type") == _FILE_SEARCH and _FILE_SEARCH not in kinds):
            left.pop("tool_choice", None)
        if not kinds:
            # Several upstreams refuse this one without tools.
            left.pop("parallel_tool_calls", None)
            del left["tools"]
    if left == body:
        return request
    request.mended.add("unforwarded_field")
    return replace(request, body=left)


def _own_tools(tools: list[Json], is_stored_allowed: bool) -> list[Json]:
    own: list[Json] = []
    for tool in tools:
        if tool["type"] == _FILE_SEARCH and not is_stored_allowed:
            continue  # without ``vector_store_ids`` it would be refused
        is_ours = tool["type"] in _RUN_BY_CLIENT or "model" not in tool
        own.append(tool if is_ours else {key: value for key, value in tool.items() if key != "model"})
    return own


def _with_own_tools(item: Json, is_stored_allowed: bool) -> dict[str, Json]:
    return {**item, "tools": _own_tools(item["tools"], is_stored_allowed)}
