"""For the tests of stage authors: calls, keys and contexts as the gateway makes them, and a check of arounds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from pipeline import Outlet, Party, PipelineError, RequestContext
from pipeline.graph import Pipeline
from pipeline.lane import BUSY
from pipeline.testing import assert_time_conserved, virtual_ns
from stages.answer import Answer, Around
from stages.events import StreamEvent
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import CALL, HEAD, PRINCIPAL, PROFILE, ReceivedHead
from stages.upstreams import Deployment, UpstreamCall
from stages.wire.downstream.profiles import OPENAI

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pipeline import Inlet
    from pipeline.lane import Outside

Attempted = Sequence[StreamEvent] | PipelineError
"""What an attempt gives, or how it fails before its first event."""


def new_call(text: str = "Hello", *, model: str = "gpt-5", **fields: Any) -> UpstreamCall:
    """Return a streaming call that says ``text`` to ``model``; ``fields`` are of the `ResponsesRequest`."""
    given: dict[str, Any] = {"stream": True, "include_usage": True, "body": {"input": text}, **fields}
    deployment = Deployment(
        id=f"{model}-1", model_name=model, model=model, provider="openai", kind="responses", url="http://upstream"
    )
    return UpstreamCall(request=ResponsesRequest(requested_model=model, **given), deployment=deployment, model=model)


def new_principal(name: str = "me", **fields: Any) -> Principal:
    """Return a key that may use every model."""
    return Principal(name, **fields)


def new_request_context(
    call: UpstreamCall | None = None,
    principal: Principal | None = None,
    *,
    headers: dict[bytes, bytes] | None = None,
    request_id: str = "test",
) -> RequestContext:
    """Return the context of a request as the gateway fills it; times in it follow trio's virtual clock."""
    ctx = RequestContext(request_id, clock=virtual_ns)
    ctx[HEAD] = ReceivedHead(headers or {}, 0)
    ctx[PROFILE] = OPENAI
    ctx[PRINCIPAL] = principal or new_principal()
    ctx[CALL] = call or new_call()
    return ctx


def check_around(
    around: Around, *attempts: Attempted, call: UpstreamCall | None = None, principal: Principal | None = None
) -> list[StreamEvent]:
    """Run ``around`` on attempts that go as said, one after the other, and return the events of its answer.

    It is also left after its first batch, and cancelled at each of its steps. Not from inside a trio loop.

    Raises:
        AssertionError: if an attempt stays open, or a wait is not declared with ``next.outside()``.
        PipelineError: what the around lets through.
    """
    asked = call or new_call()

    async def answer(*, batches: int | None = None) -> list[StreamEvent]:
        stage = _Asks(around, attempts, batches)
        ctx = new_request_context(asked, principal)
        try:
            given: list[StreamEvent] = await Pipeline(stage).run([[asked]], ctx)
        finally:
            assert stage.open == 0, f"{around.name} has left {stage.open} attempts open"
        [lane] = ctx.lanes
        assert_time_conserved(lane)
        assert lane.spent_ns[BUSY] == 0, (
            f"{around.name} waited {lane.spent_ns[BUSY] / 1e9:g} s without saying so: put it in `with next.outside():`"
        )
        return given

    async def cancelled_everywhere() -> None:
        for step_s in (0.0, 0.5):
            with trio.move_on_after(step_s):
                await answer()

    def on_virtual_time(run: Any) -> Any:
        return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))

    on_virtual_time(cancelled_everywhere)
    on_virtual_time(lambda: answer(batches=1))
    result: list[StreamEvent] = on_virtual_time(answer)
    return result


class _Asks:
    """Asks an around, and gives what it answers, or only so many batches of it."""

    name = "ask"

    def __init__(self, around: Around, attempts: Sequence[Attempted], batches: int | None) -> None:
        self._around = around
        self._attempts = iter(attempts)
        self._batches = batches
        self.open = 0

    async def run(self, inlet: Inlet[UpstreamCall], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        async for batch in inlet:
            for call in batch:
                async with self._around.call(call, _Attempts(self, outlet, ctx)) as answer:
                    left = self._batches
                    async for events in answer:
                        if left == 0:
                            break
                        left = None if left is None else left - 1
                        await outlet.send(events)

    @asynccontextmanager
    async def attempt(self, call: UpstreamCall) -> AsyncGenerator[Answer]:
        """Open the next attempt; each of its events is a batch."""
        await trio.lowlevel.checkpoint()
        try:
            script = next(self._attempts)
        except StopIteration:
            raise AssertionError(f"{self._around.name} made more attempts than the test has scripted") from None
        if isinstance(script, PipelineError):
            raise script
        self.open += 1
        try:
            yield Answer(call, _Batches(script))
        finally:
            self.open -= 1


class _Attempts:
    """The `Next` of an around that is checked."""

    def __init__(self, asks: _Asks, outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        self._asks = asks
        self._outlet = outlet
        self.ctx = ctx

    def __call__(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[Answer]:
        return self._asks.attempt(call)

    def outside(self, party: Party = Party.OURS) -> Outside:
        return self._outlet.outside(party)


class _Batches:
    def __init__(self, events: Sequence[StreamEvent]) -> None:
        self._events = iter(events)

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        await trio.lowlevel.checkpoint()
        for event in self._events:
            return [event]
        raise StopAsyncIteration
