"""What must hold where something is limited (I10).

* Never more requests of a service, a key or a deployment run at a time, or begin within a minute, than it may have: the
  upstreams see that.
* Turns are given in the order in which they are asked for.
* A request is refused only if its limit is reached, and a refusal says when to try again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from simulator.configurations import Configuration
from simulator.generation_invariants import configuration_of
from simulator.plans import RequestPlan
from simulator.servers import Record
from simulator.world import World

from stages.admission.turns import POLL_S
from stages.limits import Limits

MINUTE_S: Final = 60.0

Group = tuple[str, str]
"""What is limited: the service, a key or a deployment, and its name."""


def was_refused(world: World, request: RequestPlan) -> bool:
    """Return whether a request was refused because of a limit."""
    records = world.records.get(f"r{request.number}", ())
    return any(record.record.error in ("overloaded", "rate_limited") for record in records)


def of_overload(world: World) -> Iterator[str]:
    """Yield what was wrong."""
    for client in world.clients:
        for request, received in zip(client.asked, client.received, strict=False):
            if received.status in (429, 503) and not received.retry_after:
                yield f"I10: request {request.number} was refused without Retry-After"
    if not any(one.has_limits for one in world.plan.changes.configurations):
        return
    served = {record.record.request_id: record for records in world.records.values() for record in records[:1]}
    asked = {request.number: request for client in world.clients for request in client.asked}
    found = _Served(world, {number: served[f"r{number}"] for number in asked if f"r{number}" in served}, asked)
    yield from found.running()
    yield from found.begun()
    yield from found.refused()
    for server in world.servers:
        for number, order in server.turns.items():
            expected = [id for id in order.asked if id in set(order.given)]
            if order.given != expected:
                yield f"I10: turns of generation {number} were given to {order.given}, and asked for by {expected}"


class _Served:
    """The requests that were served."""

    def __init__(self, world: World, records: dict[int, Record], requests: dict[int, RequestPlan]) -> None:
        self._world = world
        self._requests = requests
        self._records = records
        self._configurations = {
            number: one for number, record in records.items() if (one := configuration_of(record)) is not None
        }

    def running(self) -> Iterator[str]:
        """Yield where more ran than may run."""
        for busy in self._world.busy:
            numbers: defaultdict[Group, set[int]] = defaultdict(set)
            limits: defaultdict[Group, int] = defaultdict(int)
            for number, host in busy:
                for group, (_, parallel) in self._limits_of(number, host).items():
                    if parallel is not None:
                        numbers[group].add(number)
                        limits[group] = max(limits[group], parallel)
            for group, those in numbers.items():
                if len(those) > limits[group]:
                    yield f"I10: the requests {sorted(those)} of {group} ran at a time, and not {limits[group]}"

    def begun(self) -> Iterator[str]:
        """Yield where more have begun within a minute than may."""
        assert self._world.upstreams is not None
        times: defaultdict[Group, dict[int, float]] = defaultdict(dict)
        limits: defaultdict[Group, int] = defaultdict(int)
        for number, attempts in self._world.upstreams.sent.items():
            for sent in attempts:
                for group, (rpm, _) in self._limits_of(number, sent.host).items():
                    if rpm is not None:
                        times[group].setdefault(number, sent.at)
                        limits[group] = max(limits[group], rpm)
        for group, began in times.items():
            for at in began.values():
                if (count := sum(at - MINUTE_S < one <= at for one in began.values())) > limits[group]:
                    yield f"I10: {count} requests of {group} began within a minute, and not {limits[group]}"

    def refused(self) -> Iterator[str]:
        """Yield who was refused without need."""
        for number, record in self._records.items():
            configuration = self._configurations.get(number)
            if configuration is None:
                continue
            where = f"I10: request {number} was refused"
            if record.record.error == "overloaded":
                yield from self._of_turns(number, record, configuration, where)
            elif record.record.error == "rate_limited":
                request = self._requests[number]
                those = {other for other in self._records if self._requests[other].key == request.key}
                hosts = {host for host, _ in configuration.may_ask(request.model)}
                if not self._may_be_full(configuration.key_limits.get(request.key), those, number) and not all(
                    self._may_be_full(configuration.host_limits.get(host), set(self._records), number) for host in hosts
                ):
                    yield f"{where} although neither its key nor each deployment can have reached a limit"

    def _of_turns(self, number: int, record: Record, configuration: Configuration, where: str) -> Iterator[str]:
        if configuration.in_flight is None:
            yield f"{where} although the number of requests is not limited"
            return
        others = self._others_at(number)
        if len(others) < configuration.in_flight:
            yield f"{where} although only {others} ran"
            return
        room = configuration.in_flight + (configuration.queued if configuration.queue_s else 0)
        asked_at = self._world.asked_at.get(number)
        if len(others) < room and asked_at is not None and record.at < asked_at + configuration.queue_s - 1e-6:
            yield f"{where} after {record.at - asked_at:.3f} s although only {others} ran or waited"

    def _others_at(self, number: int) -> list[int]:
        """Return the other requests that lived at some time during one, or had a turn that nobody knew was free."""
        began, ended = self._life(number)
        lives = {other: self._life(other) for other in self._records if other != number}
        return sorted(
            other
            for other, (since, until) in lives.items()
            if since < ended and (until > began or self._has_just_ended(other, number))
        )

    def _has_just_ended(self, other: int, number: int) -> bool:
        """Return whether what waits in another server or generation may not have noticed yet that a turn is free."""
        changes = self._world.plan.changes
        if not (changes.reloads or changes.restarts_s):
            return False
        return self._records[other].at >= self._world.asked_at.get(number, math.inf) - POLL_S

    def _life(self, number: int) -> tuple[int, int]:
        return self._world.first_steps.get(("client asks", number), 0), self._records[number].step

    def _may_be_full(self, limits: Limits | None, members: set[int], number: int) -> bool:
        """Return whether the requests that count, besides one, can have reached the limits before it was refused."""
        if limits is None:
            return False
        before = [other for other in members - {number} if self._life(other)[0] < self._life(number)[1]]
        alive = [other for other in self._others_at(number) if other in members]
        return (limits.rpm is not None and len(before) >= limits.rpm) or (
            limits.parallel is not None and len(alive) >= limits.parallel
        )

    def _limits_of(self, number: int, host: str) -> dict[Group, tuple[int | None, int | None]]:
        """Return the limits, by the minute and at a time, that concern a request at a host."""
        found: dict[Group, tuple[int | None, int | None]] = {}
        if (one := self._configurations.get(number)) is None:
            return found
        if one.in_flight is not None:
            found["service", ""] = None, one.in_flight
        if (key := one.key_limits.get(self._requests[number].key)) is not None:
            found["key", self._requests[number].key] = key.rpm, key.parallel
        if (limits := one.host_limits.get(host)) is not None:
            found["deployment", one.id_of(host)] = limits.rpm, limits.parallel
        return found
