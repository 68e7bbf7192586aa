import math

import pytest
from hedge import Hedge

from pipeline import UpstreamFault
from stages.events import Finished, StreamEvent, TextDelta
from stages.testing import CheckedAnswer, Script, check_around, new_call, soak_around

SLOW_S, LATE_S, AT_ONCE_S = 3600.0, 3.0, 0.0
DOWN = UpstreamFault("it is down")
TWO = {"second": new_call(id="second").deployment, "other": new_call(model="other").deployment}


def answer(text: str, *, after_s: float = AT_ONCE_S) -> list[StreamEvent | UpstreamFault | float]:
    return [after_s, TextDelta(text), Finished("stop")]


def hedged(*attempts: Script, after_s: float = 2.0) -> tuple[str, list[str]]:
    """Return who has answered, and who was asked."""
    given = check_around(Hedge(after_s), *attempts, deployments=TWO)
    return text_of(given), [attempt.call.deployment.id for attempt in given.attempts]


def text_of(given: CheckedAnswer) -> str:
    return "".join(event.text for event in given if isinstance(event, TextDelta))


def test_a_first_one_that_begins_in_time_is_the_only_one() -> None:
    assert hedged(answer("first", after_s=1.9)) == ("first", ["gpt-5-1"])


def test_a_first_one_that_stalls_is_overtaken_by_another_of_the_same_name() -> None:
    assert hedged(answer("first", after_s=SLOW_S), answer("second")) == ("second", ["gpt-5-1", "second"])


def test_if_both_are_slow_the_first_to_begin_answers() -> None:
    asked = ["gpt-5-1", "second"]
    assert hedged(answer("first", after_s=9.0), answer("second", after_s=8.0)) == ("first", asked)
    assert hedged(answer("first", after_s=9.0), answer("second", after_s=6.0)) == ("second", asked)
    assert hedged(answer("either", after_s=9.0), answer("either", after_s=7.0)) == ("either", asked)


def test_if_one_of_two_fails_the_other_answers() -> None:
    assert hedged([LATE_S, DOWN], answer("second", after_s=LATE_S))[0] == "second"
    assert hedged(answer("first", after_s=SLOW_S), [LATE_S, DOWN])[0] == "first"


def test_what_has_failed_in_time_is_not_asked_elsewhere() -> None:
    with pytest.raises(UpstreamFault, match="it is down"):
        hedged(DOWN)


def test_if_both_fail_the_request_fails() -> None:
    with pytest.raises(UpstreamFault, match="it is down"):
        hedged([LATE_S, DOWN], [LATE_S, DOWN])


def test_without_another_one_the_first_goes_on_alone() -> None:
    assert text_of(check_around(Hedge(), answer("first", after_s=SLOW_S))) == "first"


def test_a_wait_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Hedge(after_s=-1)


def test_it_leaves_nothing_behind() -> None:
    never = math.inf  # trio keeps the deadline of a cancelled sleep for a while
    soak_around(Hedge(), answer("first", after_s=never), answer("second"), rounds=10, deployments=TWO)
    soak_around(Hedge(), [LATE_S, DOWN], answer("second", after_s=LATE_S), rounds=10, deployments=TWO)
