"""Defects of how limits are kept; see `simulator.mutants`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pytest
import trio

from pipeline.gateway.asgi_client import AsgiResponse
from stages.admission.admission import Admitted
from stages.admission.counts import Counts
from stages.admission.quota import Quota, Taken
from stages.admission.turns import Turns
from stages.routing.places import Places

# Any: what is replaced has all kinds of signatures, and some of it is private.
_Any = Any


def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    """The last that came gets the next turn."""

    class Stack(deque[_Any]):
        def append(self, element: _Any, /) -> None:
            self.appendleft(element)

    init = Turns.__init__

    def begin(self: Turns, *given: _Any, **named: _Any) -> None:
        init(self, *given, **named)
        self._waiting = Stack()

    patch.setattr(Turns, "__init__", begin)


def waiting_client_keeps_its_place(patch: pytest.MonkeyPatch) -> None:
    """A client that leaves while it waits keeps its place in the queue."""
    wait = Turns.wait

    async def wait_on(self: _Any) -> Taken:
        try:
            return await wait(self)
        except trio.Cancelled:
            self._queue.take()  # as if the one that it had were not returned
            raise

    patch.setattr(Turns, "wait", wait_on)


def turn_kept_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    """Only a request that was answered gives its turn back."""
    end = Admitted.end

    def end_it(self: Admitted, usage: _Any, *, was_refused: bool) -> None:
        if usage is None:
            self.turn = None
        end(self, usage, was_refused=was_refused)

    patch.setattr(Admitted, "end", end_it)


def one_more_than_allowed(patch: pytest.MonkeyPatch) -> None:
    """One request more than allowed runs at a time."""
    in_flight = Counts.in_flight
    patch.setattr(Counts, "in_flight", lambda self, index: max(0, in_flight(self, index) - 1))


def queue_is_too_short(patch: pytest.MonkeyPatch) -> None:
    """Nobody may wait, whatever is configured."""

    async def wait(self: _Any) -> Taken:
        await trio.lowlevel.checkpoint()
        raise self._refusal("and no more may wait")

    patch.setattr(Turns, "wait", wait)


def full_deployment_is_asked(patch: pytest.MonkeyPatch) -> None:
    """A deployment is asked although it has reached its limit."""

    def take(self: _Any, id: str) -> bool:
        return True

    patch.setattr(Places, "take", take)


def place_kept_by_an_attempt(patch: pytest.MonkeyPatch) -> None:
    """A deployment that was asked is counted as busy after it has answered."""

    def end(self: _Any, usage: _Any, *, has_answered: bool) -> None:
        self._held = None

    patch.setattr(Places, "end", end)


def requests_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A limit of requests by the minute counts none."""

    def take(self: _Any, tokens: int = 0) -> _Any:
        taken = take_part(self, tokens)
        if isinstance(taken, Taken) and self.limits.rpm is not None:
            self._requests.remove(1, taken.second)
        return taken

    take_part = Quota.take
    patch.setattr(Quota, "take", take)


def refusal_without_retry_after(patch: pytest.MonkeyPatch) -> None:
    """A refused client is not told when to try again."""
    start = AsgiResponse.start

    def start_it(self: AsgiResponse, status: int, headers: _Any) -> None:
        start(self, status, [header for header in headers if header[0] != b"retry-after"])

    patch.setattr(AsgiResponse, "start", start_it)


OVERLOAD_MUTANTS: Final[tuple[Callable[[pytest.MonkeyPatch], None], ...]] = (
    last_in_first_out,
    waiting_client_keeps_its_place,
    turn_kept_without_an_answer,
    one_more_than_allowed,
    queue_is_too_short,
    full_deployment_is_asked,
    place_kept_by_an_attempt,
    requests_are_not_counted,
    refusal_without_retry_after,
)
