"""What a process shows of its running requests: the longest idle first, never more than its board has room for."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from msgspec import UNSET

from pipeline import Party, RequestContext
from pipeline.gateway import board as module
from pipeline.gateway.board import (
    MAX_SHOWN,
    STALE_S,
    BoardText,
    RunningRequest,
    all_running,
    board_text,
    last_board,
    read_board,
    write_board,
)
from pipeline.lane import OUTSIDE, Lane
from pipeline.loop import Loop
from pipeline.study.parts import PartyName

BOARD_BYTES = 64 * 1024
S = 1_000_000_000
NOTHING: dict[PartyName, float] = {"client": 0.0, "ours": 0.0, "upstream": 0.0}


@dataclass
class Owner:
    """The part of one process in the shared file."""

    is_alive: bool = True
    board: memoryview = field(default_factory=lambda: memoryview(bytearray(BOARD_BYTES)))


class Clock:
    """A clock that a test sets."""

    now_ns = 100 * S

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module, "wall_clock_s", lambda: now[0])
    return now


def request(clock: Clock, request_id: str = "r1") -> tuple[RequestContext, Lane]:
    """Return a request with one lane, both born now."""
    ctx = RequestContext(request_id, clock=clock)
    ctx.timeline.arrive(0, 0, 0)
    ctx.lanes.append(lane := Lane(["call_upstream"], ctx.timeline, Loop(), request_id))
    return ctx, lane


def test_a_stage_that_waits_for_something_of_its_own_is_named(clock: Clock) -> None:
    ctx, lane = request(clock)
    ctx.lanes.append(own := Lane(["look_up"], ctx.timeline, Loop(), "r1"))
    lane.switch(OUTSIDE, clock())  # for the upstream: its time, not ours
    assert board_text([ctx], 1, NOTHING).running[0].stage is UNSET
    own.switch(OUTSIDE, clock())
    assert board_text([ctx], 1, NOTHING).running[0].stage == "look_up"


def running(number: int, text: str = "") -> RunningRequest:
    return RunningRequest(
        request_id=f"r{number}{text}",
        worker=1,
        age_ms=1.0,
        model=None,
        deployment=None,
        waits_for="ours",
        point="head_read",
        events=0,
        idle_ms=float(number),
    )


def test_a_request_that_waits_for_its_upstream_says_since_when_and_after_which_point(clock: Clock) -> None:
    ctx, lane = request(clock)
    clock.now_ns += 1 * S
    ctx.timeline.mark("upstream_sent")
    ctx.timeline.leave(clock())  # its own task waits for the one below
    with lane.outside(Party.UPSTREAM):
        ctx.timeline.leave(clock())
        ctx.timeline.enter(clock())
        clock.now_ns += 4 * S
        [shown] = board_text([ctx], 2, NOTHING).running
    assert (shown.request_id, shown.worker, shown.age_ms, shown.idle_ms) == ("r1", 2, 5000.0, 4000.0)
    assert (shown.point, shown.events, shown.model) == ("upstream_sent", 0, None)


def test_the_time_of_running_requests_is_added_to_that_of_those_that_have_ended(clock: Clock) -> None:
    ctx, _ = request(clock)
    clock.now_ns += 2 * S
    text = board_text([ctx], 1, {"client": 1.0, "ours": 10.0, "upstream": 100.0})
    assert text.party_s == {"client": 1.0, "ours": 12.0, "upstream": 100.0}


def test_a_reader_knows_when_a_board_was_written_and_how_old_its_requests_are(wall: list[float]) -> None:
    owner = Owner()
    write_board(owner.board, BoardText({"client": 1.0, "ours": 10.0}, [running(1)]))
    wall[0] += 2.0
    text = read_board(owner)
    assert text is not None
    assert (text.party_s, text.at_s, text.age_s) == ({"client": 1.0, "ours": 10.0}, 1000.0, 2.0)
    assert [one.as_of_ms for one in all_running([text])] == [2000.0]


def test_the_sums_of_an_old_board_and_of_a_dead_process_stay(wall: list[float]) -> None:
    owner = Owner()
    write_board(owner.board, BoardText({"ours": 10.0}, [running(1)]))
    wall[0] += STALE_S + 0.1
    owner.is_alive = False
    text = last_board(owner)
    assert text is not None
    assert (text.party_s, text.is_stale) == ({"ours": 10.0}, True)


def test_the_longest_idle_come_first_and_there_is_a_limit(clock: Clock) -> None:
    contexts: list[RequestContext] = []
    for number in range(MAX_SHOWN + 50):
        contexts.append(request(clock, f"r{number}")[0])
        clock.now_ns += 1000
    shown = board_text(reversed(contexts), 1, NOTHING).running
    assert [one.request_id for one in shown] == [f"r{number}" for number in range(MAX_SHOWN)]


def test_a_name_that_looks_like_a_credential_is_redacted(clock: Clock) -> None:
    ctx, _ = request(clock, "sk-proj-abcdefghijklmnop0123456789")
    [shown] = board_text([ctx], 1, NOTHING).running
    assert shown.request_id == "[redacted]"


def test_boards_are_read_together_the_longest_idle_first(wall: list[float]) -> None:
    owners = [Owner(), Owner(), Owner()]
    write_board(owners[0].board, BoardText({}, [running(3), running(1)]))
    write_board(owners[1].board, BoardText({}, [running(2)]))
    assert [one.request_id for one in all_running(map(read_board, owners))] == ["r3", "r2", "r1"]


def test_as_many_as_fit_are_written(wall: list[float]) -> None:
    owner = Owner()
    write_board(owner.board, BoardText({}, [running(number, "x" * 1000) for number in range(200)]))
    shown = read_board(owner)
    assert shown is not None
    assert 40 < len(shown.running) < 65
    assert shown.running[0].request_id.startswith("r0x")


def test_the_board_of_a_dead_process_an_old_one_and_a_half_written_one_show_nothing(wall: list[float]) -> None:
    owner = Owner()
    assert read_board(owner) is None
    write_board(owner.board, BoardText({}, [running(1)]))
    assert read_board(owner) is not None
    owner.is_alive = False
    assert read_board(owner) is None
    owner.is_alive = True
    wall[0] += STALE_S + 0.1
    assert read_board(owner) is None
    wall[0] -= STALE_S
    owner.board[40] ^= 1
    assert read_board(owner) is None
