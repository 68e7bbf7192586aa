"""The stages that the user adds: where each stands, in what order, and for which requests.

They are checked before anything is opened (`plan`), and built once in each serving process (`Installed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from pipeline.gateway.config.settings import StageSettings, When
from pipeline.registry import AnyPlugin, PluginError, check, members_of
from pipeline.skipping import skipping
from stages.events import Failed, StreamEvent
from stages.principal import matches
from stages.request import ResponsesRequest
from stages.upstreams import UpstreamCall

PLACES: Final[dict[str, object]] = {
    "request_bytes": bytes,
    "request": ResponsesRequest,
    "call": UpstreamCall,
    "upstream_bytes": bytes | Failed,
    "events": StreamEvent,
    "client_bytes": bytes,
}
"""Where a stage can be added, and the type of what flows there."""

AFTER: Final[dict[str, str]] = {
    "authenticate": "request_bytes",
    "parse_request": "request",
    "choose_deployment": "call",
    "call_upstream": "upstream_bytes",
    "decode_events": "events",
    "encode_chunks": "client_bytes",
}
"""The place behind a built-in stage."""

ACCEPTING: Final = ("request_bytes", "request", "call")
"""The places before it is known how the request is answered."""

BUILT_IN: Final = frozenset(AFTER) | {
    "restore_reasoning",
    "answer_call",
    "remember_reasoning",
    "collect_completion",
    "keep_alive",
    "write_json",
    "write_sse",
}
"""The names of the built-in stages."""


class Planned(Struct, frozen=True):
    """An added stage whose configuration fits.

    Attributes:
        plugin, settings: what it is, and how it is configured.
        options: of the type that the plugin wants.
        place: one of `PLACES`; None for what stands around the call, and for an observer.
    """

    plugin: AnyPlugin
    settings: StageSettings
    options: Any
    place: str | None

    @property
    def is_conditional(self) -> bool:
        """Whether it is only for some requests."""
        return self.settings.when != When()


class Installed(Struct, frozen=True):
    """An added stage that is ready: the stage, what stands around the call, or the observer itself is ``made``."""

    planned: Planned
    made: Any

    @classmethod
    def of(cls, planned: Planned, made: Any) -> Installed:
        """Return it with the rule for its failures."""
        return cls(planned, skipping(made) if planned.settings.on_error == "skip" else made)


class Asked(Struct, frozen=True):
    """What of a request decides which stages it passes; None is not known yet.

    Attributes:
        model, variant_of: the requested name, and the model that answers to it. A condition may name either, as the
            scope of a key does: another spelling must not lead around a stage.
    """

    key: str | None = None
    model: str | None = None
    variant_of: str | None = None
    stream: bool | None = None
    profile: str | None = None


def applies(when: When, asked: Asked) -> bool:
    """Return whether a stage with this condition is for such a request."""
    return (
        (when.keys is None or _is_one_of(when.keys, asked.key))
        and (when.models is None or any(_is_one_of(when.models, name) for name in (asked.model, asked.variant_of)))
        and (when.stream is None or when.stream == asked.stream)
        and (when.profile is None or when.profile == asked.profile)
    )


def _is_one_of(patterns: Sequence[str], name: str | None) -> bool:
    return name is not None and any(matches(pattern, name) for pattern in patterns)


def plan(insertions: Sequence[StageSettings], plugins: Mapping[str, AnyPlugin]) -> tuple[Planned, ...]:
    """Check what the user adds, and put it into order.

    Raises:
        PluginError: if a stage does not exist, or does not fit in its place; the message says where it is configured.
    """
    planned: list[Planned] = []
    taken = set(BUILT_IN)
    for settings in insertions:
        try:
            one = _planned(settings, plugins)
            if settings.use in taken:
                raise PluginError(
                    f"another stage is already named {settings.use!r}, and the log could not distinguish them: use "
                    "each stage once"
                )
        except PluginError as error:
            raise PluginError(f"{settings.where}: {error}") from error
        taken.add(settings.use)
        planned.append(one)
    return tuple(_ordered(planned))


def _planned(settings: StageSettings, plugins: Mapping[str, AnyPlugin]) -> Planned:
    if (plugin := plugins.get(settings.use)) is None:
        known = ", ".join(sorted(plugins)) or "none is installed"
        raise PluginError(
            f"no stage named {settings.use!r} is installed (installed: {known}): "
            "install the distribution that provides it in the same environment as headrace"
        )
    place = _place(settings, plugin)
    when = settings.when
    if plugin.kind == "observer" and when != When():
        raise PluginError(f"{settings.use!r} is an observer, which is told of every request: leave out when")
    if place == "request_bytes" and (when.models, when.stream) != (None, None):
        raise PluginError(f"stage {settings.use!r} is asked before the body is read: `when` can name keys and profile")
    options = check(plugin, settings.options, flowing=None if place is None else PLACES[place], convert=convert)
    if settings.on_error == "skip":
        if plugin.kind != "stage":
            raise PluginError(f"{settings.use!r} is an {plugin.kind}: on_error: skip is for stages")
        if plugin.make is not None:
            try:
                skipping(plugin.make(options))
            except ValueError as error:
                raise PluginError(f"stage {settings.use!r}: {error}") from error
    return Planned(plugin, settings, options, place)


def _place(settings: StageSettings, plugin: AnyPlugin) -> str | None:
    """Return where a stage stands: as configured, or where what it takes flows."""
    given = settings.at or AFTER.get(settings.after or "")
    if plugin.kind != "stage":
        if settings.at or settings.before or settings.after:
            raise PluginError(
                f"{settings.use!r} is an {plugin.kind}, which has no place: leave out at, before and after"
            )
        return None
    if settings.after in BUILT_IN - AFTER.keys():
        raise PluginError(
            f"stage {settings.use!r} cannot follow {settings.after!r}: choose one of {', '.join(AFTER)}, or a place"
        )
    if given is not None:
        if given not in PLACES:
            raise PluginError(f"stage {settings.use!r} cannot stand at {given!r}: choose one of {', '.join(PLACES)}")
        return given
    taken = members_of(plugin.accepts) or frozenset()
    fitting = [place for place, flowing in PLACES.items() if (members_of(flowing) or frozenset()) <= taken]
    if len(fitting) != 1:
        raise PluginError(
            f"stage {settings.use!r} does not say what it takes, or that flows at several places: "
            f"add `at`, one of {', '.join(PLACES)}"
        )
    return fitting[0]


def _ordered(planned: list[Planned]) -> list[Planned]:
    """Return the stages in an order in which each `before` and `after` holds.

    One that names another stands next to it if no other condition forbids that; else the order is that of the file.

    Raises:
        PluginError: if a name is not that of a stage at the same place, or no such order exists.
    """
    by_name = {one.settings.use: one for one in planned}
    earlier: dict[str, set[str]] = {name: set() for name in by_name}  # what must come before each
    order = list(planned)
    for one in planned:
        name, settings = one.settings.use, one.settings
        after = None if settings.after in AFTER else settings.after
        for other in filter(None, (settings.before, after)):
            if other == name or other not in by_name or by_name[other].place != one.place:
                raise PluginError(
                    f"{settings.where}: stage {name!r} cannot stand next to {other!r}: there is no "
                    "such added stage at the same place"
                )
        if settings.before:
            earlier[settings.before].add(name)
        if after:
            earlier[name].add(after)
        if (neighbour := settings.before or after) is not None:
            order.remove(one)
            order.insert(order.index(by_name[neighbour]) + (settings.before is None), one)
    done: dict[str, Planned] = {}
    while len(done) < len(planned):
        ready = (one for one in order if one.settings.use not in done and earlier[one.settings.use] <= done.keys())
        if (following := next(ready, None)) is None:
            left = sorted(by_name.keys() - done.keys())
            raise PluginError(
                f"{by_name[left[0]].settings.where}: `before` and `after` of the stages {', '.join(left)} contradict "
                "each other: leave one out"
            )
        done[following.settings.use] = following
    return list(done.values())


def convert(options: Mapping[str, object], kind: type[Any]) -> Any:
    """Convert options to a dataclass or Struct; refuse unknown names, which msgspec alone ignores."""
    known = {field.name for field in cast("Any", msgspec.inspect.type_info(kind)).fields}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"there is no option {unknown[0]!r} (options: {', '.join(sorted(known)) or 'none'})")
    return msgspec.convert(dict(options), kind)
