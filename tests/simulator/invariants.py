"""What must hold in every world, whatever its seed has drawn.

* I1: no connection, socket, slot or task is left; what is open to upstreams is idle and kept.
* I2: no request is active, and no deployment has one in flight.
* I3: what a client receives is valid HTTP; a clean end is exactly one complete answer or one failure, and nothing more.
* I4: text is a prefix of what one attempt's upstream has sent, and complete only if all of it was sent, with its end.
* I5: a client that leaves, and the operator's cut-off, is noticed within `NOTICED_S`; no connection is older than
  `world.LONGEST_S`.
* I6: of a stream that its client reads slowly, or not at all, at most `MOST_WAITING_BYTES` are read ahead.
* I7: each request has exactly one record, with an end code that fits, and nothing is logged as a bug.
* I8: a client that does nothing wrong gets the whole answer, unless an upstream or the operator does.
* I9: each request is answered by one generation of the configuration; see `generation_invariants`.
* I10: limits are kept, and nobody is refused within them; see `overload_invariants`.
* I11: a client does not notice that its server is replaced: it can connect, and nothing is cut or refused (I3, I8).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Final

from kit.clients.chat_fold import Folded, fold_document, fold_stream
from simulator.clients import Client, Received
from simulator.generation_invariants import (
    configuration_of,
    configurations_for,
    of_generations,
)
from simulator.overload_invariants import of_overload, was_refused
from simulator.plans import HARMLESS, LEAVING, PATIENT, RequestPlan
from simulator.servers import Record
from simulator.upstreams import Sent
from simulator.world import World

from pipeline.gateway.http.peer import MAX_AHEAD_BYTES
from pipeline.gateway.wrong_keys import LONGEST_DELAY_S

NOTICED_S: Final = 0.1
MOST_WAITING_BYTES: Final = {"fused": 4 * 64 * 1024, "tasks": 12 * 64 * 1024}
"""By the setting ``execution``. Fused, a batch is being written, one waits and one is being read, 64 KiB each; if each
stage has its own task, each holds one, and so does each of the links between them (docs/architecture.md)."""

ADDED_STAGE_BYTES: Final = 2 * 64 * 1024
"""More, for an added stage and its link."""

NOTE: Final = "\n\n[upstream error: "
"""How a failure begins that is shown as text."""

READING: Final = PATIENT - {"reads slowly", "uploads slowly"}
"""Such a client sends its request at once, and receives at once what it is sent."""

REFUSED_AS: Final = {
    "sends bad JSON": {"invalid_request"},
    "sends too large a body": {"body_too_large"},
    "declares too large a body": {"body_too_large", "body_timeout"},
    "stalls during its upload": {"body_timeout"},
    "has a wrong key": {"unauthorized"},
}
"""The codes by which a request is refused that its client has spoilt."""


def violations(world: World) -> list[str]:
    """Return what was wrong in a world; nothing if all was right."""
    found = [*world.rest, *(f"I7: logged as an error: {error}" for error in world.errors)]
    for client in world.clients:
        found += _of_client(world, client)
    found += _of_records(world)
    found += _of_waiting(world)
    found += _of_servers(world)
    found += of_generations(world)
    found += of_overload(world)
    return found


def _of_client(world: World, client: Client) -> Iterator[str]:
    name = f"client {client.plan.number}, which {client.plan.behaviour}"
    if client.broke:
        yield f"I3: {name}: what it received is not HTTP: {client.broke}"
    if len(client.received) > len(client.asked) + (client.plan.behaviour == "sends garbage"):
        yield f"I3: {name}: {len(client.received)} responses to {len(client.asked)} requests"
    for index, request in enumerate(client.asked):
        received = client.received[index] if index < len(client.received) else None
        where = f"request {request.number} of {name}"
        if received is not None and received.request_id not in ("", f"r{request.number}"):
            yield f"I3: {where}: the response to {received.request_id} came in its place"
        is_answered = False
        if received is not None and received.is_complete:
            try:
                is_answered = _told(received) is None
                yield from _of_response(world, request, received, where)
            except (AssertionError, ValueError, KeyError) as error:
                yield f"I3: {where}: {type(error).__name__} {error} in {bytes(received.body[-300:])!r}"
        elif not _may_be_cut(world, client, index):
            yield f"I3: {where}: the response was cut after {received and len(received.body)} bytes"
        if not is_answered and _must_be_answered(world, client, request, index):
            yield f"I8: {where}: nothing went wrong, but it got {received and bytes(received.body[-200:])!r}"
    if world.plan.operation == "cuts off" and world.operated_at is not None and client.plan.behaviour in READING:
        for request in client.asked:
            asked_at = world.asked_at.get(request.number, math.inf)
            for record in world.records.get(f"r{request.number}", ()):
                if asked_at < world.operated_at < record.at - NOTICED_S:
                    yield f"I5: request {request.number} of {name}: cut off after {record.at - world.operated_at:.3f} s"
    if client.left_at < math.inf:
        for request in client.asked[client.answered :]:
            for record in world.records.get(f"r{request.number}", ()):
                if client.left_at + NOTICED_S + _unread_s(request, record) < record.at:
                    yield f"I5: request {request.number} of {name}: noticed after {record.at - client.left_at:.3f} s"


def _unread_s(request: RequestPlan, record: Record) -> float:
    """Return for how long nobody may have read on: what has arrived and is not read hides that a client has left."""
    if record.record.error == "unauthorized":
        return LONGEST_DELAY_S
    configuration = configuration_of(record)
    if request.padding_bytes < MAX_AHEAD_BYTES or configuration is None or configuration.in_flight is None:
        return 0.0
    return configuration.queue_s


def _may_be_cut(world: World, client: Client, index: int) -> bool:
    """Return whether a request may get a part of a response only, or none."""
    behaviour = client.plan.behaviour
    affected = 2 if behaviour.startswith("pipelines") else 1
    # A drain tells each request that has begun: only of one that came too late is there no record.
    is_told = world.plan.operation != "stops hard" and f"r{client.asked[index].number}" in world.records
    return (
        (index >= len(client.asked) - affected and behaviour in LEAVING)
        or (world.operated_at is not None and not is_told)
        or (client.plan.thinking_s is None and any(response.closes for response in client.received[:index]))
    )


def _folded(request: RequestPlan, received: Received) -> Folded:
    return fold_stream(bytes(received.body)) if request.is_stream else fold_document(bytes(received.body))


def _told(received: Received) -> str | None:
    """Return the code of the failure that a client was told; None if it was told none."""
    if received.status != 200:
        return str(json.loads(received.body)["error"]["code"])
    body = bytes(received.body)
    if body.startswith(b"{"):
        return None
    folded = fold_stream(body)
    if folded.error is not None:
        return str(folded.error["code"])
    if NOTE in (folded.content or ""):
        return (folded.content or "").rpartition(NOTE)[2].partition(":")[0]
    return None


def _of_response(world: World, request: RequestPlan, received: Received, where: str) -> Iterator[str]:
    """Check a response whose HTTP is complete."""
    assert world.upstreams is not None
    attempts: list[Sent] = world.upstreams.sent.get(request.number, [])
    told = _told(received)
    records = world.records.get(f"r{request.number}", [])
    if received.status != 200:
        if told == "internal_error":
            yield f"I7: {where}: {bytes(received.body)!r}"
        if any(record.record.end == "OK" for record in records):
            yield f"I7: {where}: it was told {told}, but its record says OK"
        return
    folded = _folded(request, received)
    text = folded.content or ""
    if told is None:
        if not folded.is_done:
            yield f"I3: {where}: a clean end with neither an answer nor a failure"
        elif not any(one.is_whole and one.text == text for one in attempts):
            yield f"I4: {where}: {len(text)} characters, not the whole of any of {[len(one.text) for one in attempts]}"
        if any(record.record.end != "OK" for record in records):
            yield f"I7: {where}: it is complete, but its record says {records[0].record.end}"
        return
    if request.is_cursor is not folded.is_done:
        yield f"I3: {where}: a failure was told in the form of another client"
    if folded.error is not None and folded.is_done:
        yield f"I3: {where}: a failure and [DONE]"
    shown, _, note = text.partition(NOTE) if request.is_cursor else (text, "", "")
    if NOTE in note:
        yield f"I3: {where}: the failure was told twice"
    if not any(one.text.startswith(shown) for one in attempts) and shown:
        yield f"I4: {where}: {shown[:80]!r}, {len(shown)} characters, is not the start of what was sent"
    if any(record.record.end in ("OK", "DC", "DS") for record in records):
        yield f"I7: {where}: it was told {told}, but its record says {records[0].record.end}"


def _must_be_answered(world: World, client: Client, request: RequestPlan, index: int) -> bool:
    plan, behaviour = world.plan, client.plan.behaviour
    is_last = index == len(client.plan.requests) - 1
    return (
        (behaviour in PATIENT or (not is_last and not behaviour.startswith("pipelines")))
        and world.operated_at is None
        and not plan.has_connect_faults
        and all(
            one.max_upstream_connections >= 1000 and one.accepts(request.key) and one.has_model(request.model)
            for one in configurations_for(world, request)
        )
        and not was_refused(world, request)
        and (client.plan.thinking_s is not None or not any(one.closes for one in client.received[:index]))
        and all(answer.fault in HARMLESS for answer in request.answers)
        and sum(answer.gap_s * (len(answer.texts) + 4) for answer in request.answers) < 15
    )


def _of_records(world: World) -> Iterator[str]:
    assert world.upstreams is not None
    plans = {f"r{request.number}": request for client in world.clients for request in client.asked}
    for id, records in world.records.items():
        if id not in plans:
            yield f"I7: a record for {id}, which nobody asked"
        if len(records) > 1:
            yield f"I7: {len(records)} records for {id}: {[one.record.end for one in records]}"
        if records[0].record.end == "ST":
            yield f"I7: {id} ended as a bug of ours: {records[0].record.error}"
    for number in world.upstreams.sent:
        if f"r{number}" not in world.records:
            yield f"I7: no record for request {number}, which an upstream was asked"
    for client in world.clients:
        if client.was_reset and client.plan.behaviour == "stalls" and world.operated_at is None:
            ends = [record.record.end for record in world.records.get(f"r{client.asked[-1].number}", ())]
            if ends != ["DS"]:
                yield f"I7: client {client.plan.number}, which stalls, was reset, but its record says {ends}"
        for request, received in zip(client.asked, client.received, strict=False):
            if received.request_id and f"r{request.number}" not in world.records:
                yield f"I7: no record for request {request.number}, which was answered"
        if not client.asked or client.plan.behaviour not in REFUSED_AS or world.operated_at is not None:
            continue
        last = len(client.plan.requests) - 1
        if len(client.received) > last and (received := client.received[last]).is_complete:
            told = None if received.status == 200 else _told(received)
            request = client.asked[last]
            may_be_told = set(REFUSED_AS[client.plan.behaviour])
            if not all(one.accepts(request.key) for one in configurations_for(world, request)):
                may_be_told.add("unauthorized")
            if was_refused(world, request):
                may_be_told |= {"overloaded", "rate_limited"}
            if told not in may_be_told:
                yield f"I7: client {client.plan.number}, which {client.plan.behaviour}, was told {told}"


def _of_servers(world: World) -> Iterator[str]:
    for client in world.clients:
        name = f"client {client.plan.number}, which {client.plan.behaviour}"
        if client.was_refused and world.operated_at is None:
            yield f"I11: {name} could not connect"
        if client.plan.idles and client.plan.behaviour in PATIENT and client.asked:
            for record in world.records.get(f"r{client.asked[-1].number}", ()):
                since = max(client.heard_at, record.server.retired_at)
                if client.closed_at > since + record.server.limits.drain_idle_s + NOTICED_S:
                    yield f"I11: {name} kept server {record.server.number} for {client.closed_at - since:.3f} s"
        for request in client.asked:
            for record in world.records.get(f"r{request.number}", ()):
                if client.connected_at[request.number] > record.server.retired_at:
                    yield f"I11: request {request.number} of {name} came to server {record.server.number} too late"


def _of_waiting(world: World) -> Iterator[str]:
    most = MOST_WAITING_BYTES[world.plan.executes]
    if world.plan.executes == "tasks" and any(one.stage is not None for one in world.plan.changes.configurations):
        most += ADDED_STAGE_BYTES
    for client in world.clients:
        if client.plan.behaviour.startswith("pipelines"):
            continue
        for request in client.asked:
            waiting = world.peaks.get(request.number, 0)
            if request.is_stream and waiting > most:
                yield f"I6: {waiting} bytes of request {request.number} were read and not sent on"
