"""Plugins: stages that other distributions offer through entry points in the group ``pipeline.stages``.

An entry point loads to a stage (what `per_event` and `codec_stage` give), or to a `Plugin` if the stage takes options.
Everything is checked at start-up: the names, the options, and that the item types fit where the stage is put.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import UnionType
from typing import Any, Final, Generic, Literal, TypeGuard, TypeVar

from pipeline.host import Host

Options = TypeVar("Options")

GROUP = "pipeline.stages"


class PluginError(Exception):
    """A plugin cannot be used as configured; the message names it and says what to change."""


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a plugin that takes none."""


Kind = Literal["stage", "around", "observer"]
"""What a plugin makes: a step of the pipeline, something around the upstream's call, or who is told of requests."""


@dataclass(frozen=True, slots=True)
class Plugin(Generic[Options]):
    """A stage with options, as an entry point offers it; or something around the call, or an observer.

    Attributes:
        name: what the configuration calls it, and the stage's name.
        make: builds it as it is configured. It does nothing else: it is also called where nothing is served, to check
            the options. Raises ValueError, with a sentence, if they make no sense.
        options: a dataclass or msgspec Struct whose fields are the options, with their types and defaults.
        accepts, emits: the item types; None is not checked.
        serve: builds it instead, if it has a lifetime: an async context manager that is entered once in each serving
            process, before that is ready, and left after the last request. It gets the options and a `Host`.
        kind: what `make` or `serve` gives.
    """

    name: str
    make: Callable[[Options], Any] | None = None
    options: type[Options] = NoOptions  # type: ignore[assignment]  # if it takes none
    accepts: object = None
    emits: object = None
    serve: Callable[[Options, Host], AbstractAsyncContextManager[Any]] | None = None
    kind: Kind = "stage"

    def __post_init__(self) -> None:
        if (self.make is None) == (self.serve is None):
            raise TypeError(f"the plugin {self.name!r} needs either make or serve")

    @property
    def summary(self) -> str:
        """The first line of what its function says about itself; for a bare stage, of its module's docstring."""
        return ((self.make or self.serve).__doc__ or "").strip().partition("\n")[0]


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
    kinds: Iterable[Kind] = METHODS
    kind: Kind | None = next((kind for kind in kinds if callable(getattr(loaded, METHODS[kind], None))), None)
    name = getattr(loaded, "name", point.name if kind == "observer" else None)
    if kind is not None and isinstance(name, str) and not isinstance(loaded, type):

        def make(_: NoOptions) -> object:
            return loaded

        make.__doc__ = sys.modules[point.module].__doc__  # a stage made by per_event has only its class's own
        accepts, emits = getattr(loaded, "accepts", None), getattr(loaded, "emits", None)
        return Plugin(name, make, NoOptions, accepts, emits, kind=kind)
    raise PluginError(
        f"the entry point {point.name!r} = {point.value!r} is not a stage: "
        "it must load to what per_event or codec_stage give, to an instance of a stage's class, or to a pipeline.Plugin"
    )


def _is_plugin(loaded: object) -> TypeGuard[AnyPlugin]:
    return isinstance(loaded, Plugin)


# Any: the options of any plugin
def check(
    plugin: AnyPlugin,
    options: Mapping[str, object],
    *,
    flowing: object,
    convert: Callable[[Mapping[str, object], type[Any]], Any],
) -> Any:
    """Check a plugin for a place where items of type ``flowing`` pass, and must go on passing; return its options.

    What its maker does not need its lifetime for is checked as well.

    Args:
        plugin: one of what `discover` found.
        options: as configured.
        flowing: the item type before and after the place; unions are compared member by member. None for what is not a
            stage.
        convert: turns the mapping into ``plugin.options``; raises ValueError with a sentence if it does not fit.

    Raises:
        PluginError: if the options or the item types do not fit.
    """
    try:
        converted = convert(options, plugin.options)
        if plugin.make is not None:
            _named(plugin.make(converted), plugin)
    except ValueError as error:
        raise PluginError(f"the options of stage {plugin.name!r} do not fit: {error}") from error
    passing = members_of(flowing)
    if refused := _misfits(passing, members_of(plugin.accepts)):
        raise PluginError(
            f"stage {plugin.name!r} does not take {_words(refused)}, which pass there too: "
            "widen its annotation, and hand on what it does not care about"
        )
    if unknown := _misfits(members_of(plugin.emits), passing):
        raise PluginError(f"stage {plugin.name!r} gives {_words(unknown)}, which the next stage does not take")
    return converted


@asynccontextmanager
async def opened(plugin: AnyPlugin, options: Any, host: Host) -> AsyncGenerator[Any]:
    """Build what a plugin gives, for the duration of a block.

    Raises:
        PluginError: if that fails; the message names it.
    """
    if plugin.make is not None:
        yield _named(plugin.make(options), plugin)
        return
    assert plugin.serve is not None  # one of the two is given
    serving = plugin.serve(options, host)
    try:
        served = await serving.__aenter__()
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"stage {plugin.name!r} could not be opened: {type(error).__name__}: {error}") from error
    try:
        yield _named(served, plugin)
    except Exception:  # of the block, or what is served does not fit: the plugin has not failed
        await serving.__aexit__(None, None, None)
        raise
    except BaseException as error:  # cancelled, perhaps by a nursery of the plugin's own, which must see that
        if not await serving.__aexit__(type(error), error, error.__traceback__):
            raise
    else:
        await serving.__aexit__(None, None, None)


def _named(made: Any, plugin: AnyPlugin) -> Any:
    """Return what a plugin has made, if it has the plugin's name and is of its kind."""
    name = getattr(made, "name", plugin.name if plugin.kind == "observer" else None)
    if name != plugin.name:
        raise PluginError(f"the plugin {plugin.name!r} makes a stage named {name!r}: give both the same name")
    for method in (METHODS[plugin.kind], "on_start") if plugin.kind == "observer" else (METHODS[plugin.kind],):
        if not callable(getattr(made, method, None)):
            article = "a" if plugin.kind == "stage" else "an"
            raise PluginError(
                f"the plugin {plugin.name!r} says that it makes {article} {plugin.kind}, "
                f"but what it makes has no method {method}"
            )
    return made


METHODS: Final[Mapping[Kind, str]] = {"stage": "run", "around": "call", "observer": "on_end"}
"""How each kind is recognised."""


def _misfits(given: frozenset[object] | None, taken: frozenset[object] | None) -> frozenset[object]:
    """Return the types of ``given`` that are not, and are not derived from, one of ``taken``; none if unknown."""
    if given is None or taken is None:
        return frozenset()
    return frozenset(kind for kind in given if taken.isdisjoint(kind.__mro__ if isinstance(kind, type) else (kind,)))


def members_of(kind: object) -> frozenset[object] | None:
    """Return the members of a union, or the type itself; None if it is unknown."""
    kind = getattr(kind, "__value__", kind)  # `type X = A | B` of Python 3.12
    if kind is None or kind is Any or isinstance(kind, TypeVar):
        return None
    if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union:
        return frozenset(typing.get_args(kind))
    return frozenset((kind,))


def _words(kinds: frozenset[object]) -> str:
    return ", ".join(sorted(getattr(kind, "__name__", str(kind)) for kind in kinds))
