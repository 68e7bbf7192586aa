"""What the decoders of all upstream APIs have in common, tested in the notation of each API."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kit.upstreams.anthropic_stream as anthropic
import kit.upstreams.chat_stream as chat
import pytest
from kit.clients.chat_fold import assert_as_expected, chunks_of, fold_document, fold_stream
from kit.recordings import expected_of, needs_shared, once, recordings, shared_recordings
from kit.schemas import validate_chunk, validate_completion
from kit.strategies.streams import sse
from kit.upstreams.decoded import collect, decode, encode, folded_calls, read_all
from kit.upstreams.recorded_documents import anthropic_document, chat_document, payloads_in

from stages.events import Failed, Finished, Started, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted, Usage
from stages.upstreams.apis import APIS
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.answers.stream_decoder import StreamDecoder
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.responses.decoder import ResponsesDecoder
from stages.wire.responses.wrapped_calls import UnwrappingDecoder
from stages.wire.sse import Parser

Json = dict[str, Any]

EARLY = Failed("upstream_protocol", "The upstream's stream ended before its answer was complete; try again.")


@dataclass(frozen=True)
class Upstream:
    """How one upstream API sends the text ``a`` and ends its answer."""

    api: str
    """Its name, which is also that of the folder of its recordings."""
    decoder: Callable[..., StreamDecoder[Any]]
    started: Started
    text: list[Json]
    reason: Json
    """The event after which the answer is complete."""
    end: list[Json | str]
    """What follows the finish reason."""

    def decode(self, *events: Json | str | bytes, **settings: Any) -> list[StreamEvent]:
        return decode(lambda: self.decoder(RequestTraits(**settings)), *events)


@dataclass(frozen=True)
class TranslatedUpstream(Upstream):
    """An API that is translated: how it calls tools and sends documents, and its recordings."""

    reason_of: Callable[[str], Json]
    cut_off: str
    """Its finish reason for an answer that is too long."""
    usage: list[Json]
    """The text ``a``, with a usage of 3 and 1 tokens."""
    call: Callable[..., list[Json]]
    """Makes the events of a call from an index, an id, a name and pieces of arguments."""
    decode_document: Callable[..., list[StreamEvent]]
    document: Callable[[str | None], bytes]
    """Makes the end of an answer from its finish reason."""
    no_document: str
    recorded_document: Callable[[Path], Json]
    created_of: Callable[[Path], int]


def calls_by_chat(number: int, call_id: str, name: str, *pieces: str) -> list[Json]:
    begun = chat.calls(chat.call(number, call_id, name, ""))
    return [begun, *(chat.calls(chat.call(number, None, None, piece)) for piece in pieces)]


RESPONSE = {"id": "resp_1", "model": "gpt-5", "created_at": 5}
RESPONSES = Upstream(
    api="responses",
    decoder=ResponsesDecoder,
    started=Started("resp_1", "gpt-5", 5),
    text=[
        {"type": "response.created", "response": RESPONSE},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"},
    ],
    reason={"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": []}},
    end=[],
)
CHAT = TranslatedUpstream(
    api="chat",
    decoder=ChatDecoder,
    started=chat.STARTED,
    text=[chat.chunk({"content": "a"})],
    reason=chat.chunk({}, "stop"),
    end=[chat.DONE],
    reason_of=lambda word: chat.chunk({}, word),
    cut_off="length",
    usage=[chat.chunk({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 1})],
    call=calls_by_chat,
    decode_document=decode_chat_document,
    document=lambda word: chat.document({"content": "a"}, word),
    no_document="The upstream's answer is not a Chat Completions document.",
    recorded_document=chat_document,
    created_of=lambda path: next(chunk["created"] for chunk in payloads_in(path) if chunk["created"]),
)
ANTHROPIC = TranslatedUpstream(
    api="anthropic",
    decoder=AnthropicDecoder,
    started=anthropic.STARTED,
    text=[anthropic.head(), *anthropic.text(0, "a")],
    reason=anthropic.last(),
    end=[anthropic.STOP],
    reason_of=anthropic.last,
    cut_off="max_tokens",
    usage=[anthropic.head(usage={"input_tokens": 3, "output_tokens": 1}), *anthropic.text(0, "a")],
    call=lambda number, *parts: anthropic.tool(1 + number, *parts),
    decode_document=decode_anthropic_document,
    document=lambda word: anthropic.document({"type": "text", "text": "a"}, reason=word),
    no_document="The upstream's answer is not an Anthropic Messages document.",
    recorded_document=anthropic_document,
    created_of=lambda path: 1,  # Anthropic sends no time, so the client gets ours
)

UPSTREAMS = [RESPONSES, CHAT, ANTHROPIC]

each_upstream = pytest.mark.parametrize("upstream", UPSTREAMS, ids=lambda it: it.api)
each_translated = pytest.mark.parametrize("upstream", [CHAT, ANTHROPIC], ids=lambda it: it.api)


def test_every_api_is_tested_here() -> None:
    assert [upstream.api for upstream in UPSTREAMS] == list(APIS)


# --- the end ---------------------------------------------------------------------------------------------------------


@each_upstream
def test_nothing_comes_after_the_end(upstream: Upstream) -> None:
    decoder = upstream.decoder()
    events = decoder.feed([sse(*upstream.text, upstream.reason, *upstream.end, *upstream.text, "junk")])
    assert events == [upstream.started, TextDelta("a"), Finished("stop")]
    assert decoder.feed([sse(*upstream.text)]) == []
    assert decoder.flush() == []


@each_upstream
def test_litellm_20_an_early_end_is_a_failure_and_never_a_stop(upstream: Upstream) -> None:
    assert upstream.decode(*upstream.text) == [upstream.started, TextDelta("a"), EARLY]
    assert upstream.decode(*upstream.text, "[DONE]") == [upstream.started, TextDelta("a"), EARLY]
    assert upstream.decode("[DONE]") == [EARLY]
    assert upstream.decode() == [EARLY]


@each_upstream
def test_the_empty_line_after_the_last_event_may_be_missing(upstream: Upstream) -> None:
    decoder = upstream.decoder()
    whole = sse(*upstream.text, upstream.reason, *upstream.end)
    assert decoder.feed([whole[:-2]]) == [upstream.started, TextDelta("a")]
    assert decoder.flush() == [Finished("stop")]


@each_upstream
@pytest.mark.parametrize("cut", [3, 12, -3, -2])
def test_an_event_cut_off_at_the_end_of_the_input_is_not_an_answer(upstream: Upstream, cut: int) -> None:
    decoder = upstream.decoder()
    events = decoder.feed([sse(*upstream.text) + sse(upstream.reason)[:cut]]) + decoder.flush()
    assert events[-1] == (Finished("stop") if cut == -2 else EARLY)


@each_translated
def test_the_end_may_be_missing_once_the_reason_is_known(upstream: TranslatedUpstream) -> None:
    decoder = upstream.decoder()
    assert not decoder.is_complete
    decoder.feed([sse(*upstream.text)])
    assert not decoder.is_complete
    assert decoder.feed([sse(upstream.reason)]) == []
    assert decoder.is_complete
    assert decoder.flush() == [Finished("stop")]


@pytest.mark.parametrize("is_unwrapped", [True, False])
def test_an_answer_of_the_responses_api_is_complete_only_with_its_terminal_event(is_unwrapped: bool) -> None:
    responses = ResponsesDecoder()
    decoder = UnwrappingDecoder(responses, frozenset({"ApplyPatch"})) if is_unwrapped else responses
    decoder.feed([sse(*RESPONSES.text)])
    assert not decoder.is_complete
    assert decoder.feed([sse(RESPONSES.reason)]) == [Finished("stop")]


@each_translated
def test_a_finish_reason_may_be_a_failure(upstream: TranslatedUpstream) -> None:
    failed = Failed("upstream_error", "The upstream broke off its answer; try again.", "error")
    events = upstream.decode(*upstream.text, upstream.reason_of("error"), *upstream.end)
    assert events == [upstream.started, TextDelta("a"), failed]


# --- failures --------------------------------------------------------------------------------------------------------


@each_upstream
@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        b'{"type":',
        b'{"type":}',
        b'{"type":"x"} {}',
        b'{"type":"response.output_text.delta","delta":"a\x01"}',
        b'{"type":' + b"[" * 100_000,
    ],
    ids=["no JSON", "cut", "no value", "two values", "a control character", "nested too deep"],
)
def test_what_is_not_json_ends_the_answer(upstream: Upstream, junk: bytes) -> None:
    events = upstream.decoder().feed([sse(*upstream.text, junk, *upstream.text, upstream.reason, *upstream.end)])
    message = "The upstream sent an event that is not JSON; the answer ends here. Try again."
    assert events == [upstream.started, TextDelta("a"), Failed("upstream_protocol", message)]


@each_upstream
def test_an_event_that_is_too_large_ends_the_answer(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.wire.sse.Parser", lambda: Parser(max_event_bytes=300))
    large = b'{"x":"%b"}' % (b"b" * 300)
    decoder = upstream.decoder()
    message = "The upstream sent an event of more than 16 MiB; the answer ends here."
    assert decoder.feed([sse(*upstream.text, large)]) == [
        upstream.started,
        TextDelta("a"),
        Failed("upstream_protocol", message),
    ]
    assert decoder.flush() == []
    after_the_end = upstream.decoder().feed([sse(*upstream.text, upstream.reason, *upstream.end, large)])
    assert after_the_end == [upstream.started, TextDelta("a"), Finished("stop")]
    after_junk = upstream.decoder().feed([sse(*upstream.text, "junk", large)])
    assert [type(event) for event in after_junk] == [Started, TextDelta, Failed]
    assert "not JSON" in after_junk[-1].message  # type: ignore[union-attr]


@each_translated
def test_usage_before_a_failure_is_emitted(upstream: TranslatedUpstream) -> None:
    error = {"type": "error", "error": {"type": "api_error", "message": "m"}}
    started, text, usage, failed = upstream.decode(*upstream.usage, error)
    assert [started, text] == [upstream.started, TextDelta("a")]
    assert isinstance(usage, Usage)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 1, 4)
    assert failed == Failed("upstream_error", "m", "api_error")


# --- tool calls ------------------------------------------------------------------------------------------------------

PATCH = '*** Begin Patch\n+ say("hé 😀 \\o/")\n*** End Patch\n'


@each_translated
def test_litellm_7_a_custom_tool_that_was_sent_as_a_function_streams_its_raw_text(upstream: TranslatedUpstream) -> None:
    arguments = json.dumps({"input": PATCH})
    pieces = [arguments[i : i + 3] for i in range(0, len(arguments), 3)]
    call = upstream.call(0, "a", "ApplyPatch", *pieces)
    events = upstream.decode(*upstream.text, *call, upstream.reason, custom_tools=frozenset({"ApplyPatch"}))
    assert folded_calls(events) == [("a", "ApplyPatch", PATCH, True)]
    assert sum(isinstance(event, ToolCallDelta) for event in events) > len(pieces) / 2


@each_translated
@pytest.mark.parametrize("arguments", ["", "{}", '{"input":""}'])
def test_a_custom_tool_may_get_an_empty_text(upstream: TranslatedUpstream, arguments: str) -> None:
    call = upstream.call(0, "a", "T", arguments)
    events = upstream.decode(*upstream.text, *call, upstream.reason, custom_tools=frozenset({"T"}))
    assert folded_calls(events) == [("a", "T", "", True)]


@each_translated
def test_what_open_custom_calls_still_hold_comes_in_order_and_before_the_end(
    upstream: TranslatedUpstream,
) -> None:
    """The text of an object that starts with another field is known only at the end."""
    calls = [upstream.call(n, f"c{n}", "T", f'{{"why":1,"input":"{n}"}}') for n in (0, 1, 2)]
    stream = [*upstream.text, *(event for call in calls for event in call), upstream.reason, *upstream.end]
    events = upstream.decode(*stream, custom_tools=frozenset({"T"}))
    assert events[2:] == [
        *(ToolCallStarted(n, f"c{n}", "T", is_custom=True) for n in (0, 1, 2)),
        *(ToolCallDelta(n, f"{n}") for n in (0, 1, 2)),
        Finished("tool_calls"),
    ]


@each_translated
def test_a_call_without_a_name_is_dropped(upstream: TranslatedUpstream) -> None:
    events = upstream.decode(*upstream.text, *upstream.call(0, "a", "", "{}"), upstream.reason, *upstream.end)
    assert events == [upstream.started, TextDelta("a"), Finished("stop")]


@each_translated
def test_an_id_that_the_conversation_has_used_is_replaced(upstream: TranslatedUpstream) -> None:
    calls = [*upstream.call(0, "call_0", "f"), *upstream.call(1, "call_0", "f"), *upstream.call(2, "", "f")]
    again = folded_calls(upstream.decode(*upstream.text, *calls, upstream.reason, used_call_ids=frozenset({"call_0"})))
    answer_id = upstream.started.response_id
    assert [call_id for call_id, *_ in again] == [f"call_{answer_id}_{n}" for n in (0, 1, 2)]
    first = folded_calls(upstream.decode(*upstream.text, *calls, upstream.reason))
    assert [call_id for call_id, *_ in first] == ["call_0", f"call_{answer_id}_1", f"call_{answer_id}_2"]


@each_translated
def test_arguments_that_were_cut_off_stay_so(upstream: TranslatedUpstream) -> None:
    cut = [*upstream.call(0, "a", "f", '{"x'), upstream.reason_of(upstream.cut_off)]
    events = upstream.decode(*upstream.text, *cut, *upstream.end)
    assert folded_calls(events) == [("a", "f", '{"x', False)]
    assert events[-1] == Finished("length")


# --- documents -------------------------------------------------------------------------------------------------------


@each_translated
def test_the_finish_reason_of_a_document_may_be_missing(upstream: TranslatedUpstream) -> None:
    whole = upstream.decode_document(upstream.document(None))
    assert whole == [upstream.started, TextDelta("a"), Finished("stop")]
    cut_off = upstream.decode_document(upstream.document(upstream.cut_off))
    assert cut_off == [upstream.started, TextDelta("a"), Finished("length")]


@each_translated
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b"[]", b"5", b'{"id":"x"}', b'{"id":"x","choices":[]}', b"[" * 100_000]
)
def test_what_is_not_a_document_is_a_failure(upstream: TranslatedUpstream, body: bytes) -> None:
    assert upstream.decode_document(body)[-1] == Failed("upstream_protocol", upstream.no_document)


# --- recordings (those of the Responses API: test_recordings.py) -----------------------------------------------------

each_recording = pytest.mark.parametrize(
    ("upstream", "path"),
    once(
        pytest.param(upstream, *found.values, id=f"{upstream.api}-{found.id}", marks=found.marks)
        for upstream in (CHAT, ANTHROPIC)
        for found in recordings(upstream.api)
    ),
)


def result_of(upstream: TranslatedUpstream, path: Path) -> Json:
    """Return the expected result, with the time that its file leaves out."""
    expected = expected_of(path)
    assert expected["created"] == 0
    return {**expected, "created": upstream.created_of(path)}


@needs_shared
@each_translated
def test_all_nine_shared_recordings_are_here(upstream: TranslatedUpstream) -> None:
    assert len(shared_recordings(upstream.api)) == 9


@each_recording
def test_a_recording_gives_the_expected_stream_and_document(upstream: TranslatedUpstream, path: Path) -> None:
    events = read_all(upstream.decoder, [[path.read_bytes()]])
    expected = result_of(upstream, path)
    assert isinstance(events[0], Started)
    assert expected["response_id"] in (None, events[0].response_id)  # not recorded for chat streams
    assert expected["model"] == events[0].model
    stream = encode(events)
    for one in chunks_of(stream):
        validate_chunk(one)
    assert_as_expected(fold_stream(stream), expected)
    completion = collect(events)
    validate_completion(json.loads(completion))
    assert_as_expected(fold_document(completion), expected)


@each_recording
def test_a_recording_yields_the_same_events_however_it_is_cut(upstream: TranslatedUpstream, path: Path) -> None:
    stream = path.read_bytes()
    whole = read_all(upstream.decoder, [[stream]])
    assert read_all(upstream.decoder, ([stream[i : i + 1]] for i in range(len(stream)))) == whole
    assert read_all(upstream.decoder, [[stream.replace(b"\n", b"\r\n")]]) == whole
    rng = random.Random(path.stem)
    for _ in range(5):
        points = sorted(rng.choices(range(len(stream)), k=rng.choice((1, 10, 300))))
        pieces = [stream[i:j] for i, j in zip([0, *points], [*points, len(stream)], strict=True)]
        assert read_all(upstream.decoder, ([piece] for piece in pieces)) == whole


@each_recording
def test_a_recording_as_a_document_yields_the_expected_result_both_ways(
    upstream: TranslatedUpstream, path: Path
) -> None:
    events = upstream.decode_document(json.dumps(upstream.recorded_document(path)).encode())
    assert_as_expected(fold_document(collect(events)), result_of(upstream, path))
    assert_as_expected(fold_stream(encode(events)), result_of(upstream, path))
