"""Plugins: stages that other distributions offer through entry points in the group ``pipeline.stages``.

An entry point loads to a stage (what `per_event` and `codec_stage` give), or to a `Plugin` if the stage takes options.
Everything is checked at start-up: the names, the options, and that the item types fit where the stage is put. What is
installed and cannot be used is an error only where it is used.
"""

from __future__ import annotations

import difflib
import inspect
import sys
import typing
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from traceback import extract_tb
from types import UnionType
from typing import Any, Final, Generic, Literal, TypeGuard, TypeVar

from pipeline.channel import Inlet, Outlet
from pipeline.host import Host
from pipeline.stage import hints_of

Options = TypeVar("Options")

GROUP = "pipeline.stages"


class PluginError(Exception):
    """A plugin cannot be used as configured; the message names it and says what to change.

    Attributes:
        problems: one sentence for each thing to repair, with its place in the configuration; none if it has no place.
    """

    problems: tuple[str, ...] = ()


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
        if self.kind not in METHODS:
            raise TypeError(f"the plugin {self.name!r} has the kind {self.kind!r}: write one of {', '.join(METHODS)}")
        given, what, count = (self.make, "make", 1) if self.make is not None else (self.serve, "serve", 2)
        takes = "the options" if count == 1 else "the options and the host"
        if not callable(given):
            raise TypeError(
                f"{what} of the plugin {self.name!r} must be a function of {takes}, not {given!r}; an entry point may "
                "also load to a stage itself"
            )
        try:
            inspect.signature(given).bind(*range(count))
        except TypeError:
            raise TypeError(f"{what} of the plugin {self.name!r} must take {takes}") from None
        except ValueError:  # some built-in functions have no signature
            pass
        if fault := _not_a_manager(given) if self.make is None else "must not be async" if _is_async(given) else "":
            raise TypeError(f"{what} of the plugin {self.name!r} {fault}")

    @property
    def summary(self) -> str:
        """The first line of what its function says about itself; for a bare stage, of its module's docstring."""
        return ((self.make or self.serve).__doc__ or "").strip().partition("\n")[0]


AnyPlugin = Plugin[Any]


class Plugins(dict[str, AnyPlugin]):
    """The plugins that are installed, by name.

    Attributes:
        broken: why those that are installed cannot be used, by the name of their entry point. They stop only those who
            use them.
        entries: of those whose entry point is named otherwise, by its name: the name of the plugin.
    """

    def __init__(self) -> None:
        super().__init__()
        self.broken: dict[str, str] = {}
        self.entries: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each that is broken."""
        return tuple(self.broken.values())


def discover(points: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load every plugin that is installed; those that cannot be used are among the ``broken`` ones."""
    found = Plugins()
    offers: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP) if points is None else points:
        try:
            plugin = load(point)
        except PluginError as error:
            found.broken[point.name] = str(error)
            continue
        if (other := offers.setdefault(plugin.name, point)) is not point:
            found.pop(plugin.name, None)
            found.broken[plugin.name] = (
                f"two installed distributions offer a stage named {plugin.name!r}: uninstall one of them "
                f"({_offer(other)}; {_offer(point)})"
            )
            continue
        found[plugin.name] = plugin
        if point.name != plugin.name:
            found.entries[point.name] = plugin.name
    return found


def load(point: EntryPoint) -> AnyPlugin:
    """Load what an entry point offers.

    Raises:
        PluginError: if it cannot be imported, or is neither a stage nor a `Plugin`; the message names its distribution,
            and says what to do.
    """
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(f"{_offer(point)} cannot be imported: {error!r}{_remedy(point)}") from error
    return _as_plugin(loaded, point)


def missing(plugins: Mapping[str, AnyPlugin], name: str) -> str:
    """Return why there is no plugin of that name."""
    if isinstance(plugins, Plugins):
        if (why := plugins.broken.get(name)) is not None:
            return why
        if (named := plugins.entries.get(name)) is not None:
            return f"the entry point {name!r} offers a stage named {named!r}: write `use: {named}`"
    known = ", ".join(sorted(plugins)) or "none is installed"
    return (
        f"no stage named {name!r} is installed (installed: {known}){did_you_mean(name, plugins)}: "
        "install the distribution that provides it in the same environment as headrace"
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like ``name``, as a question; nothing if none is."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _offer(point: EntryPoint) -> str:
    of = "" if point.dist is None else f" of the distribution {point.dist.name!r}"
    return f"the stage plugin {point.name!r} = {point.value!r}{of}"


def _remedy(point: EntryPoint) -> str:
    if point.dist is None:
        return ""
    return f"; repair it, or uninstall it: {sys.executable} -m pip uninstall {point.dist.name}"


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
        accepts, emits = item_types(loaded)
        return Plugin(name, make, NoOptions, accepts, emits, kind=kind)
    raise PluginError(
        f"{_offer(point)} is not a stage: it must load to what per_event or codec_stage give, to an instance of a "
        f"stage's class, or to a pipeline.Plugin{_remedy(point)}"
    )


def item_types(stage: object) -> tuple[object, object]:
    """Return what a stage takes and emits, as far as it or the annotations of its `run` say; None is not known."""
    accepts, emits = getattr(stage, "accepts", None), getattr(stage, "emits", None)
    if accepts is None and emits is None and inspect.ismethod(run := getattr(stage, "run", None)):
        hints = hints_of(run)
        hints.pop("return", None)
        items = [typing.get_args(hint) for hint in hints.values() if typing.get_origin(hint) in (Inlet, Outlet)]
        if len(items) == 2:
            return items[0][0], items[1][0]
    return accepts, emits


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
        raise PluginError(f"the options of {plugin.kind} {plugin.name!r} do not fit: {error}") from error
    except PluginError:
        raise
    except Exception as error:
        place = extract_tb(error.__traceback__)[-1]
        raise PluginError(
            f"the {plugin.kind} {plugin.name!r} could not be made: {error!r} ({place.filename}:{place.lineno})"
        ) from error
    passing = members_of(flowing)
    if refused := misfits(passing, members_of(plugin.accepts)):
        raise PluginError(
            f"stage {plugin.name!r} does not take {_words(refused)}, which pass there too: "
            "widen its annotation, and hand on what it does not care about"
        )
    if unknown := misfits(members_of(plugin.emits), passing):
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
        place = extract_tb(error.__traceback__)[-1]
        raise PluginError(
            f"the {plugin.kind} {plugin.name!r} could not be opened: {type(error).__name__}: {error} "
            f"({place.filename}:{place.lineno})"
        ) from error
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


def _is_async(fn: object) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn)


def _not_a_manager(fn: object) -> str:
    """Return what is wrong with a function that should return an async context manager, as far as it shows."""
    return "must be an async context manager: decorate it with @asynccontextmanager" if _is_async(fn) else ""


def _named(made: Any, plugin: AnyPlugin) -> Any:
    """Return what a plugin has made, if it has the plugin's name and is of its kind."""
    name = getattr(made, "name", plugin.name if plugin.kind == "observer" else None)
    if name != plugin.name:
        raise PluginError(f"the plugin {plugin.name!r} makes a stage named {name!r}: give both the same name")
    for method in (METHODS[plugin.kind], "on_start") if plugin.kind == "observer" else (METHODS[plugin.kind],):
        if not callable(found := getattr(made, method, None)):
            raise PluginError(
                f"the plugin {plugin.name!r} says that it makes {with_article(plugin.kind)}, "
                f"but what it makes has no method {method}"
            )
        if plugin.kind == "around" and (fault := _not_a_manager(found)):
            raise PluginError(f"{method} of the around {plugin.name!r} {fault}")
        if plugin.kind == "observer" and _is_async(found):
            raise PluginError(f"{method} of the observer {plugin.name!r} must not be async: nobody awaits it")
    return made


def with_article(kind: Kind) -> str:
    """Return ``a stage``, ``an around``, ``an observer``."""
    return f"a {kind}" if kind == "stage" else f"an {kind}"


METHODS: Final[Mapping[Kind, str]] = {"stage": "run", "around": "call", "observer": "on_end"}
"""How each kind is recognised."""


def misfits(given: frozenset[object] | None, taken: frozenset[object] | None) -> frozenset[object]:
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
