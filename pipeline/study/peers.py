"""What is usual: the parts of the time of other requests of the same recording, to compare one with."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Final, NamedTuple

from pipeline.study.parts import parts_of
from pipeline.study.records import RecordedRequest

MOST_PEERS: Final = 400
"""So many requests of a deployment are kept, chosen at random: a median needs no more."""
ENOUGH: Final = 5
"""Fewer are not compared with: the median of four says little."""


class PeerRequest(NamedTuple):
    """What is kept of a request.

    Attributes:
        request_id: its id.
        total_ms: how long it took.
        parts: the parts of its time, by name.
    """

    request_id: str
    total_ms: float
    parts: Mapping[str, float]


class Peers:
    """Requests by the name of their model, whether they stream, and their deployment."""

    def __init__(self) -> None:
        self._of: dict[tuple[str | None, bool | None], dict[str | None, list[PeerRequest]]] = defaultdict(dict)
        self._seen: dict[tuple[str | None, bool | None, str | None], int] = defaultdict(int)
        self._random = random.Random(0)

    def add(self, request: RecordedRequest) -> None:
        """Keep a request that ended well, in bounded memory."""
        if request.end != "OK":
            return
        peer = PeerRequest(request.request_id, request.total_ms, {part.name: part.ms for part in parts_of(request)})
        kept = self._of[request.model, request.stream].setdefault(request.deployment, [])
        key = (request.model, request.stream, request.deployment)
        self._seen[key] += 1
        if len(kept) < MOST_PEERS:
            kept.append(peer)
        elif (at := self._random.randrange(self._seen[key])) < MOST_PEERS:
            kept[at] = peer

    def usual(self, request: RecordedRequest) -> PeerRequest | None:
        """Return the medians of the other requests of the same model; None if there are too few."""
        groups = self._of.get((request.model, request.stream), {})
        return _medians([peer for kept in groups.values() for peer in kept if peer.request_id != request.request_id])

    def elsewhere(self, request: RecordedRequest) -> PeerRequest | None:
        """Return the medians of the requests of the same model at other deployments; None if there are too few."""
        groups = self._of.get((request.model, request.stream), {})
        return _medians([peer for id, kept in groups.items() if id != request.deployment for peer in kept])

    def here(self, request: RecordedRequest) -> PeerRequest | None:
        """Return the medians of the other requests of the same model at the same deployment; None if too few."""
        kept = self._of.get((request.model, request.stream), {}).get(request.deployment, [])
        return _medians([peer for peer in kept if peer.request_id != request.request_id])


def _medians(peers: list[PeerRequest]) -> PeerRequest | None:
    if len(peers) < ENOUGH:
        return None
    names = {name for peer in peers for name in peer.parts}
    parts = {name: median(peer.parts.get(name, 0.0) for peer in peers) for name in names}
    return PeerRequest("", median(peer.total_ms for peer in peers), parts)
