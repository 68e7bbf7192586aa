"""What may be repeated."""

from __future__ import annotations

from stages.routing.budget import RetryBudget


def test_who_is_alone_may_repeat_as_often_as_is_configured() -> None:
    budget = RetryBudget()
    budget.note_request(100.0)
    assert [budget.take(100.0) for _ in range(11)] == [True] * 10 + [False]


def test_of_many_requests_a_tenth_is_repeated() -> None:
    budget = RetryBudget()
    for at in range(1000):
        budget.note_request(at / 100)
    assert sum(budget.take(9.99) for _ in range(1000)) == 100


def test_after_ten_seconds_all_is_forgotten() -> None:
    budget = RetryBudget()
    for _ in range(10):
        assert budget.take(5.0)
    assert not budget.take(14.9)
    assert budget.take(15.0)


def test_moves_are_always_possible_and_leave_less_to_repeat() -> None:
    budget = RetryBudget()
    for _ in range(400):
        budget.note_request(0.5)
    for _ in range(15):
        budget.note_move(0.5)
    assert sum(budget.take(0.6) for _ in range(100)) == 25
    for _ in range(100):
        budget.note_move(11.0)
    assert sum(budget.take(11.0) for _ in range(100)) == 10
