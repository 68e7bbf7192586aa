"""What the operator sets and removes in the requests to one deployment (``litellm_params``).

The parameters are defaults: what the client sets, in whatever spelling, takes precedence. Both are in normal form, so
every API's own builder translates them. ``extra_body`` is put over the body that the builder returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from stages.request import ResponsesRequest
from stages.wire.foreign_json import Json
from stages.wire.normal_form import all_tools, group

_GROUPS: Final = ("reasoning", "text")
"""Parameters of several settings, each of which the client may override alone."""

_THINKING: Final = frozenset({"thinking", "enable_thinking", "thinking_budget"})
_HOW_MUCH: Final = frozenset({"effort", "max_tokens", "enabled"})
"""The dialects of how much to think: Anthropic's, Qwen's and GLM's fields, and those within ``reasoning``."""

Place = tuple[str, ...]
"""A field of the normal form, or a field and a key in it: ``("reasoning", "effort")``."""

PLACES: Final[Mapping[str, Place]] = {
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
    "response_format": ("text", "format"),
    "stop_sequences": ("stop",),
}
"""Where the normal form has a parameter that has another name there."""

_WITH_TOOLS: Final = ("tool_choice", "parallel_tool_calls")


class Parameters(Struct, frozen=True, kw_only=True):
    """What one deployment's entry says.

    Attributes:
        defaults: in normal form; used where the client's request does not say.
        dropped: removed from the client's request, before the defaults are put in.
        extra_body: fields of the body that is posted, whole: they replace what would be there.
        secrets: texts among them that must not be shown if the upstream echoes them.
    """

    # Any: JSON, in the upstream's words or ours.
    defaults: Mapping[str, Any] = {}
    dropped: tuple[Place, ...] = ()
    extra_body: Mapping[str, Any] = {}
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Describe them without their values, which may be secrets."""
        return f"<Parameters {', '.join(self.defaults)}>"

    def applied_to(self, request: ResponsesRequest) -> ResponsesRequest:
        """Return the request with the defaults, and without what is dropped; the request itself is not changed."""
        body = dict(request.body)
        for place in self.dropped:
            drop(body, place)
        is_effort_set = not _THINKING.isdisjoint(body) or any(
            group(body, "reasoning").get(key) is not None for key in _HOW_MUCH
        )
        for name, value in self.defaults.items():
            if name in _GROUPS:
                asked = {key: one for key, one in group(body, name).items() if one is not None}
                ours = {key: one for key, one in value.items() if not (is_effort_set and key in _HOW_MUCH)}
                if merged := {**ours, **asked}:
                    body[name] = merged
            elif name in _THINKING:
                if not is_effort_set:
                    body[name] = value
            elif name != "parallel_tool_calls" or all_tools(body):  # several upstreams refuse it without tools
                body.setdefault(name, value)
        return replace(request, body=body)


def drop(body: dict[str, Json], place: Place) -> None:
    """Remove a field of a body, or a key of one; what would make no sense without it goes, too."""
    name, *keys = place
    if keys and name in body:
        left = {key: value for key, value in group(body, name).items() if key not in keys}
        if left:
            body[name] = left
            return
    body.pop(name, None)
    if name == "tools":
        for other in _WITH_TOOLS:
            body.pop(other, None)
