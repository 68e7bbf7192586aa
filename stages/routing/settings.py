"""How to route, in LiteLLM's words and with its defaults.

Source: docs.litellm.ai/docs/routing and docs.litellm.ai/docs/proxy/reliability (October 2026), and LiteLLM 1.106.2
(`litellm/router.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from stages.routing.faults import RETRIED, FaultKind

Strategy: TypeAlias = Literal["simple-shuffle", "least-busy", "latency-based-routing"]

FaultNumbers: TypeAlias = Mapping[FaultKind | Literal["default"], int]

NO_NUMBERS: Final[FaultNumbers] = {}


ALLOWED_FAILS: Final = 3


class RoutingSettings(Struct, frozen=True, kw_only=True):
    """The settings of one process; durations in seconds.

    Attributes:
        num_retries: how often a request is repeated within a group of deployments.
        retry_after_s: the least time before a repetition.
        retry_policy: other numbers for some kinds of failures.
        group_retry_policy: the same for some groups.
        fallbacks: for a group, those that are asked if it fails.
        default_fallbacks: for all groups that have none.
        context_window_fallbacks, content_policy_fallbacks: for a group, those that are asked after such a failure.
        max_fallbacks: how many groups are asked after the first one.
        allowed_fails: how many failures in a minute a deployment may have without being ejected.
        allowed_fails_policy: other numbers for some kinds of failures, which are then counted apart.
        cooldown_s: how long the first ejection takes.
        has_cooldowns: whether anything is ejected.
        strategy: which of the ready deployments is asked.
        latency_buffer: with latency-based-routing, by what part a deployment may be slower than the fastest one and
            still be asked.
        aliases: other names of groups.
        hidden_aliases: those of them that are not listed.
        checks_windows: whether a deployment is left out if the request is too long for its model.
    """

    num_retries: int = 2
    retry_after_s: float = 0.0
    retry_policy: FaultNumbers = NO_NUMBERS
    group_retry_policy: Mapping[str, FaultNumbers] = {}
    fallbacks: Mapping[str, tuple[str, ...]] = {}
    default_fallbacks: tuple[str, ...] = ()
    context_window_fallbacks: Mapping[str, tuple[str, ...]] = {}
    content_policy_fallbacks: Mapping[str, tuple[str, ...]] = {}
    max_fallbacks: int = 5
    allowed_fails: int = ALLOWED_FAILS
    allowed_fails_policy: FaultNumbers = NO_NUMBERS
    cooldown_s: float = 5.0
    has_cooldowns: bool = True
    strategy: Strategy = "simple-shuffle"
    latency_buffer: float = 0.0
    aliases: Mapping[str, str] = {}
    hidden_aliases: frozenset[str] = frozenset()
    checks_windows: bool = False

    def retries(self, group: str, kind: FaultKind, of_deployment: int | None = None) -> int:
        """Return how often a request to ``group`` is repeated after a failure of this kind.

        Args:
            group: its name.
            kind: what has failed.
            of_deployment: the number that a deployment has itself. It replaces `num_retries`, and bounds what a policy
                says.
        """
        bound = math.inf if of_deployment is None else of_deployment
        for policy in (self.group_retry_policy.get(group, NO_NUMBERS), self.retry_policy):
            if kind in policy:
                return int(min(policy[kind], bound))
            if "default" in policy and kind in RETRIED:
                return int(min(policy["default"], bound))
        if kind not in RETRIED:
            return 0
        return self.num_retries if of_deployment is None else of_deployment

    def fallbacks_of(self, group: str, kind: FaultKind) -> tuple[str, ...]:
        """Return the groups that are asked, in this order, after a failure of ``group``."""
        special = {"context_window": self.context_window_fallbacks, "content_policy": self.content_policy_fallbacks}
        if (found := special.get(kind, {}).get(group)) is not None:
            return found
        found = self.fallbacks.get(group)
        return self.fallbacks.get("*", self.default_fallbacks) if found is None else found

    def names(self) -> frozenset[str]:
        """Return the names that anything is set for requests to."""
        return frozenset[str]().union(
            self.fallbacks, self.context_window_fallbacks, self.content_policy_fallbacks, self.group_retry_policy
        )


DEFAULT_ROUTING: Final = RoutingSettings()
