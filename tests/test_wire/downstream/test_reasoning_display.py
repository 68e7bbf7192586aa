"""Reasoning is shown the same in a stream and in a document, and can always be removed from the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.clients.chat_fold import Folded, chunks_of, fold_document, fold_stream
from kit.recordings import recordings
from kit.strategies.streams import batched, event_sequences
from msgspec import Raw
from msgspec.structs import replace

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    Heartbeat,
    LogProbs,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.profiles import CURSOR, OPENAI, Profile, ReasoningDisplay
from stages.wire.downstream.shown_reasoning import strip_shown_reasoning
from stages.wire.responses.decoder import ResponsesDecoder

DISPLAYS: tuple[ReasoningDisplay, ...] = get_args(ReasoningDisplay)
MIRRORED: dict[ReasoningDisplay, tuple[str, str]] = {
    "think": ("<think>\n", "\n</think>\n\n"),
    "details": ("<details>\n<summary>Thinking</summary>\n\n", "\n\n</details>\n\n"),
}
STARTED = Started("resp_1", "m", 1790000000)
STOP = Finished("stop")
LOGPROB = Raw(b'{"token":"a","logprob":-0.5,"bytes":null,"top_logprobs":[]}')

in_both_forms = pytest.mark.parametrize(("display", "opening", "closing"), [(d, *m) for d, m in MIRRORED.items()])


def profile(display: ReasoningDisplay, base: Profile = OPENAI) -> Profile:
    return replace(base, reasoning_display=display)


def encoder(wanted: Profile) -> ChunkEncoder:
    return ChunkEncoder(model="m", chunk_id="chatcmpl-1", created=1, include_usage=True, profile=wanted)


def encode(wanted: Profile, *events: StreamEvent) -> bytes:
    encode = encoder(wanted)
    return b"".join(encode.feed(list(events)) + encode.flush())


def collect(wanted: Profile, *events: StreamEvent) -> bytes:
    collector = CompletionCollector(model="m", chunk_id="chatcmpl-1", created=1, profile=wanted)
    [document] = collector.feed(list(events))
    return document


def deltas(display: ReasoningDisplay, *events: StreamEvent) -> list[dict[str, Any]]:
    """Return the deltas between the role and the end."""
    chunks = chunks_of(encode(profile(display), STARTED, *events, STOP))
    return [chunk["choices"][0]["delta"] for chunk in chunks[1:-1]]


def message_of(folded: Folded) -> tuple[object, ...]:
    return (
        folded.content,
        folded.refusal,
        folded.reasoning,
        folded.tool_calls,
        folded.annotations,
        folded.finish_reason,
        folded.usage,
    )


def test_reasoning_has_a_field_of_its_own_by_default() -> None:
    assert OPENAI.reasoning_display == CURSOR.reasoning_display == "reasoning_content"
    assert deltas("reasoning_content", ReasoningDelta("r"), TextDelta("t")) == [
        {"reasoning_content": "r"},
        {"content": "t"},
    ]


def test_none_shows_no_reasoning() -> None:
    events: list[StreamEvent] = [ReasoningDelta("r"), TextDelta("t"), ReasoningDelta("r")]
    assert deltas("none", *events) == [{"content": "t"}]
    assert message_of(fold_document(collect(profile("none"), *events, STOP)))[:3] == ("t", None, "")


def test_none_has_no_block_to_close_before_a_failure_in_the_stream() -> None:
    late = encoder(profile("none", CURSOR))
    assert late.feed([STARTED, ReasoningDelta("r")]) == []
    content = fold_stream(late.in_band(Failed("upstream_error", "Broken."))).content or ""
    assert content.strip() == "[upstream error: upstream_error: Broken.]"


@in_both_forms
def test_reasoning_is_shown_as_it_arrives_and_closed_before_the_text(
    display: ReasoningDisplay, opening: str, closing: str
) -> None:
    found = deltas(display, ReasoningDelta("r"), ReasoningDelta("s"), TextDelta("t"), TextDelta("u"))
    assert found == [
        {"content": opening + "r"},
        {"content": "s"},
        {"content": closing},
        {"content": "t"},
        {"content": "u"},
    ]


@in_both_forms
@pytest.mark.parametrize(
    ("event", "field"),
    [(RefusalDelta("no"), "refusal"), (ToolCallStarted(0, "call_a", "f"), "tool_calls")],
)
def test_the_block_is_closed_before_any_other_output(
    display: ReasoningDisplay, opening: str, closing: str, event: StreamEvent, field: str
) -> None:
    first, second, third = deltas(display, ReasoningDelta("r"), Heartbeat(), event, ReasoningDelta("late"))
    assert (first, second) == ({"content": opening + "r"}, {"content": closing})
    assert list(third) == [field]


@in_both_forms
def test_reasoning_alone_is_closed_by_the_end(display: ReasoningDisplay, opening: str, closing: str) -> None:
    assert deltas(display, ReasoningDelta("r")) == [{"content": opening + "r"}, {"content": closing}]
    assert fold_document(collect(profile(display), ReasoningDelta("r"), STOP)).content == f"{opening}r{closing}"


@in_both_forms
def test_reasoning_after_the_start_of_the_answer_is_left_out(
    display: ReasoningDisplay, opening: str, closing: str
) -> None:
    assert deltas(display, TextDelta("t"), ReasoningDelta("r"), TextDelta("u")) == [{"content": "t"}, {"content": "u"}]
    first = ReasoningDelta("r"), TextDelta("t"), ReasoningDelta("s"), ToolCallStarted(0, "call_a", "f")
    assert [delta.get("content") for delta in deltas(display, *first)] == [opening + "r", closing, "t", None]


@in_both_forms
@pytest.mark.parametrize("base", [OPENAI, CURSOR], ids=lambda base: base.name)
def test_a_failure_is_reported_outside_the_block(
    display: ReasoningDisplay, opening: str, closing: str, base: Profile
) -> None:
    wanted = profile(display, base)
    broken = Failed("upstream_error", "Broken.")
    streams = [encode(wanted, STARTED, ReasoningDelta("r"), broken), encode(wanted, STARTED, ReasoningDelta("r"))]
    late = encoder(wanted)
    streams.append(b"".join(late.feed([STARTED, ReasoningDelta("r")])) + late.in_band(broken))
    for stream in streams:
        content = fold_stream(stream).content or ""
        assert content.startswith(f"{opening}r{closing}")
        assert ("[upstream error: " in strip_shown_reasoning(content)) == base.failure_as_text
    unsaid = encoder(wanted)
    assert unsaid.feed([STARTED, broken]) == []
    assert unsaid.failed == broken


@in_both_forms
def test_citations_count_from_the_start_of_the_whole_text(
    display: ReasoningDisplay, opening: str, closing: str
) -> None:
    cited = Annotations((Citation("https://a", "A", 4, 7),))
    events: list[StreamEvent] = [ReasoningDelta("r"), TextDelta("see this"), cited, STOP]
    for folded in (
        fold_stream(encode(profile(display), STARTED, *events)),
        fold_document(collect(profile(display), *events)),
    ):
        at = folded.annotations[0]["url_citation"]
        assert folded.content is not None
        assert folded.content[at["start_index"] : at["end_index"]] == "thi"
    plain = fold_stream(encode(profile(display), STARTED, *events[1:]))
    assert plain.annotations[0]["url_citation"]["start_index"] == 4


@in_both_forms
def test_log_probabilities_stay_with_the_models_own_text(display: ReasoningDisplay, opening: str, closing: str) -> None:
    stream = encode(profile(display), STARTED, ReasoningDelta("r"), LogProbs((LOGPROB,)), TextDelta("a"), STOP)
    with_logprobs = [c["choices"][0] for c in chunks_of(stream) if c["choices"] and c["choices"][0].get("logprobs")]
    assert [choice["delta"] for choice in with_logprobs] == [{"content": "a"}]


@in_both_forms
def test_reasoning_cannot_end_its_own_block(display: ReasoningDisplay, opening: str, closing: str) -> None:
    tag = closing.strip()
    for parts in ([tag], [f"a\n{tag}\nb"], ["a\n", *tag, "\nb"], ["a\n" + tag[:3]], [tag[:-1], tag]):
        events: list[StreamEvent] = [*(ReasoningDelta(part) for part in parts), TextDelta("answer"), STOP]
        folded = fold_stream(encode(profile(display), STARTED, *events))
        assert folded.content is not None
        assert strip_shown_reasoning(folded.content) == "answer"
        assert folded.content.startswith(opening)
        shown = folded.content.removeprefix(opening).removesuffix(closing + "answer")
        assert shown == "".join(parts).replace(tag, f"< {tag[1:]}")
        assert fold_document(collect(profile(display), *events)).content == folded.content


tricky = st.sampled_from(["<", "/", "</", "think>", "</think>", "\n", "details>", "<details>", "</details>", "x", " "])
reasoning_of = st.lists(tricky, min_size=1, max_size=6)


@given(
    st.data(), event_sequences(whole=True), reasoning_of, st.sampled_from(DISPLAYS), st.sampled_from([OPENAI, CURSOR])
)
def test_a_stream_and_a_document_say_the_same_however_reasoning_is_shown(
    data: st.DataObject, events: list[StreamEvent], thoughts: list[str], display: ReasoningDisplay, base: Profile
) -> None:
    events[1:1] = [ReasoningDelta(thought) for thought in thoughts]
    wanted = profile(display, base)
    stream = encode(wanted, *events)
    streamed, collected = fold_stream(stream), fold_document(collect(wanted, *events))
    # Surrogate halves are joined only where the whole text is known.
    halves = any(
        "\ud800" <= char <= "\udfff" for event in events if isinstance(event, TextDelta) for char in event.text
    )
    if not halves:
        assert (streamed.content or "") == (collected.content or "")
    for name in ("refusal", "reasoning", "tool_calls", "annotations", "finish_reason", "usage"):
        if name != "usage" or base.usage_always:
            assert getattr(streamed, name) == getattr(collected, name), name
    cut = encoder(wanted)
    frames = [frame for batch in data.draw(batched(events)) for frame in cut.feed(batch)] + cut.flush()
    assert b"".join(frames) == stream
    # What was shown can be removed again without any other change.
    hidden = fold_stream(encode(profile("none", base), *events))
    if display in MIRRORED:
        assert strip_shown_reasoning(streamed.content or "") == strip_shown_reasoning(hidden.content or "")
        assert (streamed.tool_calls, streamed.refusal) == (hidden.tool_calls, hidden.refusal)


@pytest.mark.parametrize("path", recordings("responses"))
def test_a_recordings_stream_and_document_are_the_same_in_every_setting(path: Path) -> None:
    decoder = ResponsesDecoder()
    events = decoder.feed([path.read_bytes()]) + decoder.flush()
    if not isinstance(events[-1], Finished):
        return
    hidden = fold_document(collect(profile("none"), *events))
    for display in DISPLAYS:
        streamed = fold_stream(encode(profile(display), *events))
        assert message_of(streamed) == message_of(fold_document(collect(profile(display), *events)))
        if display in MIRRORED:
            assert streamed.reasoning == ""
            assert strip_shown_reasoning(streamed.content or "") == strip_shown_reasoning(hidden.content or "")


def test_tool_calls_are_not_affected_by_shown_reasoning() -> None:
    call = ToolCallStarted(0, "call_a", "f"), ToolCallDelta(0, "{}")
    folded = fold_stream(encode(profile("think"), STARTED, ReasoningDelta("r"), *call, Finished("tool_calls")))
    assert folded.tool_calls == [{"id": "call_a", "name": "f", "arguments": "{}"}]
    assert folded.content == "<think>\nr\n</think>\n\n"
