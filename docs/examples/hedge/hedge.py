"""Ask a second deployment if the first has not begun to answer after a while; whichever begins first answers.

The second one has the same ``model_name``, is healthy, and has not been asked for this request; if there is none, the
first goes on alone. If the first one fails in time, routing has asked the others already.
Holds: nothing. Waits: until one of its calls has begun (declared); each is in a task of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from msgspec import Struct

from pipeline import PipelineError, Plugin
from stages.answer import Answer, Next
from stages.routing.router import ROUTE
from stages.upstreams import UpstreamCall


class Hedge(Struct, frozen=True):
    """The options, and what stands around the call."""

    after_s: float = 2.0
    name = "hedge"

    def __post_init__(self) -> None:
        if self.after_s < 0:
            raise ValueError("after_s must be 0 or more")

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncIterator[Answer]:
        tell, hear = trio.open_memory_channel[Answer | PipelineError](2)  # noqa: TID251 - not a link between stages
        first, second = trio.CancelScope(), trio.CancelScope()
        is_read = trio.Event()

        async def ask(asked: UpstreamCall, scope: trio.CancelScope, other: trio.CancelScope) -> None:
            try:
                with scope:
                    async with next(asked) as answer:  # left by the task that has opened it, as trio demands
                        if not scope.cancel_called:  # else the other one has begun at the same moment
                            other.cancel()
                            tell.send_nowait(answer)
                        await is_read.wait()
            except PipelineError as error:
                tell.send_nowait(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, call, first, second)
            with next.outside():
                began: Answer | PipelineError | None = None
                with trio.move_on_after(self.after_s):
                    began = await hear.receive()
                others = [] if began else next.ctx[ROUTE].others(trio.current_time())
                if others:
                    nursery.start_soon(ask, others[0].called(call), second, first)
                began = began or await hear.receive()
                if others and isinstance(began, PipelineError):  # the other one may still begin
                    began = await hear.receive()
            if isinstance(began, PipelineError):
                raise began
            yield began
            is_read.set()


def make_hedge(options: Hedge) -> Hedge:
    """Ask a second deployment if the first has not begun to answer after a while."""
    return options


plugin = Plugin("hedge", make_hedge, Hedge, kind="around")
