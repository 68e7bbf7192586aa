"""Which deployments are worth asking, from what has happened to them in this process.

Outlier ejection: a deployment that fails too often is left out for a while, each time for longer. After that it is half
open: one request tries it, and its first token decides.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Final, Literal

from msgspec import Struct

from stages.routing.faults import AT_ONCE, FaultKind
from stages.routing.settings import ALLOWED_FAILS, RoutingSettings

MINUTE_S: Final = 60.0
MAX_COOLDOWN_S: Final = 60.0
"""However often it has failed: one request a minute finds out that a deployment has come back."""
MAX_RETRY_AFTER_S: Final = 60.0
"""A longer `Retry-After` is taken for this."""
LEAST_REQUESTS: Final = 5
MAX_FAILURES_SHARE: Final = 0.5
"""LiteLLM's: a deployment that fails more often than every second time, of at least five, is ejected too."""
_KEPT: Final = 1000
"""So many outcomes of a deployment are counted at most: more in a minute do not change its share."""
_SMOOTHING: Final = 0.2

HealthState = Literal["healthy", "ejected", "half-open", "unknown"]
"""Half open: its ejection is over, and the next request tries it. Unknown: nothing has happened to it yet."""


class Change(Struct, frozen=True):
    """A deployment was ejected, or is back.

    Attributes:
        deployment_id: which one.
        at_s: when.
        code: what it has failed with; None if it is back.
        cooldown_s: how long it is left out.
        ejections: how often it was ejected, each time within a minute of its return.
    """

    deployment_id: str
    at_s: float
    code: str | None = None
    cooldown_s: float = 0.0
    ejections: int = 0


class Health:
    """What is known of one deployment.

    Attributes:
        in_flight: how many requests it is answering.
        latency_s: how long its answers take to begin, smoothed; None if none has.
        ejections: how often it was ejected, each time within a minute of its return.
        retry_at_s: when it wants to be asked again, by what its failures have said; not later than now if nothing.
    """

    __slots__ = (
        "_ejected_at_s",
        "_is_probed",
        "_outcomes",
        "_returned_at_s",
        "_settings",
        "_until_s",
        "ejections",
        "in_flight",
        "latency_s",
        "retry_at_s",
    )

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        self._outcomes: deque[tuple[float, FaultKind | None]] = deque(maxlen=_KEPT)
        self._until_s: float | None = None  # of its ejection
        self._ejected_at_s = self._returned_at_s = -math.inf
        self._is_probed = False
        self.in_flight = 0
        self.latency_s: float | None = None
        self.ejections = 0
        self.retry_at_s = 0.0

    def follow(self, settings: RoutingSettings) -> None:
        """Judge by other settings from now on; what is known stays."""
        self._settings = settings

    def is_ready(self, now_s: float) -> bool:
        """Whether it may be asked: it is not ejected, or its time is over and no other request tries it."""
        return self._until_s is None or (now_s >= self._until_s and not self._is_probed)

    @property
    def ejected_until_s(self) -> float | None:
        """When its ejection ends, or has ended without being tried; None if it is not ejected."""
        return self._until_s

    def begin(self, now_s: float) -> bool:
        """Note that it is asked; return whether this is the request that tries it."""
        self.in_flight += 1
        if self._until_s is None or now_s < self._until_s or self._is_probed:
            return False
        self._is_probed = True
        return True

    def end_probe(self) -> None:
        """Note that the request that tries it has been answered, or asks it no longer."""
        self._is_probed = False

    def end(self) -> None:
        """Note that a request asks it no longer, however that went."""
        self.in_flight -= 1

    def answered(self, now_s: float, asked_s: float, *, is_check: bool = False) -> bool:
        """Note that it has begun to answer.

        Args:
            now_s: when.
            asked_s: when it was asked. What was asked before it was ejected does not bring it back.
            is_check: whether this was the end of an answer to a check: how long that took does not count.

        Returns:
            Whether that ends an ejection.
        """
        is_back = self._until_s is not None and asked_s >= self._ejected_at_s
        if is_back:
            self._until_s = None
            self._returned_at_s = self.retry_at_s = now_s
            self._outcomes.clear()
        self._outcomes.append((now_s, None))
        if not is_check:
            latency_s, known = now_s - asked_s, self.latency_s
            self.latency_s = latency_s if known is None else known + _SMOOTHING * (latency_s - known)
        return is_back

    def failed(
        self, now_s: float, kind: FaultKind, retry_after_s: float | None = None, *, asked_s: float = math.inf
    ) -> bool:
        """Note that it has failed, and eject it if that was too often; return whether that was so.

        Args:
            now_s: when.
            kind: how.
            retry_after_s: how long it does not want to be asked.
            asked_s: when it was asked. What was asked before it was ejected does not eject it again.
        """
        self._outcomes.append((now_s, kind))
        self.retry_at_s = max(self.retry_at_s, now_s + (retry_after_s or 0.0))
        settings = self._settings
        if not settings.has_cooldowns or kind in ("bad_request", "content_policy", "context_window"):
            return False
        if self._until_s is not None and (now_s < self._until_s or asked_s < self._ejected_at_s):
            return False
        if self._until_s is None and not self._is_outlier(now_s, kind):
            return False
        if self._until_s is None and now_s - self._returned_at_s > MINUTE_S:
            self.ejections = 0
        longest_s = max(MAX_COOLDOWN_S, settings.cooldown_s)
        cooldown_s = min(settings.cooldown_s * 2.0 ** min(self.ejections, 16), longest_s)
        cooldown_s = max(cooldown_s, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))
        if not cooldown_s:
            return False
        self._ejected_at_s, self._until_s = now_s, now_s + cooldown_s
        self.ejections += 1
        return True

    def state(self, now_s: float) -> HealthState:
        """Return what is to be expected of it."""
        if self._until_s is not None:
            return "ejected" if now_s < self._until_s else "half-open"
        return "healthy" if self._outcomes else "unknown"

    def last_minute(self, now_s: float) -> dict[str, int]:
        """Return how often it has answered, and failed in which way; when an ejection ends, both are forgotten."""
        recent = (kind or "answered" for at_s, kind in self._outcomes if at_s > now_s - MINUTE_S)
        return dict(Counter[str](recent))

    def _is_outlier(self, now_s: float, kind: FaultKind) -> bool:
        policy = self._settings.allowed_fails_policy
        if kind not in policy and kind in AT_ONCE:
            return True
        outcomes = self._outcomes
        while outcomes and outcomes[0][0] <= now_s - MINUTE_S:
            outcomes.popleft()
        if kind in policy:
            return sum(found == kind for _, found in outcomes) > policy[kind]
        failures = sum(found is not None and found not in policy for _, found in outcomes)
        if failures > self._settings.allowed_fails:
            return True
        is_usual = self._settings.allowed_fails == ALLOWED_FAILS  # LiteLLM: another number replaces this rule
        return is_usual and len(outcomes) >= LEAST_REQUESTS and failures > MAX_FAILURES_SHARE * len(outcomes)
