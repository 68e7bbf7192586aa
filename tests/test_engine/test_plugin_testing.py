"""Negative tests of the kit for plugins: each kind of bad plugin is caught, with a message that says what to do."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import trio
import trio.testing

from pipeline import (
    Host,
    Inlet,
    Outcome,
    Outlet,
    Plugin,
    RequestContext,
    Slot,
    StageBug,
    codec_stage,
    per_event,
    plugin_testing,
)
from pipeline.plugin_testing import as_plugin, plugin_opened
from pipeline.registry import NoOptions, PluginError
from pipeline.testing import CLOSE_LIMIT_S, NewContext, check_plugin, new_record, soak

OWNER: Slot[str] = Slot("owner")


def of(owner: str) -> NewContext:
    def context() -> RequestContext:
        ctx = RequestContext(owner)
        ctx[OWNER] = owner
        return ctx

    return context


@per_event
def keep(number: int) -> list[int]:
    return [number]


@dataclass(frozen=True)
class Factor:
    factor: int = 2


def make_times(options: Factor) -> Any:
    @per_event
    def times(number: int) -> list[int]:
        return [options.factor * number]

    return times


TIMES = Plugin("times", make_times, Factor)


def serving(*acts: Callable[[], Any], made: Any = keep, before: Sequence[Callable[[], Any]] = ()) -> Plugin[Any]:
    """Return a plugin that awaits ``before`` when it is opened, and ``acts`` when it is closed."""

    @asynccontextmanager
    async def serve(_: NoOptions, host: Host) -> AsyncIterator[Any]:
        for act in before:
            await act()
        try:
            yield made
        finally:
            for act in acts:
                await act()

    return Plugin("keep", serve=serve)


# Good ones.


def test_a_plugin_is_checked_with_its_options_and_its_output_is_returned() -> None:
    assert check_plugin(TIMES, None, 1, 2) == [2, 4]
    assert check_plugin(TIMES, Factor(3), 1, 2) == [3, 6]


def test_what_an_entry_point_may_load_to_is_checked_as_it_is() -> None:
    assert check_plugin(keep, None, 1, 2) == [1, 2]
    tells = Tells()
    assert check_plugin(tells) == []
    assert tells.told == ["test", "OK"]
    assert as_plugin(tells).name == "Tells"


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^5 is not a plugin, and has none of the methods run, call, on_end$"):
        check_plugin(5)


def test_a_stage_is_not_checked_without_events() -> None:
    with pytest.raises(TypeError, match=r"^without events nothing of the stage 'times' is checked: pass a typical"):
        check_plugin(TIMES)


def test_an_around_is_for_another_check() -> None:
    class Around:
        name = "around"

        def call(self, call: Any, next: Any) -> Any: ...

    with pytest.raises(TypeError, match=r"'around' stands around the call: use stages\.testing\.check_around"):
        check_plugin(Around())


def test_a_plugin_with_a_lifetime_is_opened_once_and_closed() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def serve(_: NoOptions, host: Host) -> AsyncIterator[Any]:
        async def beat() -> None:
            while True:
                await trio.sleep(1)

        events.append(f"opened with {list(host.deployments)}")
        async with host.background(beat, drain_s=0):
            yield keep
        events.append("closed")

    assert check_plugin(Plugin("keep", serve=serve), None, 1, 2, deployments={"one": None}) == [1, 2]
    assert events == ["opened with ['one']", "closed"]


def test_threads_take_no_virtual_time() -> None:
    async def work() -> None:
        await trio.to_thread.run_sync(time.sleep, 0.01)

    assert check_plugin(serving(work, work, before=(work, work)), None, 1) == [1]


# Requests that run at the same time.


class Differences:
    """Keeps the last number in a place that the test chooses."""

    def __init__(self, kept: dict[str, int], key: str) -> None:
        self._kept = kept
        self._key = key

    def feed(self, batch: list[int], /) -> list[int]:
        given: list[int] = []
        for number in batch:
            given.append(number - self._kept.get(self._key, 0))
            self._kept[self._key] = number
        return given

    def flush(self) -> list[int]:
        return []

    def close(self, outcome: Outcome) -> None:
        self._kept.pop(self._key, None)


class ForgetfulDifferences(Differences):
    """Forgets the last number only if its input is complete."""

    def flush(self) -> list[int]:
        super().close(Outcome())
        return []

    def close(self, outcome: Outcome) -> None:
        """Forget nothing."""


def test_what_is_left_of_a_cancelled_request_is_caught() -> None:
    kept: dict[str, int] = {}
    codec = ForgetfulDifferences
    stage: Any = codec_stage("differences", lambda ctx: codec(kept, ctx[OWNER]), codec=codec)
    with pytest.raises(AssertionError) as caught:
        check_plugin(stage, None, 1, 3, 6, contexts=[of("ann"), of("ben"), of("cem")])
    assert str(caught.value) == (
        "differences remembers a request that was cancelled or has failed: it gave [1, 2, 3], now [-5, 2, 3]"
    )


def test_a_leak_between_requests_that_run_at_the_same_time_is_caught() -> None:
    kept: dict[str, int] = {}
    stage: Any = codec_stage("differences", lambda ctx: Differences(kept, "all"), codec=Differences)
    with pytest.raises(AssertionError) as caught:
        check_plugin(stage, None, 1, 3, 6)
    assert str(caught.value) == (
        "differences confuses requests that run at the same time: request 1 of 3 got [1, 2, 5], alone [1, 2, 3]; "
        "what belongs to one request must live in a codec, in the locals of `run`, or in the context"
    )


def test_what_is_kept_for_each_owner_passes_only_with_one_request_of_each() -> None:
    kept: dict[str, int] = {}
    stage: Any = codec_stage("differences", lambda ctx: Differences(kept, ctx[OWNER]), codec=Differences)
    owners = [of("ann"), of("ben"), of("cem")]
    assert check_plugin(stage, None, 1, 3, 6, contexts=owners) == [1, 2, 3]
    with pytest.raises(AssertionError, match="differences confuses requests"):
        check_plugin(stage, None, 1, 3, 6, contexts=owners[:2])


def test_each_request_may_have_a_stream_of_its_own() -> None:
    latest: list[int] = [0]

    class Largest:
        """Keeps the largest of all numbers for its end."""

        def feed(self, batch: list[int], /) -> list[int]:
            latest[0] = max(latest[0], *batch)
            return []

        def flush(self) -> list[int]:
            given, latest[0] = latest[0], 0
            return [given]

    stage: Any = codec_stage("largest", lambda ctx: Largest(), codec=Largest)
    with pytest.raises(AssertionError, match=r"request 1 of 4 got \[0\], alone \[9\]"):
        check_plugin(stage, None, 1, 2, 3, streams=[[9, 9, 9, 9, 9], [1, 2, 3], [4], [5]])


def test_a_failure_that_only_other_requests_cause_is_caught() -> None:
    class Alone:
        name = "alone"

        def __init__(self) -> None:
            self.is_busy = False

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            if self.is_busy:
                raise LookupError("busy")
            self.is_busy = True
            try:
                async for batch in inlet:
                    await outlet.send(batch)
            finally:
                self.is_busy = False

    with pytest.raises(AssertionError) as caught:
        check_plugin(Alone(), None, 1, 2)
    assert str(caught.value).startswith(
        "alone fails while other requests run: request 2 of 3: stage 'alone' raised LookupError('busy')"
    )
    assert isinstance(caught.value.__cause__, StageBug)


def test_a_plugin_may_share_on_purpose() -> None:
    def make(_: NoOptions) -> Any:
        seen: list[int] = []

        @per_event
        def number_all(number: int) -> list[int]:
            seen.append(number)
            return [len(seen)]

        return number_all

    plugin = Plugin("number_all", make)
    assert check_plugin(plugin, None, 7, 7, 7, shares_between_requests=True) == [1, 2, 3]
    with pytest.raises(AssertionError, match="number_all remembers an earlier request"):
        check_plugin(plugin, None, 7, 7, 7)


def test_what_shares_must_still_be_blind_to_batching() -> None:
    class CountBatches:
        def feed(self, batch: list[int], /) -> list[int]:
            return [len(batch)]

        def flush(self) -> list[int]:
            return []

    stage: Any = codec_stage("count", lambda ctx: CountBatches(), codec=CountBatches)
    with pytest.raises(AssertionError, match=r"count depends on batching: in batches of 1 \[1, 1\], all at once \[2\]"):
        check_plugin(stage, None, 5, 6, shares_between_requests=True)


class HoldAll:
    name = "hold_all"

    async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        await outlet.send([number async for batch in inlet for number in batch])


def test_a_plugin_that_holds_without_bound_is_caught_unless_it_says_so() -> None:
    with pytest.raises(AssertionError, match=r"hold_all took .* it buffers without bound"):
        check_plugin(HoldAll(), None, 1, 2)
    assert check_plugin(HoldAll(), None, 1, 2, holds_all=True) == [1, 2]


def test_an_undeclared_wait_is_caught() -> None:
    class Nap:
        name = "nap"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async for batch in inlet:
                await trio.sleep(2)
                await outlet.send(batch)

    with pytest.raises(AssertionError, match="nap waited 4 s without saying so"):
        check_plugin(Nap(), None, 1, 2)


def test_a_swallowed_cancellation_is_caught() -> None:
    class Forgive:
        name = "forgive"

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            try:
                async for batch in inlet:
                    await outlet.send(batch)
            except BaseException:  # the mistake that is to be found
                return

    with pytest.raises(AssertionError, match="forgive was cancelled and returned as if its output were complete"):
        check_plugin(Forgive(), None, 1)


# The lifetime.


async def leave_a_task() -> None:
    trio.lowlevel.spawn_system_task(trio.sleep_forever, name="writer")


async def leave_a_nursery() -> None:
    await trio.open_nursery().__aenter__()


async def fail() -> None:
    raise ConnectionError("gone")


async def wait_shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(CLOSE_LIMIT_S + 1)


@pytest.mark.parametrize(
    ("plugin", "fault"),
    [
        (serving(before=[trio.sleep_forever]), "the plugin keep was not opened within 60 s"),
        (serving(trio.sleep_forever), "the plugin keep was not closed within 10 s"),
        (serving(wait_shielded), "the plugin keep was not closed within 10 s"),
        (serving(fail), "the plugin keep could not be closed: ConnectionError('gone')"),
        (serving(before=[leave_a_task]), "the plugin keep was closed and left tasks behind: writer; start them with"),
        (serving(before=[leave_a_nursery]), "keep has left a nursery or a cancel scope open"),
    ],
)
def test_a_lifetime_that_does_not_begin_or_end_well_is_caught(plugin: Plugin[Any], fault: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_plugin(plugin, None, 1, 2)
    assert str(caught.value).startswith(fault)


def test_a_lifetime_that_ends_twice_is_caught() -> None:
    @asynccontextmanager
    async def serve(_: NoOptions, host: Host) -> AsyncIterator[Any]:
        yield keep
        yield keep

    with pytest.raises(AssertionError, match=r"keep could not be closed: RuntimeError\(\"generator didn't stop\"\)"):
        check_plugin(Plugin("keep", serve=serve), None, 1)


def test_a_background_task_that_fails_is_caught(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def serve(_: NoOptions, host: Host) -> AsyncIterator[Any]:
        async with host.background(fail):
            await trio.sleep(2)
            yield keep

    with pytest.raises(AssertionError, match=r"a background task of the plugin keep failed \d+ times: see its log"):
        check_plugin(Plugin("keep", serve=serve), None, 1)
    assert "a background task failed, and starts again in 1 s: builtins.ConnectionError" in caplog.text


async def test_what_fails_while_it_is_open_is_raised_although_it_cannot_be_closed_then(autojump_clock: Any) -> None:
    async def open_and_fail() -> None:
        async with plugin_opened(serving(fail)):
            raise AssertionError("first")

    with pytest.raises(AssertionError, match=r"^first$"):
        await open_and_fail()


# Observers.


class Tells:
    def __init__(self) -> None:
        self.told: list[object] = []

    def on_start(self, ctx: RequestContext) -> None:
        self.told.append(ctx.request_id)

    def on_end(self, record: Any) -> None:
        self.told.append(record.end)


def observer(made: Any) -> Plugin[Any]:
    return Plugin("observes", lambda _: made, kind="observer")


def test_an_observer_is_told_of_a_request_for_each_record() -> None:
    tells = Tells()
    records = [new_record(end="OK"), new_record(end="DC"), new_record(end="UT")]
    assert check_plugin(observer(tells), None, *records, contexts=[of("ann"), of("ben")]) == []
    assert tells.told == ["ann", "OK", "ben", "DC", "ann", "UT"]


def test_an_observer_that_raises_is_caught() -> None:
    class Raises(Tells):
        def on_end(self, record: Any) -> None:
            raise ValueError(record.end)

    with pytest.raises(
        AssertionError, match=r"^on_end of the observer observes raised ValueError\('OK'\): it must not"
    ):
        check_plugin(observer(Raises()))


def test_an_observer_that_is_async_is_caught() -> None:
    class Waits(Tells):
        async def on_start(self, ctx: RequestContext) -> None:  # type: ignore[override]  # the mistake to be found
            await trio.sleep(1)

    with pytest.raises(PluginError, match=r"^on_start of the observer 'observes' must not be async: nobody awaits it$"):
        check_plugin(observer(Waits()))

    class Returns(Tells):
        def on_start(self, ctx: RequestContext) -> Any:
            return trio.sleep(1)

    with pytest.raises(AssertionError, match=r"^on_start of the observer observes is async: nobody awaits it"):
        check_plugin(observer(Returns()))


class WaitsIdly(Tells):
    def on_start(self, ctx: RequestContext) -> None:
        Event().wait(0.05)


def test_an_observer_that_waits_is_caught() -> None:
    with pytest.raises(AssertionError, match=r"^on_start of the observer observes waited 0\.\d+ s, and all requests"):
        check_plugin(observer(WaitsIdly()))


def test_an_observer_that_waits_is_caught_where_the_kernel_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plugin_testing, "SCHEDSTAT", tmp_path / "schedstat")
    with pytest.raises(AssertionError, match=r"^on_start of the observer observes waited 0\.\d+ s, and all requests"):
        check_plugin(observer(WaitsIdly()))


class Works(Tells):
    def on_start(self, ctx: RequestContext) -> None:
        end_s = time.thread_time() + 0.03
        while time.thread_time() < end_s:
            pass


def test_an_observer_that_works_is_not_taken_for_one_that_waits() -> None:
    assert check_plugin(observer(Works())) == []


def test_an_observer_that_works_is_not_taken_for_one_that_waits_while_others_have_the_processor() -> None:
    is_over = Event()

    def interrupt() -> None:
        while not is_over.wait(0.001):  # each time it takes Python's lock for a moment
            pass

    cpus = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, {min(cpus)})  # of this thread and those it starts
        for _ in range(4):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        thread = Thread(target=interrupt)
        thread.start()
        stack.callback(thread.join)
        stack.callback(is_over.set)
        assert check_plugin(observer(Works())) == []


# What grows.


def test_a_stage_that_keeps_something_of_each_run_is_caught_with_the_line() -> None:
    kept: list[None] = []

    @per_event
    def hoard(number: int) -> list[int]:
        kept.append(None)
        return [number]

    with pytest.raises(AssertionError) as caught:
        soak(hoard, [[1, 2, 3], [4]])
    text = str(caught.value)
    assert text.startswith("hoard keeps ")
    assert " bytes of each run, over 30 rounds of 2 streams: most of it was allocated at " in text
    assert __file__ in text


def test_a_stage_that_changes_with_time_is_caught() -> None:
    runs: list[None] = []

    class Tire:
        def __init__(self, ctx: RequestContext) -> None:
            runs.append(None)

        def feed(self, batch: list[int], /) -> list[int]:
            return batch if len(runs) < 6 else []

        def flush(self) -> list[int]:
            return []

    with pytest.raises(AssertionError) as caught:
        soak(codec_stage("tire", Tire), [[1], [2]], 10)
    assert str(caught.value) == "tire gives something else in round 3 for stream 2: first [2], then []"


@pytest.mark.parametrize("is_frozen", [True, False])
def test_a_soak_leaves_the_collector_as_it_was(is_frozen: bool) -> None:
    if not is_frozen:
        gc.unfreeze()
    try:
        soak(keep, [[1, 2, 3]], 10)
        assert (gc.get_freeze_count() > 0) is is_frozen
    finally:
        gc.freeze()  # as for the other tests


def test_a_cache_that_is_full_and_a_lifetime_pass_and_tracing_goes_on_if_it_did() -> None:
    class Remember:
        """Keeps the last ten numbers."""

        def __init__(self, kept: list[bytes]) -> None:
            self._kept = kept

        def feed(self, batch: list[int], /) -> list[int]:
            self._kept += [bytes(1000) for _ in batch]
            del self._kept[:-10]
            return batch

        def flush(self) -> list[int]:
            return []

    @asynccontextmanager
    async def serve(options: Factor, host: Host) -> AsyncIterator[Any]:
        kept: list[bytes] = []
        yield codec_stage("remember", lambda ctx: Remember(kept), codec=Remember)

    plugin = Plugin("remember", serve=serve, options=Factor)
    soak(plugin, [[1, 2, 3], [4, 5]], 40, options=Factor(1))
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        soak(plugin, [[1, 2, 3], [4, 5]], 40)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_a_stage_that_cannot_be_copied_is_checked_as_it_is() -> None:
    class Single:
        name = "single"

        def __deepcopy__(self, memo: object) -> Any:
            raise TypeError("there is one of me")

        async def run(self, inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
            async for batch in inlet:
                await outlet.send(batch)

    assert check_plugin(Single(), None, 1, 2) == [1, 2]
