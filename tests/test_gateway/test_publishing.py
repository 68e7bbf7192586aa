"""Whose time it is, as readers see it while requests run, end, and die with their process: it never goes back."""

from __future__ import annotations

import gc
import json
import random
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pipeline import Party, RequestContext
from pipeline.gateway.admin.now import Now
from pipeline.gateway.generations import Generations
from pipeline.gateway.publishing import Publisher
from pipeline.gateway.recorder import Recorder
from pipeline.lane import Lane, Outside
from pipeline.loop import Loop
from pipeline.observe import Observed
from pipeline.segments import SegmentFile

MS = 1_000_000
RING_BYTES = 1024 * 1024


class Clock:
    now_ns = 1000 * MS

    def __call__(self) -> int:
        return self.now_ns


class Request:
    """A request that waits for its upstream from its birth on."""

    def __init__(self, clock: Clock) -> None:
        self.ctx = RequestContext("r", clock=clock)
        self.ctx.lanes.append(lane := Lane(["call_upstream"], self.ctx.timeline, Loop(), "r"))
        self.ctx.timeline.leave(clock())  # its own task waits for the lane's
        self.ctx.timeline.enter(clock())
        self._outside: Outside = lane.outside(Party.UPSTREAM)
        self._outside.__enter__()

    def receive(self, arrived_ns: int) -> None:
        """Notice what has arrived at a time that may be long ago, and wait again."""
        self._outside.arrived_ns = arrived_ns
        self._outside.__exit__(None, None, None)
        self._outside.__enter__()


@dataclass
class Living:
    """The generations, as far as a publisher asks them."""

    active: list[Request] = field(default_factory=list[Request])

    @property
    def living(self) -> list[Living]:
        return [self]

    @property
    def bridge(self) -> Any:
        return _Bridge(self.active)


@dataclass
class _Bridge:
    active: list[Request]


class Process:
    """A worker with requests of its own."""

    def __init__(self, file: SegmentFile, number: int) -> None:
        segment = file.claim(number)
        self.observed = Observed(segment)
        self.running = Living()
        generations, recorder = cast(Generations, self.running), Recorder(segment.ring)
        self.publisher = Publisher(file, segment, generations, self.observed, recorder, self.observed.publish)
        self.segment = segment


def parties(file: SegmentFile) -> dict[str, float]:
    found: dict[str, float] = json.loads(Now(file).document()[0])["party_s"]
    return found


@pytest.mark.parametrize("seed", range(8))
def test_no_party_ever_goes_back(seed: int) -> None:
    chance, clock = random.Random(seed), Clock()
    file = SegmentFile.create(ring_bytes=RING_BYTES)
    processes = [Process(file, 1), Process(file, 2)]
    last = parties(file)
    for _ in range(120):
        began_ns = clock.now_ns
        clock.now_ns += chance.choice([1, 30, 600]) * MS
        number = chance.randrange(2)
        running = processes[number].running.active
        match chance.choice(["begin", "receive", "end", "publish", "publish", "die"]):
            case "begin":
                running.append(Request(clock))
            case "receive":
                for request in running:  # all at once, as after a loop that was held
                    request.receive(began_ns)
            case "end" if running:
                timeline = running.pop().ctx.timeline
                timeline.mark("ended")
                observed = processes[number].observed
                observed.fold(timeline, deployment="a", is_stream=True, end="OK", tokens=(1, 1))
            case "publish":
                processes[number].publisher.publish()
            case "die" if chance.random() < 0.2:
                processes[number] = cast(Process, None)
                gc.collect()
                assert parties(file) == last
                processes[number] = Process(file, number + 1)
            case _:
                pass
        now = parties(file)
        assert all(value >= last[party] for party, value in now.items()), (last, now)
        last = now


def test_what_a_wait_was_taken_for_is_made_up_for_by_the_next_boards() -> None:
    clock, file = Clock(), SegmentFile.create(ring_bytes=RING_BYTES)
    process = Process(file, 1)
    process.running.active = [Request(clock) for _ in range(40)]
    arrived_ns = clock.now_ns + 400 * MS
    clock.now_ns += 1000 * MS
    process.publisher.publish()
    assert parties(file) == pytest.approx({"client": 0.0, "ours": 0.0, "upstream": 40.0})
    for request in process.running.active:
        request.receive(arrived_ns)
    process.publisher.publish()
    assert parties(file) == pytest.approx({"client": 0.0, "ours": 24.0, "upstream": 40.0})
    clock.now_ns += 1000 * MS
    process.publisher.publish()
    assert parties(file) == pytest.approx({"client": 0.0, "ours": 24.0, "upstream": 56.0})


def test_a_successor_goes_on_from_what_its_predecessor_has_lost() -> None:
    clock, file = Clock(), SegmentFile.create(ring_bytes=RING_BYTES)
    process = Process(file, 1)
    process.running.active = [Request(clock)]
    clock.now_ns += 5000 * MS
    process.publisher.publish()
    del process
    gc.collect()
    process = Process(file, 1)
    process.running.active = [Request(clock)]
    clock.now_ns += 1000 * MS
    process.publisher.publish()
    assert parties(file)["upstream"] == pytest.approx(6.0)
