"""For the tests of authors: calls, keys and contexts as the gateway makes them, and `check_around`.

The checks of stages and plugins are in `pipeline.testing`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final

import trio
from msgspec.structs import replace

from pipeline import Host, Inlet, Lane, Outlet, Party, PipelineError, Plugin, RequestContext, UpstreamFault
from pipeline.end_testing import assert_lets_go
from pipeline.lane import BUSY, CLOSING, STARVED, Outside
from pipeline.plugin_testing import as_plugin, plugin_opened
from pipeline.registry import AnyPlugin, NoOptions
from pipeline.soak_testing import soak
from pipeline.stage_testing import NewContext, assert_waits_declared, collect, on_virtual_time
from stages.answer import Answer, Around, attempt_at
from stages.events import Failed, Finished, Heartbeat, Started, StreamEvent
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.routing.router import ROUTE, Candidate, Route, Router
from stages.routing.settings import DEFAULT_ROUTING
from stages.slots import ATTEMPTS, CALL, HEAD, PRINCIPAL, PROFILE, ReceivedHead
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.faults import fault_from
from stages.wire.downstream.profiles import OPENAI, Profile

RECEIVED_S: Final = 1_790_000_000
"""When the requests of `new_request_context` arrive, in seconds since the epoch."""

Script = PipelineError | Sequence[StreamEvent | PipelineError | float]
"""How an attempt goes: the error that it begins with, or what comes one after the other: events, each a batch of its
own, pauses in seconds, and perhaps an error."""

_SILENT: Final = (Started, Heartbeat)
_REQUEST: Final = frozenset(ResponsesRequest.__struct_fields__)
_DEPLOYMENT: Final = frozenset(Deployment.__struct_fields__)


def new_call(text: str = "Hello", *, model: str = "gpt-5", **changes: Any) -> UpstreamCall:
    """Return a call: a streaming request that says ``text``, and the deployment that is to answer it.

    Args:
        text: the request's input.
        model: what the client asks for, and what the upstream calls it.
        changes: fields of `UpstreamCall`, of its `ResponsesRequest`, or of its `Deployment`.
    """
    request = ResponsesRequest(requested_model=model, stream=True, include_usage=True, body={"input": text})
    deployment = Deployment(
        id=f"{model}-1", model_name=model, model=model, provider="openai", kind="responses", url="http://upstream"
    )
    request = changes.pop("request", request)
    deployment = changes.pop("deployment", deployment)
    of_request = {name: changes.pop(name) for name in _REQUEST & changes.keys()}
    of_deployment = {name: changes.pop(name) for name in _DEPLOYMENT & changes.keys()}
    if changes:
        raise TypeError(f"neither a call nor its request nor its deployment has a field {next(iter(changes))!r}")
    deployment = replace(deployment, **of_deployment)
    return UpstreamCall(request=replace(request, **of_request), deployment=deployment, model=deployment.model)


def new_principal(name: str = "me", **changes: Any) -> Principal:
    """Return a key, which may use every model; ``changes`` are other fields of it."""
    return Principal(name, **changes)


def new_request_context(
    call: UpstreamCall | None = None,
    principal: Principal | None = None,
    headers: Mapping[bytes, bytes] | None = None,
    *,
    others: Iterable[Deployment] = (),
    profile: Profile = OPENAI,
    request_id: str = "test",
) -> RequestContext:
    """Return the context of a request whose deployment has been chosen, filled as the gateway and its stages do.

    Args:
        call: the request and its deployment.
        principal: the owner of the key.
        headers: of the request, with names in lower case.
        others: further deployments, all healthy; those of the same ``model_name`` may answer, too.
        profile: the kind of client.
        request_id: what the log calls it.
    """
    ctx = RequestContext(request_id)
    ctx[HEAD] = ReceivedHead(dict(headers or {}), RECEIVED_S)
    ctx[PROFILE] = profile
    ctx[PRINCIPAL] = principal or new_principal()
    ctx[CALL] = call = call or new_call()
    group = [call.deployment, *(one for one in others if one.model_name == call.deployment.model_name)]
    candidates = [Candidate(one, call.at(one).model) for one in group]
    route = Route(Router(DEFAULT_ROUTING, group), call.deployment.model_name, candidates, lambda: "", lambda name: None)
    ctx[ROUTE] = route.from_candidate(candidates[0], 0.0)
    return ctx


def contexts_of(*names: str) -> list[NewContext]:
    """Return makers of contexts, one for each key: the ``contexts`` of `pipeline.testing.check_plugin`."""

    def maker(name: str) -> NewContext:
        return lambda: new_request_context(principal=new_principal(name), request_id=f"of {name}")

    return [maker(name) for name in names]


class ScriptedAttempt:
    """What an around did with one attempt.

    Attributes:
        call: what it asked.
        is_open: whether it has begun well, and has not been left.
        closes: how often it was left.
        given: the events that the around has taken from it.
        error: what it failed with.
    """

    def __init__(self, call: UpstreamCall) -> None:
        self.call = call
        self.is_open = False
        self.closes = 0
        self.given: list[StreamEvent] = []
        self.error: PipelineError | None = None


class CheckedAnswer(list[StreamEvent]):
    """The events of an answer, with the attempts that were made at it.

    Attributes:
        attempts: in the order in which they were asked.
    """

    def __init__(self, events: Iterable[StreamEvent], attempts: list[ScriptedAttempt]) -> None:
        super().__init__(events)
        self.attempts = attempts


def check_around(
    around: Any,
    *attempts: Script,
    options: Any = None,
    call: UpstreamCall | None = None,
    principal: Principal | None = None,
    deployments: Mapping[str, Deployment] | None = None,
    shares_between_requests: bool = False,
) -> CheckedAnswer:
    """Run an around on attempts that go as scripted, and return the events of its answer, and what it asked.

    Checks that each attempt that begins well is left exactly once, even if the around is cancelled, at any step, or its
    answer is left after the first batch; that it lets the cancellation through; that its waits are declared; that its
    answer ends as it should, and is the same for each request. Not from inside a trio loop: it starts its own, on a
    virtual clock.

    Args:
        around: an `Around`, or a plugin that makes one; it is open for all runs.
        attempts: how the first attempt of each run goes, the second ...
        options: those of the plugin; None stands for their defaults.
        call: what is asked.
        principal: the owner of the key.
        deployments: those that the plugin's host shows, by id; those of the call's ``model_name`` may answer it, too.
        shares_between_requests: whether the answer depends, on purpose, on earlier requests, as that of a cache does.

    Raises:
        AssertionError: if the around breaks a rule; the message says which and how.
        StageBug: if it raises what it does not declare; the message names it and the cause.
        PipelineError: what it raises if no attempt begins well.
    """
    plugin = _around(around, "check_plugin")
    asked = call or new_call()

    def context() -> RequestContext:
        return new_request_context(asked, principal, others=(deployments or {}).values())

    async def check() -> CheckedAnswer:
        async with plugin_opened(plugin, options, deployments=deployments) as made:
            first = _AskAround(made, attempts)
            answered = CheckedAnswer(await collect(first, asked, context=context), first.attempts)
            leaving = _AskAround(made, attempts, leaves_early=True)
            with leaving.checked("its answer was left after the first batch"):
                await collect(leaving, asked, context=context)
            stage = _AskAround(made, attempts)
            with stage.checked("its answer was complete"):
                await assert_waits_declared(stage, asked, context=context, wait="next.outside()")
            with stage.checked("it was cancelled"):
                await assert_lets_go(stage, asked, context=context)
            events = await collect(stage, asked, context=context)
            if shares_between_requests:
                first, answered = stage, CheckedAnswer(events, stage.attempts)
            if first.error is not None:
                raise first.error
            assert events == answered, (
                f"{plugin.name} remembers earlier requests: first it answered {list(answered)!r}, then {events!r}; if "
                "that is on purpose, say shares_between_requests=True"
            )
            return answered

    return on_virtual_time(check, plugin.name)


def soak_around(
    around: Any,
    *attempts: Script,
    rounds: int = 30,
    options: Any = None,
    call: UpstreamCall | None = None,
    deployments: Mapping[str, Deployment] | None = None,
) -> None:
    """Run an around ``rounds`` times on attempts that go as scripted, and check that it leaves nothing behind.

    The arguments are those of `check_around`; what is checked is what `pipeline.testing.soak` checks.

    Raises:
        AssertionError: if memory grows, or an answer differs from the first one.
    """
    plugin = _around(around, "soak")
    asked = call or new_call()

    @asynccontextmanager
    async def asking(_: NoOptions, host: Host) -> AsyncGenerator[_AskAround]:
        async with plugin_opened(plugin, options, deployments=deployments) as made:
            yield _AskAround(made, attempts)

    soak(
        Plugin(plugin.name, options=NoOptions, serve=asking, accepts=UpstreamCall, emits=StreamEvent),
        [[asked]],
        rounds,
        context=lambda: new_request_context(asked, others=(deployments or {}).values()),
    )


def _around(around: Any, otherwise: str) -> AnyPlugin:
    plugin = as_plugin(around)
    if plugin.kind != "around":
        raise TypeError(f"{plugin.name!r} does not stand around the call: use pipeline.testing.{otherwise}")
    return plugin


class _AskAround:
    """A stage that asks an around, as ``answer_call`` does, and looks at what that does with its attempts.

    Args:
        around: is asked.
        scripts: how its attempts go, in each run.
        leaves_early: whether its answer is left after the first batch.

    Attributes:
        attempts: those of the last run.
        error: what the around failed with in the last run, if that was a declared error.
    """

    accepts = UpstreamCall
    emits = StreamEvent

    def __init__(self, around: Around, scripts: Sequence[Script], *, leaves_early: bool = False) -> None:
        self.name = around.name
        self.attempts: list[ScriptedAttempt] = []
        self.error: PipelineError | None = None
        self.scripts = scripts
        self._around = around
        self._leaves_early = leaves_early
        self._fault = ""

    async def run(self, inlet: Inlet[UpstreamCall], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        """Ask for each call."""
        async for batch in inlet:
            for call in batch:
                self.attempts, self.error = [], None
                ctx[ATTEMPTS] = []
                try:
                    await self._answer(self._around.call(call, _ScriptedNext(self, ctx, inlet.lane)), outlet, ctx)
                except PipelineError as error:
                    self.error = error
                finally:
                    for number, attempt in enumerate(self.attempts, 1):
                        if attempt.is_open or attempt.closes > 1:
                            self.note(f"left attempt {number} {attempt.closes} times, not once")

    async def _answer(
        self, opening: AbstractAsyncContextManager[Answer], outlet: Outlet[StreamEvent], ctx: RequestContext
    ) -> None:
        is_end = False
        async with opening as answer:
            ctx[CALL] = answer.call
            async for events in answer:
                if not events:
                    self.note("gave an empty batch")
                    continue
                is_end = isinstance(events[-1], Finished | Failed)
                await outlet.send(events)
                if is_end or self._leaves_early:
                    return
        if not is_end:
            self.note("gave an answer whose last event is neither Finished nor Failed")

    def note(self, fault: str) -> None:
        """Note what the around does wrong; the first thing counts."""
        self._fault = self._fault or fault

    @contextmanager
    def checked(self, when: str) -> Generator[None]:
        """Raise what was noted in a block."""
        try:
            yield
        finally:
            assert not self._fault, f"{self.name} {self._fault}, when {when}"


class _ScriptedNext:
    """Makes attempts as scripted."""

    def __init__(self, stage: _AskAround, ctx: RequestContext, lane: Lane) -> None:
        self.ctx = ctx
        self._stage = stage
        self._lane = lane
        self._task = trio.lowlevel.current_task()

    def __call__(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[Answer]:
        return _ScriptedOpening(self._stage, call, self.ctx, self)

    def outside(self, party: Party = Party.OURS) -> Outside:
        return self._lane.outside(party)

    async def wait(self, seconds: float) -> None:
        """Wait as an attempt does for its events: that is nobody's mistake. At least a checkpoint."""
        if trio.lowlevel.current_task() is not self._task:  # beside another one: the around's own task is away
            await trio.sleep(seconds)
            return
        lane = self._lane
        lane.switch(STARVED, lane.clock())
        try:
            await trio.sleep(seconds)
        except BaseException:
            lane.switch(CLOSING, lane.clock())
            raise
        lane.switch(BUSY, lane.clock())


class _ScriptedOpening:
    """One attempt as a context manager, and the iterator over its batches."""

    def __init__(self, stage: _AskAround, call: UpstreamCall, ctx: RequestContext, following: _ScriptedNext) -> None:
        self._stage = stage
        self._next = following
        self._call = call
        self._ctx = ctx
        self._script: Iterator[StreamEvent | PipelineError | float] = iter(())
        self._first: list[StreamEvent] = []
        self._attempt = ScriptedAttempt(call)
        self._record = attempt_at(call, [], [], ctx.timeline.clock())

    async def __aenter__(self) -> Answer:
        stage, number = self._stage, len(self._stage.attempts)
        if number >= len(stage.scripts):
            stage.note(f"asked for attempt {number + 1}, and the test has scripted only {number}")
            raise UpstreamFault("there is no script for this attempt")
        script = stage.scripts[number]
        self._script = iter([script] if isinstance(script, PipelineError) else script)
        stage.attempts.append(self._attempt)
        self._ctx[ATTEMPTS].append(self._record)
        await self._next.wait(0)
        try:
            while not self._first or isinstance(self._first[-1], _SILENT):
                self._first += await self._take()
        except StopAsyncIteration:
            raise self._failed(UpstreamFault("the upstream's answer was empty", code="upstream_protocol")) from None
        if isinstance(failed := self._first[-1], Failed):
            raise self._failed(fault_from(failed))
        self._attempt.is_open = True
        return Answer(self._call, self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._attempt.is_open = False
        self._attempt.closes += 1
        self._record.ended_ns = self._ctx.timeline.clock()
        await self._next.wait(0)

    def __aiter__(self) -> _ScriptedOpening:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        if not self._attempt.is_open:
            await trio.lowlevel.checkpoint()  # if both are being cancelled, the task that holds it open may be first
            self._stage.note("reads from an attempt that it has left")
            raise StopAsyncIteration
        first, self._first = self._first, []
        batch = first or await self._take()
        self._attempt.given += batch
        return batch

    async def _take(self) -> list[StreamEvent]:
        """Return the next event as a batch, after the pauses before it."""
        for item in self._script:
            if isinstance(item, PipelineError):
                item.__context__ = None  # each attempt raises it anew: what it grows by is not the around's
                raise self._failed(item.with_traceback(None))
            if isinstance(item, float | int):
                await self._next.wait(item)
                continue
            await self._next.wait(0)
            self._record.events += 1
            if isinstance(item, Finished | Failed):
                self._record.end = item.code if isinstance(item, Failed) else "OK"
            return [item]
        raise StopAsyncIteration

    def _failed(self, error: PipelineError) -> PipelineError:
        self._attempt.error = error
        self._record.end = error.code
        return error
