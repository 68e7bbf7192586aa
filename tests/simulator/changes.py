"""What a seed draws of what an operator does to a service: limits, reloads, and servers that take over.

It is drawn from a source of its own, so that a world without changes is the same as if there were none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from simulator.configurations import REQUEST_TIMEOUT_S, WITNESS, Configuration, KeyName, Kind

from stages.limits import Limits

ReloadOutcome = Literal["works", "is invalid", "fails to open"]

LONGEST_QUEUE_S: Final = 5.0
MISSING_STAGE: Final = "missing"
"""A stage that is not installed: it makes a configuration invalid."""
SPARE_HOSTS: Final = ("10.0.0.4", "10.0.0.5")
"""Deployments that only come with a reload."""

_MOMENTS_S: Final = (0.0, 0.0005, 0.005, 0.05, 0.2, 0.5, 1.0, 1.0, 2.0, 5.0)
_SHARE_OF_RELOADS: Final = 0.3
_SHARE_OF_LIMITS: Final = 0.25
_SHARE_OF_RESTARTS: Final = 0.2
_SHARE_OF_CUT_OFFS: Final = 0.2


@dataclass(frozen=True)
class ReloadPlan:
    """One reload.

    Attributes:
        at_s: when.
        configuration: what is read.
        outcome: what comes of it, if the server does not stop meanwhile.
        opens_s: how long its added stage takes to open.
    """

    at_s: float
    configuration: Configuration
    outcome: ReloadOutcome = "works"
    opens_s: float = 0.0


class Changes:
    """The changes of a world.

    Args:
        seed: that of the world.
        first: what it begins with, as far as it is drawn elsewhere.

    Attributes:
        first: what it begins with.
        reloads: in no particular order.
        restarts_s: when the server is replaced by another one.
        least_clients: how many clients it needs at least.
    """

    def __init__(self, seed: int, first: Configuration) -> None:
        self.random = draw = random.Random(f"changes of {seed}")
        kinds: dict[str, Kind] = {host: draw.choice(get_args(Kind)) for host in SPARE_HOSTS}
        self.first = replace(first, kinds=first.kinds | kinds)
        self.reloads: list[ReloadPlan] = []
        self._configurations = 1
        self.least_clients = 1
        self.restarts_s: list[float] = []
        if draw.random() < _SHARE_OF_RESTARTS:
            self.restarts_s = [draw.choice(_MOMENTS_S) for _ in range(draw.choice([1, 1, 2]))]
        if draw.random() < _SHARE_OF_LIMITS:
            self.first = self._limited(self.first)
            self.least_clients = draw.choice([3, 4, 5])
        if draw.random() < _SHARE_OF_RELOADS:
            self.first = replace(
                self.first,
                stage=draw.choice([None, WITNESS]),
            )
            self._draw_reloads()

    def cut_off_s(self) -> float | None:
        """Draw when the operator ends what runs, shortly after a reload; None if never."""
        if not self.reloads or self.random.random() > _SHARE_OF_CUT_OFFS:
            return None
        return self.random.choice(self.reloads).at_s + self.random.choice([0.0, 0.05, 0.3])

    def thinking_s(self) -> float | None:
        """Draw how long a client thinks between its requests; None if it does not connect again after a restart."""
        return self.random.choice([0.0, 0.0, 0.3, 1.0, 2.5]) if self.restarts_s else None

    @property
    def configurations(self) -> list[Configuration]:
        """All of them."""
        return [self.first, *(reload.configuration for reload in self.reloads)]

    @property
    def key(self) -> KeyName:
        """Draw the key of a request."""
        if not self.reloads and not self.first.key_limits:
            return "master"
        return self.random.choice(["master", "master", "early", "early", "late"])

    def _draw_reloads(self) -> None:
        draw, current = self.random, self.first
        moments = [draw.choice(_MOMENTS_S) for _ in range(draw.choice([1, 1, 2, 2, 3]))]
        if len(moments) > 1 and draw.random() < 0.3:
            moments[1] = moments[0]
        for at_s in sorted(moments):
            outcome: ReloadOutcome = draw.choice(["works", "works", "works", "works", "is invalid", "fails to open"])
            configuration = self._next(current, outcome)
            opens_s = draw.choice([0.0, 0.0, 0.01, 0.5]) if configuration.stage == WITNESS else 0.0
            self.reloads.append(ReloadPlan(at_s, configuration, outcome, opens_s))
            if outcome == "works":
                current = configuration

    def _limited(self, configuration: Configuration) -> Configuration:
        """Draw the limits of a configuration: often only one of them."""
        draw = self.random
        kinds = draw.choice([["turns"], ["turns"], ["turns"], ["key"], ["hosts"], ["turns", "key", "hosts"]])
        new = replace(configuration, in_flight=None, key_limits={}, host_limits={})
        if "turns" in kinds:
            queue_s = draw.choice([0.0, 0.5, 2.0, LONGEST_QUEUE_S, LONGEST_QUEUE_S])
            new = replace(
                new, in_flight=draw.choice([1, 1, 2]), queued=draw.choice([0, 1, 2, 100, 100]), queue_s=queue_s
            )
        if "key" in kinds:
            new = replace(new, key_limits={"early": self._limits()})
        if "hosts" in kinds:
            new = replace(new, host_limits={host: self._limits() for host in new.hosts if draw.random() < 0.8})
        return new

    def _limits(self) -> Limits:
        return self.random.choice([Limits(parallel=1), Limits(parallel=2), Limits(rpm=1), Limits(rpm=3, parallel=2)])

    def _next(self, current: Configuration, outcome: ReloadOutcome) -> Configuration:
        """Draw the configuration of a reload: often one or two things of it are others."""
        draw, number = self.random, self._configurations
        self._configurations += 1
        new = replace(current, number=number)
        for what in draw.sample(
            ["keys", "host", "secret", "second", "ways", "pool", "nothing"], draw.choice([1, 2, 3])
        ):
            match what:
                case "keys":
                    new = replace(new, keys=frozenset(draw.choice([["late"], ["early", "late"], [], ["early"]])))
                case "host":
                    new = replace(new, first=(draw.choice(SPARE_HOSTS), *new.first[1:]))
                case "secret":
                    new = replace(new, secret=f"sk-simulated-{number}")
                case "second":
                    new = replace(new, second=() if new.second else ("10.0.0.2",))
                case "ways":
                    new = replace(
                        new,
                        retries=draw.choice([0, 1, 2]),
                        comments_s=draw.choice([0.0, 0.3, 0.7]),
                        request_timeout_s=draw.choice([None, REQUEST_TIMEOUT_S]),
                    )
                case "pool":
                    new = replace(new, max_upstream_connections=draw.choice([2, 1000, 1001]))
                case _:
                    pass
        if outcome == "is invalid":
            return replace(new, stage=MISSING_STAGE)
        return replace(new, stage=WITNESS if outcome == "fails to open" else draw.choice([None, WITNESS, WITNESS]))
