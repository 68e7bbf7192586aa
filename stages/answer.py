"""Around the call: what may stand between a request and the upstreams that could answer it.

An `Around` gets each call and decides how it is answered: by the next one, once, several times, on another deployment,
with other events, or without any upstream. Retries, fallbacks, hedging, caches and mirrors are written like that. The
innermost `next` makes an *attempt*: it restores reasoning, translates the request, calls the upstream and decodes what
comes back. All of that is done anew each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final, Protocol

from msgspec import Struct

from pipeline import Lane, Party, RequestContext
from pipeline.channel import Link
from stages.events import StreamEvent
from stages.upstreams import UpstreamCall

GIVEN_UP: Final = "given_up"
"""How an attempt ended that was left before its end: another one answered, or the request was over."""


class Answer:
    """The events of one answer, in batches: ``async for batch in answer``. No batch is empty; each is yours to change.

    Its first batch is here already, so that it is known to begin well: what failed before was raised where it was
    opened. A later failure is its last event, a `Failed`; only a bug is raised then.

    Args:
        call: the call that it answers.
        batches: its events; an iterator, not a generator, if it may be left before its end.
    """

    __slots__ = ("_batches", "call")

    def __init__(self, call: UpstreamCall, batches: AsyncIterator[list[StreamEvent]]) -> None:
        self.call = call
        self._batches = batches

    @classmethod
    def of_events(cls, call: UpstreamCall, events: Iterable[StreamEvent]) -> Answer:
        """Return an answer that no upstream has given, all of it one batch. The last event is Finished or Failed."""
        return cls(call, _Once(list(events)))

    def changed(self, change: Callable[[list[StreamEvent]], list[StreamEvent]]) -> Answer:
        """Return the same answer with each batch changed; what becomes empty is left out."""
        return Answer(self.call, _Changed(self._batches, change))

    def __aiter__(self) -> AsyncIterator[list[StreamEvent]]:
        return self._batches


class Next(Protocol):
    """What is asked next: another `Around`, or the upstream."""

    @property
    def ctx(self) -> RequestContext:
        """The request."""
        ...

    def __call__(self, call: UpstreamCall, /) -> AbstractAsyncContextManager[Answer]:
        """Open an answer to ``call``; leaving the block gives up what is left of it, and closes its connection.

        Raises, on entering:
            UpstreamFault, Overloaded: if it does not begin well: nothing has been sent to the client yet.
            ClientFault: if the request cannot be translated for this deployment.
        """
        ...

    def outside(self, party: Party = Party.OURS) -> AbstractContextManager[object]:
        """Return a context manager for a wait of your own, such as a pause before the next attempt.

        It is for the task that runs `Around.call`; in a task that you have started it does nothing.
        """
        ...


class Around(Protocol):
    """Something around the call: an immutable value, built at start-up and shared by all requests."""

    @property
    def name(self) -> str:
        """A noun or a verb phrase, unique among the stages."""
        ...

    def call(self, call: UpstreamCall, next: Next, /) -> AbstractAsyncContextManager[Answer]:
        """Answer ``call``, as a rule with ``async with next(call) as answer: yield answer``.

        What comes after the ``yield`` runs when the answer is complete, for 5 s at most, or when it is given up; then
        it is cancelled at its first wait.
        """
        ...


class Attempt(Struct):
    """What is known of one attempt at an answer, for the record of its request; nothing of what was said.

    Attributes:
        deployment, model: what was asked.
        lanes, links: of its own stages.
        began_ns, ended_ns: on the clock of the request.
        end: ``OK``, the code of what it failed with, or `GIVEN_UP`.
        events: how many events it gave.
        upstream_status: the status of the upstream's answer, if it was an error.
        reason: why routing made it (`stages.upstreams.Reason`); None for the first one, and for those of something
            around the call.
        pause_s: the pause before it.
    """

    deployment: str
    model: str
    lanes: list[Lane]
    links: list[Link[Any]]
    began_ns: int
    ended_ns: int = 0
    end: str = GIVEN_UP
    events: int = 0
    upstream_status: int | None = None
    reason: str | None = None
    pause_s: float = 0.0


def attempt_at(call: UpstreamCall, lanes: list[Lane], links: list[Link[Any]], asked_ns: int) -> Attempt:
    """Return what is known at the start of an attempt, which begins after the pause before it."""
    return Attempt(
        call.deployment.id,
        call.model,
        lanes,
        links,
        asked_ns + int(call.pause_s * 1e9),
        reason=call.reason,
        pause_s=call.pause_s,
    )


class AroundTime:
    """How long an around was at work itself: while it was asked to open or to end an answer, and none of its calls was.

    What its answer takes to be read is not in it.

    Attributes:
        name: the around's.
        own_ns: that time; of several calls at once, the time in which any of them was at work.
    """

    __slots__ = ("_since_ns", "_working", "name", "own_ns")

    def __init__(self, name: str) -> None:
        self.name = name
        self.own_ns = 0
        self._working = 0
        self._since_ns = 0

    def change(self, count: int, now_ns: int) -> None:
        """Note that one more of its calls is at work, 1, or one less, -1: it has ended, or waits for the next one."""
        if self._working > 0:
            self.own_ns += now_ns - self._since_ns
        self._working += count
        self._since_ns = now_ns


class _Once:
    """One batch."""

    def __init__(self, batch: list[StreamEvent]) -> None:
        self._batch = batch

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        batch, self._batch = self._batch, []
        if not batch:
            raise StopAsyncIteration
        return batch


class _Changed:
    """Batches, each changed by a function."""

    def __init__(
        self, batches: AsyncIterable[list[StreamEvent]], change: Callable[[list[StreamEvent]], list[StreamEvent]]
    ) -> None:
        self._batches = aiter(batches)
        self._change = change

    def __aiter__(self) -> _Changed:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        while True:
            if batch := self._change(await anext(self._batches)):
                return batch
