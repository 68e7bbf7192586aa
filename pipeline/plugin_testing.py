"""Check a plugin as the gateway runs it: opened once, many requests at a time; authors import `pipeline.testing`."""

from __future__ import annotations

import copy
import inspect
import resource
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeGuard, TypeVar

import trio
import trio.testing

from pipeline.context import RequestContext
from pipeline.end_testing import assert_closes_once, assert_lets_go
from pipeline.errors import PipelineError
from pipeline.host import Host, Observer
from pipeline.registry import METHODS, AnyPlugin, Plugin, opened
from pipeline.stage import Stage
from pipeline.stage_testing import (
    NewContext,
    alone,
    assert_backpressure,
    assert_blind_to_batching,
    assert_forgets_requests,
    assert_same_for_all_sizes,
    assert_skips_exactly,
    assert_time_conserved,
    assert_waits_declared,
    check_same_again,
    collect,
    new_context,
    on_virtual_time,
    run_named,
)

In = TypeVar("In")
Out = TypeVar("Out")

OPEN_LIMIT_S: Final = 60.0
CLOSE_LIMIT_S: Final = 10.0
"""As in the gateway."""
AT_ONCE: Final = 3
"""How many requests run at the same time, unless there are more contexts or streams."""
LONGEST_CALL_S: Final = 0.02
"""An observer's method that waits this long holds up all requests."""
SCHEDSTAT = Path("/proc/thread-self/schedstat")
"""How long this thread has run, and how long it has waited for a processor, in nanoseconds (Linux, sched-stats.rst)."""


def check_plugin(
    plugin: Any,
    options: Any = None,
    *events: Any,
    contexts: Sequence[NewContext] = (),
    streams: Sequence[Sequence[Any]] = (),
    normalise: Callable[[list[Any]], object] = list,
    holds_all: bool = False,
    shares_between_requests: bool = False,
    deployments: Mapping[str, Any] | None = None,
) -> list[Any]:
    """Open a plugin, run every check on what it makes, close it, and return what its stage gives for ``events``.

    Not from inside a trio loop: it starts its own, on a virtual clock. A stage passes the checks of `check_stage`, and
    several requests that run at once; an observer is told of a request for each record. All of that happens while the
    plugin is open, once, with a real `Host`.

    Args:
        plugin: a `Plugin`, or the bare stage or observer that an entry point loads to.
        options: an instance of its options; None stands for their defaults.
        events: a typical stream, end included; for an observer, the records of requests that have ended. If there are
            none it gets one that looks like the gateway's.
        contexts: make the contexts of requests that run at the same time: give each another principal. The first is
            that of all other runs.
        streams: what those requests take; ``events`` by default.
        normalise, holds_all: as for `check_stage`.
        shares_between_requests: whether what a request gets depends, on purpose, on earlier ones.
        deployments: those that the host shows, by id.

    Raises:
        AssertionError: if the plugin breaks a rule; the message says which and how.
        StageBug: if its stage raises what it does not declare; the message names the stage and the cause.
        PluginError: if it cannot be opened.
        TypeError: if it stands around the call, or its options have no defaults.
    """
    given, plugin = plugin, as_plugin(plugin)
    if plugin.kind == "around":
        raise TypeError(f"the plugin {plugin.name!r} stands around the call: use stages.testing.check_around")
    if plugin.kind == "stage" and not (events or streams):
        raise TypeError(f"without events nothing of the stage {plugin.name!r} is checked: pass a typical stream")
    fresh = plugin if _is_plugin(given) else _fresh(given, plugin)

    async def check() -> list[Any]:
        if plugin.kind == "stage" and not shares_between_requests:
            for at, make in enumerate(contexts):
                async with plugin_opened(fresh, options, deployments=deployments) as stage:
                    alone_given.append(
                        await collect(stage, *(streams[at % len(streams)] if streams else events), context=make)
                    )
        async with plugin_opened(plugin, options, deployments=deployments) as made:
            if plugin.kind == "observer":
                _check_observer(plugin.name, made, events or (new_record(),), contexts)
                return []
            return await _check_made(made)

    async def _check_made(stage: Stage[Any, Any]) -> list[Any]:
        if shares_between_requests:
            await assert_same_for_all_sizes(stage.name, given_anew, len(events), normalise)
        else:
            await assert_forgets_requests(stage, *events, context=context, normalise=normalise)
            await assert_blind_to_batching(stage, *events, context=context, normalise=normalise)
            await assert_separates_requests(
                stage, *events, streams=streams, contexts=contexts, normalise=normalise, alone_given=alone_given
            )
        first = await collect(stage, *events, context=context)
        await assert_waits_declared(stage, *events, context=context)
        await assert_skips_exactly(stage, *events, context=context)
        if not holds_all:
            await assert_backpressure(stage, *events, context=context)
        await assert_lets_go(stage, *events, context=context)
        await assert_closes_once(stage, *events, context=context)
        if not shares_between_requests:
            check_same_again(stage.name, first, await collect(stage, *events, context=context), normalise)
        return first

    async def given_anew(batches_of: int) -> list[Any]:
        async with plugin_opened(plugin, options, deployments=deployments) as stage:
            return await collect(stage, *events, batches_of=batches_of, context=context)

    context = contexts[0] if contexts else new_context
    alone_given: list[list[Any]] = []
    return on_virtual_time(check, plugin.name)


def as_plugin(loaded: Any) -> AnyPlugin:
    """Return a plugin, or one that makes what an entry point loads to."""
    if _is_plugin(loaded):
        return loaded
    for kind, method in METHODS.items():
        if callable(getattr(loaded, method, None)):
            name = getattr(loaded, "name", type(loaded).__name__)
            return Plugin(name, lambda _: loaded, kind=kind)
    raise TypeError(f"{loaded!r} is not a plugin, and has none of the methods {', '.join(METHODS.values())}")


def _fresh(loaded: Any, plugin: AnyPlugin) -> AnyPlugin:
    """Return a plugin that makes copies of a stage as it is now, if that can be copied."""
    try:
        pristine = copy.deepcopy(loaded)
    except Exception:
        return plugin
    return Plugin(plugin.name, lambda _: copy.deepcopy(pristine), kind=plugin.kind)


def _is_plugin(loaded: object) -> TypeGuard[AnyPlugin]:
    return isinstance(loaded, Plugin)


# The lifetime.


@asynccontextmanager
async def plugin_opened(
    plugin: AnyPlugin, options: Any = None, *, deployments: Mapping[str, Any] | None = None
) -> AsyncGenerator[Any]:
    """Return what a plugin makes, for the duration of a block, and check that its lifetime ends with the block.

    Raises:
        AssertionError: if it cannot be opened or closed in time, leaves a task behind, or a background task of it has
            failed.
        PluginError: if it fails when it is opened.
    """
    host = Host(plugin.name, deployments=deployments)
    opening = opened(plugin, plugin.options() if options is None else options, host)
    before = _tasks()
    is_open = is_good = False
    # Around what the plugin may open: a scope must not end inside one that was entered after it.
    with trio.CancelScope() as scope:
        with _within(OPEN_LIMIT_S, scope):
            made = await opening.__aenter__()
        await trio.testing.wait_all_tasks_blocked()  # its tasks have begun, and that which watched has ended
        is_open = True
        try:
            yield made
            is_good = True
        finally:
            try:
                with _within(CLOSE_LIMIT_S, scope):
                    await opening.__aexit__(None, None, None)
            except Exception as error:
                if is_good:  # else what has failed before says more
                    raise AssertionError(f"the plugin {plugin.name} could not be closed: {error!r}") from error
    assert is_open, f"the plugin {plugin.name} was not opened within {OPEN_LIMIT_S:g} s"
    assert not scope.cancel_called, f"the plugin {plugin.name} was not closed within {CLOSE_LIMIT_S:g} s"
    await trio.testing.wait_all_tasks_blocked()
    left = sorted(task.name for task in _tasks() - before)
    assert not left, (
        f"the plugin {plugin.name} was closed and left tasks behind: {', '.join(left)}; start them with host.background"
    )
    failures = host.counter("background_failures_total").value()
    assert not failures, f"a background task of the plugin {plugin.name} failed {failures:g} times: see its log"


@contextmanager
def _within(limit_s: float, scope: trio.CancelScope) -> Generator[None]:
    """Cancel ``scope`` if the block takes longer than that; the time of threads does not count."""

    async def wait() -> None:
        with is_over:
            is_early = True
            while is_early:
                await trio.sleep(limit_s)
                await trio.testing.wait_all_tasks_blocked()  # whose thread has just ended goes on first
                # The virtual clock does not wait for a thread.
                is_early = trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
            scope.cancel()

    is_over = trio.CancelScope()
    trio.lowlevel.spawn_system_task(wait)
    try:
        yield
    finally:
        is_over.cancel()


def _tasks() -> set[trio.lowlevel.Task]:
    """Return all tasks that live, without those that ring alarms: they are nobody's in particular."""
    found: set[trio.lowlevel.Task] = set()
    root = trio.lowlevel.current_root_task()
    assert root is not None  # in a trio loop
    waiting = [root]
    while waiting:
        found.add(task := waiting.pop())
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return {task for task in found if not task.name.startswith(("pipeline.alarm.", f"{__name__}."))}


# Requests that run at the same time.


async def assert_separates_requests(
    stage: Stage[In, Out],
    *events: In,
    streams: Sequence[Sequence[In]] = (),
    contexts: Sequence[NewContext] = (),
    normalise: Callable[[list[Out]], object] = list,
    alone_given: Sequence[list[Out]] = (),
) -> None:
    """Check that requests that run at the same time, each a batch in turn, get what each gets alone.

    Args:
        stage: the stage.
        events: what each request takes, unless there are streams.
        streams: what the requests take; repeated if there are more contexts.
        contexts: make the contexts of the requests; repeated if there are more streams.
        normalise: makes outputs comparable.
        alone_given: what the first requests get from a stage that has had no request before; otherwise this one, alone,
            is asked, which cannot show what it has kept of the requests before.
    """
    streams, contexts = streams or (events,), contexts or (new_context,)
    count = max(len(streams), len(contexts), AT_ONCE)
    streams = [streams[at % len(streams)] for at in range(count)]
    makers = [contexts[at % len(contexts)] for at in range(count)]
    pairs = list(zip(streams, makers, strict=True))[len(alone_given) :]
    want = [*alone_given, *[await collect(stage, *stream, context=make) for stream, make in pairs]]
    sources = [_InTurns(stream) for stream in streams]
    requests = [make() for make in makers]
    got: list[list[Out] | PipelineError] = [[] for _ in range(count)]

    async def run(at: int) -> None:
        try:
            got[at] = await run_named(alone(stage), sources[at], requests[at])
        except PipelineError as error:
            got[at] = error

    async with trio.open_nursery() as nursery:
        for at in range(count):
            nursery.start_soon(run, at)
            await trio.testing.wait_all_tasks_blocked()  # trio starts tasks in any order
        for turn in range(max(map(len, streams)) + count):
            for source in sources[: turn + 1]:  # they do not all begin together
                source.may_go_on.release()
                await trio.testing.wait_all_tasks_blocked()
    for at, result in enumerate(got):
        which = f"request {at + 1} of {count}"
        if isinstance(result, PipelineError):
            raise AssertionError(f"{stage.name} fails while other requests run: {which}: {result}") from result
        given, expected = normalise(result), normalise(want[at])
        assert given == expected, (
            f"{stage.name} confuses requests that run at the same time: {which} got {given!r}, alone {expected!r}; "
            "what belongs to one request must live in a codec, in the locals of `run`, or in the context"
        )
        for lane in requests[at].lanes:
            assert_time_conserved(lane)


class _InTurns:
    """Batches of one event each, and the end: the next whenever it may go on."""

    def __init__(self, events: Sequence[Any]) -> None:
        self.may_go_on = trio.Semaphore(0)
        self._events = iter(events)

    def __aiter__(self) -> _InTurns:
        return self

    async def __anext__(self) -> list[Any]:
        await self.may_go_on.acquire()
        for event in self._events:
            return [event]
        raise StopAsyncIteration


# Observers.


def new_record(**changes: Any) -> Any:
    """Return what an observer may get at the end of a request: like the gateway's record of one that went well."""
    fields: dict[str, Any] = {
        "request_id": "test",
        "generation": 1,
        "client": "127.0.0.1",
        "key": "me",
        "model": "model",
        "target_model": None,
        "deployment": "model-1",
        "stream": True,
        "end": "OK",
        "status": 200,
        "bytes": 100,
        "events": 3,
        "total_ms": 10.0,
        "before_ms": 0.0,
        "first_byte_ms": 5.0,
        "first_token_ms": 5.0,
        "error": None,
        "stage": None,
        "upstream_status": None,
        "upstream_code": None,
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "party_ms": {},
        "points_ms": {},
        "lanes": {},
        "stages": {},
        "links": {},
        "transit_ms": None,
        "attempts": None,
        "health": None,
        "arounds_ms": None,
        "skipped": None,
        "mended": None,
        "trace_id": None,
        "trace": None,
    }
    return SimpleNamespace(**{**fields, **changes})


def _check_observer(
    name: str, observer: Observer, records: Sequence[Any], contexts: Sequence[Callable[[], RequestContext]]
) -> None:
    """Tell an observer of a request for each record."""
    for at, record in enumerate(records):
        ctx = contexts[at % len(contexts)]() if contexts else new_context()
        _tell(name, "on_start", observer.on_start, ctx)
        _tell(name, "on_end", observer.on_end, record)


def _waits() -> int:
    """Return how often this thread has waited for something; interruptions do not count."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _ran_s() -> float:
    """Return how long this thread has run or has waited for nothing but a processor, which others had."""
    try:
        _, queued_ns, _ = SCHEDSTAT.read_text().split()
    except OSError:  # not every kernel counts it
        queued_ns = "0"
    return time.thread_time() + int(queued_ns) / 1e9


def _tell(name: str, method: str, tell: Callable[[Any], object], what: object) -> None:
    began_s, ran_s, waits = time.perf_counter(), _ran_s(), _waits()
    try:
        returned = tell(what)
    except Exception as error:
        raise AssertionError(f"{method} of the observer {name} raised {error!r}: it must not") from error
    waited_s = time.perf_counter() - began_s - (_ran_s() - ran_s)
    if inspect.iscoroutine(returned):
        returned.close()
        raise AssertionError(f"{method} of the observer {name} is async: nobody awaits it")
    assert waited_s < LONGEST_CALL_S or _waits() == waits, (
        f"{method} of the observer {name} waited {waited_s:.2g} s, and all requests with it: let a task in "
        "host.background do that"
    )
