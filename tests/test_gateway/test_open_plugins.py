"""Plugins with a lifetime: opened before the process is ready, and closed after its last request."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask, begun, completed, good_answer
from kit.service.running import CONFIG, KEY, model, serving
from kit.time.patience import patiently, patiently_with_processes
from kit.upstreams.scripted import Exchange, end, event, scripted_upstream

from pipeline import Host, Inlet, Outlet, Plugin, RequestContext, per_event
from pipeline.gateway.app import Application
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.config.settings import StageSettings
from pipeline.gateway.http.server import StartupError
from pipeline.gateway.insertions import plan
from pipeline.gateway.open_plugins import CLOSE_LIMIT_S, OPEN_LIMIT_S, OpenPlugins
from pipeline.registry import AnyPlugin, NoOptions, PluginError
from stages.events import StreamEvent


def living(name: str, events: list[str], *, fails: bool = False, closes_in_s: float = 0) -> AnyPlugin:
    """Return a plugin that notes when it is opened and closed."""

    @per_event
    def keep(event: StreamEvent) -> list[StreamEvent]:
        return [event]

    keep.name = name

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        if fails:
            raise OSError("no such disk")
        async with host.background(trio.sleep_forever, drain_s=0):
            events.append(f"open {host.stage} {','.join(host.deployments)}")
            yield keep
        await trio.sleep(closes_in_s)
        events.append(f"close {name}")

    return Plugin(name, options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)


def opening(*plugins: AnyPlugin) -> OpenPlugins:
    settings = [StageSettings(use=plugin.name, where="here") for plugin in plugins]
    return OpenPlugins(plan(settings, {plugin.name: plugin for plugin in plugins}), deployments={})


async def test_they_are_opened_in_their_order_and_closed_in_reverse() -> None:
    events: list[str] = []
    plugins = opening(living("a", events), living("b", events))
    assert plugins.have_lifetimes
    async with plugins as installed:
        assert [one.made.name for one in installed] == ["a", "b"]
        events.append("serve")
    assert events == ["open a ", "open b ", "serve", "close b", "close a"]


async def test_one_that_cannot_be_opened_is_named_and_the_others_are_closed() -> None:
    events: list[str] = []
    with pytest.raises(PluginError, match="stage 'b' could not be opened: OSError: no such disk"):
        async with opening(living("a", events), living("b", events, fails=True), living("c", events)):
            pass
    assert events == ["open a ", "close a"]


async def test_one_that_takes_too_long_to_close_is_named_and_the_others_are_closed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    with caplog.at_level(logging.ERROR):
        async with opening(living("a", events), living("slow", events, closes_in_s=CLOSE_LIMIT_S + 1)):
            pass
    assert events == ["open a ", "open slow ", "close a"]
    assert caplog.messages == ["stage slow was not closed within 10 s: what it still had to do is lost"]
    assert trio.current_time() == CLOSE_LIMIT_S


async def test_one_that_waits_for_a_thread_is_named_and_the_others_are_closed(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    release = threading.Event()
    hung = hanging("hangs", release)
    plugins = opening(living("a", events), hung)
    try:
        with caplog.at_level(logging.ERROR):
            async with plugins:
                assert not plugins.are_stuck
    finally:
        release.set()
    assert events == ["open a ", "close a"]
    assert plugins.are_stuck
    [said] = caplog.messages
    assert said.startswith("stage hangs waits for a thread, or shields a wait, and cannot be closed")


async def test_a_start_that_fails_does_not_wait_for_one_that_hangs(autojump_clock: trio.testing.MockClock) -> None:
    release = threading.Event()
    try:
        with pytest.raises(PluginError, match="no such disk"):
            async with opening(hanging("hangs", release), living("b", [], fails=True)):
                pass
    finally:
        release.set()


def hanging(name: str, release: threading.Event) -> AnyPlugin:
    """Return a plugin that waits for a thread when it is closed."""

    @per_event
    def keep(event: StreamEvent) -> list[StreamEvent]:
        return [event]

    keep.name = name

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        yield keep
        await trio.to_thread.run_sync(release.wait)

    return Plugin(name, options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)


HANGS = """
import time
from contextlib import asynccontextmanager
import trio
from pipeline import Plugin, per_event
from pipeline.gateway import cli, installed, open_plugins
from pipeline.registry import Plugins
from stages.events import StreamEvent

open_plugins.CLOSE_LIMIT_S = open_plugins.STUCK_MARGIN_S = 0.1

@per_event
def hangs(event: StreamEvent) -> list[StreamEvent]:
    return [event]

@asynccontextmanager
async def serve(options, host):
    yield hangs
    await trio.to_thread.run_sync(time.sleep, 3600)

plugin = Plugin("hangs", serve=serve, accepts=StreamEvent, emits=StreamEvent)
found = Plugins()
found["hangs"] = plugin
installed.discover = lambda: found
raise SystemExit(cli.main())
"""


async def test_a_process_ends_although_a_plugin_hangs(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(models="", key=KEY, pipeline="  stages: [{use: hangs}]\n  port: 0"))
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", HANGS, "serve", "--config", str(config)], stderr=subprocess.PIPE
    )
    log, was_told = b"", False
    try:
        with patiently_with_processes():
            assert process.stderr is not None
            async for chunk in process.stderr:
                log += chunk
                if b"serving http" in log and not was_told:
                    process.send_signal(signal.SIGTERM)
                    was_told = True  # a second one would end it at once
            assert await process.wait() == 1
    finally:
        if process.returncode is None:
            process.kill()
    assert b"stage hangs waits for a thread" in log


async def test_the_figures_of_one_are_logged_when_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    @per_event
    def keep(event: StreamEvent) -> list[StreamEvent]:
        return [event]

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        host.counter("dropped_total").inc(3, key="anna", why="full")
        host.counter("never_total").inc(0)
        host.gauge("waiting").set(0)
        host.histogram("waited_s").observe(0.5)
        yield keep
        host.gauge("missing").inc(2)

    counts: AnyPlugin = Plugin("keep", options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)
    with caplog.at_level(logging.INFO):
        async with opening(counts, living("quiet", [])):
            pass
    said = "figures of stage keep: dropped_total{key=anna,why=full}=3 waited_s=0.5/1 missing=2"
    assert caplog.messages == [said]


def never_open(name: str, events: list[str]) -> AnyPlugin:
    """Return a plugin that never yields."""

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        events.append(f"opening {name}")
        try:
            await trio.sleep_forever()
        finally:
            events.append(f"left {name}")
        yield

    return Plugin(name, options=NoOptions, serve=serve, kind="observer")


async def test_one_that_does_not_open_in_time_is_named_and_the_others_are_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    events: list[str] = []
    with pytest.raises(PluginError, match=r"^the observer 'b' was not open within 30 s: its `serve` must yield soon"):
        async with opening(living("a", events), never_open("b", events)):
            pass
    assert events == ["open a ", "opening b", "left b", "close a"]
    assert trio.current_time() == OPEN_LIMIT_S


async def test_a_start_that_is_given_up_closes_what_is_open() -> None:
    events: list[str] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

            nursery.start_soon(give_up)
            async with opening(living("a", events), never_open("b", events)):
                pass
    assert scope.cancelled_caught
    assert events == ["open a ", "opening b", "left b"]  # what comes after a `yield` cleans nothing up


async def test_the_service_opens_them_before_it_serves_and_closes_them_at_the_end() -> None:
    events: list[str] = []
    async with scripted_upstream(*good_answer()) as upstream:
        plugins = {"a": living("a", events)}
        async with serving(model("up", upstream.url), "  stages: [{use: a}]", plugins=plugins) as service:
            assert [event[:6] for event in events] == ["open a"]
            assert "up" in events[0]
            assert (await service.post(ask())).status_code == 200
            assert "a" in (await service.record())["stages"]
    assert events[1:] == ["close a"]


async def test_a_service_does_not_start_if_one_cannot_be_opened() -> None:
    events: list[str] = []
    plugins = {"a": living("a", events), "b": living("b", events, fails=True)}
    with patiently(), pytest.raises(ExceptionGroup) as refused:  # of the nursery in which the tests run a service
        async with serving(pipeline="  stages: [{use: a}, {use: b}]", plugins=plugins):
            pass
    said = r"did not start: the stage 'b' could not be opened: OSError: no such disk \(.*test_open_plugins.py:\d+\)$"
    assert refused.group_contains(StartupError, match=said)
    assert events[1:] == ["close a"]


async def test_what_was_open_is_closed_if_the_start_fails() -> None:
    settings = parse_settings(CONFIG.format(models="", key=KEY, pipeline="  stages: [{use: b}]"), source="test.yaml")
    app = Application(settings, plugins={"b": living("b", [], fails=True)}, on_end=lambda finished: None)
    asked = iter(["lifespan.startup", "lifespan.shutdown"])
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(asked)}

    async def send(event: MutableMapping[str, Any]) -> None:
        said.append(event["type"])
        with pytest.raises(RuntimeError, match="after it has ended"):
            app.generations.current.clients.transport_for(settings.deployments[0])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert said[0] == "lifespan.startup.failed"


async def test_what_can_be_known_without_opening_is_refused_before() -> None:
    events: list[str] = []
    plugins = {"a": living("a", events)}
    with pytest.raises(PluginError, match="the options of stage 'a' do not fit: there is no option 'x'"):
        async with serving(pipeline="  stages: [{use: a, options: {x: 1}}]", plugins=plugins):
            pass
    assert events == []


async def test_one_that_cannot_be_skipped_is_refused_when_it_is_open() -> None:
    events: list[str] = []

    class Waits:
        name = "waits"

        async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None: ...

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
        events.append("open")
        yield Waits()
        events.append("close")

    plugin: AnyPlugin = Plugin("waits", options=NoOptions, serve=serve, accepts=StreamEvent)
    planned = plan([StageSettings(use="waits", at="events", on_error="skip", where="here")], {"waits": plugin})
    with pytest.raises(PluginError, match="stage 'waits': on_error: skip needs a codec"):
        async with OpenPlugins(planned, deployments={}):
            pass
    assert events == ["open", "close"]


async def test_they_are_closed_after_the_last_request() -> None:
    events: list[str] = []

    class Watches:
        def on_start(self, ctx: RequestContext) -> None:
            events.append("start")

        def on_end(self, record: Any) -> None:
            events.append(record.end)

    @asynccontextmanager
    async def serve(options: NoOptions, host: Host) -> AsyncIterator[Watches]:
        yield Watches()
        events.append("close")

    plugins: dict[str, AnyPlugin] = {"watch": Plugin("watch", options=NoOptions, serve=serve, kind="observer")}
    goes_on = trio.Event()

    async def stay(exchange: Exchange) -> None:
        await goes_on.wait()

    async with (
        scripted_upstream(*begun("Hel"), stay, event(completed("Hello")), end()) as upstream,
        serving(model("up", upstream.url), "  stages: [{use: watch}]", plugins=plugins) as service,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(service.post, ask())
        await upstream.request_received()
        service.shutdown.set()
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["start"]
        goes_on.set()
        with patiently():
            await service.ended.wait()
        assert events == ["start", "OK", "close"]


async def test_one_that_fails_while_it_is_open_is_named_and_harms_no_other(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    events: list[str] = []

    def failing(name: str, error: Exception | None) -> AnyPlugin:
        @per_event
        def keep(event: StreamEvent) -> list[StreamEvent]:
            return [event]

        keep.name = name

        async def fail(nursery: trio.Nursery) -> None:
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
            if error is not None:
                raise error

        @asynccontextmanager
        async def serve(options: NoOptions, host: Host) -> AsyncIterator[Any]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, nursery)
                yield keep
            events.append(f"close {name}")

        return Plugin(name, options=NoOptions, serve=serve, accepts=StreamEvent, emits=StreamEvent)

    with caplog.at_level(logging.ERROR):
        async with opening(living("a", events), failing("b", OSError("secret")), failing("c", None)):
            await trio.sleep(2)
            assert events == ["open a ", "close c"]
    assert events == ["open a ", "close c", "close a"]
    assert sorted(message.partition(" at\n")[0] for message in caplog.messages) == [
        "stage b has failed and is closed: reload (SIGHUP) or restart to open it again: builtins.ExceptionGroup",
        "stage c has closed by itself: reload (SIGHUP) or restart to open it again",
    ]


class Tells:
    """An observer, which may fail."""

    def __init__(self, *, fails: bool = False) -> None:
        self.told: list[str] = []
        self._fails = fails

    def on_start(self, ctx: RequestContext) -> None:
        self.told.append("start")
        if self._fails:
            raise OSError("the prompt was: hello")

    def on_end(self, record: Any) -> None:
        self.told.append(f"{record.end} {record.model}")
        if self._fails:
            raise OSError("the prompt was: hello")


async def test_observers_are_told_of_each_request_and_harm_none(caplog: pytest.LogCaptureFixture) -> None:
    good, bad = Tells(), Tells(fails=True)
    plugins: dict[str, AnyPlugin] = {
        "bad": Plugin("bad", lambda _: bad, NoOptions, kind="observer"),
        "good": Plugin("good", lambda _: good, NoOptions, kind="observer"),
    }
    async with scripted_upstream(*good_answer()) as upstream:
        pipeline = "  stages: [{use: bad}, {use: good}]"
        async with serving(model("up", upstream.url), pipeline, plugins=plugins) as service:
            assert (await service.post(ask("up"))).status_code == 200
            assert (await service.post(ask("down"))).status_code == 404
            await service.record(1)
    assert good.told == bad.told == ["start", "OK up", "start", "BR None"]
    said = [message.split("\n") for message in caplog.messages]
    kinds = ("on_start", "on_end") * 2
    assert [lines[0] for lines in said] == [f"the observer bad failed in {kind}: builtins.OSError at" for kind in kinds]
    assert all(f"{__file__}:" in lines[-1] for lines in said)
    assert "hello" not in caplog.text
