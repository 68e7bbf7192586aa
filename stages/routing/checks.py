"""Deployments are asked in the background whether they answer, each once per interval.

They are asked one after the other, spread over the interval, beginning at a random moment: several workers do not ask
all at once. A check costs what a tiny request costs, and tells `Health` what came of it, as a request does.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Never

import trio

from pipeline import Overloaded, UpstreamFault
from stages.routing.router import Candidate, Router
from stages.upstreams import HealthCheck
from stages.upstreams.unknown_route import is_unknown_route

JITTER: Final = 0.1
"""By what part a pause is longer or shorter than its share of the interval."""


class HealthChecks:
    """The checks of one process.

    Args:
        router: is told what came of each.
        candidates: what is asked, at least one, each with the model that is asked and how.
        ask: asks one of them, and returns when it has answered; raises an `UpstreamFault` if it has failed.
        on_bug: called with whatever else it raises, which says nothing about the deployment; once for each of them.
        interval_s: how often each is asked.
        draw: returns a number from 0 to 1.
    """

    def __init__(
        self,
        router: Router,
        candidates: Sequence[tuple[Candidate, HealthCheck]],
        ask: Callable[[Candidate], Awaitable[None]],
        *,
        on_bug: Callable[[Candidate, Exception], object],
        interval_s: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._router = router
        self._candidates = candidates
        self._ask = ask
        self._on_bug = on_bug
        self._pause_s = interval_s / len(candidates)
        self._draw = draw
        self._asked: set[str] = set()
        self._with_bug: set[str] = set()

    async def run(self) -> Never:
        """Ask until it is cancelled. What is asked when its turn comes again is left out that time."""
        async with trio.open_nursery() as nursery:
            pause_s = self._draw() * self._pause_s
            while True:
                for candidate, check in self._candidates:
                    await trio.sleep(pause_s)
                    if candidate.deployment.id not in self._asked:
                        nursery.start_soon(self._check, candidate, check.timeout_s)
                    pause_s = self._pause_s * (1 + JITTER * (2 * self._draw() - 1))

    async def _check(self, candidate: Candidate, timeout_s: float) -> None:
        id, router, asked_s = candidate.deployment.id, self._router, trio.current_time()
        self._asked.add(id)
        try:
            with trio.move_on_after(timeout_s):
                await self._ask_by_either(router.known_form(candidate))
                now_s = trio.current_time()
                if router.health_of(candidate).answered(now_s, asked_s, is_check=True):
                    router.note_return(candidate, now_s)
                return
            fault = UpstreamFault("it has not answered in time", code="upstream_timeout")
            router.note_failure(candidate, fault, trio.current_time(), asked_s)
        except UpstreamFault as fault:
            router.note_failure(candidate, fault, trio.current_time(), asked_s)
        except Overloaded:  # a shortage of our own
            pass
        except Exception as error:
            if id not in self._with_bug:
                self._with_bug.add(id)
                self._on_bug(candidate, error)
        finally:
            self._asked.discard(id)

    async def _ask_by_either(self, candidate: Candidate) -> None:
        """Ask it, and by Chat Completions if its server does not know the API that it is asked by."""
        on_chat = candidate.deployment.on_chat
        try:
            await self._ask(candidate)
            return
        except UpstreamFault as fault:
            if on_chat is None or not is_unknown_route(fault):
                raise
        await self._ask(Candidate(on_chat, candidate.model))
        self._router.note_chat_only(on_chat)
