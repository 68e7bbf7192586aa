"""All routing of one process, and one request's way through it."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from pipeline import ClientFault, Overloaded, PipelineError, Slot
from stages.routing.affinity import score
from stages.routing.budget import RetryBudget
from stages.routing.faults import MOVED, FaultKind, kind_of
from stages.routing.health import MAX_RETRY_AFTER_S, Health
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, UpstreamCall

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
"""Full jitter: the n-th pause is between 0 and min(8 s, 0.5 s * 2^n); the bounds are LiteLLM's. Source: Brooker,
"Exponential backoff and jitter", 2015."""

MAX_STICKY: Final = 10_000
"""Conversations whose deployment is remembered, if a strategy chooses by something that changes."""


class Candidate(Struct, frozen=True):
    """A deployment that may answer, and the upstream's name for the model."""

    deployment: Deployment
    model: str

    def called(self, call: UpstreamCall) -> UpstreamCall:
        """Return the call with this one as who answers."""
        return UpstreamCall(request=call.request, deployment=self.deployment, model=self.model)


Reason = Literal["moved", "repeated", "fallback"]


class Again(Struct, frozen=True):
    """What to do after a failure: ask ``candidate`` after a pause."""

    candidate: Candidate
    pause_s: float
    reason: Reason


GroupOf = Callable[[str], Sequence[Candidate] | None]
"""Returns the candidates for a name, as a fallback names them; None if it has none."""


class Router:
    """What one process knows of its deployments.

    Args:
        settings: what the operator wants.
        deployments: all of them.
        draw: returns a number from 0 to 1, for pauses.
    """

    def __init__(
        self,
        settings: RoutingSettings,
        deployments: Iterable[Deployment],
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings = settings
        self.budget = RetryBudget()
        self.health = {deployment.id: Health(settings) for deployment in deployments}
        self.draw = draw
        self._sticky: OrderedDict[str, str] = OrderedDict()

    def ordered(self, candidates: Sequence[Candidate], conversation: str, now_s: float) -> list[Candidate]:
        """Return the candidates in the order in which they are to be asked: those of the lowest ``order`` first."""
        if len(candidates) == 1:
            return list(candidates)
        if self.settings.strategy == "simple-shuffle":
            return sorted(candidates, key=lambda one: (one.deployment.order, -_score(one, conversation)))
        chosen = self._sticky.get(conversation)
        return sorted(
            candidates,
            key=lambda one: (
                one.deployment.order,
                one.deployment.id != chosen,
                self._cost(one.deployment.id, candidates),
                -_score(one, conversation),
            ),
        )

    def health_of(self, candidate: Candidate) -> Health:
        """Return what is known of a deployment, perhaps of one that a plugin has made."""
        if (found := self.health.get(candidate.deployment.id)) is None:
            found = self.health[candidate.deployment.id] = Health(self.settings)
        return found

    def keep(self, conversation: str, deployment_id: str) -> None:
        """Remember which deployment has answered, if the strategy does not say it by itself."""
        if self.settings.strategy == "simple-shuffle":
            return
        self._sticky[conversation] = deployment_id
        self._sticky.move_to_end(conversation)
        if len(self._sticky) > MAX_STICKY:
            self._sticky.popitem(last=False)

    def _cost(self, deployment_id: str, candidates: Sequence[Candidate]) -> float:
        health = self.health[deployment_id]
        if self.settings.strategy == "least-busy":
            return health.in_flight / self._weight(deployment_id, candidates)
        if health.latency_s is None:
            return 0.0  # it is not known yet: it will be, once it is asked
        known = [found for one in candidates if (found := self.health[one.deployment.id].latency_s) is not None]
        return 0.0 if health.latency_s <= min(known) * (1 + self.settings.latency_buffer) else health.latency_s

    def _weight(self, deployment_id: str, candidates: Sequence[Candidate]) -> float:
        return next(one.deployment.weight for one in candidates if one.deployment.id == deployment_id) or 1e-9


def _score(candidate: Candidate, conversation: str) -> float:
    return score(conversation, candidate.deployment.id, candidate.deployment.weight)


class Route:
    """One request's way through the deployments.

    It is asked for a candidate first (`begin`), then told what became of each: `answered`, or `failed`, which says whom
    to ask next. `end` belongs behind the last of them, in whatever way the request ends.

    Args:
        router: what is known of all.
        group: the name that was asked for, as fallbacks and policies name it.
        candidates: who may answer, at least one.
        conversation: its name.
        group_of: finds the groups of fallbacks.
    """

    __slots__ = (
        "_asked",
        "_candidates",
        "_conversation",
        "_fallbacks",
        "_groups_asked",
        "_is_probe",
        "_kind",
        "_retries",
        "_since_s",
        "candidate",
        "group",
        "group_of",
        "router",
    )

    def __init__(
        self, router: Router, group: str, candidates: Sequence[Candidate], conversation: str, group_of: GroupOf
    ) -> None:
        self.router = router
        self.group = group
        self.group_of = group_of
        self.candidate: Candidate | None = None
        self._conversation = conversation
        self._candidates = candidates
        self._asked: set[str] = set()
        self._retries = 0
        self._fallbacks: list[str] = []
        self._groups_asked = [group]
        self._is_probe = False
        self._since_s = 0.0

    def begin(self, now_s: float) -> Candidate:
        """Return whom to ask first. If all are ejected it is the first of them: a cool-down must not refuse anybody."""
        self.router.budget.note_request(now_s)
        return self._ask(self._next(now_s, untried_only=False) or self._first(now_s), now_s)

    def from_candidate(self, candidate: Candidate, now_s: float) -> Route:
        """Return a way of its own for a call of something around it, which has chosen ``candidate``."""
        route = Route(self.router, self.group, self._candidates, self._conversation, self.group_of)
        route._ask(candidate, now_s)
        return route

    def answered(self, now_s: float, *, latency_s: float | None = None) -> None:
        """Note that the candidate has begun to answer, now or after ``latency_s``."""
        if (candidate := self.candidate) is not None:
            self.router.health_of(candidate).answered(now_s, now_s - self._since_s if latency_s is None else latency_s)
            self.router.keep(self._conversation, candidate.deployment.id)

    def broke_off(self, fault: PipelineError, now_s: float) -> None:
        """Note that the answer has failed after it had begun."""
        if (candidate := self.candidate) is not None:
            self.router.health_of(candidate).failed(now_s, kind_of(fault), fault.retry_after_s)

    def failed(self, fault: PipelineError, now_s: float, *, deadline_s: float) -> Again | None:
        """Note that the candidate has failed before it said anything, and return what to do; None to give up.

        Args:
            fault: what it has failed with.
            now_s: the time.
            deadline_s: when the request ends in any case.
        """
        candidate = self.candidate
        assert candidate is not None  # it was asked
        kind = kind_of(fault)
        if isinstance(fault, ClientFault):  # it was not sent: there or elsewhere, it would be the same
            return None
        if not isinstance(fault, Overloaded):  # a shortage of our own says nothing about the deployment
            self.router.health_of(candidate).failed(now_s, kind, fault.retry_after_s)
        self.end()
        again = self._again_in_group(candidate, fault, kind, now_s, deadline_s) or self._again_elsewhere(kind, now_s)
        if again is not None:
            self._ask(again.candidate, now_s + again.pause_s)
        return again

    def end(self) -> None:
        """Note that nobody is asked any more."""
        if (candidate := self.candidate) is not None:
            self.router.health_of(candidate).end(is_probe=self._is_probe)
            self.candidate = None

    def _again_in_group(
        self, failed: Candidate, fault: PipelineError, kind: FaultKind, now_s: float, deadline_s: float
    ) -> Again | None:
        if kind in MOVED or isinstance(fault, Overloaded):
            if other := self._next(now_s, untried_only=True):
                self.router.budget.note_move(now_s)
                return Again(other, 0.0, "moved")
            if (other := self._left_out(kind, now_s)) and self.router.budget.take(now_s):
                return Again(other, 0.0, "moved")
        settings = self.router.settings
        if self._retries >= settings.retries(self.group, kind):
            return None
        pause_s = self.router.draw() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._retries)
        pause_s = max(pause_s, settings.retry_after_s)
        if self._next(now_s + pause_s, untried_only=False) in (None, failed):  # a `Retry-After` is about nobody else
            asked_s = fault.retry_after_s or 0.0
            if asked_s > MAX_RETRY_AFTER_S:
                return None
            pause_s = max(pause_s, asked_s)
        if now_s + pause_s >= deadline_s or not self.router.budget.take(now_s):
            return None
        self._retries += 1
        return Again(self._next(now_s + pause_s, untried_only=False) or failed, pause_s, "repeated")

    def _again_elsewhere(self, kind: FaultKind, now_s: float) -> Again | None:
        """Go on with the next group that is a fallback, and has deployments."""
        settings = self.router.settings
        for name in settings.fallbacks_of(self.group, kind):
            if name not in self._fallbacks and name not in self._groups_asked:
                self._fallbacks.append(name)
        while self._fallbacks and len(self._groups_asked) <= settings.max_fallbacks:
            name = self._fallbacks.pop(0)
            self._groups_asked.append(name)
            if candidates := self.group_of(name):
                self.group, self._candidates, self._retries = name, candidates, 0
                return Again(self._next(now_s, untried_only=False) or self._first(now_s), 0.0, "fallback")
        return None

    def _next(self, now_s: float, *, untried_only: bool) -> Candidate | None:
        """Return the first candidate that is ready."""
        health = self.router.health
        return next(
            (
                one
                for one in self.router.ordered(self._candidates, self._conversation, now_s)
                if health[one.deployment.id].is_ready(now_s) and not (untried_only and one.deployment.id in self._asked)
            ),
            None,
        )

    def _left_out(self, kind: FaultKind, now_s: float) -> Candidate | None:
        """Return the first candidate that was not asked because it is ejected, if there is no fallback to go on with.

        It may be back since then, and those that were thought healthy have failed.
        """
        if self._fallbacks or self.router.settings.fallbacks_of(self.group, kind):
            return None
        ordered = self.router.ordered(self._candidates, self._conversation, now_s)
        return next((one for one in ordered if one.deployment.id not in self._asked), None)

    def _first(self, now_s: float) -> Candidate:
        return self.router.ordered(self._candidates, self._conversation, now_s)[0]

    def _ask(self, candidate: Candidate, now_s: float) -> Candidate:
        self.candidate = candidate
        self._asked.add(candidate.deployment.id)
        self._since_s = now_s
        self._is_probe = self.router.health_of(candidate).begin(now_s)
        return candidate


ROUTE: Slot[Route] = Slot("route")
"""Filled by choose_deployment: the request's way through the deployments that may answer it."""
