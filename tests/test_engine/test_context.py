"""What the stages of one request share."""

from __future__ import annotations

import math
from time import perf_counter_ns

import pytest
from kit.engine.clocks import HandClock

from pipeline import RequestContext, Slot

SIZE: Slot[int] = Slot("size")


def test_a_stage_can_read_what_another_has_stored() -> None:
    ctx = RequestContext("r1")
    ctx[SIZE] = 3
    assert ctx[SIZE] == 3
    assert ctx.get(SIZE) == 3
    ctx[SIZE] = 4
    assert ctx[SIZE] == 4


def test_reading_an_empty_slot_raises_an_error_that_names_it() -> None:
    with pytest.raises(LookupError, match=r"^no stage has filled the slot 'size' of this request yet$"):
        RequestContext("r1")[SIZE]


def test_get_returns_none_for_an_empty_slot() -> None:
    assert RequestContext("r1").get(SIZE) is None


def test_a_false_value_is_still_a_value() -> None:
    ctx = RequestContext("r1")
    ctx[SIZE] = 0
    assert ctx[SIZE] == 0
    assert ctx.get(SIZE) == 0


def test_slots_of_the_same_name_do_not_collide() -> None:
    other: Slot[int] = Slot("size")
    ctx = RequestContext("r1")
    ctx[SIZE] = 3
    assert ctx.get(other) is None


def test_requests_share_nothing() -> None:
    first, second = RequestContext("r1"), RequestContext("r2")
    first[SIZE] = 3
    assert second.get(SIZE) is None
    assert first.lanes is not second.lanes
    assert first.links is not second.links
    assert first.timeline is not second.timeline


def test_the_repr_of_a_slot_has_its_name() -> None:
    assert repr(SIZE) == "<Slot size>"


def test_a_request_has_no_deadline_unless_one_is_set() -> None:
    assert RequestContext("r1").deadline == math.inf
    assert RequestContext("r1", deadline=5.0).deadline == 5.0
    assert RequestContext("r1").request_id == "r1"


def test_a_request_has_no_figures_before_its_first_run() -> None:
    ctx = RequestContext("r1")
    assert (ctx.lanes, ctx.links, ctx.timeline.points) == ([], [], {})


def test_all_figures_of_a_request_are_on_its_clock() -> None:
    clock = HandClock(7_000)
    assert RequestContext("r1", clock=clock).timeline.born_ns == 7_000
    before_ns = perf_counter_ns()
    assert before_ns <= RequestContext("r1").timeline.born_ns <= perf_counter_ns()


def test_what_a_slot_holds_can_be_forgotten() -> None:
    slot: Slot[int] = Slot("number")
    ctx = RequestContext("r1")
    ctx[slot] = 1
    for _ in range(2):
        ctx.forget(slot)
        assert ctx.get(slot) is None
