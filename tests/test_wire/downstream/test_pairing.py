"""Each call has one output and each output one call, whatever happened to the history."""

from __future__ import annotations

from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wire.call_ids import numbered_call_id
from stages.wire.downstream.pairing import UNKNOWN, pair_calls, unnamed_call_id


def call(call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}", **fields}


def custom(call_id: str) -> dict[str, Any]:
    return {"type": "custom_tool_call", "call_id": call_id, "name": "P", "input": "x"}


def output(call_id: str, text: str = "", kind: str = "function_call_output", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "call_id": call_id, "output": text, **fields}


def custom_output(call_id: str, text: str = "") -> dict[str, Any]:
    return output(call_id, text, "custom_tool_call_output")


USER: dict[str, Any] = {"role": "user", "content": "go on"}
SAID: dict[str, Any] = {"role": "assistant", "content": "so"}
THOUGHT: dict[str, Any] = {"type": "reasoning", "summary": [], "encrypted_content": "x"}


@pytest.mark.parametrize(
    "items",
    [
        [USER],
        [USER, call("a"), output("a", "1"), SAID],
        [call("a"), custom("b"), SAID, custom_output("b"), USER, output("a")],
        [call("a"), output("a"), THOUGHT, call("b"), output("b")],
        [{"type": "shell_call", "call_id": "s"}, {"type": "computer_call_output", "call_id": "z"}, {"id": "msg_1"}],
    ],
)
def test_a_correct_history_is_returned_as_the_same_object(items: list[dict[str, Any]]) -> None:
    assert pair_calls(items) is items


@pytest.mark.parametrize(
    ("items", "repaired"),
    [
        # calls without an output: the user pressed Stop or closed the tab
        ([call("a"), USER], [call("a"), output("a"), USER]),
        ([USER, call("a")], [USER, call("a"), output("a")]),
        ([custom("a"), USER], [custom("a"), custom_output("a"), USER]),
        (
            [call("a"), call("b"), output("b", "1"), USER],
            [call("a"), call("b"), output("a"), output("b", "1"), USER],
        ),
        (
            [call("a"), THOUGHT, custom("b"), USER, call("c"), output("c")],
            [call("a"), THOUGHT, custom("b"), output("a"), custom_output("b"), USER, call("c"), output("c")],
        ),
        # outputs without a call
        ([USER, output("a", "1"), SAID], [USER, SAID]),
        ([output("a", "0"), call("a"), output("a", "1")], [call("a"), output("a", "1")]),
        # an output before its call
        ([USER, output("a", "1"), call("a"), SAID], [USER, call("a"), output("a", "1"), SAID]),
        (
            [custom_output("b", "2"), call("a"), call("b"), USER],
            [call("a"), call("b"), output("a"), output("b", "2"), USER],
        ),
        # one call, several outputs: the last one is kept, in the place of the first
        (
            [call("a"), output("a", "1"), SAID, output("a", "2"), USER],
            [call("a"), output("a", "2"), SAID, USER],
        ),
        # ... but not after the user's next message: its call was left out, as it had no name
        (
            [call("a"), output("a", "1"), USER, output("a", "2"), SAID],
            [call("a"), output("a", "1"), USER, SAID],
        ),
        # ... and an early one belongs to a call of its own turn
        ([output("a", "1"), USER, call("a"), SAID], [USER, call("a"), output("a"), SAID]),
        # the kind of an output is that of its call
        ([custom("a"), output("a", "1")], [custom("a"), custom_output("a", "1")]),
        ([call("a"), custom_output("a", "1")], [call("a"), output("a", "1")]),
    ],
)
def test_a_broken_history_is_repaired(items: list[dict[str, Any]], repaired: list[dict[str, Any]]) -> None:
    assert pair_calls(items) == repaired
    assert pair_calls(repaired) is repaired


ONE, TWO = unnamed_call_id(1), unnamed_call_id(2)


@pytest.mark.parametrize(
    ("items", "repaired"),
    [
        ([call(ONE), output(UNKNOWN, "1")], [call(ONE), output(ONE, "1")]),
        (
            [call(ONE), THOUGHT, call(TWO), output(UNKNOWN, "1"), output(UNKNOWN, "2")],
            [call(ONE), THOUGHT, call(TWO), output(ONE, "1"), output(TWO, "2")],
        ),
        (
            [call("a"), call("b"), output("a", "1"), output(UNKNOWN, "2")],
            [call("a"), call("b"), output("a", "1"), output("b", "2")],
        ),
        ([call("a"), call(ONE), output("cut", "1")], [call("a"), call(ONE), output("a"), output(ONE, "1")]),
        # a call of an earlier turn is not the one that is answered
        (
            [call(ONE), USER, call(TWO), output(UNKNOWN, "2")],
            [call(ONE), output(ONE), USER, call(TWO), output(TWO, "2")],
        ),
        # nor is it given the output of a later call that was left out, because it had no name
        ([call(ONE), USER, output("c2", "2"), USER], [call(ONE), output(ONE), USER, USER]),
        ([call("a"), USER, output(UNKNOWN, "2"), USER], [call("a"), output("a"), USER, USER]),
        # what the assistant says between a call and its output is of the same turn
        ([call(ONE), SAID, output(UNKNOWN, "1")], [call(ONE), SAID, output(ONE, "1")]),
        ([call("a"), output("a", "1"), output(UNKNOWN, "2")], [call("a"), output("a", "1")]),
        ([call("a"), output("other", "1")], [call("a"), output("a")]),
    ],
)
def test_an_output_without_an_id_belongs_to_the_call_just_before_it(
    items: list[dict[str, Any]], repaired: list[dict[str, Any]]
) -> None:
    assert pair_calls(items) == repaired
    assert pair_calls(repaired) is repaired


def test_an_unnamed_call_is_given_one_output_only() -> None:
    outputs = [output("cut", "1"), output(UNKNOWN, "2"), output("cut", "3"), output(UNKNOWN, "4")]
    assert pair_calls([call("a"), call(ONE), call(TWO), *outputs]) == [
        *[call("a"), call(ONE), call(TWO)],
        *[output(ONE, "1"), output("a", "2"), output(TWO, "3")],
    ]
    # The first that waits is taken already, as the first unnamed one.
    assert pair_calls([call(ONE), call("a"), *outputs[:2]]) == [
        *[call(ONE), call("a")],
        *[output(ONE, "1"), output("a", "2")],
    ]


MANY = 16_000


@pytest.mark.parametrize(
    "items",
    [
        [*map(call, map(str, range(MANY))), *(output(f"x{number}") for number in range(MANY))],
        [*map(call, map(unnamed_call_id, range(MANY))), *[output(UNKNOWN)] * MANY],
        [*[call("a")] * MANY, *[output("a")] * MANY],
    ],
    ids=["unknown ids", "no ids", "one id"],
)
def test_the_work_is_linear_in_the_number_of_calls(items: list[dict[str, Any]]) -> None:
    begun = thread_time()
    assert len(pair_calls(items)) == 2 * MANY
    assert thread_time() - begun < 1.2  # 0.15 s, and over 2 s when each output went through all calls


def test_an_output_without_an_id_and_a_call_is_dropped_even_if_calls_are_stored_elsewhere() -> None:
    assert pair_calls([USER, output(UNKNOWN, "1"), output("a", "2")], is_whole=False) == [USER, output("a", "2")]


def test_a_repeated_id_is_numbered_together_with_its_output() -> None:
    second = numbered_call_id("call_0", 2)
    first_turn = [call("call_0"), output("call_0", "1"), USER]
    assert pair_calls([*first_turn, call("call_0"), output("call_0", "2")]) == [
        *first_turn,
        call(second),
        output(second, "2"),
    ]
    assert second != "call_0"


def test_two_calls_with_one_id_in_one_turn_get_their_outputs_in_order() -> None:
    second = numbered_call_id("x", 2)
    repaired = [call("x"), call(second), output("x", "1"), output(second, "2")]
    assert pair_calls([call("x"), call("x"), output("x", "1"), output("x", "2")]) == repaired
    assert pair_calls([call("x"), call("x"), output("x", "1"), output("x", "0"), output("x", "2")]) == repaired


def test_an_early_output_belongs_to_its_own_call_and_not_to_one_with_its_id_in_an_earlier_turn() -> None:
    second = numbered_call_id("x", 2)
    first_turn = [call("x"), output("x", "1"), USER]
    repaired = [*first_turn, call(second), output(second, "2")]
    assert pair_calls([*first_turn, output("x", "2"), call("x")]) == repaired
    unanswered = [call("x"), USER]
    third = numbered_call_id("x", 3)
    later = [call("x"), output("x", "2"), USER, output("x", "3"), call("x")]
    assert pair_calls([*unanswered, *later]) == [
        *[call("x"), output("x"), USER],
        *[call(second), output(second, "2"), USER],
        *[call(third), output(third, "3")],
    ]


def test_a_second_output_in_a_later_turn_is_dropped_even_if_calls_are_stored_elsewhere() -> None:
    turn = [call("a"), output("a", "1"), USER]
    assert pair_calls([*turn, output("a", "2")], is_whole=False) == turn


def test_an_output_belongs_to_the_latest_call_with_its_id() -> None:
    second = numbered_call_id("x", 2)
    assert pair_calls([call("x"), USER, call("x"), output("x", "2")]) == [
        call("x"),
        output("x"),
        USER,
        call(second),
        output(second, "2"),
    ]


def test_an_output_may_answer_a_call_that_is_stored_elsewhere() -> None:
    items = [output("a", "1"), call("b"), output("b")]
    assert pair_calls(items, is_whole=False) is items
    assert pair_calls([output("a", "1"), call("b")], is_whole=False) == [output("a", "1"), call("b"), output("b")]


ids = st.sampled_from(["a", "b", "c"])
anything = st.lists(
    st.builds(call, ids)
    | st.builds(custom, ids)
    | st.builds(output, ids, st.sampled_from(["1", "2"]))
    | st.builds(custom_output, ids, st.sampled_from(["3", "4"]))
    | st.sampled_from([USER, SAID, THOUGHT]),
    max_size=12,
)


@given(anything)
def test_every_history_ends_up_paired_and_stays_so(items: list[dict[str, Any]]) -> None:
    before = [dict(item) for item in items]
    repaired = pair_calls(items)
    assert items == before
    calls = [item for item in repaired if item.get("type") in ("function_call", "custom_tool_call")]
    outputs = [item for item in repaired if str(item.get("type")).endswith("_output")]
    assert len({item["call_id"] for item in calls}) == len(calls)
    assert sorted((item["call_id"], f"{item['type']}_output") for item in calls) == sorted(
        (item["call_id"], item["type"]) for item in outputs
    )
    for item in outputs:
        made = next(index for index, one in enumerate(repaired) if one in calls and one["call_id"] == item["call_id"])
        assert made < repaired.index(item)
    others = [item for item in repaired if item not in calls and item not in outputs]
    assert others == [item for item in items if item in (USER, SAID, THOUGHT)]
    assert len(calls) == sum(item.get("type") in ("function_call", "custom_tool_call") for item in items)
    assert pair_calls(repaired) is repaired
