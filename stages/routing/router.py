"""All routing of one process, and one request's way through it."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from pipeline import ClientFault, Overloaded, PipelineError, Slot, UpstreamFault
from stages.admission.quota import Quota
from stages.admission.refusals import RateLimited
from stages.events import Usage
from stages.routing.affinity import score
from stages.routing.budget import RetryBudget
from stages.routing.faults import MOVED, FaultKind, kind_of, says_route_exists
from stages.routing.health import MAX_RETRY_AFTER_S, Change, Health
from stages.routing.places import Places
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Reason, UpstreamCall
from stages.upstreams.unknown_route import is_unknown_route, with_remedy

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
        return UpstreamCall(
            request=call.request, deployment=self.deployment, model=self.model, deadline_s=call.deadline_s
        )


class Again(Struct, frozen=True):
    """What to do after a failure: ask ``candidate`` after a pause."""

    candidate: Candidate
    pause_s: float
    reason: Reason

    def called(self, call: UpstreamCall) -> UpstreamCall:
        """Return the call as it is to be made now."""
        return replace(self.candidate.called(call), pause_s=self.pause_s, reason=self.reason)


HealthNote = Literal["ejected", "asked_anyway", "probed", "newly_ejected", "full"]
"""What the health of deployments has done to a request: one was left out in its turn; one was asked although it is
ejected, because none was ready; this request was the one that tries it; its failure ejected it; one was left out
because it had reached a limit."""

GroupOf = Callable[[str], Sequence[Candidate] | None]
"""Returns the candidates for a name, as a fallback names them; None if it has none."""


class Router:
    """What one process knows of its deployments.

    Args:
        settings: what the operator wants.
        deployments: all of them.
        draw: returns a number from 0 to 1, for pauses.
        on_change: called when a deployment was ejected, and when it is back.

    Attributes:
        keeps: whether `keep` has to be told who has answered.
        asked_by_chat: the ids of the deployments that are known to have Chat Completions, and not the API that they
            were asked by first.
        on_chat_only: called once for each of them, when that becomes known.
        quotas: what the deployments that have limits may be given, by id.
    """

    def __init__(
        self,
        settings: RoutingSettings,
        deployments: Iterable[Deployment],
        *,
        draw: Callable[[], float] = random.random,
        on_change: Callable[[Change], object] | None = None,
    ) -> None:
        self.settings = settings
        self.budget = RetryBudget()
        self._deployments = {deployment.id: deployment for deployment in deployments}
        self.health = {id: Health(settings) for id in self._deployments}
        self.draw = draw
        self._on_change = on_change
        self.asked_by_chat: set[str] = set()
        self.on_chat_only: Callable[[Deployment], object] = lambda deployment: None
        self.quotas: Mapping[str, Quota] = {}
        self.keeps = settings.strategy != "simple-shuffle"
        self._sticky: OrderedDict[tuple[str, str], str] = OrderedDict()  # by group and conversation

    def take_over(self, before: Router) -> None:
        """Go on with what the router of another configuration knows, of deployments that are asked as before.

        What both learn from now on of these, of conversations and of repetitions, both know. Only which servers have
        Chat Completions alone each learns for itself.
        """
        for id, own in self._deployments.items():
            known = before._deployments.get(id)
            if known is not None and _is_asked_as(own, known):
                health = self.health[id] = before.health[id]
                health.follow(self.settings)
                if id in before.asked_by_chat:
                    self.asked_by_chat.add(id)
        self.budget, self._sticky, self.draw = before.budget, before._sticky, before.draw

    def ordered(self, candidates: Sequence[Candidate], conversation: str) -> Sequence[Candidate]:
        """Return the candidates in the order in which they are to be asked: those of the lowest ``order`` first."""
        if self.settings.strategy == "simple-shuffle":
            return sorted(candidates, key=lambda one: (one.deployment.order, -_score(one, conversation)))
        chosen = self._sticky.get((candidates[0].deployment.model_name, conversation))
        return sorted(
            candidates,
            key=lambda one: (
                one.deployment.order,
                one.deployment.id != chosen,
                self._cost(one, candidates),
                -_score(one, conversation),
            ),
        )

    def health_of(self, candidate: Candidate) -> Health:
        """Return what is known of a deployment, perhaps of one that a plugin has made."""
        if (found := self.health.get(candidate.deployment.id)) is None:
            found = self.health[candidate.deployment.id] = Health(self.settings)
        return found

    def note_return(self, candidate: Candidate, now_s: float) -> None:
        """Note that an answer has ended the ejection of a deployment (`Health.answered`)."""
        if self._on_change is not None:
            self._on_change(Change(candidate.deployment.id, now_s))

    def note_failure(self, candidate: Candidate, fault: PipelineError, now_s: float, asked_s: float) -> bool:
        """Note that a deployment has failed; return whether that ejected it."""
        kind = kind_of(fault)
        if kind == "not_found" and "*" in candidate.deployment.model:
            return False  # a client may ask a wildcard for what it wants
        health = self.health_of(candidate)
        if not health.failed(now_s, kind, fault.retry_after_s, asked_s=asked_s):
            return False
        if self._on_change is not None:
            cooldown_s = (health.ejected_until_s or now_s) - now_s
            self._on_change(Change(candidate.deployment.id, now_s, fault.code, cooldown_s, health.ejections))
        return True

    def known_form(self, candidate: Candidate) -> Candidate:
        """Return the candidate as it is to be asked, by all that is known of its server."""
        on_chat = candidate.deployment.on_chat
        is_known = on_chat is not None and on_chat.id in self.asked_by_chat
        return Candidate(on_chat, candidate.model) if on_chat is not None and is_known else candidate

    def keep(self, conversation: str, deployment: Deployment) -> None:
        """Remember which deployment has answered a conversation, because the strategy does not say it by itself."""
        key = deployment.model_name, conversation
        self._sticky[key] = deployment.id
        self._sticky.move_to_end(key)
        if len(self._sticky) > MAX_STICKY:
            self._sticky.popitem(last=False)

    def note_chat_only(self, deployment: Deployment) -> None:
        """Remember that a deployment has answered by Chat Completions, after it did not know the other API."""
        if deployment.id not in self.asked_by_chat:
            self.asked_by_chat.add(deployment.id)
            self.on_chat_only(deployment)

    def _cost(self, candidate: Candidate, candidates: Sequence[Candidate]) -> float:
        health = self.health[candidate.deployment.id]
        if self.settings.strategy == "least-busy":
            return health.in_flight / (candidate.deployment.weight or 1e-9)
        if health.latency_s is None:
            return 0.0  # it is not known yet: it will be, once it is asked
        known = [found for one in candidates if (found := self.health[one.deployment.id].latency_s) is not None]
        return 0.0 if health.latency_s <= min(known) * (1 + self.settings.latency_buffer) else health.latency_s


def _is_asked_as(one: Deployment, other: Deployment) -> bool:
    """Return whether both are the same model of the same server with the same key."""
    return (one.kind, one.url, one.headers, one.token, one.model, one.provider, one.transport) == (
        (other.kind, other.url, other.headers, other.token, other.model, other.provider, other.transport)
    )


def _score(candidate: Candidate, conversation: str) -> float:
    return score(conversation, candidate.deployment.id, candidate.deployment.weight)


class Route:
    """One request's way through the deployments.

    It is asked for a candidate first (`begin`), then told what became of each: `answered`, or `failed`, which says whom
    to ask next. `end` belongs behind the last of them, in whatever way the request ends.

    Args:
        router: what is known of all.
        group: the name that was asked for, as fallbacks and policies name it.
        candidates: who may answer; at least one, unless `go_elsewhere` comes before `begin`.
        name_of: returns the name of its conversation; it is asked if there are several candidates.
        group_of: finds the groups of fallbacks.
        size_of: returns an estimate of the tokens of its prompt; it is asked if a deployment limits them.

    Attributes:
        candidate: who is asked; None if nobody is.
        has_answered: whether it has begun to answer.
        notes: what the health of which deployments has done to it; None if that was nothing.
        by_chat: the failures of the deployments that do not know the API that they were asked by, by id. They are asked
            by Chat Completions, which is neither a failure of theirs nor a repetition.
    """

    __slots__ = (
        "_asked",
        "_candidates",
        "_fallbacks",
        "_first_fault",
        "_groups_asked",
        "_health",
        "_is_named",
        "_is_probe",
        "_name",
        "_name_of",
        "_own",
        "_places",
        "_retries",
        "_since_s",
        "_told",
        "by_chat",
        "candidate",
        "group",
        "group_of",
        "has_answered",
        "notes",
        "router",
    )

    def __init__(
        self,
        router: Router,
        group: str,
        candidates: Sequence[Candidate],
        name_of: Callable[[], str],
        group_of: GroupOf,
        size_of: Callable[[], int] = lambda: 0,
    ) -> None:
        self.router = router
        self.group: str = group
        self.group_of = group_of
        self.candidate: Candidate | None = None
        self._health: Health | None = None  # the candidate's
        self.notes: dict[HealthNote, list[str]] | None = None
        self._name_of = name_of
        self._name: str | None = None
        self._candidates = candidates
        self._asked: dict[str, int] = {}  # how often, by id
        self.by_chat: dict[str, UpstreamFault] = {}
        self._told: UpstreamFault | None = None
        self._first_fault: PipelineError | None = None  # of the group that was asked for, once a fallback is asked
        self._retries = 0
        self._fallbacks: list[str] = []
        self._groups_asked = [group]
        self._is_named = False
        self._own = ""
        self._is_probe = False
        self._since_s = 0.0
        self.has_answered = False
        self._places = Places(router.quotas, size_of) if router.quotas else None

    @property
    def has_candidates(self) -> bool:
        """Whether anybody of the group can be asked."""
        return bool(self._candidates)

    def begin(self, now_s: float) -> Candidate:
        """Return whom to ask first. If all are ejected it is the first of them: a cool-down must not refuse anybody.

        Raises:
            RateLimited: if all have reached their limits, and those of the fallbacks too.
        """
        self.router.budget.note_request(now_s)
        own = self._ask(self._any_of_group(now_s) or self._elsewhere(now_s), now_s)
        self._own = own.deployment.id
        return own

    def hand_over(self) -> None:
        """Ask nobody: what is around the call does, and each of its calls has a way of its own (`from_candidate`)."""
        self._leave(keeps_place=True)
        self._asked.clear()

    def others(self, now_s: float) -> list[Candidate]:
        """Return the healthy ones of the group that this request has not asked, in the order in which it would."""
        health = self.router.health
        return [
            one
            for one in self._ordered()
            if (id := one.deployment.id) != self._own and id not in self._asked and health[id].is_ready(now_s)
            if self._places is None or self._places.has_room(id)
        ]

    def from_candidate(self, candidate: Candidate, now_s: float) -> Route:
        """Return a way of its own for a call of something around it.

        If that has named another ``candidate`` than the request's own, nobody else is asked: it has chosen. All ways of
        one request know whom the others have asked.

        Raises:
            RateLimited: if the named candidate has reached its limits, or all have.
        """
        route = Route(self.router, self.group, self._candidates, self._name_of, self.group_of)
        route._name = self._name
        route.notes = self.notes = self.notes or {}
        route._asked = self._asked
        route._is_named = candidate.deployment.id != self._own
        if self._places is not None:
            route._places = self._places.passed_on()
        return route._begin_with(candidate, now_s)

    def answered(self, now_s: float) -> None:
        """Note that the candidate has begun to answer."""
        if (candidate := self.candidate) is not None and (health := self._health) is not None:
            self.has_answered = True
            if health.answered(now_s, self._since_s):
                self.router.note_return(candidate, now_s)
            if self._is_probe:
                self._end_probe()
            if self.by_chat:
                self._note_by_chat(candidate)
            if self.router.keeps and len(self._candidates) > 1:
                self.router.keep(self._conversation, candidate.deployment)

    def broke_off(self, fault: PipelineError, now_s: float, by: Deployment) -> None:
        """Note that the answer of a deployment has failed after it had begun."""
        self._note_failure(Candidate(by, by.model), fault, now_s)

    def failed(self, fault: PipelineError, now_s: float, *, deadline_s: float) -> Again | None:
        """Note that the candidate has failed before it said anything, and return what to do; None to give up.

        Args:
            fault: what it has failed with.
            now_s: the time.
            deadline_s: when the request ends in any case: nobody is asked from then on.
        """
        candidate = self.candidate
        assert candidate is not None  # it was asked
        kind = kind_of(fault)
        if isinstance(fault, ClientFault):  # it was not sent: only a fallback may have no form for what the model takes
            if len(self._groups_asked) == 1:
                return None
            self._leave()
            again = self.go_elsewhere(kind, now_s)
            return None if again is None else replace(again, candidate=self._ask(again.candidate, now_s))
        is_over = now_s >= deadline_s
        if candidate.deployment.on_chat is not None and is_unknown_route(fault) and not is_over:
            self._leave(keeps_place=True)  # it is the same request
            self.by_chat[candidate.deployment.id] = with_remedy(
                fault, "/responses was tried, then /chat/completions: check api_base"
            )
            self._asked[candidate.deployment.id] -= 1
            return Again(self._ask(candidate, now_s), 0.0, "by_chat")
        # A shortage of our own says nothing about the deployment, nor does what others have left it of the time.
        if not (isinstance(fault, Overloaded) or (is_over and (self.has_answered or len(self._asked) > 1))):
            self._note_failure(candidate, fault, now_s)
        self._note_of_chat(candidate, fault, kind)
        self._leave()
        if is_over or self._is_named:
            return None
        again = self._again_in_group(candidate, fault, kind, now_s, deadline_s) or self.go_elsewhere(kind, now_s)
        if again is None:
            return None
        if again.reason == "fallback" and self._first_fault is None:
            self._first_fault = fault if self._told is None else self._told
        return replace(again, candidate=self._ask(again.candidate, now_s + again.pause_s))

    def told(self, fault: PipelineError) -> PipelineError:
        """Return what the client is told if nobody else is asked: what the model that it asked for has failed with."""
        told = self._first_fault or self._told or fault
        self._forget_faults()
        return told

    def _forget_faults(self) -> None:
        """Let go of what was raised: it holds the frames that hold this."""
        self._first_fault = self._told = None
        self.by_chat.clear()

    def _note_by_chat(self, candidate: Candidate) -> None:
        """Note that the candidate answers, so that it is always asked in this way if it was asked in another first."""
        if candidate.deployment.id in self.by_chat:
            self.router.note_chat_only(candidate.deployment)

    def end(self, usage: Usage | None = None) -> None:
        """Note that nobody is asked any more; ``usage`` is what the last one has used, if that is known."""
        self._leave(usage)
        if self.by_chat or self._told is not None or self._first_fault is not None:
            self._forget_faults()

    def _leave(self, usage: Usage | None = None, *, keeps_place: bool = False) -> None:
        if (places := self._places) is not None and not keeps_place:
            if self._health is None:
                places.undo()  # it was handed over, and nobody has taken it
            else:
                places.end(usage, has_answered=self.has_answered)
        if (health := self._health) is not None:
            if self._is_probe:
                self._end_probe()
            health.end()
            self.candidate = self._health = None

    def _end_probe(self) -> None:
        if self._is_probe and self._health is not None:
            self._is_probe = False
            self._health.end_probe()

    def _note_of_chat(self, candidate: Candidate, fault: PipelineError, kind: FaultKind) -> None:
        """Conclude from a failure whether the server has Chat Completions, if it was asked by that second."""
        first = self.by_chat.get(candidate.deployment.id) if self.by_chat else None
        self._told = first if first is not None and is_unknown_route(fault) else None
        if first is not None and self._told is None and says_route_exists(fault, kind):
            self.router.note_chat_only(candidate.deployment)

    def _again_in_group(
        self, failed: Candidate, fault: PipelineError, kind: FaultKind, now_s: float, deadline_s: float
    ) -> Again | None:
        if kind in MOVED or isinstance(fault, Overloaded):
            if other := self._next(now_s, untried_only=True):
                self.router.budget.note_move(now_s)
                return Again(other, 0.0, "moved")
            if (other := self._left_out(kind, now_s)) and self.router.budget.take(now_s) and self._has_place(other):
                self._note("asked_anyway", other)
                return Again(other, 0.0, "moved")
        drawn_s = self.router.draw() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._retries)
        pause_s = max(drawn_s, self.router.settings.retry_after_s)
        candidate = self._again(failed, kind, now_s + pause_s)
        if candidate is None:
            return None
        is_same = candidate.deployment.id == failed.deployment.id
        asked_s = (fault.retry_after_s or 0.0) if is_same else self._retry_at_s(candidate) - now_s
        pause_s = max(pause_s, asked_s)
        if asked_s > MAX_RETRY_AFTER_S or now_s + pause_s >= deadline_s or not self.router.budget.take(now_s):
            return None
        if not self._has_place(candidate):
            return None
        self._retries += 1
        if not self.router.health_of(candidate).is_ready(now_s + pause_s):
            self._note("asked_anyway", candidate)
        return Again(candidate, pause_s, "repeated")

    def _again(self, failed: Candidate, kind: FaultKind, at_s: float) -> Candidate | None:
        """Return who may be asked again at a time: who is ready then, else who wants to be asked the soonest."""
        ordered = self._ordered()
        left = [one for one in ordered if self._may_repeat(one.deployment, kind)]
        if (places := self._places) is not None:
            left = [one for one in left if places.has_room(one.deployment.id)]
        health = self.router.health
        ready = (one for one in left if health[one.deployment.id].is_ready(at_s) and self._retry_at_s(one) <= at_s)
        return next(ready, None) or min(
            left,
            key=lambda one: (max(self._retry_at_s(one), at_s), one.deployment.id != failed.deployment.id),
            default=None,
        )

    def _may_repeat(self, deployment: Deployment, kind: FaultKind) -> bool:
        """Return whether the request may be sent to a deployment again, or late if that was ejected before."""
        retries, asked = self.router.settings.retries, self._asked.get(deployment.id, 0)
        if deployment.max_retries is None or not asked:
            return self._retries < retries(self.group, kind)
        return asked - 1 < retries(self.group, kind, deployment.max_retries)

    def _retry_at_s(self, candidate: Candidate) -> float:
        return self.router.health_of(candidate).retry_at_s

    def go_elsewhere(self, kind: FaultKind, now_s: float) -> Again | None:
        """Go on with the next group that is a fallback, and has deployments; return whom to ask there.

        It may be called before `begin`, if nobody of the first group can be asked.
        """
        settings = self.router.settings
        for name in settings.fallbacks_of(self.group, kind):
            if name not in self._fallbacks and name not in self._groups_asked:
                self._fallbacks.append(name)
        while self._fallbacks and len(self._groups_asked) <= settings.max_fallbacks:
            name = self._fallbacks.pop(0)
            self._groups_asked.append(name)
            if candidates := self.group_of(name):
                self.group, self._candidates, self._retries = name, candidates, 0
                if candidate := self._any_of_group(now_s):
                    return Again(candidate, 0.0, "fallback")
        return None

    def _elsewhere(self, now_s: float) -> Candidate:
        """Return whom to ask of the fallbacks, because the group has reached its limits."""
        if (again := self.go_elsewhere("rate_limit", now_s)) is None:
            raise self._refusal()
        return again.candidate

    def refusal(self) -> RateLimited | None:
        """Return what a request is refused with that had nobody to ask because of limits; None if they were not it."""
        return None if self._places is None else self._places.refusal(self._groups_asked[0])

    def _refusal(self) -> RateLimited:
        refusal = self.refusal()
        assert refusal is not None  # else somebody had been asked
        return refusal

    def _any_of_group(self, now_s: float) -> Candidate | None:
        """Return whom to ask of the group; None if all have reached their limits."""
        return self._next(now_s, untried_only=False) or self._first(now_s)

    def _begin_with(self, candidate: Candidate, now_s: float) -> Route:
        """Ask a candidate that something around the call asks for, or whom routing prefers to it."""
        is_ready = self._is_named or self.router.health_of(candidate).is_ready(now_s)
        if is_ready and self._has_place(candidate):
            chosen = candidate
        elif self._is_named:
            raise self._refusal()
        elif other := self._next(now_s, untried_only=False):
            chosen = other
        elif not is_ready and self._has_place(candidate):
            chosen = candidate
        else:
            chosen = self._elsewhere(now_s)
        self._ask(chosen, now_s)
        return self

    @property
    def _conversation(self) -> str:
        if self._name is None:
            self._name = self._name_of()
        return self._name

    def _ordered(self) -> Sequence[Candidate]:
        """Return the candidates in their order; one needs none, and a conversation's name takes a hash."""
        candidates = self._candidates
        return candidates if len(candidates) == 1 else self.router.ordered(candidates, self._conversation)

    def _next(self, now_s: float, *, untried_only: bool) -> Candidate | None:
        """Return the first candidate that is ready."""
        health = self.router.health
        for one in self._ordered():
            if untried_only and one.deployment.id in self._asked:
                continue
            if not health[one.deployment.id].is_ready(now_s):
                self._note("ejected", one)
            elif self._has_place(one):
                return one
        return None

    def _has_place(self, candidate: Candidate) -> bool:
        """Take a place at a deployment for `_ask`, if it has limits; return whether it may be asked."""
        if self._places is None or self._places.take(candidate.deployment.id):
            return True
        self._note("full", candidate)
        return False

    def _left_out(self, kind: FaultKind, now_s: float) -> Candidate | None:
        """Return the first candidate that was not asked because it is ejected, if there is no fallback to go on with.

        It may be back since then, and those that were thought healthy have failed. One that has said until when it is
        not to be asked is left alone.
        """
        if self._fallbacks or self.router.settings.fallbacks_of(self.group, kind):
            return None
        ordered = self._ordered()
        left = (one for one in ordered if one.deployment.id not in self._asked and self._retry_at_s(one) <= now_s)
        return next(left, None)

    def _first(self, now_s: float) -> Candidate | None:
        """Return who of the group may be asked the soonest, although none is ready."""
        for one in sorted(self._ordered(), key=lambda one: max(self._retry_at_s(one), now_s)):  # the first of those
            if not self.router.health_of(one).is_ready(now_s) and self._has_place(one):
                self._note("asked_anyway", one)
                return one
        return None

    def _note(self, what: HealthNote, candidate: Candidate) -> None:
        if self.notes is None:
            self.notes = {}
        ids = self.notes.setdefault(what, [])
        if candidate.deployment.id not in ids:
            ids.append(candidate.deployment.id)

    def _note_failure(self, candidate: Candidate, fault: PipelineError, now_s: float) -> None:
        if self.router.note_failure(candidate, fault, now_s, self._since_s):
            self._note("newly_ejected", candidate)

    def _ask(self, candidate: Candidate, now_s: float) -> Candidate:
        if (on_chat := candidate.deployment.on_chat) is not None:
            is_by_chat = on_chat.id in self.by_chat
            candidate = Candidate(on_chat, candidate.model) if is_by_chat else self.router.known_form(candidate)
        self.candidate = candidate
        self._asked[candidate.deployment.id] = self._asked.get(candidate.deployment.id, 0) + 1
        self._since_s = now_s
        self.has_answered = False
        self._health = self.router.health_of(candidate)
        self._is_probe = self._health.begin(now_s)
        if self._is_probe:
            self._note("probed", candidate)
        return candidate


ROUTE: Slot[Route] = Slot("route")
"""Filled by choose_deployment: the request's way through the deployments that may answer it."""
