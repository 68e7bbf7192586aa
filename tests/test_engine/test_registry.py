"""Stages from other distributions: found, checked at start-up, and refused with a message that says what to change."""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Optional, Protocol, TypeVar, Union

import pytest
import trio
import typing_extensions
from kit.service.plugins import install

from pipeline import Host, Inlet, Outlet, Plugin, RequestContext, codec_stage, per_event
from pipeline.line import CodecStage
from pipeline.registry import AnyPlugin, NoOptions, PluginError, check, discover, load, missing, opened
from pipeline.testing import collect

T = TypeVar("T")


# Any: a stage of any types, and whatever options
def build(plugin: AnyPlugin, options: Mapping[str, object], *, flowing: object, convert: Any) -> Any:
    """Check a plugin, and make what it makes."""
    converted = check(plugin, options, flowing=flowing, convert=convert)
    assert plugin.make is not None
    return plugin.make(converted)


class Base: ...


class Text(Base): ...


class Tool(Base): ...


class End(Base): ...


@per_event
def keep_all(event: Text | Tool | End) -> Iterator[Text | Tool | End]:
    yield event


class RelayAll:
    """The docstring of the class."""

    name = "relay_all"

    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)


@dataclass(frozen=True)
class Loudness:
    times: int = 1
    mark: str = "!"


def make_repeat(options: Loudness) -> CodecStage[str, str]:
    """Repeat everything several times.

    And more.
    """
    if options.times < 1:
        raise ValueError("times must be 1 or more")

    @per_event
    def repeat(event: str) -> Iterator[str]:
        yield event * options.times + options.mark

    return repeat


REPEAT = Plugin("repeat", make_repeat, Loudness, accepts=str, emits=str)


def convert(options: Mapping[str, object], kind: type[Any]) -> Any:
    """Convert options as the gateway does with msgspec, in a simple form."""
    try:
        return kind(**options)
    except TypeError as error:
        raise ValueError(str(error).partition(") ")[2]) from error


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes an entry point that loads to a given object."""

    def offered(thing: object, name: str = "thing", doc: str | None = None) -> EntryPoint:
        module = types.ModuleType(f"plugin_of_{name}", doc)
        module.thing = thing  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, f"{module.__name__}:thing", "pipeline.stages")

    return offered


# What is found.


async def test_an_installed_distribution_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "site")
    plugin = discover()["shout"]  # a reader who followed the page has installed the same one
    assert plugin.summary == "Say it louder: the answer's text in capitals."
    assert plugin.options is NoOptions
    from stages.events import StreamEvent, TextDelta, Usage

    stage = build(plugin, {}, flowing=StreamEvent, convert=convert)
    assert await collect(stage, TextDelta("hi"), Usage(1, 2, 3)) == [TextDelta("HI"), Usage(1, 2, 3)]


def test_nothing_is_found_when_no_plugin_is_installed() -> None:
    assert discover([]) == {}


def test_a_bare_stage_is_a_plugin_without_options(offer: Any) -> None:
    found = discover([offer(keep_all, doc="Keep all.\n\nReally."), offer(RelayAll(), "relay")])
    assert list(found) == ["keep_all", "relay_all"]
    kept = found["keep_all"]
    assert (kept.options, kept.accepts, kept.emits) == (NoOptions, Text | Tool | End, Text | Tool | End)
    assert kept.summary == "Keep all."
    assert build(kept, {}, flowing=Text | Tool | End, convert=convert) is keep_all
    assert (found["relay_all"].accepts, found["relay_all"].emits) == (Any, Any)
    assert found["relay_all"].summary == ""


def test_the_summary_of_a_plugin_with_options_comes_from_its_makers_docstring(offer: Any) -> None:
    found = discover([offer(REPEAT)])
    assert found == {"repeat": REPEAT}
    assert found["repeat"].summary == "Repeat everything several times."


# What is refused when it is loaded.


def test_a_plugin_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(PluginError) as refused:
        load(EntryPoint("gone", "no_such_module_at_all:stage", "pipeline.stages"))
    assert str(refused.value) == (
        "the stage plugin 'gone' = 'no_such_module_at_all:stage' cannot be imported: "
        "ModuleNotFoundError(\"No module named 'no_such_module_at_all'\")"
    )


@pytest.mark.parametrize("line", ["raise RuntimeError('no licence')", "raise SystemExit('no licence')"])
def test_a_plugin_that_breaks_at_import_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str) -> None:
    (tmp_path / "broken_plugin.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"'broken_plugin:stage' cannot be imported: \w+\('no licence'\)"):
        load(EntryPoint("broken", "broken_plugin:stage", "pipeline.stages"))


def test_an_attribute_that_the_module_does_not_have_is_named(offer: Any) -> None:
    module = offer(keep_all).value.partition(":")[0]
    with pytest.raises(PluginError, match="has no attribute 'stage'"):
        load(EntryPoint("keep_all", f"{module}:stage", "pipeline.stages"))


@pytest.mark.parametrize("thing", [42, "shout", print, RelayAll, object()])
def test_an_object_that_is_not_a_stage_is_refused(offer: Any, thing: object) -> None:
    with pytest.raises(PluginError) as refused:
        load(offer(thing))
    assert str(refused.value) == (
        "the stage plugin 'thing' = 'plugin_of_thing:thing' is not a stage: it must load to what per_event or "
        "codec_stage give, to an instance of a stage's class, or to a pipeline.Plugin"
    )


def test_a_broken_plugin_stops_only_those_who_use_it(offer: Any) -> None:
    found = discover([offer(42, "untyped"), offer(keep_all, "keep_all")])
    assert list(found) == ["keep_all"]
    assert found.broken == {"untyped": found.warnings[0]}
    assert "'untyped' = 'plugin_of_untyped:thing' is not a stage" in missing(found, "untyped")
    assert "no stage named 'other' is installed (installed: keep_all)" in missing(found, "other")
    assert missing(found, "kep_all").partition(": install")[0].endswith("; did you mean 'keep_all'?")


def test_a_broken_plugin_is_named_with_its_distribution_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "oops.py").write_text("")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "headrace-oops"\nversion = "1"\n'
        '[project.entry-points."pipeline.stages"]\noops = "oops:missing"\n'
    )
    install(monkeypatch, tmp_path / "site", project)
    assert discover().broken["oops"] == (
        "the stage plugin 'oops' = 'oops:missing' of the distribution 'headrace-oops' cannot be imported: "
        "AttributeError(\"module 'oops' has no attribute 'missing'\"); "
        f"repair it, or uninstall it: {sys.executable} -m pip uninstall headrace-oops"
    )


def test_two_plugins_of_one_name_cannot_be_used(offer: Any) -> None:
    found = discover([offer(keep_all, "one"), offer(keep_all, "two"), offer(keep_all, "three")])
    assert found == {}
    assert missing(found, "keep_all").startswith(
        "two installed distributions offer a stage named 'keep_all': uninstall one of them"
    )


def test_a_stage_that_is_named_as_its_entry_point_is_told_its_own_name(offer: Any) -> None:
    found = discover([offer(keep_all, "other_name")])
    assert missing(found, "other_name") == (
        "the entry point 'other_name' offers a stage named 'keep_all': write `use: keep_all`"
    )


def test_what_a_class_takes_and_emits_is_read_from_its_run(offer: Any) -> None:
    class Typed:
        name = "typed"

        async def run(self, inlet: Inlet[Text], outlet: Outlet[Tool], ctx: RequestContext) -> None: ...

    class Untyped:
        name = "untyped"

        async def run(self, inlet, outlet, ctx) -> None: ...  # type: ignore[no-untyped-def]

    found = discover([offer(Typed(), "typed"), offer(Untyped(), "untyped")])
    assert (found["typed"].accepts, found["typed"].emits) == (Text, Tool)
    assert (found["untyped"].accepts, found["untyped"].emits) == (None, None)


# Options.


async def test_options_are_converted_and_passed_to_the_maker() -> None:
    stage = build(REPEAT, {"times": 2}, flowing=str, convert=convert)
    assert await collect(stage, "a", "b") == ["aa!", "bb!"]
    stage = build(REPEAT, {}, flowing=str, convert=convert)
    assert await collect(stage, "a") == ["a!"]


def test_options_that_do_not_fit_are_reported_with_the_stages_name() -> None:
    with pytest.raises(PluginError) as refused:
        build(REPEAT, {"tims": 2}, flowing=str, convert=convert)
    assert str(refused.value) == "the options of stage 'repeat' do not fit: got an unexpected keyword argument 'tims'"


def test_options_that_the_maker_refuses_are_reported_in_its_words() -> None:
    with pytest.raises(PluginError, match=r"^the options of stage 'repeat' do not fit: times must be 1 or more$"):
        build(REPEAT, {"times": 0}, flowing=str, convert=convert)


def test_options_for_a_stage_that_takes_none_are_refused(offer: Any) -> None:
    plugin = discover([offer(keep_all)])["keep_all"]
    with pytest.raises(PluginError, match="the options of stage 'keep_all' do not fit"):
        build(plugin, {"times": 2}, flowing=Text | Tool | End, convert=convert)


def test_a_plugin_whose_stage_has_another_name_is_refused() -> None:
    plugin = Plugin("echo", make_repeat, Loudness)
    with pytest.raises(PluginError, match=r"^the plugin 'echo' makes a stage named 'repeat': give both the same name$"):
        build(plugin, {}, flowing=str, convert=convert)


# Item types.


class HasWords(Protocol):
    words: int


Alias = typing_extensions.TypeAliasType("Alias", Text | Tool)

FITTING: list[tuple[object, object, object]] = [
    (Text | Tool | End, Text | Tool | End, Text | Tool | End),
    (Text | Tool | End, Text, Text),
    (Text | Tool | End, Text, Text | Tool),
    (Union[Text, Tool], Union[Tool, Text], Text | Tool),  # noqa: UP007 - a plugin may write it so
    (Optional[Text], Text, Text),  # noqa: UP045
    (Text, Text, Text),
    (None, None, Text | Tool),
    (Any, Any, Text | Tool),
    (Text, Text, None),
    (Base, Text | Tool, Text | Tool),
    (object, Text, Text | Tool),
    (T, T, Text | Tool),
    (list[int], list[int], list[int]),
    (HasWords | Text, Text, Text),
    (Alias, None, Text | Tool),
]


@pytest.mark.parametrize(("accepts", "emits", "flowing"), FITTING)
def test_a_stage_that_accepts_what_flows_and_emits_what_may_flow_fits(
    accepts: object, emits: object, flowing: object
) -> None:
    plugin = Plugin("relay_all", lambda _: RelayAll(), NoOptions, accepts=accepts, emits=emits)
    assert build(plugin, {}, flowing=flowing, convert=convert).name == "relay_all"


def test_a_stage_that_does_not_accept_all_that_flows_is_refused() -> None:
    only_text = codec_stage("only_text", lambda ctx: NoCodec(), codec=NoCodec)
    plugin = Plugin("only_text", lambda _: only_text, NoOptions, accepts=Text)
    with pytest.raises(PluginError) as refused:
        build(plugin, {}, flowing=Text | Tool | End, convert=convert)
    assert str(refused.value) == (
        "stage 'only_text' does not take End, Tool, which pass there too: "
        "widen its annotation, and hand on what it does not care about"
    )


def test_a_stage_that_emits_what_the_next_one_does_not_accept_is_refused() -> None:
    plugin = Plugin("relay_all", lambda _: RelayAll(), NoOptions, accepts=Text, emits=Text | list[int])
    with pytest.raises(PluginError) as refused:
        build(plugin, {}, flowing=Text, convert=convert)
    assert str(refused.value) == "stage 'relay_all' gives list, which the next stage does not take"


class NoCodec:
    def feed(self, batch: list[Any], /) -> list[Any]:
        return batch

    def flush(self) -> list[Any]:
        return []


# --- Plugins with a lifetime, and other kinds -----------------------------------------------------------------------


class Living:
    """A plugin's lifetime, and what it has seen of it."""

    def __init__(self, made: object = keep_all, *, fails: Exception | None = None) -> None:
        self.events: list[str] = []
        self._made = made
        self._fails = fails

    @asynccontextmanager
    async def serve(self, options: Loudness, host: Host) -> AsyncIterator[Any]:
        """Live."""
        if self._fails is not None:
            raise self._fails
        self.events.append(f"opened {host.stage} {options.times}")
        yield self._made
        self.events.append("closed")


async def test_a_plugin_with_a_lifetime_is_opened_with_its_options_and_a_host() -> None:
    living = Living()
    plugin = Plugin("keep_all", options=Loudness, serve=living.serve)
    options = check(plugin, {"times": 2}, flowing=Text | Tool | End, convert=convert)
    assert living.events == []  # to check it, it is not opened
    async with opened(plugin, options, Host("keep_all")) as stage:
        assert stage is keep_all
        assert living.events == ["opened keep_all 2"]
    assert living.events == ["opened keep_all 2", "closed"]
    assert plugin.summary == "Live."


async def test_a_plugin_without_one_is_made() -> None:
    async with opened(Plugin("keep_all", lambda _: keep_all, NoOptions), NoOptions(), Host("keep_all")) as stage:
        assert stage is keep_all


@pytest.mark.parametrize("error", [OSError("no such file"), PluginError("stage 'keep_all' is tired")])
async def test_a_plugin_that_cannot_be_opened_is_named(error: Exception) -> None:
    plugin = Plugin("keep_all", options=Loudness, serve=Living(fails=error).serve)
    with pytest.raises(
        PluginError, match=r"stage 'keep_all' (could not be opened: OSError: no such file \(.*:\d+\)|is tired)"
    ):
        async with opened(plugin, Loudness(), Host("keep_all")):
            pass


async def test_a_plugin_that_makes_something_else_than_it_says_is_closed_again() -> None:
    living = Living()
    plugin = Plugin("keep_nothing", options=Loudness, serve=living.serve)
    with pytest.raises(PluginError, match="makes a stage named 'keep_all'"):
        async with opened(plugin, Loudness(), Host("keep_nothing")):
            pass
    assert living.events == ["opened keep_nothing 1", "closed"]


async def test_a_failure_of_the_block_is_not_one_of_the_plugin() -> None:
    living = Living()
    with pytest.raises(OSError, match="of the block"):
        async with opened(Plugin("keep_all", options=Loudness, serve=living.serve), Loudness(), Host("keep_all")):
            raise OSError("of the block")
    assert living.events[-1] == "closed"


async def test_a_plugin_is_cancelled_where_it_is_open() -> None:
    living = Living()
    with trio.CancelScope() as scope:
        async with opened(Plugin("keep_all", options=Loudness, serve=living.serve), Loudness(), Host("keep_all")):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert living.events == ["opened keep_all 1"]


async def test_a_nursery_of_a_plugin_may_end_the_block() -> None:
    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            yield keep_all
            raise AssertionError("it goes on after the block, although it was cancelled")

    @asynccontextmanager
    async def serve_briefly(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.cancel()
            yield keep_all

    is_cancelled = False
    async with opened(Plugin("keep_all", options=NoOptions, serve=serve_briefly), NoOptions(), Host("keep_all")):
        try:
            await trio.sleep_forever()
        finally:
            is_cancelled = True
    assert is_cancelled
    with trio.CancelScope() as scope:
        async with opened(Plugin("keep_all", options=NoOptions, serve=serve), NoOptions(), Host("keep_all")):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("kind", "said"),
    [("around", "an around, but what it makes has no method call"), ("observer", "an observer, but")],
)
def test_what_a_plugin_makes_is_of_the_kind_that_it_says(kind: Any, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        check(Plugin("keep_all", lambda _: keep_all, NoOptions, kind=kind), {}, flowing=None, convert=convert)


def test_an_observer_must_take_both_ends_of_a_request() -> None:
    class OnlyEnd:
        def on_end(self, record: object) -> None: ...

    with pytest.raises(PluginError, match="an observer, but what it makes has no method on_start"):
        check(Plugin("w", lambda _: OnlyEnd(), NoOptions, kind="observer"), {}, flowing=None, convert=convert)


def test_a_stage_is_the_kind_of_a_plugin_that_says_nothing() -> None:
    with pytest.raises(PluginError, match="a stage, but what it makes has no method run"):
        check(
            Plugin("nothing", lambda _: types.SimpleNamespace(name="nothing"), NoOptions),
            {},
            flowing=None,
            convert=convert,
        )


async def served_async(options: NoOptions, host: Host) -> Any: ...


async def served_undecorated(options: NoOptions, host: Host) -> AsyncIterator[Any]:
    yield keep_all


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"make": lambda _: keep_all, "kind": "arround"},
            "'p' has the kind 'arround': write one of stage, around, observer",
        ),
        ({"make": keep_all}, r"^make of the plugin 'p' must be a function of the options, not <stage keep_all>"),
        ({"make": lambda: keep_all}, "^make of the plugin 'p' must take the options$"),
        ({"make": served_async}, "^make of the plugin 'p' must take the options$"),
        ({"serve": lambda options: keep_all}, "^serve of the plugin 'p' must take the options and the host$"),
        ({"serve": served_async}, "^serve of the plugin 'p' must be an async context manager: decorate it with"),
        ({"serve": served_undecorated}, "^serve of the plugin 'p' must be an async context manager: decorate it with"),
    ],
)
def test_a_plugin_that_cannot_be_made_is_refused_where_it_is_written(how: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Plugin("p", options=NoOptions, **how)


def test_an_around_must_be_an_async_context_manager() -> None:
    class Bare:
        name = "bare"

        async def call(self, call: Any, next: Any) -> AsyncIterator[Any]:
            yield next

    with pytest.raises(PluginError, match=r"^call of the around 'bare' must be an async context manager: decorate it"):
        check(Plugin("bare", lambda _: Bare(), NoOptions, kind="around"), {}, flowing=None, convert=convert)


def test_an_observer_must_not_be_async() -> None:
    class Async(Watch):
        async def on_end(self, record: object) -> None: ...  # type: ignore[override]

    with pytest.raises(PluginError, match=r"^on_end of the observer 'w' must not be async: nobody awaits it$"):
        check(Plugin("w", lambda _: Async(), NoOptions, kind="observer"), {}, flowing=None, convert=convert)


def test_a_maker_that_breaks_is_named_with_its_line() -> None:
    def make(options: NoOptions) -> Any:
        raise KeyError("disk")

    with pytest.raises(PluginError, match=rf"^the stage 'p' could not be made: KeyError\('disk'\) \({__file__}:\d+\)$"):
        check(Plugin("p", make, NoOptions), {}, flowing=None, convert=convert)


def test_a_plugin_has_either_a_maker_or_a_lifetime() -> None:
    with pytest.raises(TypeError, match="'both' needs either make or serve"):
        Plugin("both", lambda _: keep_all, serve=Living().serve, options=Loudness)
    with pytest.raises(TypeError, match="'none' needs either make or serve"):
        Plugin("none")


class Watch:
    """An observer, which needs no name."""

    def on_start(self, ctx: RequestContext) -> None: ...

    def on_end(self, record: object) -> None: ...


def test_an_entry_point_may_be_an_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("watching")
    vars(module)["watch"] = watch = Watch()
    monkeypatch.setitem(sys.modules, "watching", module)
    [plugin] = discover([EntryPoint("watch", "watching:watch", "pipeline.stages")]).values()
    assert (plugin.name, plugin.kind) == ("watch", "observer")
    assert build(plugin, {}, flowing=None, convert=convert) is watch


def test_a_maker_without_a_signature_is_taken_as_it_is() -> None:
    make: Any = dict  # `inspect` knows no signature of it
    assert Plugin("made", make=make).make is dict


def test_a_stage_that_is_missing_among_plain_names_is_said_to_be() -> None:
    assert missing({}, "shout").startswith("no stage named 'shout' is installed (installed: none is installed)")
