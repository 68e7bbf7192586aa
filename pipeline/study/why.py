"""Why one request took long: the party, the stage or the other request that cost it most, with the figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from pipeline.study.parts import PartKind, PartyName, TimePart, failed_attempts, lost_ms, parts_of
from pipeline.study.path import PathStep, path_of
from pipeline.study.peers import Peers
from pipeline.study.records import RecordedRequest, RecordedStall
from pipeline.study.tables import ms_text

CulpritKind = Literal[
    "upload", "delay", "reading", "overload", "blocked_loop", "stage", "pause", "attempts", "pool", "resolve",
    "connect", "secure", "head", "first_token", "tokens", "slow_deployment", "unknown",
]  # fmt: skip

LATE_S: Final = 1.1
"""A log line of a stall may be so much later than its end: they were once written once a second."""
UNUSUAL: Final = 0.2
"""A request is compared with others of its model if at least this share of its time is more than they take."""
UNUSUAL_MS: Final = 20.0
SLOWER: Final = 2.0
"""A deployment is slow if it takes so many times as long as the others of the model."""
EXPLAINED: Final = 0.5
"""Stalls, or waits of lanes and batches that were noticed, explain a wait for the loop if they cover this share."""
LIKE_OTHERS: Final = 3.0
"""A first token that takes up to so many times as long as the others on average is one of them."""

_BEFORE_FIRST_TOKEN: Final = frozenset(
    {
        "upload",
        "delay",
        "overload",
        "attempts",
        "pool",
        "resolve",
        "connect",
        "secure",
        "head",
        "first_token",
        "slow_deployment",
    }
)


class Culprit(Struct, kw_only=True, omit_defaults=True):
    """What cost a request most.

    Attributes:
        kind: what it was; ``overload`` is a wait for its turn or for a loop that no single stage held.
        party: whose time it was.
        ms: how much.
        usual_ms: how much it is for others of the same model, if that was compared.
        stage: the stage that worked, waited or held the loop.
        request_id: the request whose stage held the loop.
        deployment: of the upstream, if it was that.
    """

    kind: CulpritKind
    party: str
    ms: float
    usual_ms: float | None = None
    stage: str | None = None
    request_id: str | None = None
    deployment: str | None = None


class Explanation(Struct, kw_only=True):
    """Why a request took long.

    Attributes:
        request_id, model, deployment, end, total_ms, first_token_ms, party_ms: as in its record.
        culprit: what cost it most.
        sentence: the same for people.
        path: its phases.
        parts: the disjoint parts of its time, the longest first.
        stalls: for how many ms the loop was held during this request, by the stage and the request that held it.
    """

    request_id: str
    model: str | None
    deployment: str | None
    end: str
    total_ms: float
    first_token_ms: float | None
    party_ms: dict[str, float]
    culprit: Culprit
    sentence: str
    path: list[PathStep]
    parts: list[dict[str, str | float]]
    stalls: list[dict[str, str | float | None]]


class Held(NamedTuple):
    """For how long a stage of another request held the loop while a request was in flight."""

    stage: str | None
    request_id: str | None
    ms: float
    stalls: int
    unlogged: int


def explained(
    request: RecordedRequest, stalls: Iterable[RecordedStall] = (), peers: Peers | None = None
) -> Explanation:
    """Return why a request took long.

    Args:
        request: the request.
        stalls: of its time, at least; those of other times and of other workers are ignored.
        peers: other requests, to tell what is unusual.
    """
    parts = parts_of(request)
    held = held_during(request, stalls)
    usual = None if peers is None else peers.usual(request)
    if usual is not None and request.total_ms - usual.total_ms < max(UNUSUAL_MS, UNUSUAL * request.total_ms):
        usual = None
    groups: defaultdict[str, list[TimePart]] = defaultdict(list)
    for part in parts:
        groups[f"stage {part.stage}" if part.stage else part.kind].append(part)
    if _is_a_token_like_others(request, parts):
        groups["tokens"] += groups.pop("first_token")

    def cost_ms(group: str) -> float:
        return sum(part.ms - (0.0 if usual is None else usual.parts.get(part.name, 0.0)) for part in groups[group])

    if groups:
        worst = max(groups, key=cost_ms)
        usual_ms = None if usual is None else sum(usual.parts.get(part.name, 0.0) for part in groups[worst])
        culprit, what = _culprit(request, groups[worst], usual_ms, held, peers)
        sentence = _sentence(request, culprit, what, parts)
    else:
        culprit = Culprit(kind="unknown", party="", ms=0.0)
        sentence = "The record does not say where its time went."
    if request.end != "OK":
        sentence += f" It ended with {request.end}" + (f" ({request.error})." if request.error else ".")
    culprit.ms = round(culprit.ms, 3)
    if culprit.usual_ms is not None:
        culprit.usual_ms = round(culprit.usual_ms, 3)
    return Explanation(
        request_id=request.request_id,
        model=request.model,
        deployment=request.deployment,
        end=request.end,
        total_ms=request.total_ms,
        first_token_ms=request.first_token_ms,
        party_ms=request.party_ms,
        culprit=culprit,
        sentence=sentence,
        path=path_of(request),
        parts=[
            {"kind": part.name, "party": part.party, "ms": round(part.ms, 3)}
            for part in sorted(parts, key=lambda part: -part.ms)
        ],
        stalls=[{"stage": one.stage, "request_id": one.request_id, "ms": round(one.ms, 3)} for one in held],
    )


def _is_a_token_like_others(request: RecordedRequest, parts: list[TimePart]) -> bool:
    """Return whether the first token came as fast as the others: then what is said of them is true of it, too."""
    ms = {part.kind: part.ms for part in parts}
    return "tokens" in ms and 0 < ms.get("first_token", 0.0) <= LIKE_OTHERS * ms["tokens"] / max(1, request.events - 1)


def held_during(request: RecordedRequest, stalls: Iterable[RecordedStall]) -> list[Held]:
    """Return for how long others held the loop while a request was in flight, the longest first."""
    began_s, ended_s = request.began_s, request.ended_s
    if began_s is None or ended_s is None:
        return []
    found: defaultdict[tuple[str | None, str | None], list[tuple[float, int]]] = defaultdict(list)
    late: defaultdict[tuple[str | None, str | None], list[tuple[float, int]]] = defaultdict(list)
    for stall in stalls:
        at_s = stall.ended_s
        is_own = stall.request_id is not None and stall.request_id == request.request_id
        if at_s is None or is_own or stall.worker != request.worker:
            continue
        overlap_ms = (min(at_s, ended_s) - max(at_s - stall.ms / 1000, began_s)) * 1000
        # Times have whole ms, so that what covers all of a request can seem to miss a part of it.
        if overlap_ms > 1:
            found[stall.stage, stall.request_id].append((min(stall.ms, overlap_ms), stall.unlogged))
        elif began_s < at_s <= ended_s + LATE_S:
            late[stall.stage, stall.request_id].append((min(stall.ms, request.total_ms), stall.unlogged))
    held = [
        Held(stage, request_id, sum(ms for ms, _ in them), len(them), sum(more for _, more in them))
        for (stage, request_id), them in (found or late).items()
    ]
    return sorted(held, key=lambda one: -one.ms)


def _culprit(
    request: RecordedRequest, group: list[TimePart], usual_ms: float | None, held: list[Held], peers: Peers | None
) -> tuple[Culprit, str]:
    """Return the culprit, and what it did, in words that follow "412 ms of 655 ms was"."""
    kind, party, ms = group[0].kind, group[0].party, sum(part.ms for part in group)
    made = Culprit(kind="unknown", party=party, ms=ms, usual_ms=usual_ms)
    if group[0].stage:
        made.kind, made.stage = "stage", group[0].stage
        return made, _stage_words(group)
    match kind:
        case "loop" | "queue":
            return made, _waited_words(request, made, kind, held)
        case "upload" | "delay" | "reading":
            made.kind = kind
            return made, f"the client's: {_CLIENT_WORDS[kind]}"
        case "pause":
            made.kind = "pause"
            return made, "ours: pauses before further attempts"
        case "work" | "wait":
            return made, "ours"
        case _:
            made.kind, made.deployment = kind, request.deployment
            return made, _upstream_words(request, made, kind, peers)


def _stage_words(group: list[TimePart]) -> str:
    work_ms = sum(part.ms for part in group if part.kind == "work")
    wait_ms = sum(part.ms for part in group if part.kind == "wait")
    if work_ms >= wait_ms:
        also = f", and waited {ms_text(wait_ms)} for something of its own" if wait_ms >= 0.1 * work_ms else ""
        return f"ours: the stage {group[0].stage} worked {ms_text(work_ms)}{also}"
    also = f", and worked {ms_text(work_ms)}" if work_ms >= 0.1 * wait_ms else ""
    return f"ours: the stage {group[0].stage} waited {ms_text(wait_ms)} for something of its own{also}"


_CLIENT_WORDS: Final[dict[str, str]] = {
    "upload": "it sent its request slowly",
    "delay": "its key was wrong, as several before it, so that the answer was delayed",
    "reading": "it read slowly",
}


def _noticed_ms(request: RecordedRequest) -> float:
    """Return for how long something of a request was seen to wait for the loop: itself, a task, or a batch."""
    lanes = [request.lanes, *[attempt.lanes for attempt in request.attempts]]
    links = [request.links, *[attempt.links for attempt in request.attempts]]
    lanes_ms = sum(lane.ready_ms for them in lanes for lane in them.values())
    links_ms = sum(link.ready_ms for them in links for link in them.values())
    return (request.before_ms or 0.0) + max(lanes_ms, links_ms)


def _waited_words(request: RecordedRequest, made: Culprit, kind: PartKind, held: list[Held]) -> str:
    if kind == "queue":
        made.kind = "overload"
        return "ours: it waited for its turn (max_requests_in_flight), so headrace is overloaded"
    held_ms = sum(one.ms for one in held)
    unlogged = sum(one.unlogged for one in held)
    if not held or (held_ms < EXPLAINED * made.ms and not unlogged):
        if _noticed_ms(request) < EXPLAINED * made.ms:
            return "ours, but no stage worked or waited for so long: the record does not say what took it"
        made.kind = "overload"
        return "ours: it waited for the loop, which was busy with many small turns, so headrace is overloaded"
    made.kind, made.stage, made.request_id = "blocked_loop", held[0].stage, held[0].request_id
    if held_ms >= EXPLAINED * made.ms:  # else most of it was in stalls that were not logged
        made.ms = held_ms
    stalls = sum(one.stalls for one in held)
    times = f" in {stalls} stalls" if stalls > 1 else ""
    times += f", as did {_stalls(unlogged)} not logged" if unlogged else ""
    if held[0].stage is None:
        return f"ours: the loop was held{times}, by no single stage (many small turns, or a collection of garbage)"
    others = f" (and {len(held) - 1} others)" if len(held) > 1 else ""
    return f"ours: the stage {held[0].stage} of request {held[0].request_id}{others} held the loop{times}"


def _stalls(count: int) -> str:
    return "1 shorter stall that was" if count == 1 else f"{count} shorter stalls that were"


_GIVEN_UP: Final = "given_up"
_UPSTREAM_WORDS: Final[dict[str, str]] = {
    "attempts": "in attempts that failed",
    "pool": "waiting for a free connection of the pool",
    "resolve": "looking up its address",
    "connect": "connecting to it",
    "secure": "in its TLS handshake",
    "head": "between the request being sent and the head of its answer",
    "first_token": "between the head of its answer and its first token",
    "tokens": "waiting for its tokens",
}


def _upstream_words(request: RecordedRequest, made: Culprit, kind: PartKind, peers: Peers | None) -> str:
    where = _UPSTREAM_WORDS.get(kind, "")
    if kind == "attempts":
        lost = failed_attempts(request)
        made.deployment = max(lost, key=lambda one: lost_ms(request, one)).deployment
        failed = ", ".join(f"{one.deployment} {one.end}" for one in lost if one.end != _GIVEN_UP)
        given_up = ", ".join(str(one.deployment) for one in lost if one.end == _GIVEN_UP)
        words = [f"{where} ({failed})"] if failed else []
        words += [f"in attempts that were given up ({given_up})"] if given_up else []
        return f"the upstream's, {' and '.join(words)}"
    others = None if peers is None else peers.elsewhere(request)
    here = None if peers is None else peers.here(request)
    if others is not None and kind in ("connect", "secure", "head", "first_token", "tokens"):
        others_ms = others.parts.get(kind, 0.0)
        here_ms = made.ms if here is None else min(made.ms, here.parts.get(kind, 0.0))
        if here_ms > SLOWER * others_ms:
            made.kind, made.usual_ms = "slow_deployment", others_ms
            return (
                f"the upstream's: deployment {request.deployment} took so long {where}, and others of this model "
                f"{ms_text(others_ms)}"
            )
    if kind == "tokens" and request.events > 1:
        where += f" ({request.events} events, {ms_text(made.ms / request.events)} each)"
    return f"the upstream's (deployment {request.deployment}), {where}"


def _sentence(request: RecordedRequest, culprit: Culprit, what: str, parts: list[TimePart]) -> str:
    window_ms, until = request.total_ms, "in total"
    first_ms = request.first_token_ms
    named: dict[PartyName, float] = {"client": 0.0, "ours": 0.0, "upstream": 0.0}
    for part in parts:
        named[part.party] += part.ms
    if first_ms is not None and culprit.kind in _BEFORE_FIRST_TOKEN and culprit.ms <= first_ms:
        early = {part.kind: part.ms for part in parts if part.kind in _BEFORE_FIRST_TOKEN or part.kind == "loop"}
        window_ms, until = first_ms, "until the first token"
        named["client"] = early.get("upload", 0.0)
        named["upstream"] = sum(part.ms for part in parts if part.party == "upstream" and part.kind != "tokens")
        named["ours"] = max(0.0, first_ms - named["client"] - named["upstream"])
    others = [f"{who} {ms_text(ms)}" for who, ms in named.items() if who != culprit.party]
    if culprit.party == "ours" and (rest_ms := named["ours"] - culprit.ms) > 0:
        others.insert(0, f"the rest of ours {ms_text(rest_ms)}")
    usual = ""
    if culprit.usual_ms is not None and culprit.kind != "slow_deployment":
        usual = f" (usually {ms_text(culprit.usual_ms)})"
    return f"{ms_text(culprit.ms)} of {ms_text(window_ms)} {until} was {what}{usual}; {', '.join(others)}."
