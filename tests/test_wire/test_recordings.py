"""Every Responses stream of `shared` ends in exactly the result that a client must see, however it is cut."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from kit.clients.chat_fold import Folded, assert_as_expected, chunks_of, fold_document, fold_stream
from kit.recordings import (
    expected_of,
    has_whole_snapshot,
    needs_shared,
    own_recordings,
    payloads,
    recordings,
    shared_recordings,
)
from kit.schemas import validate_chunk, validate_completion

from stages.events import Failed, StreamEvent
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.downstream.chat_document import CompletionCollector
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.errors import error_frame
from stages.wire.downstream.profiles import CURSOR
from stages.wire.responses.decoder import ResponsesDecoder, decode_document

each_recording = pytest.mark.parametrize("path", recordings("responses"))


def decode(reads: list[list[bytes]], *, wants_logprobs: bool = False) -> list[StreamEvent]:
    decoder = ResponsesDecoder(RequestTraits(wants_logprobs=wants_logprobs))
    return [event for read in reads for event in decoder.feed(read)] + decoder.flush()


def encode(events: list[StreamEvent], *, include_usage: bool = True) -> bytes:
    encoder = ChunkEncoder(model="alias", chunk_id="chatcmpl-1", created=1, include_usage=include_usage)
    frames = encoder.feed(events) + encoder.flush()
    return b"".join(frames) if encoder.failed is None else error_frame(encoder.failed)


def collect(events: list[StreamEvent]) -> bytes | Failed:
    collector = CompletionCollector(model="alias", chunk_id="chatcmpl-1", created=1)
    documents = collector.feed(events) + collector.flush()
    return documents[0] if documents else collector.failed or pytest.fail("neither a document nor a failure")


def folded_answer(answer: bytes | Failed) -> Folded:
    return fold_stream(error_frame(answer)) if isinstance(answer, Failed) else fold_document(answer)


def final_response(path: Path) -> dict[str, Any]:
    """Return the response of the terminal event."""
    for block in reversed(path.read_text().replace("\r\n", "\n").split("\n\n")):
        for line in block.split("\n"):
            if line.startswith("data: {") and "response" in (event := json.loads(line[6:])):
                response: dict[str, Any] = event["response"]
                return response
    raise AssertionError("no terminal event")


@needs_shared
def test_all_33_shared_recordings_are_here() -> None:
    assert len(shared_recordings("responses")) == 33


@pytest.mark.parametrize("kind", ["responses", "chat", "anthropic"])
def test_each_of_our_own_streams_has_an_expected_result_and_the_other_way_round(kind: str) -> None:
    streams = own_recordings(kind)
    assert len(streams) >= 9
    names = {path.name.removesuffix(".expected.json") for path in streams[0].parent.glob("*.json")}
    assert names == {path.stem for path in streams}


@each_recording
def test_a_recording_read_at_once_yields_the_expected_result(path: Path) -> None:
    events = decode([[path.read_bytes()]])
    stream = encode(events)
    for chunk in chunks_of(stream):
        if "error" not in chunk:
            validate_chunk(chunk)
    folded = fold_stream(stream)
    assert_as_expected(folded, expected_of(path))
    assert folded.model in ("alias", None)
    assert folded.id in ("chatcmpl-1", None)
    assert fold_stream(encode(events, include_usage=False)).usage is None


@each_recording
def test_a_recording_read_byte_by_byte_yields_the_same_events(path: Path) -> None:
    stream = path.read_bytes()
    assert decode([[stream[i : i + 1]] for i in range(len(stream))]) == decode([[stream]])


@each_recording
def test_a_recording_cut_at_random_yields_the_same_events(path: Path) -> None:
    stream = path.read_bytes()
    whole = decode([[stream]])
    rng = random.Random(path.stem)
    for _ in range(5):
        cuts = sorted(rng.choices(range(len(stream)), k=rng.choice((1, 10, 300))))
        pieces = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        reads: list[list[bytes]] = []
        while pieces:
            size = rng.randint(1, 3)
            reads.append(pieces[:size])
            pieces = pieces[size:]
        assert decode(reads) == whole


@each_recording
def test_line_endings_make_no_difference(path: Path) -> None:
    stream = path.read_bytes().replace(b"\r\n", b"\n")
    whole = decode([[stream]])
    assert decode([[stream.replace(b"\n", b"\r\n")]]) == whole
    assert decode([[stream.replace(b"\n", b"\r")]]) == whole


@each_recording
def test_a_recording_collected_into_a_document_yields_the_expected_result(path: Path) -> None:
    answer = collect(decode([[path.read_bytes()]]))
    if isinstance(answer, bytes):
        validate_completion(json.loads(answer))
    assert_as_expected(folded_answer(answer), expected_of(path))


@pytest.mark.parametrize("path", recordings("responses", only=has_whole_snapshot))
def test_the_final_response_as_a_document_gives_the_expected_result(path: Path) -> None:
    body = json.dumps(final_response(path)).encode()
    answer = collect(decode_document(body))
    if isinstance(answer, bytes):
        validate_completion(json.loads(answer))
    assert_as_expected(folded_answer(answer), expected_of(path))


@each_recording
def test_log_probabilities_are_emitted_when_they_are_requested(path: Path) -> None:
    tokens = expected_of(path)["logprobs_tokens"]
    stream = encode(decode([[path.read_bytes()]], wants_logprobs=True))
    for chunk in chunks_of(stream):
        if "error" not in chunk:
            validate_chunk(chunk)
    folded = fold_stream(stream)
    assert [entry["token"] for entry in folded.logprobs] == tokens
    assert_as_expected(folded, expected_of(path))
    body = json.dumps(final_response(path)).encode()
    answer = folded_answer(collect(decode_document(body, RequestTraits(wants_logprobs=True))))
    assert [entry["token"] for entry in answer.logprobs] == tokens


@each_recording
def test_a_recording_that_breaks_off_ends_in_a_failure(path: Path) -> None:
    if expected_of(path)["error"]:
        return
    stream = path.read_bytes()
    end = max(stream.rfind(b'"response.completed"'), stream.rfind(b'"type":"response.completed"'))
    end = end if end >= 0 else stream.rfind(b'"response.incomplete"')
    events = decode([[stream[: stream.rfind(b"\n\n", 0, end)]]])
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "upstream_protocol"
    folded = folded_answer(collect(events))
    assert folded.error is not None


@pytest.mark.parametrize("payload", payloads("01", "02", "03", "14", "15"))
def test_the_payloads_of_cursor_stream_as_expected(payload: dict[str, Any]) -> None:
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in payload["mock_upstream_events"])
    decoder = ResponsesDecoder(RequestTraits(custom_tools=frozenset({"ApplyPatch"})))
    encoder = ChunkEncoder(
        model=payload["request"]["body"]["model"],
        chunk_id="chatcmpl-TEST",
        created=1790000000,
        include_usage=False,
        profile=CURSOR,
    )
    frames = encoder.feed(decoder.feed([stream])) + encoder.feed(decoder.flush()) + encoder.flush()
    expected = [chunk for chunk in payload["expected_stream"] if chunk != "[DONE]"]
    assert chunks_of(b"".join(frames)) == expected
    assert b"".join(frames).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("payload", payloads("20"))
def test_the_payload_of_a_whole_response_is_collected_as_expected(payload: dict[str, Any]) -> None:
    body = json.dumps(payload["mock_upstream_http"]["body"]).encode()
    collector = CompletionCollector(model="gpt-5.4", chunk_id="chatcmpl-TEST", created=1790000000, profile=CURSOR)
    [document] = collector.feed(decode_document(body, RequestTraits(custom_tools=frozenset({"ApplyPatch"}))))
    expected = copy.deepcopy(payload["expected_response"]["body"])
    expected["choices"][0]["logprobs"] = None  # required by the schema
    expected["choices"][0]["message"]["refusal"] = None
    assert json.loads(document) == expected
