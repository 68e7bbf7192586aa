"""The stages that the user adds: where each stands, in what order, and for which requests.

They are checked before anything is opened (`plan`), and built once in each serving process (`Installed`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from pipeline import RequestContext
from pipeline.gateway.config.settings import StageSettings, When
from pipeline.host import Observer
from pipeline.registry import (
    AnyPlugin,
    PluginError,
    check,
    did_you_mean,
    members_of,
    misfits,
    missing,
    with_article,
)
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
        """Return it with the rule for its failures; an observer, with its plugin's name."""
        if planned.plugin.kind == "observer":
            return cls(planned, _NamedObserver(planned.plugin.name, made))
        return cls(planned, skipping(made) if planned.settings.on_error == "skip" else made)


class _NamedObserver:
    """An observer, which needs no name of its own."""

    def __init__(self, name: str, observer: Observer) -> None:
        self.name = name
        self._observer = observer

    def on_start(self, ctx: RequestContext) -> None:
        self._observer.on_start(ctx)

    def on_end(self, record: Any) -> None:
        self._observer.on_end(record)


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


class PlanError(PluginError):
    """What the user adds does not fit. ``problems`` has one sentence for each thing to repair."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def plan(insertions: Sequence[StageSettings], plugins: Mapping[str, AnyPlugin]) -> tuple[Planned, ...]:
    """Check what the user adds, and put it into order.

    Raises:
        PlanError: if stages do not exist, or do not fit in their places; the message says where each is configured.
    """
    planned: list[Planned] = []
    problems: list[str] = []
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
            problems.append(f"{settings.where}: {error}")
        else:
            planned.append(one)
        taken.add(settings.use)
    if problems:
        raise PlanError(problems)
    return tuple(_ordered(planned))


def _planned(settings: StageSettings, plugins: Mapping[str, AnyPlugin]) -> Planned:
    if (plugin := plugins.get(settings.use)) is None:
        raise PluginError(missing(plugins, settings.use))
    place = _place(settings, plugin)
    when = settings.when
    if plugin.kind == "observer" and when != When():
        raise PluginError(f"{settings.use!r} is an observer, which is told of every request: leave out when")
    if place == "request_bytes" and (when.models, when.stream) != (None, None):
        raise PluginError(f"stage {settings.use!r} is asked before the body is read: `when` can name keys and profile")
    if place is not None and not _overlap(plugin.accepts, PLACES[place]):
        fitting = _fitting(plugin.accepts)
        raise PluginError(
            f"stage {settings.use!r} does not take {type_words(PLACES[place])}, which flows at {place!r}: "
            + (f"put it at {' or '.join(fitting)}, where " if fitting else "nowhere flows ")
            + type_words(plugin.accepts)
            + (" flows" if fitting else "")
        )
    options = check(plugin, settings.options, flowing=None if place is None else PLACES[place], convert=convert)
    if settings.on_error == "skip":
        if plugin.kind != "stage":
            raise PluginError(f"{settings.use!r} is {with_article(plugin.kind)}: on_error: skip is for stages")
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
                f"{settings.use!r} is {with_article(plugin.kind)}, which has no place: leave out at, before and after"
            )
        return None
    if settings.after in BUILT_IN - AFTER.keys():
        raise PluginError(
            f"stage {settings.use!r} cannot follow {settings.after!r}: choose one of {', '.join(AFTER)}, or a place"
        )
    if given is not None:
        if given not in PLACES:
            raise PluginError(
                f"stage {settings.use!r} cannot stand at {given!r}: choose one of {', '.join(PLACES)}"
                f"{did_you_mean(given, PLACES)}"
            )
        return given
    if members_of(plugin.accepts) is None:
        raise PluginError(f"stage {settings.use!r} does not say what it takes: add `at`, one of {', '.join(PLACES)}")
    found = _fitting(plugin.accepts)
    if len(found) != 1:
        where = f"flows at {', '.join(found)}" if found else "flows nowhere"
        raise PluginError(
            f"stage {settings.use!r} takes {type_words(plugin.accepts)}, which {where}: "
            f"add `at`, one of {', '.join(found or PLACES)}"
        )
    return found[0]


def _fitting(taken: object) -> list[str]:
    """Return the places where it takes all that flows; else those where it takes a part, of which `check` complains."""
    members = members_of(taken) or frozenset()
    fitting = [place for place, flowing in PLACES.items() if (members_of(flowing) or frozenset()) <= members]
    return fitting or [place for place, flowing in PLACES.items() if _overlap(taken, flowing)]


def _overlap(taken: object, flowing: object) -> bool:
    """Return whether something of what flows is taken, as far as that is known."""
    members = members_of(flowing)
    return members is None or misfits(members, members_of(taken)) != members


def type_words(kind: object) -> str:
    """Return the names of a type's members; ``?`` if they are not known."""
    members = members_of(kind)
    if members is None:
        return "?"
    if members == members_of(StreamEvent):
        return "StreamEvent"
    return " | ".join(sorted(getattr(member, "__name__", str(member)) for member in members))


def unmatched_models(insertions: Sequence[StageSettings], names: Iterable[str]) -> Iterator[str]:
    """Say which stages are for models that no client can ask for; ``names`` are those of the configured models."""
    known = tuple(names)
    for settings in insertions:
        for pattern in settings.when.models or ():
            start = pattern.partition("*")[0]  # the name of a variant, as gpt-5-fast, begins with that of its model
            if not any("*" in name or name.startswith(start) or start.startswith(name) for name in known):
                yield (
                    f"{settings.where}: no model's name matches {pattern!r}, so that stage {settings.use!r} is for no "
                    f"request with it{did_you_mean(pattern, known)}"
                )


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
                beside = [each.settings.use for each in planned if each.place == one.place and each is not one]
                raise PlanError(
                    [
                        f"{settings.where}: stage {name!r} cannot stand next to {other!r}: there is no "
                        f"such added stage at the same place{did_you_mean(other, [*AFTER, *beside])}"
                    ]
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
            raise PlanError(
                [
                    f"{by_name[left[0]].settings.where}: `before` and `after` of the stages {', '.join(left)} "
                    "contradict each other: leave one out"
                ]
            )
        done[following.settings.use] = following
    return list(done.values())


def convert(options: Mapping[str, object], kind: type[Any]) -> Any:
    """Convert options to a dataclass or Struct; refuse unknown names, which msgspec alone ignores.

    A number may be text, as that of an environment variable is.

    Raises:
        ValueError: if they do not fit; the sentence names the option.
    """
    fields = {field.name: field for field in cast("Any", msgspec.inspect.type_info(kind)).fields}
    if unknown := sorted(set(options) - fields.keys()):
        raise ValueError(
            f"there is no option {unknown[0]!r} (options: {', '.join(sorted(fields)) or 'none'})"
            f"{did_you_mean(unknown[0], fields)}"
        )
    if lacking := [name for name, field in fields.items() if field.required and name not in options]:
        raise ValueError(f"the option {lacking[0]!r} is missing: it has no default")
    try:
        return msgspec.convert(dict(options), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(_plainly(str(error))) from error


_MISMATCH: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<found>[^`]+)` - at `\$\.(?P<at>[^`]+)`")


def _plainly(said: str) -> str:
    """Return what msgspec says in the words of the configuration."""
    if (mismatch := _MISMATCH.fullmatch(said)) is None:
        return said.replace(" - at `$.", ", in `")
    wanted, found = (
        " or ".join(_WORDS.get(word, word) for word in mismatch[name].split(" | ")) for name in ("wanted", "found")
    )
    return f"{mismatch['at']}: found {found}, expected {wanted}"


_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
