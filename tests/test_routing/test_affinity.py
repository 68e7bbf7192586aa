"""A conversation keeps its deployment, and the weights are what they say."""

from __future__ import annotations

from collections import Counter

import pytest

from stages.routing.affinity import score

CONVERSATIONS = [f"conversation {number}" for number in range(4000)]


def winners(weights: dict[str, float]) -> dict[str, str]:
    return {one: max(weights, key=lambda name: score(one, name, weights[name])) for one in CONVERSATIONS}


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 3, "b": 1}, {"a": 1, "b": 2, "c": 7}])
def test_each_deployment_gets_its_share(weights: dict[str, float]) -> None:
    counts, total = Counter(winners(weights).values()), sum(weights.values())
    for name, weight in weights.items():
        assert counts[name] / len(CONVERSATIONS) == pytest.approx(weight / total, abs=0.03)


def test_only_the_conversations_of_a_deployment_that_goes_move() -> None:
    before, after = winners({"a": 1, "b": 1, "c": 1}), winners({"a": 1, "c": 1})
    assert all(after[one] == before[one] for one in CONVERSATIONS if before[one] != "b")


def test_weight_zero_is_only_for_when_there_is_no_other() -> None:
    assert set(winners({"a": 0, "b": 0.001}).values()) == {"b"}
    assert set(winners({"a": 0, "c": 0}).values()) == {"a", "c"}


def test_any_name_of_a_conversation_has_a_score() -> None:
    assert score("\ud83d\0", "a", 1) > 0
    assert score("x", "a", 1) == score("x", "a", 1) != score("y", "a", 1)
