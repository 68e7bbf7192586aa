"""What must hold when the configuration changes while clients are served (I9).

* Each request belongs to one generation, to its end: the one that was current when it came.
* It is served with the keys, models, upstreams and stages of that generation, and of no other.
* A reload cuts no request off.
"""

from __future__ import annotations

from collections.abc import Iterator

from simulator.configurations import Configuration
from simulator.plans import RequestPlan
from simulator.servers import Record
from simulator.world import World


def configuration_of(record: Record) -> Configuration | None:
    """Return with what a request was served; None if there was no such generation."""
    switch = record.server.switches.get(record.record.generation)
    return None if switch is None else switch.configuration


def configurations_for(world: World, request: RequestPlan) -> list[Configuration]:
    """Return with what a request was served, or may have been if it has no record."""
    records = world.records.get(f"r{request.number}", ())
    found = [one for record in records if (one := configuration_of(record)) is not None]
    return found or [switch.configuration for server in world.servers for switch in server.switches.values()]


def of_generations(world: World) -> Iterator[str]:
    """Yield what was wrong."""
    for client in world.clients:
        for request in client.asked:
            has_wrong_key = client.plan.behaviour == "has a wrong key" and request is client.plan.requests[-1]
            for record in world.records.get(f"r{request.number}", ()):
                yield from _of_request(world, request, record, has_wrong_key=has_wrong_key)


def _of_request(world: World, request: RequestPlan, record: Record, *, has_wrong_key: bool) -> Iterator[str]:
    assert world.upstreams is not None
    where = f"I9: request {request.number}, of generation {record.record.generation} of server {record.server.number},"
    configuration = configuration_of(record)
    if configuration is None:
        yield f"{where} but it was never the current one"
        return
    yield from _of_its_time(world, request, record, where)
    key, end = record.record.key, record.record.end
    if configuration.accepts(request.key) and not has_wrong_key:
        if key not in (None, request.key):
            yield f"{where} came with the key {request.key!r}, but its record says {key!r}"
        if end == "AU":
            yield f"{where} was refused although its key is valid there"
    elif key is not None or end == "OK":
        yield f"{where} has the record of {key!r} although its key is not valid there"
    attempts = world.upstreams.sent.get(request.number, [])
    if attempts and not (configuration.accepts(request.key) and configuration.has_model(request.model)):
        yield f"{where} was sent to an upstream although its key or model does not exist there"
    elif strangers := {(one.host, one.secret) for one in attempts} - configuration.may_ask(request.model):
        yield f"{where} was sent to {sorted(strangers)}, which are not of that generation"
    if strange := record.server.witnessed.get(f"r{request.number}", set()) - {configuration.number}:
        yield f"{where} has met the stages of the configurations {sorted(strange)}"
    elif end == "OK" and (configuration.stage is not None) != (f"r{request.number}" in record.server.witnessed):
        yield f"{where} has not met the stages of its configuration, or has met one although there is none"
    if end == "DR" and world.operated_at is None:
        yield f"{where} was cut off although nothing was about to stop"


def _of_its_time(world: World, request: RequestPlan, record: Record, where: str) -> Iterator[str]:
    """Check that its generation was the current one at some time between its start and its first effect."""
    asked = world.first_steps.get(("client asks", request.number), 0)
    known = world.first_steps.get(("upstream asked", request.number), record.step)
    generation, switches = record.record.generation, record.server.switches
    if switches[generation].began > known:
        yield f"{where} which became the current one only after it had come"
    for number, switch in switches.items():
        if number > generation and switch.done < asked:
            yield f"{where} came when generation {number} was the current one"
            return
