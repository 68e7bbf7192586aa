"""Accounts of one vendor: each has its key, its prompt cache and its troubles, which come and go.

The vendor is one double, so what it knows of reasoning says whose it is. An account is out of order for a while, then
it is back. When, and how, is drawn from a seed; at any time at least one account is in order.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from kit.vendors.double import Double, digests

Kind = Literal["refusing", "resetting", "failing", "overloaded", "limited", "limited until", "slow", "late", "silent"]
"""It refuses connections, or resets them; it answers 502, 503, or 429 without or with Retry-After; it is slow; it does
not answer before the time-out, or sends nothing after its head."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
STATUSES: Final[Mapping[Kind, int]] = {"failing": 502, "overloaded": 503, "limited": 429, "limited until": 429}
LATE_S: Final = 20.0
"""The time-out of a deployment."""
SLOW_S: Final = 15.0
LASTS_S: Final = 20_000.0
"""Longer than any chat."""

_KEY: Final = re.compile(r"sk-(account-\d+)-")


@dataclass(frozen=True)
class Trouble:
    """An account is out of order for a while."""

    account: str
    kind: Kind
    since_s: float
    until_s: float


def troubles(seed: str, accounts: Sequence[str], kinds: Sequence[Kind] = KINDS) -> list[Trouble]:
    """Draw what happens: often an account gets into trouble in the moment in which another one is back."""
    rng = random.Random(seed)
    found: list[Trouble] = []
    now_s = 0.0
    while now_s < LASTS_S:
        now_s += 0.0 if found and rng.random() < 0.3 else rng.uniform(60, 300)
        end_s = now_s + rng.choice((rng.uniform(5, 60), rng.uniform(60, 300)))
        out_of_order = rng.sample(accounts, rng.randrange(1, len(accounts)))
        found += (Trouble(account, rng.choice(kinds), now_s, end_s) for account in out_of_order)
        now_s = end_s
    return found


class Accounts:
    """Some accounts at a vendor.

    Args:
        double: the vendor.
        clock: tells the time in which the troubles happen.
        count: how many accounts, at least two.
        seed: of the troubles.
        kinds: those of the troubles that may happen.

    Attributes:
        attempts: when which account was asked, since the client's last request.
        met: how many requests met an account in trouble, by its kind.
        cached: how many bytes of the last request were in the prompt cache of the account that answered it.
    """

    def __init__(
        self,
        double: Double,
        clock: Callable[[], float],
        *,
        count: int = 2,
        seed: str,
        kinds: Sequence[Kind] = KINDS,
    ) -> None:
        self.names = tuple(f"account-{n + 1}" for n in range(count))
        self.troubles = troubles(seed, self.names, kinds)
        self.attempts: list[tuple[float, str]] = []
        self.met = dict.fromkeys(KINDS, 0)
        self.cached = 0
        self._double = double
        self._clock = clock
        self._caches: dict[str, set[str]] = {name: set() for name in self.names}
        self._began_s: float | None = None

    @property
    def now_s(self) -> float:
        """The time since the first request."""
        now_s = self._clock()
        if self._began_s is None:
            self._began_s = now_s
        return now_s - self._began_s

    def enter(self, headers: Mapping[str, str]) -> Trouble | None:
        """Find out whose request it is, and return the trouble of that account; the double answers for it from now."""
        [account] = {match[1] for value in headers.values() if (match := _KEY.search(value))}
        self._double.account = account
        now_s = self.now_s
        self.attempts.append((now_s, account))
        trouble = next(
            (one for one in self.troubles if one.account == account and one.since_s <= now_s < one.until_s), None
        )
        if trouble is not None:
            self.met[trouble.kind] += 1
        return trouble

    def well_s(self, account: str) -> float:
        """Return for how long an account has been in order: 0 if it is not."""
        now_s = self.now_s
        ends = [min(one.until_s, now_s) for one in self.troubles if one.account == account and one.since_s <= now_s]
        return now_s - max(ends, default=-math.inf)

    def was_one_in_order(self) -> bool:
        """Return whether one of them was in order for as long as the last request took."""
        took_s = self.now_s - self.attempts[0][0] if self.attempts else 0.0
        return any(self.well_s(name) > took_s for name in self.names)

    def keep(self) -> int:
        """Count how much of the request that was just answered was cached, and cache it; return its size in bytes."""
        units, declared = self._double.units, self._double.declared
        cache = self._caches[self._double.account]
        places = digests(units, declared)
        known = max((n for n, place in enumerate(places) if place in cache), default=None)
        self.cached = 0 if known is None else len(declared) + sum(map(len, units[:known]))
        cache.update(places)
        return len(declared) + sum(map(len, units))
