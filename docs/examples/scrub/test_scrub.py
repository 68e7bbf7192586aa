import pytest
from msgspec import Raw, json
from scrub import Options, make_scrub

from pipeline.testing import check_stage
from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)

STAGE = make_scrub(Options([r"\bsk-[a-z]{3,}", r"\d{4}-\d{4}"], mask="***", max_match=32))
TEXT = "A sk-skate, no skis: 1234-5678, asks sk-ab"
SCRUBBED = "A ***, no skis: ***, asks sk-ab"
STOP = Finished("stop")


def text_of(events: list[StreamEvent], kind: type[TextDelta | ReasoningDelta | RefusalDelta] = TextDelta) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def arguments_of(events: list[StreamEvent], index: int) -> str:
    return "".join(event.arguments for event in events if isinstance(event, ToolCallDelta) and event.index == index)


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta, RefusalDelta])
def test_secrets_are_found_wherever_they_are_cut(kind: type[TextDelta | ReasoningDelta | RefusalDelta]) -> None:
    for cut in range(1, len(TEXT)):
        given = check_stage(STAGE, kind(TEXT[:cut]), Heartbeat(), kind(TEXT[cut:]), STOP)
        assert text_of(given, kind) == SCRUBBED
        assert given[-1] == STOP
    assert text_of(check_stage(STAGE, *(kind(character) for character in TEXT)), kind) == SCRUBBED


def test_arguments_stay_json_wherever_they_are_cut() -> None:
    said = {"k\nsk-abc": ["1234-5678", 'say "sk-abc"'], "n": 1, "path": "C:\\sk-abc\\u"}
    text = json.encode(said).decode()
    start = ToolCallStarted(0, "call_1", "f")
    for cut in range(1, len(text)):
        given = check_stage(STAGE, start, ToolCallDelta(0, text[:cut]), ToolCallDelta(0, text[cut:]), STOP)
        assert json.decode(arguments_of(given, 0)) == {"k\n***": ["***", 'say "***"'], "n": 1, "path": "C:\\***\\u"}


def test_raw_input_of_a_custom_tool_is_scrubbed_beside_other_calls() -> None:
    given = check_stage(
        STAGE,
        *(ToolCallStarted(0, "call_1", "f", is_custom=True), ToolCallStarted(1, "call_2", "g")),
        *(ToolCallDelta(0, 'echo "sk-'), ToolCallDelta(1, '{"a": "sk-a'), ToolCallDelta(0, 'abc"')),
        *(ToolCallDelta(1, 'bc"}'), STOP),
    )
    assert (arguments_of(given, 0), arguments_of(given, 1)) == ('echo "***"', '{"a": "***"}')


def test_citations_and_log_probabilities_stay_right() -> None:
    tokens = {part: LogProbs((Raw(json.encode({"token": part})),)) for part in ("Use ", "sk-", "abc", " now")}
    events = [event for part, logprobs in tokens.items() for event in (logprobs, TextDelta(part))]
    cited = Annotations((Citation("https://a.example", "", 4, 10), Citation("https://b.example", "", 11, 14)))
    assert check_stage(STAGE, *events, cited, STOP) == [
        *(tokens["Use "], TextDelta("Use "), TextDelta("***"), tokens[" now"], TextDelta(" now")),
        Annotations((Citation("https://a.example", "", 4, 7), Citation("https://b.example", "", 8, 11))),
        STOP,
    ]


def test_what_only_began_like_a_secret_is_sent_before_other_output_and_at_the_end() -> None:
    failed = Failed("upstream_error", "It broke off.")
    assert check_stage(STAGE, TextDelta("a sk-a"), ToolCallStarted(0, "call_1", "f"), TextDelta("sk-"), failed) == [
        *(TextDelta("a "), TextDelta("sk-a"), ToolCallStarted(0, "call_1", "f"), TextDelta("sk-"), failed)
    ]


@pytest.mark.parametrize("options", [Options([]), Options(["("]), Options(["a"], mask='"'), Options(["a"], mask="\\")])
def test_options_that_make_no_sense_are_refused(options: Options) -> None:
    with pytest.raises(ValueError, match=r"must not|not a regular expression"):
        make_scrub(options)
