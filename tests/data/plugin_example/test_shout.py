from shout import shout

from pipeline.testing import check_stage
from stages.events import Finished, ReasoningDelta, TextDelta


def test_only_text_is_shouted() -> None:
    assert check_stage(shout, ReasoningDelta("hm"), TextDelta("Hello, "), TextDelta("you"), Finished("stop")) == [
        ReasoningDelta("hm"),
        TextDelta("HELLO, "),
        TextDelta("YOU"),
        Finished("stop"),
    ]
