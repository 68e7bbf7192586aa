"""Plugins: stages that other distributions offer through entry points in the group ``pipeline.stages``.

An entry point loads to a stage (what `per_event` and `codec_stage` give), or to a `Plugin` if the stage takes options.
Everything is checked at start-up: the names, the options, and that the item types fit where the stage is put.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import UnionType
from typing import Any, Generic, TypeGuard, TypeVar, cast

from pipeline.stage import Stage

Options = TypeVar("Options")

GROUP = "pipeline.stages"


class PluginError(Exception):
    """A plugin cannot be used as configured; the message names it and says what to change."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a plugin that takes none."""


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Options]):
    """A stage with options, as an entry point offers it.

    Attributes:
        name: what the configuration calls it, and the stage's name.
        make: builds the stage as it is configured, once, at start-up; raises ValueError, with a sentence, if the
            options make no sense.
        options: a dataclass or msgspec Struct whose fields are the options, with their types and defaults.
        accepts, emits: the item types; None is not checked.
    """

    name: str
    make: Callable[[Options], Stage[Any, Any]]
    options: type[Options]
    accepts: object = None
    emits: object = None

    @property
    def summary(self) -> str:
        """The first line of what `make` says about itself; for a bare stage, of its module's docstring."""
        return (self.make.__doc__ or "").strip().partition("\n")[0]


AnyPlugin = Plugin[Any]


def discover(points: Iterable[EntryPoint] | None = None) -> dict[str, AnyPlugin]:
    """Load every plugin that is installed, by name.

    Raises:
        PluginError: if one cannot be imported, is neither a stage nor a `Plugin`, or two have the same name.
    """
    found: dict[str, AnyPlugin] = {}
    for point in entry_points(group=GROUP) if points is None else points:
        try:
            loaded = point.load()
        except Exception as error:
            raise PluginError(f"the stage plugin {point.value!r} cannot be imported: {error!r}") from error
        plugin = _as_plugin(loaded, point)
        if plugin.name in found:
            raise PluginError(f"two installed distributions offer a stage named {plugin.name!r}: uninstall one of them")
        found[plugin.name] = plugin
    return found


def _as_plugin(loaded: object, point: EntryPoint) -> AnyPlugin:
    if _is_plugin(loaded):
        return loaded
    is_stage = isinstance(getattr(loaded, "name", None), str) and callable(getattr(loaded, "run", None))
    if is_stage and not isinstance(loaded, type):
        stage = cast("Stage[Any, Any]", loaded)

        def make(_: NoOptions) -> Stage[Any, Any]:
            return stage

        make.__doc__ = sys.modules[point.module].__doc__  # a stage made by per_event has only its class's own
        return Plugin(stage.name, make, NoOptions, getattr(stage, "accepts", None), getattr(stage, "emits", None))
    raise PluginError(
        f"the entry point {point.name!r} = {point.value!r} is not a stage: "
        "it must load to what per_event or codec_stage give, to an instance of a stage's class, or to a pipeline.Plugin"
    )


def _is_plugin(loaded: object) -> TypeGuard[AnyPlugin]:
    return isinstance(loaded, Plugin)


def build(
    plugin: AnyPlugin,
    options: Mapping[str, object],
    *,
    flowing: object,
    convert: Callable[[Mapping[str, object], type[Any]], Any],
) -> Stage[Any, Any]:
    """Make a plugin's stage for a place where items of type ``flowing`` pass, and must go on passing.

    Args:
        plugin: one of what `discover` found.
        options: as configured.
        flowing: the item type before and after the place; unions are compared member by member.
        convert: turns the mapping into ``plugin.options``; raises ValueError with a sentence if it does not fit.

    Raises:
        PluginError: if the options or the item types do not fit.
    """
    try:
        stage = plugin.make(convert(options, plugin.options))
    except ValueError as error:
        raise PluginError(f"the options of stage {plugin.name!r} do not fit: {error}") from error
    if stage.name != plugin.name:
        raise PluginError(f"the plugin {plugin.name!r} makes a stage named {stage.name!r}: give both the same name")
    passing = _members(flowing)
    if refused := _misfits(passing, _members(plugin.accepts)):
        raise PluginError(
            f"stage {plugin.name!r} does not take {_words(refused)}, which pass there too: "
            "widen its annotation, and hand on what it does not care about"
        )
    if unknown := _misfits(_members(plugin.emits), passing):
        raise PluginError(f"stage {plugin.name!r} gives {_words(unknown)}, which the next stage does not take")
    return stage


def _misfits(given: frozenset[object] | None, taken: frozenset[object] | None) -> frozenset[object]:
    """Return the types of ``given`` that are not, and are not derived from, one of ``taken``; none if unknown."""
    if given is None or taken is None:
        return frozenset()
    return frozenset(kind for kind in given if taken.isdisjoint(kind.__mro__ if isinstance(kind, type) else (kind,)))


def _members(kind: object) -> frozenset[object] | None:
    """Return the members of a union, or the type itself; None if it is unknown."""
    kind = getattr(kind, "__value__", kind)  # `type X = A | B` of Python 3.12
    if kind is None or kind is Any or isinstance(kind, TypeVar):
        return None
    if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union:
        return frozenset(typing.get_args(kind))
    return frozenset((kind,))


def _words(kinds: frozenset[object]) -> str:
    return ", ".join(sorted(getattr(kind, "__name__", str(kind)) for kind in kinds))
