"""The embedded upstream: event bytes like a real one's, at a model's pace, and an agent that comes to an end."""

from __future__ import annotations

import itertools
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.upstreams.opened import Marks, open_answer
from openai.types.responses import Response

from pipeline.errors import UpstreamFault
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.canned.answers import STORY, agent
from stages.upstreams.canned.events import (
    CannedCall,
    CannedMessage,
    CannedReasoning,
    Head,
    stream_answer,
    tokens,
    whole_answer,
)
from stages.upstreams.canned.upstream import STORY_TOKENS_PER_S, CannedUpstream
from stages.wire.downstream.request import parse_body

READ = {
    "type": "function",
    "name": "read_file",
    "parameters": {"properties": {"path": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["path"]},
}
GREP = {
    "type": "function",
    "name": "Grep",
    "parameters": {
        "properties": {
            "pattern": {"type": "string"},
            "mode": {"enum": ["content", "files"]},
            "-i": {"type": "boolean"},
        },
        "required": ["pattern", "mode", "-i"],
    },
}
SHELL = {"type": "function", "name": "Shell", "parameters": {"required": ["command"]}}
PATCH = {"type": "custom", "name": "ApplyPatch"}


def request(**fields: Any) -> ResponsesRequest:
    return parse_body(json.dumps({"model": "m", "input": "hi", "stream": True} | fields).encode())


def call_of(model: str, parsed: ResponsesRequest) -> UpstreamCall:
    deployment = Deployment(id="d", model_name="m", model=model, provider="canned", kind="canned", url="")
    return UpstreamCall(request=parsed, deployment=deployment, model=model)


async def chunks_of(model: str, parsed: ResponsesRequest) -> list[bytes]:
    chunks: list[bytes] = []
    keys = (f"{number:048x}" for number in itertools.count())
    upstream = CannedUpstream(now=lambda: 1_760_000_000, new_key=lambda: next(keys))
    async with aclosing(await open_answer(upstream, call_of(model, parsed))) as answer:
        assert answer.is_stream is parsed.stream
        while chunk := await answer.receive():
            chunks.append(chunk)
        assert await answer.receive() == b""
    return chunks


def events_of(stream: bytes) -> list[dict[str, Any]]:
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    events = []
    for block in blocks:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def check_stream(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Check that a stream is consistent and has the openai package's types; return the final response."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    final: dict[str, Any] = events[-1]["response"]
    assert events[-1]["type"] == f"response.{final['status']}"
    Response.model_validate(final, strict=True)
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == final["output"]
    for index, item in enumerate(final["output"]):
        streamed = "".join(event["delta"] for event in events if "delta" in event and event["output_index"] == index)
        assert streamed == text_of(item)
        assert {event["item_id"] for event in events if event.get("output_index") == index and "item_id" in event} == {
            item["id"]
        }
    deltas = sum(event["type"].endswith(".delta") for event in events)
    assert final["usage"]["output_tokens"] == deltas
    assert final["usage"]["total_tokens"] == deltas + final["usage"]["input_tokens"]
    return final


def text_of(item: dict[str, Any]) -> str:
    match item["type"]:
        case "message":
            return "".join(part["text"] for part in item["content"])
        case "reasoning":
            return "".join(part["text"] for part in item["summary"])
        case "function_call":
            return str(item["arguments"])
        case _:
            return str(item["input"])


# echo


@pytest.mark.parametrize(
    ("conversation", "text"),
    [
        ("Hello  there,\n world ", "Hello  there,\n world "),
        ([{"role": "user", "content": "one"}, {"role": "assistant", "content": "x"}], "one"),
        ([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}], "two"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "a\nb"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}], "(The last user"),
        ([{"role": "system", "content": "s"}], "(The last user"),
        ([{"type": "odd", "role": "user", "content": 5}], "(The last user"),
    ],
)  # fmt: skip
async def test_echo_repeats_the_last_user_text(conversation: Any, text: str) -> None:
    chunks = await chunks_of("echo", request(input=conversation))
    final = check_stream(events_of(b"".join(chunks)))
    assert text_of(final["output"][0]).startswith(text)
    assert final["status"] == "completed"
    assert final["model"] == "canned/echo"


async def test_echo_sends_each_word_in_its_own_chunk() -> None:
    chunks = await chunks_of("echo", request(input="one two three"))
    deltas = [event["delta"] for chunk in chunks for event in events_of(chunk) if "delta" in event]
    assert deltas == ["one", " two", " three"]


async def test_without_stream_the_answer_is_the_document_of_the_terminal_event() -> None:
    (document,) = await chunks_of("echo", request(input="one two", stream=False))
    streamed = check_stream(events_of(b"".join(await chunks_of("echo", request(input="one two")))))
    assert json.loads(document) == streamed


async def test_an_answer_stops_at_the_limit_and_reports_it() -> None:
    chunks = await chunks_of("echo", request(input="one two three", max_output_tokens=2))
    final = check_stream(events_of(b"".join(chunks)))
    assert final["status"] == "incomplete"
    assert final["incomplete_details"] == {"reason": "max_output_tokens"}
    assert final["output"][0]["status"] == "incomplete"
    assert text_of(final["output"][0]) == "one two"


async def test_a_call_is_sent_and_answered_at_its_own_points(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    answer = await open_answer(CannedUpstream(), call_of("story", request()), marks)
    assert marks == ["upstream_sent", "upstream_head"]
    assert (answer.arrived_ns, answer.is_backing_off) == (0, False)
    started = trio.current_time()
    await answer.back_off()
    await answer.aclose(is_answered=True)
    assert trio.current_time() == started


async def test_an_answer_that_does_not_exist_has_no_head() -> None:
    marks = Marks()
    with pytest.raises(UpstreamFault):
        await open_answer(CannedUpstream(), call_of("missing", request()), marks)
    assert marks == ["upstream_sent"]


async def test_two_answers_share_no_id() -> None:
    upstream = CannedUpstream()
    ids = []
    for _ in range(2):
        async with aclosing(await open_answer(upstream, call_of("agent", request(stream=False)))) as answer:
            document = json.loads(await answer.receive())
        ids += [document["id"], *(item["id"] for item in document["output"])]
        ids += [item["call_id"] for item in document["output"] if "call_id" in item]
    assert len(ids) == len(set(ids)) == 2 * 8
    assert all(len(an_id) <= 64 for an_id in ids)


async def test_log_probabilities_and_encrypted_reasoning_are_sent_on_request() -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    events = events_of(b"".join(await chunks_of("echo", request(input="one two", include=include))))
    assert [[entry["token"] for entry in event["logprobs"]] for event in events if "delta" in event] == [
        ["one"],
        [" two"],
    ]
    final = check_stream(events_of(b"".join(await chunks_of("agent", request(include=include)))))
    assert final["output"][0]["encrypted_content"]


# story


async def test_the_story_is_told_at_its_pace(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    final = check_stream(events_of(b"".join(await chunks_of("story", request()))))
    took_s = trio.current_time() - started
    assert text_of(final["output"][0]) == STORY
    assert STORY.count("\n\n") == 4
    assert took_s == pytest.approx(len(tokens(STORY)) / STORY_TOKENS_PER_S)


async def test_without_a_stream_the_story_takes_its_whole_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    started = trio.current_time()
    await chunks_of("story", request(stream=False))
    assert trio.current_time() - started == pytest.approx(len(tokens(STORY)) / STORY_TOKENS_PER_S)


async def test_a_slow_reader_gets_no_burst_afterwards(autojump_clock: trio.testing.MockClock) -> None:
    async with aclosing(await open_answer(CannedUpstream(), call_of("story", request()))) as answer:
        for _ in range(6):  # four events before the first delta
            await answer.receive()
        await trio.sleep(60)
        await answer.receive()
        started = trio.current_time()
        for _ in range(10):
            await answer.receive()
        assert trio.current_time() - started == pytest.approx(10 / STORY_TOKENS_PER_S)


# agent


async def test_an_agent_loop_calls_tools_once_and_then_ends() -> None:
    body: dict[str, Any] = {"tools": [SHELL, READ, GREP, PATCH], "input": [{"role": "user", "content": "go"}]}
    first = check_stream(events_of(b"".join(await chunks_of("agent", request(**body)))))
    assert [item["type"] for item in first["output"]] == [
        "reasoning",
        "function_call",
        "function_call",
        "custom_tool_call",
    ]
    read, grep, patch = first["output"][1:]
    assert (read["name"], json.loads(read["arguments"])) == ("read_file", {"path": "README.md"})
    assert (grep["name"], json.loads(grep["arguments"])) == (
        "Grep",
        {"pattern": "TODO", "mode": "content", "-i": False},
    )
    assert patch["name"] == "ApplyPatch"
    assert patch["input"].startswith("*** Begin Patch\n*** Add File: ")
    assert patch["input"].endswith("\n*** End Patch")

    body["input"] += first["output"]
    for call in (read, grep, patch):
        kind = "custom_tool_call_output" if call is patch else "function_call_output"
        body["input"].append({"type": kind, "call_id": call["call_id"], "output": "done"})
    second = check_stream(events_of(b"".join(await chunks_of("agent", request(**body)))))
    assert [item["type"] for item in second["output"]] == ["message"]
    assert "3 tool results" in text_of(second["output"][0])


def calls(**fields: Any) -> list[tuple[str, str]]:
    return [(output.name, output.text) for output in agent(request(**fields)) if isinstance(output, CannedCall)]


def names(**fields: Any) -> list[str]:
    return [name for name, _ in calls(**fields)]


def test_an_agent_without_tools_calls_cursors_tools() -> None:
    assert names() == ["ReadFile", "rg", "ApplyPatch"]


def test_an_agent_calls_only_declared_tools_when_there_are_any() -> None:
    assert names(tools=[SHELL]) == ["Shell", "Shell"]
    assert names(tools=[SHELL, GREP]) == ["Shell", "Grep"]
    assert names(tools=[PATCH]) == ["ApplyPatch"]
    assert calls(tools=[{"type": "custom", "name": "Sql"}]) == [("Sql", "example")]
    assert calls(tools=[SHELL])[0] == ("Shell", '{"command":"ls"}')


def test_an_agent_respects_the_tool_choice() -> None:
    tools = [READ, GREP, PATCH]
    assert names(tools=tools, tool_choice={"type": "function", "name": "Grep"}) == ["Grep"]
    assert names(tools=tools, tool_choice={"type": "custom", "name": "ApplyPatch"}) == ["ApplyPatch"]
    assert names(tools=tools, parallel_tool_calls=False) == ["read_file"]
    for choice in ("none", {"type": "function", "name": "Missing"}):
        assert isinstance(agent(request(tools=tools, tool_choice=choice))[-1], CannedMessage)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": "c"}, "c"),
        ({"default": 7}, 7),
        ({"enum": ["a", "b"]}, "a"),
        ({"type": "integer"}, 1),
        ({"type": "array"}, []),
        ({"type": "object"}, {}),
        ({"type": ["string", "null"]}, "example"),
        ("odd", "example"),
    ],
)
def test_arguments_are_guessed_from_the_schema(schema: Any, value: Any) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"properties": {"x": schema}, "required": ["x"]}}
    assert json.loads(calls(tools=[tool])[0][1]) == {"x": value}


# replay


STREAM = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","output":[]}}\n\n'
    b'data: {"type":"response.completed","response":{"id": "resp_1", "output":[] }}\n\ndata: [DONE]\n\n'
)


async def test_a_recording_is_replayed_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "long.sse"
    file.write_bytes(STREAM + b": padding\n" * 20_000)
    chunks = await chunks_of(f"replay:{file}", request())
    assert len(chunks) == 4
    assert b"".join(chunks) == file.read_bytes()


async def test_without_stream_the_answer_is_the_last_snapshot_of_a_recording_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "a.sse"
    file.write_bytes(STREAM)
    assert await chunks_of(f"replay:{file}", request(stream=False)) == [b'{"id": "resp_1", "output":[] }']


async def test_an_empty_recording_is_an_empty_stream(tmp_path: Path) -> None:
    file = tmp_path / "empty.sse"
    file.write_bytes(b"")
    assert await chunks_of(f"replay:{file}", request()) == []


@pytest.mark.parametrize(
    "recorded", [b"", b"data: not json\n\n", b'data: {"type":"error"}\n\n', STREAM[:60], b"data: \xff\n\n"]
)
async def test_a_recording_without_an_end_cannot_answer_without_stream(tmp_path: Path, recorded: bytes) -> None:
    file = tmp_path / "broken.sse"
    file.write_bytes(recorded)
    with pytest.raises(UpstreamFault, match="stream: true") as caught:
        await chunks_of(f"replay:{file}", request(stream=False))
    assert caught.value.code == "upstream_protocol"


async def test_an_event_beyond_the_limit_hides_what_follows_it(tmp_path: Path) -> None:
    file = tmp_path / "huge.sse"
    file.write_bytes(STREAM + b"data: " + b"x" * (17 << 20) + b"\n\n")
    assert await chunks_of(f"replay:{file}", request(stream=False)) == [b'{"id": "resp_1", "output":[] }']


@pytest.mark.parametrize("name", ["missing.sse", "nul\0.sse", "."])
async def test_a_recording_that_cannot_be_read_is_named(name: str) -> None:
    with pytest.raises(UpstreamFault) as caught:
        await chunks_of(f"replay:{name}", request())
    assert caught.value.code == "upstream_unreachable"
    assert name in caught.value.public


async def test_a_client_cannot_choose_a_file_through_a_wildcard(tmp_path: Path) -> None:
    file = tmp_path / "secret.sse"
    file.write_bytes(STREAM)
    deployment = Deployment(id="d", model_name="*", model="*", provider="canned", kind="canned", url="")
    call = UpstreamCall(request=request(), deployment=deployment, model=f"replay:{file}")
    with pytest.raises(UpstreamFault, match="does not exist") as caught:
        await open_answer(CannedUpstream(), call)
    assert caught.value.code == "upstream_not_found"


# The generator alone


outputs = st.lists(
    st.builds(CannedReasoning, st.text(max_size=40))
    | st.builds(CannedMessage, st.text(max_size=40))
    | st.builds(CannedCall, st.text(min_size=1, max_size=8), st.text(max_size=40), st.booleans()),
    max_size=4,
).map(tuple)


@given(outputs, st.none() | st.integers(1, 10))
@settings(max_examples=100, deadline=None)
def test_every_stream_is_consistent_and_matches_the_document(answer: Any, limit: int | None) -> None:
    head = Head(key="0" * 48, created_at=1, model="m", request=request(max_output_tokens=limit, stream=True))
    events = events_of(b"".join(frame.data for frame in stream_answer(answer, head)))
    final = check_stream(events)
    assert json.loads(whole_answer(answer, head)) == final
    assert (final["status"] == "completed") is (limit is None or sum(len(tokens(o.text)) for o in answer) <= limit)


@given(st.text())
@settings(max_examples=100)
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
