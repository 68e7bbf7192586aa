"""Runs of text: their order, what ends them, and that citations and log probabilities stay right."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.strategies.streams import event_sequences
from msgspec import Raw

from pipeline import codec_stage
from pipeline.testing import check_stage
from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from stages.text_runs import RunKind, TextRuns, Transformer, Window

MASKED = Window(["secret"], "***", max_match=8)
STOP = Finished("stop")


class Whole:
    """Holds a run until its end, and turns it around; reports no changes."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str, /) -> str:
        self._text += text
        return ""

    def flush(self) -> str:
        return self._text[::-1]


class Late:
    """Is one character behind, and changes an X to two Y; reports no changes."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str, /) -> str:
        text, self._held = (self._held + text)[:-1], (self._held + text)[-1:]
        return text.replace("X", "YY")

    def flush(self) -> str:
        return self._held.replace("X", "YY")


def masked(*events: StreamEvent) -> list[StreamEvent]:
    return through(TextRuns(lambda kind: MASKED.open()), *events)


def through(runs: TextRuns, *events: StreamEvent) -> list[StreamEvent]:
    return [given_out for event in events for given_out in runs.feed([event])] + runs.flush()


def joined(events: list[StreamEvent]) -> list[StreamEvent]:
    """Join what follows in a row and could as well be one delta, and drop what is silent."""
    out: list[StreamEvent] = []
    for event in events:
        last = out[-1] if out else None
        match event, last:
            case TextDelta(), TextDelta():
                out[-1] = TextDelta(last.text + event.text)
            case ReasoningDelta(), ReasoningDelta():
                out[-1] = ReasoningDelta(last.text + event.text)
            case RefusalDelta(), RefusalDelta():
                out[-1] = RefusalDelta(last.text + event.text)
            case ToolCallDelta(), ToolCallDelta() if event.index == last.index:
                out[-1] = ToolCallDelta(event.index, last.arguments + event.arguments)
            case Heartbeat(), _:
                pass
            case _:
                out.append(event)
    return out


def logprobs(*tokens: str) -> LogProbs:
    return LogProbs(tuple(Raw(json.dumps({"token": token}).encode()) for token in tokens))


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@given(event_sequences())
def test_a_transformer_that_changes_nothing_changes_no_event(events: list[StreamEvent]) -> None:
    events = [event for event in events if event != TextDelta("")]
    assert through(TextRuns(lambda kind: None), *events) == events
    assert through(TextRuns(lambda kind: Window([], "").open()), *events) == events


@given(event_sequences(), st.randoms())
def test_how_deltas_are_cut_changes_nothing(events: list[StreamEvent], random: Any) -> None:
    def cut(event: StreamEvent) -> list[StreamEvent]:
        match event:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                at = random.randint(0, len(event.text))
                parts = [part for part in (event.text[:at], event.text[at:]) if part]
                return [made for part in parts for made in (type(event)(part), Heartbeat())]
            case ToolCallDelta():
                at = random.randint(0, len(event.arguments))
                parts = [part for part in (event.arguments[:at], event.arguments[at:]) if part]
                return [ToolCallDelta(event.index, part) for part in parts]
            case _:
                return [event]

    events = [event for event in events if event != TextDelta("")]
    window = Window(["[a-z0-9]{2}", "[^a-z0-9]{3}", "0"], "<mask>", max_match=3)
    as_cut = through(TextRuns(lambda kind: window.open()), *[part for event in events for part in cut(event)])
    assert _by_call(joined(as_cut)) == _by_call(joined(through(TextRuns(lambda kind: window.open()), *events)))


def _by_call(events: list[StreamEvent]) -> tuple[list[StreamEvent], dict[int, str]]:
    """Take the arguments out: those of one call are in order, and that is all that the client sees of it."""
    calls: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.index] = calls.get(event.index, "") + event.arguments
    return joined([event for event in events if not isinstance(event, ToolCallDelta)]), calls


def test_what_is_not_shown_does_not_end_a_run() -> None:
    silent: list[StreamEvent] = [
        Heartbeat(),
        Usage(1, 2, 3),
        Started("r", "m", 0),
        ReasoningItem("chat", Raw(b"{}")),
    ]
    for event in silent:
        assert masked(TextDelta("a sec"), event, TextDelta("ret."), STOP) == [
            TextDelta("a "),
            event,
            TextDelta("***."),
            STOP,
        ]


@pytest.mark.parametrize(
    "event",
    [
        ReasoningDelta("hm"),
        RefusalDelta("no"),
        ToolCallStarted(0, "c", "f"),
        ToolCallDelta(0, "{}"),
        Annotations((Citation("u"),)),
        STOP,
        Failed("upstream_error", "It broke off."),
    ],
)
def test_text_is_given_before_other_output(event: StreamEvent) -> None:
    assert masked(TextDelta("a sec"), event, TextDelta("ret.")) == [
        TextDelta("a "),
        TextDelta("sec"),
        event,
        TextDelta("ret."),
    ]


def test_reasoning_and_refusals_are_given_before_text() -> None:
    assert masked(ReasoningDelta("sec"), TextDelta("s"), RefusalDelta("se"), ReasoningDelta("secrets")) == [
        ReasoningDelta("sec"),
        TextDelta("s"),
        RefusalDelta("se"),
        ReasoningDelta("***"),
        ReasoningDelta("s"),
    ]


def test_arguments_of_two_calls_may_be_interleaved() -> None:
    events: list[StreamEvent] = [
        ToolCallStarted(0, "a", "f"),
        ToolCallDelta(0, "sec"),
        ToolCallStarted(1, "b", "g", is_custom=True),
        ToolCallDelta(1, "my se"),
        ToolCallDelta(0, "ret"),
        TextDelta("x"),
        ToolCallDelta(1, "cret se"),
        STOP,
    ]
    assert masked(*events) == [
        events[0],
        events[2],
        ToolCallDelta(1, "my "),
        ToolCallDelta(0, "***"),
        TextDelta("x"),
        ToolCallDelta(1, "*** "),
        ToolCallDelta(1, "se"),
        STOP,
    ]


def test_each_run_has_a_transformer_of_its_own_made_for_its_kind() -> None:
    kinds: list[RunKind] = []

    def open(kind: RunKind) -> Transformer | None:
        kinds.append(kind)
        return Whole() if kind == "text" else None

    given_out = through(
        TextRuns(open),
        *(ReasoningDelta("ab"), TextDelta("cd"), TextDelta("ef"), ReasoningDelta("gh"), TextDelta("ij")),
        *(ToolCallStarted(0, "a", "f"), ToolCallDelta(0, "{}"), ToolCallStarted(1, "b", "g", is_custom=True)),
        *(ToolCallDelta(1, "raw"), ToolCallDelta(0, " "), RefusalDelta("kl"), STOP),
    )
    assert kinds == ["reasoning", "text", "reasoning", "text", "arguments", "input", "refusal"]
    assert text_of(given_out) == "fedcji"


def test_citations_move_with_the_text() -> None:
    #                      0         1         2
    text = "The secret is a secret, he says."
    cited = [(0, 3), (11, 16), (4, 10), (0, 6), (6, 13), (5, 8), (24, 32), (0, 32), (0, 0)]
    want = ["The", "is a ", "***", "The ***", "*** is", "***", "he says.", "The *** is a ***, he says.", ""]
    for cut in range(len(text)):
        event = Annotations(tuple(Citation(str(n), "", start, end) for n, (start, end) in enumerate(cited)))
        given_out = masked(TextDelta(text[:cut]), TextDelta(text[cut:]), event, STOP)
        changed = text_of(given_out)
        assert changed == "The *** is a ***, he says."
        [annotations] = [each for each in given_out if isinstance(each, Annotations)]
        assert [changed[each.start_index : each.end_index] for each in annotations.citations] == want


def test_a_citation_of_what_was_removed_goes_too() -> None:
    removed = Window(["secret"], "")
    cited = Annotations((Citation("a", "", 2, 8), Citation("b", "", 9, 10)))
    given_out = through(TextRuns(lambda kind: removed.open()), TextDelta("a secret b"), cited)
    assert given_out == [TextDelta("a  b"), Annotations((Citation("b", "", 3, 4),))]
    cited = Annotations((Citation("a", "", 2, 8),))
    given_out = through(TextRuns(lambda kind: removed.open()), TextDelta("a secret"), cited, STOP)
    assert given_out == [TextDelta("a "), STOP]


def test_citations_count_over_all_runs_of_text() -> None:
    event = Annotations((Citation("u", "", 8, 11), Citation("v", "", 1, 7)))
    given_out = masked(TextDelta("a secret"), ReasoningDelta("hm"), TextDelta("end"), event)
    assert given_out[-1] == Annotations((Citation("u", "", 5, 8), Citation("v", "", 1, 5)))


def test_without_reported_changes_citations_that_reach_into_one_are_dropped() -> None:
    event = Annotations(tuple(Citation(str(n), "", *at) for n, at in enumerate([(0, 2), (1, 4), (0, 6), (6, 8)])))
    given_out = through(
        TextRuns(lambda kind: Late()), TextDelta("abc"), TextDelta("XdX"), ReasoningDelta("hm"), TextDelta("gh"), event
    )
    assert text_of(given_out) == "abcYYdYYgh"
    assert given_out[-1] == Annotations((Citation("0", "", 0, 2), Citation("2", "", 0, 8), Citation("3", "", 8, 10)))


def test_log_probabilities_come_before_their_text_and_without_it_if_it_has_changed() -> None:
    events: list[StreamEvent] = [
        *(logprobs("I ", "se"), TextDelta("I se"), logprobs("cond"), TextDelta("cond "), logprobs("sec")),
        *(TextDelta("the sec"), Heartbeat(), logprobs("ret", "!"), TextDelta("ret!"), logprobs("ok"), TextDelta("ok")),
        STOP,
    ]
    assert masked(*events) == [
        *(logprobs("I ", "se"), TextDelta("I se"), logprobs("cond"), TextDelta("cond ")),
        *(Heartbeat(), TextDelta("the ***!"), logprobs("ok"), TextDelta("ok")),
        STOP,
    ]


@given(st.lists(st.text("secrt ", min_size=1, max_size=8), max_size=8))
def test_log_probabilities_are_those_of_the_text_after_them(parts: list[str]) -> None:
    given_out = masked(*[event for part in parts for event in (logprobs(part), TextDelta(part))], STOP)
    assert text_of(given_out) == "".join(parts).replace("secret", "***")
    kept = 0
    for event, following in itertools.pairwise(given_out):
        if isinstance(event, LogProbs):
            kept += 1
            assert isinstance(following, TextDelta)
            assert json.loads(bytes(event.content[0]))["token"] == following.text
    assert kept == len(parts) or "secret" in "".join(parts)


def test_log_probabilities_that_no_text_follows_are_those_of_the_text_before() -> None:
    assert masked(TextDelta("fine"), logprobs("fine"), STOP) == [TextDelta("fine"), logprobs("fine"), STOP]
    assert masked(TextDelta("a secret"), logprobs("a", " secret"), STOP) == [TextDelta("a ***"), STOP]
    before_reasoning = masked(TextDelta("se"), logprobs("se"), ReasoningDelta("hm"), STOP)
    assert before_reasoning == [TextDelta("se"), logprobs("se"), ReasoningDelta("hm"), STOP]


def test_log_probabilities_of_the_text_after_reasoning_wait_for_it() -> None:
    events: list[StreamEvent] = [ReasoningDelta("hm"), logprobs("a"), Heartbeat(), TextDelta("a"), STOP]
    assert masked(*events) == [ReasoningDelta("hm"), Heartbeat(), logprobs("a"), TextDelta("a"), STOP]


@pytest.mark.parametrize("kind", [ReasoningDelta, RefusalDelta])
def test_log_probabilities_neither_end_a_run_nor_show_what_was_taken_out_of_it(
    kind: type[ReasoningDelta | RefusalDelta],
) -> None:
    parts = ["my ", "sec", "ret", "."]
    given_out = masked(*[event for part in parts for event in (logprobs(part), kind(part))], STOP)
    assert joined([*map(as_text, given_out)]) == [TextDelta("my ***."), STOP]
    after = masked(*[event for part in parts for event in (kind(part), logprobs(part))], STOP)
    assert joined([*map(as_text, after)]) == [TextDelta("my ***."), STOP]


def as_text(event: StreamEvent) -> StreamEvent:
    return TextDelta(event.text) if isinstance(event, ReasoningDelta | RefusalDelta) else event


def test_log_probabilities_of_arguments_do_not_show_what_was_taken_out_of_them() -> None:
    started = ToolCallStarted(0, "a", "f")
    changed = [started, ToolCallDelta(0, "***"), STOP]
    secret = ToolCallDelta(0, "secret")
    assert masked(logprobs("secret"), started, secret, STOP) == changed
    assert masked(started, logprobs("secret"), secret, STOP) == changed
    assert masked(started, secret, logprobs("secret"), STOP) == changed
    text: list[StreamEvent] = [logprobs("ok"), TextDelta("ok")]
    assert masked(*text, logprobs("secret"), started, secret, STOP) == [*text, *changed]
    assert masked(*text, started, secret, logprobs("secret"), STOP) == [*text, *changed]


def test_log_probabilities_that_belong_to_nothing_are_dropped() -> None:
    assert masked(logprobs("secret"), STOP) == [STOP]


def test_log_probabilities_of_other_output_pass_without_a_transformer() -> None:
    events: list[StreamEvent] = [
        *(logprobs("a"), ReasoningDelta("a"), logprobs("b"), ReasoningDelta("b"), logprobs("c")),
        *(
            ToolCallStarted(0, "a", "f"),
            ToolCallDelta(0, "{"),
            logprobs("}"),
            ToolCallDelta(0, "}"),
            logprobs("d"),
            STOP,
        ),
    ]
    assert through(TextRuns(lambda kind: None), *events) == events


def test_many_changes_take_time_in_proportion_to_their_number() -> None:
    runs = TextRuns(lambda kind: MASKED.open())
    start = time.thread_time()
    for number in range(8000):
        runs.feed([logprobs("a"), TextDelta("secret " if number % 2 else "abc ")])
    assert time.thread_time() - start < 1.5  # 0.15 s, and over 4 s when each of them went through all


def test_without_reported_changes_log_probabilities_after_the_first_one_are_dropped_up_to_the_end_of_the_run() -> None:
    events: list[StreamEvent] = [
        *(logprobs("ab"), TextDelta("ab"), logprobs("cX"), TextDelta("cX"), logprobs("d"), TextDelta("d")),
        *(ReasoningDelta("hm"), logprobs("e"), TextDelta("e"), STOP),
    ]
    assert joined(through(TextRuns(lambda kind: Late()), *events)) == [
        *(logprobs("ab"), TextDelta("abcYYd"), ReasoningDelta("hm"), logprobs("e"), TextDelta("e")),
        STOP,
    ]


def test_it_makes_a_stage() -> None:
    stage = codec_stage("mask", lambda ctx: TextRuns(lambda kind: MASKED.open()), codec=TextRuns)
    events: list[StreamEvent] = [
        *(Started("r", "m", 0), ReasoningDelta("my sec"), ReasoningDelta("ret"), logprobs("a"), TextDelta("a se")),
        *(TextDelta("cret"), ToolCallStarted(0, "c", "f"), ToolCallDelta(0, '{"a":"sec'), ToolCallDelta(0, 'ret"}')),
        *(Annotations((Citation("u", "", 0, 8),)), Usage(1, 2, 3), STOP),
    ]
    given_out = check_stage(stage, *events)
    assert text_of(given_out) == "a ***"
    assert Annotations((Citation("u", "", 0, 5),)) in given_out
