"""The bodies that Cursor sends, through the whole service: what the upstream receives and what Cursor receives.

Each file of ``tests/data/requests`` holds a request, what the upstream must receive, what it answers and what Cursor
must receive; `CHECKS` has what else must be true of it. The recordings of others (see `kit.needs`) also list
assertions: each has its check, or its reason in `NOT_HERE`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from kit.clients.chat_fold import Folded, data_of, fold_document, fold_stream
from kit.clients.chat_posts import post_bytes
from kit.clients.raw import RawClient
from kit.recordings import combined, needs_shared, once, payloads, sibling
from kit.service.running import KEY, Service, model, serving
from kit.upstreams.scripted import (
    ScriptedUpstream,
    Step,
    close,
    end,
    error,
    events,
    in_turn,
    json_answer,
    scripted_upstream,
    sse_head,
    stall,
)

Json = dict[str, Any]

each_payload = pytest.mark.parametrize("payload", payloads())

ADDED_UPSTREAM = {
    "prompt_cache_key": "identifies the conversation if the client does not, so that its prefix is cached (ADR 0007)",
    "stream": "is always sent; its default is false",
}
"""What we send beyond ``expected_upstream_request``, and why."""

ADDED_TO_DOCUMENTS: dict[str, Any] = {
    "choices.0.logprobs": None,  # OpenAI's schema requires these two, with null for none
    "choices.0.message.refusal": None,
    "usage.prompt_tokens_details": {"cached_tokens": 0},  # read by Cursor's context meter
    "usage.completion_tokens_details": {"reasoning_tokens": 0},
}
"""What we answer beyond ``expected_response`` (docs/facts/cursor.md, "The stream that Cursor reads"), and its value."""

SECOND_KEY = "sk-limited-key-0123456789"
"""The service's key that may only use ``echo`` and ``team/*``."""
SDK = "OpenAI/Python 2.8.1"


# --- playing ---------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """The results of one request."""

    answer: httpx.Response
    upstream: list[Json]
    """The bodies that the upstream received."""
    record: Json

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def error(self) -> Json:
        details: Json = self.answer.json()["error"]
        return details

    @property
    def sent(self) -> Json:
        return self.upstream[-1]

    @property
    def folded(self) -> Folded:
        assert self.status == 200, self.answer.text
        is_stream = self.answer.headers["content-type"].startswith("text/event-stream")
        return fold_stream(self.answer.content) if is_stream else fold_document(self.answer.content)

    @property
    def deltas(self) -> list[Json]:
        """The deltas of all chunks."""
        chunks = [json.loads(data) for data in data_of(self.answer.content) if data != "[DONE]"]
        return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]

    @property
    def call_deltas(self) -> list[Json]:
        return [call for delta in self.deltas for call in delta.get("tool_calls", ())]


def script_of(payload: Json, *, per: Any = "event") -> list[Step]:
    """Return the answer of the payload's upstream."""
    if "mock_upstream_events" in payload:
        return streamed(payload["mock_upstream_events"], per=per)
    http = payload["mock_upstream_http"]
    if "turn2_text" in http:
        return chat_streamed([{"role": "assistant", "content": http["turn2_text"]}])
    return [json_answer(http["body"], http["status"], http.get("headers", {}).items())]


def streamed(payloads: Iterable[Json | bytes], *, per: Any = "event") -> list[Step]:
    return [sse_head(), events(payloads, per=per), end()]


def chat_streamed(deltas: Sequence[Json], finish: str = "stop") -> list[Step]:
    """Return a Chat Completions stream with the usage that request 08 expects."""
    chunks = [chat_chunk(delta) for delta in deltas]
    usage = {"prompt_tokens": 900, "completion_tokens": 6, "total_tokens": 906}
    last = {**chat_chunk({}), "choices": [], "usage": usage}
    return streamed([*chunks, chat_chunk({}, finish), last, b"data: [DONE]\n\n"])


def chat_chunk(delta: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


ANTHROPIC_ANSWER = json_answer(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Next."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
)

PREFIXES = {"08": "deepseek/"}


def configured_name(payload: Json) -> str:
    """Return the name in ``model_list``, which is not always the one in the body."""
    name: str = payload["expected_upstream_request"]["model"]
    return name


@asynccontextmanager
async def playing(
    payload: Json, script: Sequence[Step], *, models: Mapping[str, str] | None = None, pipeline: str = ""
) -> AsyncIterator[tuple[Service, ScriptedUpstream]]:
    """Run the service with the payload's model, or with ``models``, which maps names to upstream models."""
    configured = configured_name(payload)
    models = models or {configured: PREFIXES.get(payload["name"][:2], "openai/") + configured}
    async with scripted_upstream(*script) as up:
        lines = "".join(model(name, up.url, upstream=upstream) for name, upstream in models.items())
        async with serving(lines, pipeline) as service:
            yield service, up


async def post(service: Service, payload: Json, body: Json, *, key: str = KEY, path: str = "", **changed: str) -> Any:
    """Post with the payload's own headers, except for the key and those in ``changed``."""
    request = payload["request"]
    headers = {name.lower(): value for name, value in request["headers"].items() if name != "Authorization"}
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    return await service.post(body, path=path or request["path"], key=key, **headers)


async def play(
    payload: Json,
    script: Sequence[Step] | None = None,
    *,
    body: Json | None = None,
    models: Mapping[str, str] | None = None,
    pipeline: str = "",
    **how: str,
) -> Played:
    """Post the payload's body, or another, to an upstream that answers as the payload says, or by ``script``."""
    async with playing(payload, script or script_of(payload), models=models, pipeline=pipeline) as (service, up):
        answer = await post(service, payload, body or payload["request"]["body"], **how)
        record = await service.record()
        return Played(answer, [request.json() for request in up.requests], record)


async def play_two_turns(payload: Json, body: Json, second: Sequence[Step], **how: str) -> Played:
    """Play request 08: a turn that reasons and calls, then ``body``; return the second."""
    deltas = payload["mock_upstream_http"]["turn1_stream_deltas"]
    first = {**payload["request"]["body"], "messages": payload["request"]["body"]["messages"][:2]}
    script = [in_turn(chat_streamed(deltas, "tool_calls"), second)]
    names = dict.fromkeys({first["model"], body["model"], "team/deepseek"}, "deepseek/deepseek-v4-pro")
    async with playing(payload, script, models=names) as (service, up):
        first["model"] = how.pop("first_model", first["model"])
        begun = await post(service, payload, first)
        assert fold_stream(begun.content).reasoning == thought_of(payload)
        answer = await post(service, payload, body, **how)
        return Played(answer, [request.json() for request in up.requests], await service.record(1))


def thought_of(payload: Json) -> str:
    """Return the reasoning of the first turn of request 08."""
    deltas = payload["mock_upstream_http"]["turn1_stream_deltas"]
    return "".join(delta.get("reasoning_content", "") for delta in deltas)


async def play_payload(payload: Json, *, per: Any = "event") -> Played:
    """Play a payload as its file says."""
    script = script_of(payload, per=per)
    if payload["name"].startswith("08"):
        return await play_two_turns(payload, payload["request"]["body"], script)
    return await play(payload, script)


# --- what each file expects as a whole -------------------------------------------------------------------------------


@each_payload
async def test_the_upstream_receives_what_the_file_expects(payload: Json) -> None:
    assert payload["request"]["method"] == "POST"
    assert payload["request"]["headers"]["User-Agent"] == "Cursor/1.0"
    sent = dict((await play_payload(payload)).sent)
    body, expected = payload["request"]["body"], payload["expected_upstream_request"]
    for field in sent.keys() - expected.keys():
        assert field in ADDED_UPSTREAM
        value = sent.pop(field)
        if field == "stream":
            assert value is False
        elif "metadata" in body:
            assert value == body["metadata"]["cursorConversationId"]
        else:
            assert len(value) == 64
            assert value != body.get("user")
    assert sent == expected


@pytest.mark.parametrize(("payload", "per"), combined(payloads(), ["event", "write"]))
async def test_cursor_receives_what_the_file_expects(payload: Json, per: str) -> None:
    played = await play_payload(payload, per=per)
    if "expected_stream" in payload:
        assert played.status == 200
        assert played.answer.headers["content-type"].startswith("text/event-stream")
        for rule in payload.get("match_rules", RULES):
            RULES[rule](data_of(played.answer.content), payload)
        assert_same(played.folded, fold_stream(as_stream(payload["expected_stream"])), payload)
        return
    expected = payload["expected_response"]
    assert played.status == expected["status"]
    for header, value in expected.get("headers", {}).items():
        assert played.answer.headers[header] == value
    document = played.answer.json()
    if "error" in expected["body"]:  # the wording is ours and contains the upstream's message
        reported = payload["mock_upstream_http"]["body"]["error"]
        assert reported["message"] in document["error"]["message"]
        assert document["error"].pop("upstream_code") == reported["code"]  # ours, beside what the file expects
        assert document == {"error": {**expected["body"]["error"], "message": document["error"]["message"]}}
    else:
        assert_document(document, expected["body"])


def as_stream(chunks: Iterable[Json | str]) -> bytes:
    texts = (chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks)
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def assert_same(folded: Folded, expected: Folded, payload: Json) -> None:
    """Compare the results of two streams: chunk boundaries, ids and times may differ."""
    if payload["name"].startswith("14"):  # the wording of the failure is ours and contains the upstream's message
        folded.content, _, failure = (folded.content or "").partition("\n\n[")
        assert payload["mock_upstream_events"][-1]["response"]["error"]["message"] in failure
        expected.content = (expected.content or "").partition("\n\n[")[0]
    assert folded.id is not None
    folded.id, folded.created = expected.id, expected.created
    assert folded == expected


def assert_document(document: Json, expected: Json) -> None:
    """Compare documents: ids and times may differ, additions must be those of `ADDED_TO_DOCUMENTS`."""
    assert document["id"].startswith("chatcmpl-")
    document |= {name: expected[name] for name in ("id", "created")}
    extra = dict(additions(document, expected))
    assert extra == {path: ADDED_TO_DOCUMENTS[path] for path in extra}


def additions(value: Any, expected: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """Yield what ``value`` has beyond ``expected``, with its path; everything else must be equal."""
    if isinstance(value, list) and isinstance(expected, list):
        value, expected = dict(enumerate(value)), dict(enumerate(expected))
    if not isinstance(value, dict) or not isinstance(expected, dict):
        assert value == expected, path
        return
    assert expected.keys() <= value.keys(), path
    for key, inner in value.items():
        if key in expected:
            yield from additions(inner, expected[key], f"{path}{key}.")
        else:
            yield f"{path}{key}", inner


# --- the match rules -------------------------------------------------------------------------------------------------


def chunks_of(frames: list[str]) -> list[Json]:
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]


def rule_one_id_and_one_model(frames: list[str], payload: Json) -> None:
    assert len({chunk["id"] for chunk in chunks_of(frames)}) == 1
    assert {chunk["model"] for chunk in chunks_of(frames)} == {payload["request"]["body"]["model"]}


def rule_chunk_boundaries_are_free(frames: list[str], payload: Json) -> None:
    expected = chunks_of([json.dumps(chunk) for chunk in payload["expected_stream"] if chunk != "[DONE]"])
    assert joined(chunks_of(frames), "reasoning_content") == joined(expected, "reasoning_content")
    texts = [joined(chunks, "content") for chunks in (chunks_of(frames), expected)]
    if payload["name"].startswith("14"):  # the wording of the failure may differ
        texts = [text.partition("\n\n[")[0] for text in texts]
    assert texts[0] == texts[1]
    assert arguments_of(chunks_of(frames)) == arguments_of(expected)


def joined(chunks: list[Json], field: str) -> str:
    return "".join(choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"])


def arguments_of(chunks: list[Json]) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                found[call["index"]] = found.get(call["index"], "") + call["function"].get("arguments", "")
    return found


def rule_role_in_the_first_delta(frames: list[str], payload: Json) -> None:
    first, *_ = chunks_of(frames)
    assert first["choices"][0]["delta"]["role"] == "assistant"


def rule_one_finish_reason_before_the_usage(frames: list[str], payload: Json) -> None:
    choices = [choice for chunk in chunks_of(frames) for choice in chunk["choices"]]
    assert [choice["finish_reason"] is not None for choice in choices] == [False] * (len(choices) - 1) + [True]


def rule_usage_chunk_has_no_choices(frames: list[str], payload: Json) -> None:
    *before, last = chunks_of(frames)
    assert not any(chunk.get("usage") for chunk in before)
    if any(chunk != "[DONE]" and chunk.get("usage") for chunk in payload["expected_stream"]):
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0


def rule_done_is_last(frames: list[str], payload: Json) -> None:
    assert frames[-1] == "[DONE]"
    assert "[DONE]" not in frames[:-1]


Rule = Callable[[list[str], Json], None]
RULES: dict[str, Rule] = {
    "one `id` and one `model` (the model name Cursor sent) over the whole stream; any id/created value accepted": (
        rule_one_id_and_one_model
    ),
    (
        "chunk boundaries are free: compare the concatenated content / reasoning_content / arguments per tool index"
    ): rule_chunk_boundaries_are_free,
    "`role` may be in the first delta only or in each delta; first delta must carry it": rule_role_in_the_first_delta,
    (
        "exactly one non-null finish_reason, in its own or the last content chunk, before the usage chunk"
    ): rule_one_finish_reason_before_the_usage,
    "usage chunk has choices:[] and comes after finish_reason, before [DONE]": rule_usage_chunk_has_no_choices,
    "`data: [DONE]` last; SSE comment lines (`: keepalive`) may appear anywhere": rule_done_is_last,
}
"""A rule of a file that is not here is a `KeyError`."""


# --- the assertions --------------------------------------------------------------------------------------------------

Check = Callable[[Json], Awaitable[None]]
CHECKS: dict[str, Check] = {}
"""By ``<number of the payload>: <start of the assertion>``."""


def checks(number: str, beginning: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[f"{number}: {beginning}"] = check
        return check

    return register


NOT_HERE = {
    "08: lookup order": (
        "our lookup is simpler and needs no fallbacks: a turn is identified by its first call id, or its text, in its "
        "conversation (ADR 0007; tests/test_stages/test_restore_reasoning.py)"
    ),
}
"""Assertions that cannot be checked from outside, and why."""


def body_of(payload: Json, **changes: Any) -> Json:
    return {**copy.deepcopy(payload["request"]["body"]), **changes}


def events_of(payload: Json) -> list[Json]:
    return copy.deepcopy(payload["mock_upstream_events"])


def without(field: str, one: Json) -> Json:
    return {key: value for key, value in one.items() if key != field}


def of_type(payloads: list[Json], *kinds: str) -> list[Json]:
    return [one for one in payloads if one["type"] in kinds]


@checks("01", "stream_options.include_usage must not reach a Responses upstream")
async def stream_options_do_not_reach_the_upstream(payload: Json) -> None:
    assert payload["request"]["body"]["stream_options"] == {"include_usage": True}
    assert "stream_options" not in (await play(payload)).sent


@checks("01", "previous_response_id:null is dropped")
async def a_null_previous_response_id_is_dropped(payload: Json) -> None:
    assert payload["request"]["body"]["previous_response_id"] is None
    sent = (await play(payload)).sent
    assert "previous_response_id" not in sent
    assert None not in sent.values()


@checks("01", "input items (system/user, string or input_text parts) reach the upstream unchanged")
async def input_items_are_unchanged(payload: Json) -> None:
    assert (await play(payload)).sent["input"] == payload["request"]["body"]["input"]


@checks("01", "usage is emitted although")
async def usage_is_sent_without_a_request_for_it(payload: Json) -> None:
    body = body_of(payload)
    del body["stream_options"]
    for asking in (payload["request"]["body"], body):
        usage = (await play(payload, body=asking)).folded.usage
        assert usage is not None
        reported = payload["mock_upstream_events"][-1]["response"]["usage"]
        assert usage["prompt_tokens"] == reported["input_tokens"]
        assert usage["prompt_tokens_details"] == reported["input_tokens_details"] != {"cached_tokens": 0}


@checks("02", "tool_calls[].index counts tool calls (0,1)")
async def indices_count_calls(payload: Json) -> None:
    answer_events = events_of(payload)
    for one in answer_events:
        if "output_index" in one:
            one["output_index"] += 1
    item = {"id": "rs_x", "type": "reasoning", "summary": []}
    thought: list[Json] = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
    ]
    played = await play(payload, streamed([*answer_events[:2], *thought, *answer_events[2:]]))
    assert [call["index"] for call in played.call_deltas if "id" in call] == [0, 1]
    assert {call["index"] for call in played.call_deltas} == {0, 1}


def done_items(payload: Json) -> list[Json]:
    return [one["item"] for one in of_type(events_of(payload), "response.output_item.done")]


@checks("02", "id is the upstream call_id")
async def ids_are_call_ids(payload: Json) -> None:
    ids = [item["call_id"] for item in done_items(payload)]
    assert [call["id"] for call in (await play(payload)).folded.tool_calls] == ids
    assert len(ids) == 2


@checks("02", "name only in the first delta of a call")
async def names_come_once(payload: Json) -> None:
    deltas = (await play(payload)).call_deltas
    for index, item in enumerate(done_items(payload)):
        first, *others = [call for call in deltas if call["index"] == index]
        assert first["function"]["name"] == item["name"]
        assert others
        assert all("name" not in call["function"] and "id" not in call for call in others)


@checks("02", "when argument deltas of two calls interleave")
async def interleaved_arguments_are_kept_apart(payload: Json) -> None:
    answer_events = events_of(payload)
    added = of_type(answer_events, "response.output_item.added")
    a1, a2, b1, b2 = of_type(answer_events, "response.function_call_arguments.delta")
    done = of_type(answer_events, "response.function_call_arguments.done", "response.output_item.done")
    interleaved = [*answer_events[:2], *added, b1, a1, a2, b2, *done, answer_events[-1]]
    without_ids = [without("item_id", one) for one in interleaved]
    without_indices = [without("output_index", one) for one in interleaved]
    rotating = [{**one, "item_id": f"fc_{at}"} for at, one in enumerate(interleaved)]  # as GitHub Copilot sends them
    with_neither = [without("output_index", without("item_id", one)) for one in answer_events]  # one after the other
    for sent in (interleaved, without_ids, without_indices, rotating, with_neither):
        calls = (await play(payload, streamed(sent))).folded.tool_calls
        assert [call["arguments"] for call in calls] == [item["arguments"] for item in done_items(payload)]


def patch_of(payload: Json) -> str:
    [done] = of_type(events_of(payload), "response.custom_tool_call_input.done")
    text: str = done["input"]
    return text


def envelope_is_a_function(played: Played, patch: str) -> None:
    """Check that the only call is a function with the raw text as arguments."""
    assert '"custom"' not in played.answer.text
    [call] = played.folded.tool_calls
    assert call["name"] == "ApplyPatch"
    assert call["arguments"] == patch


@checks("03", "concatenated arguments == the raw patch")
async def arguments_are_the_raw_patch(payload: Json) -> None:
    patch = patch_of(payload)
    assert patch.startswith("*** Begin Patch\n")
    envelope_is_a_function(await play(payload), patch)


@checks("03", "type is function, and no `custom` key")
async def the_type_is_function_for_every_client(payload: Json) -> None:
    for path in ("/cursor/chat/completions", "/v1/chat/completions"):
        for agent in ("Cursor/1.0", "cursor/3.18", SDK):
            played = await play(payload, path=path, user_agent=agent)
            envelope_is_a_function(played, patch_of(payload))
            assert [call["type"] for call in played.call_deltas if "type" in call] == ["function"]


@checks("03", "if only output_item.done / custom_tool_call_input.done carries the input")
async def input_that_comes_only_at_the_end_is_sent_once(payload: Json) -> None:
    is_delta = {"response.custom_tool_call_input.delta"}
    is_done = {"response.custom_tool_call_input.done"}
    for left_out in (is_delta, is_delta | is_done):
        answer_events = [one for one in events_of(payload) if one["type"] not in left_out]
        envelope_is_a_function(await play(payload, streamed(answer_events)), patch_of(payload))
    answer_events = [one for one in events_of(payload) if one["type"] not in is_delta]
    of_type(answer_events, "response.output_item.done")[-1]["item"]["input"] = ""
    envelope_is_a_function(await play(payload, streamed(answer_events)), patch_of(payload))


@checks("03", "do not validate or repair the arguments as JSON")
async def raw_text_is_not_repaired(payload: Json) -> None:
    for text in ('{"patch": "*** Begin', '{"input":"x"}', '"quoted"', "{'a': None,}"):
        answer_events = [one for one in events_of(payload) if one["type"] != "response.custom_tool_call_input.delta"]
        of_type(answer_events, "response.custom_tool_call_input.done")[0]["input"] = text
        of_type(answer_events, "response.output_item.done")[-1]["item"]["input"] = text
        envelope_is_a_function(await play(payload, streamed(answer_events)), text)


def long_id(payload: Json) -> str:
    """Return the id in the history that is too long for an upstream."""
    found: str = payload["request"]["body"]["input"][3]["call_id"]
    assert len(found) > 64
    return found


def ids_of(items: Iterable[Json]) -> list[str]:
    return [item["call_id"] for item in items if "call_id" in item]


@checks("04", "every call_id sent upstream is <=64 chars")
async def long_ids_are_short_distinct_and_paired(payload: Json) -> None:
    other = f"{long_id(payload)[:-1]}x"  # equal in more than its first 64 characters
    call = {"type": "function_call", "call_id": other, "name": "ReadFile", "arguments": "{}"}
    items = body_of(payload)["input"]
    items[5:5] = [call, {"type": "function_call_output", "call_id": other, "output": "x"}]
    sent = ids_of((await play(payload, body=body_of(payload, input=items))).sent["input"])
    assert sent[0::2] == sent[1::2]
    assert len(set(sent)) == 3
    assert max(map(len, sent)) <= 64


@checks("04", "ids <=64 chars pass unchanged")
async def short_ids_pass_unchanged(payload: Json) -> None:
    longest, short = "call_" + "x" * 59, ids_of(body_of(payload)["input"])[-1]
    items = json.loads(json.dumps(body_of(payload)["input"]).replace(short, longest))
    for body, name in ((body_of(payload), short), (body_of(payload, input=items), longest)):
        assert ids_of((await play(payload, body=body)).sent["input"])[2:] == [name, name]


@checks("04", "no original id is rewritten in what goes back to Cursor")
async def cursor_gets_the_ids_of_the_upstream(payload: Json) -> None:
    fresh = "x" + long_id(payload)
    (item,) = done_items(payload)
    answer_events = json.loads(json.dumps(events_of(payload)).replace(item["call_id"], json.dumps(fresh)[1:-1]))
    assert len(fresh) > 64
    assert [call["id"] for call in (await play(payload, streamed(answer_events))).folded.tool_calls] == [fresh]


@checks("06", "content:null on a tool-call-only assistant message yields no message item")
async def null_content_makes_no_message(payload: Json) -> None:
    sent = (await play(payload)).sent["input"]
    assert [item.get("role", item.get("type")) for item in sent] == [
        *("system", "user", "user", "function_call", "function_call_output", "user")
    ]


@checks("06", "tool_calls[].index and tool.name are dropped")
async def index_and_name_are_dropped(payload: Json) -> None:
    _, _, _, call, output, _ = (await play(payload)).sent["input"]
    assert call.keys() == {"type", "call_id", "name", "arguments"}
    assert output.keys() == {"type", "call_id", "output"}


@checks("06", "for a chat upstream without custom tools: flat custom -> nested")
async def custom_tools_over_chat_upstreams(payload: Json) -> None:
    patch = '*** Begin Patch\n+print("ü")\n*** End Patch'
    name = payload["request"]["body"]["model"]
    wrapped = json.dumps({"input": patch})
    function = {"name": "ApplyPatch", "arguments": ""}
    call = {"index": 0, "id": "call_p", "type": "function", "function": function}
    pieces = [{"index": 0, "function": {"arguments": wrapped[at : at + 3]}} for at in range(0, len(wrapped), 3)]
    deltas = [{"role": "assistant", "tool_calls": [one]} for one in (call, *pieces)]
    for upstream in ("moonshot/kimi-k3", "openai/chat_completions/kimi-k3"):
        played = await play(payload, chat_streamed(deltas, "tool_calls"), models={name: upstream})
        tool = played.sent["tools"][-1]
        assert tool["type"] == "function"
        schema = tool["function"]["parameters"]
        assert {key: field["type"] for key, field in schema["properties"].items()} == {"input": "string"}
        assert schema["required"] == ["input"]
        envelope_is_a_function(played, patch)
        assert len(played.call_deltas) > 5, "the input was not unwrapped while it streamed"


@checks("07", "tool_result comes out before sibling text")
async def results_precede_text(payload: Json) -> None:
    *_, output, said = (await play(payload)).sent["input"]
    assert (output["type"], said["role"]) == ("function_call_output", "user")
    body = body_of(payload)
    body["messages"][-1]["content"].reverse()
    *_, output, said = (await play(payload, body=body)).sent["input"]
    assert (output["type"], said["role"]) == ("function_call_output", "user")


def listing_of(payload: Json) -> str:
    """Return the text of the tool's result in request 07."""
    text: str = payload["request"]["body"]["messages"][-1]["content"][0]["content"][0]["text"]
    return text


@checks("07", "tool_result content array is flattened to text (images kept as input_image)")
async def results_are_flattened_and_images_kept(payload: Json) -> None:
    listing = listing_of(payload)
    assert (await play(payload)).sent["input"][-2]["output"] == listing
    body = body_of(payload)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    body["messages"][-1]["content"][0]["content"].append(image)
    text, picture = (await play(payload, body=body)).sent["input"][-2]["output"]
    assert text == {"type": "input_text", "text": listing}
    assert (picture["type"], picture["image_url"]) == ("input_image", "data:image/png;base64,iVBORw0KGgo=")


@checks("07", "with an Anthropic upstream keep cache_control, tool ids and blocks; sanitize ids")
async def blocks_are_kept_for_anthropic(payload: Json) -> None:
    body = body_of(payload, stream=False)
    models = {body["model"]: "anthropic/claude-sonnet-5"}
    sent = (await play(payload, [ANTHROPIC_ANSWER], body=body, models=models)).sent
    assert sent["system"] == body["messages"][0]["content"]
    assert sent["tools"] == body["tools"]
    user, assistant, results = sent["messages"]
    assert user["content"] == [*body["messages"][1]["content"], *body["messages"][2]["content"]]
    assert assistant["content"] == body["messages"][3]["content"]
    result, text = results["content"]
    asked_result, asked_text = body["messages"][-1]["content"]
    assert result["tool_use_id"] == asked_result["tool_use_id"]
    assert result["content"] in (listing_of(payload), [{"type": "text", "text": listing_of(payload)}])
    assert text == asked_text
    odd = json.loads(json.dumps(body).replace(asked_result["tool_use_id"], "functions.LS:1"))
    sent = (await play(payload, [ANTHROPIC_ANSWER], body=odd, models=models)).sent
    call_id = sent["messages"][1]["content"][1]["id"]
    assert call_id == sent["messages"][2]["content"][0]["tool_use_id"]
    assert call_id.replace("_", "").replace("-", "").isalnum()


@checks("07", "the answer is still OpenAI chat chunks with type:function tool calls")
async def anthropic_dialect_is_answered_in_openais(payload: Json) -> None:
    played = await play(payload)
    assert [call["type"] for call in played.call_deltas if "id" in call] == ["function"]
    assert [call["name"] for call in played.folded.tool_calls] == [done_items(payload)[-1]["name"]]


def reasoning_sent(played: Played) -> list[str | None]:
    """Return the reasoning of each of the assistant's messages that were sent upstream."""
    messages = played.sent["messages"]
    return [message.get("reasoning_content") for message in messages if message["role"] == "assistant"]


@checks("08", "cache namespace includes upstream, model family and an API-key hash")
async def reasoning_is_found_only_with_the_same_model_and_key(payload: Json) -> None:
    """Our namespace is kind of upstream, model and key: all deployments of a model share reasoning text (ADR 0007)."""
    body, second = payload["request"]["body"], script_of(payload)
    assert reasoning_sent(await play_two_turns(payload, body, second)) == [thought_of(payload)]
    team = {**body, "model": "team/deepseek"}
    again = await play_two_turns(payload, team, second, first_model="team/deepseek")
    assert reasoning_sent(again) == [thought_of(payload)]
    other_key = await play_two_turns(payload, team, second, first_model="team/deepseek", key=SECOND_KEY)
    assert reasoning_sent(other_key) == [""], "another key found the reasoning"
    names = {body["model"]: "deepseek/deepseek-v4-pro", "other": "deepseek/deepseek-reasoner"}
    deltas = payload["mock_upstream_http"]["turn1_stream_deltas"]
    script = [in_turn(chat_streamed(deltas, "tool_calls"), second)]
    async with playing(payload, script, models=names) as (service, up):
        await post(service, payload, {**body, "messages": body["messages"][:2]})
        await post(service, payload, {**body, "model": "other"})
        assistant = next(one for one in up.requests[-1].json()["messages"] if one["role"] == "assistant")
        assert not assistant.get("reasoning_content"), "another model found the reasoning"


@checks("08", "mirrored <think>/<details> thinking is stripped")
async def mirrored_thinking_is_stripped(payload: Json) -> None:
    as_details = payload["request"]["body"]["messages"][2]["content"]
    for shown in (f"<think>\n{thought_of(payload)}\n</think>\n\n", as_details):
        body = body_of(payload)
        body["messages"][2]["content"] = shown + "On it."
        sent = (await play_two_turns(payload, body, script_of(payload))).sent
        assert sent["messages"][2]["content"] == "On it."
        assert "Thinking" not in json.dumps(sent)
        assert "think>" not in json.dumps(sent)


@checks("08", "partial reasoning is stored when the client disconnects (Stop)")
async def reasoning_is_kept_when_the_client_stops(payload: Json) -> None:
    body = payload["request"]["body"]
    deltas = payload["mock_upstream_http"]["turn1_stream_deltas"]
    broken_off: list[Step] = [sse_head(), events([chat_chunk(delta) for delta in deltas]), stall()]
    async with playing(payload, [in_turn(broken_off, script_of(payload))]) as (service, up):
        first = {**body, "messages": body["messages"][:2]}
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(post_bytes(first, agent="Cursor/1.0"))
            name = deltas[-1]["tool_calls"][0]["function"]["name"]
            await client.read_until(f'"name":"{name}"'.encode())  # the reasoning has the name, too
        assert (await service.record())["end"] == "DC"
        await post(service, payload, body)
        assert up.requests[-1].json()["messages"][2]["reasoning_content"] == thought_of(payload)


@checks("08", "on a miss: drop older unrecoverable tool turns")
async def a_miss_continues_or_is_reported(payload: Json) -> None:
    """No turn is dropped, because DeepSeek accepts an empty ``reasoning_content``; a refusal is reported to Cursor."""
    refused = payload["mock_upstream_http"]["if_missing"]
    played = await play(payload, script_of(payload))
    assert reasoning_sent(played) == [""]
    assert [one["role"] for one in played.sent["messages"]] == ["system", "user", "assistant", "tool"]
    assert played.folded.content == payload["mock_upstream_http"]["turn2_text"]
    reported = await play(payload, [json_answer(refused["body"], refused["status"])])
    assert (reported.status, reported.error["code"]) == (400, "upstream_rejected")
    assert refused["body"]["error"]["message"] in reported.error["message"]


@checks("10", "no stream key means a JSON answer")
async def without_stream_the_answer_is_json(payload: Json) -> None:
    assert "stream" not in payload["request"]["body"]
    played = await play(payload)
    assert played.answer.headers["content-type"] == "application/json"
    assert played.answer.json()["object"] == "chat.completion"


@checks("10", "an unknown probe model should answer a clear 4xx JSON")
async def an_unknown_probe_is_a_clear_4xx(payload: Json) -> None:
    played = await play(payload, body=body_of(payload, model="gpt-unknown"))
    assert (played.status, played.answer.headers["content-type"]) == (404, "application/json")
    assert played.error["code"] == "model_not_found"
    assert "gpt-unknown" in played.error["message"]
    assert played.upstream == []


@checks("11", "exact configured name wins over suffix parsing")
async def an_exact_name_wins(payload: Json) -> None:
    asked = payload["request"]["body"]["model"]
    sent = (await play(payload, models={configured_name(payload): "openai/plain", asked: "openai/exact"})).sent
    assert sent["model"] == "exact"
    assert "reasoning" not in sent


@checks("11", "an effort in the body wins over the suffix")
async def the_bodys_effort_wins(payload: Json) -> None:
    for changes in ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}):
        assert (await play(payload, body=body_of(payload, **changes))).sent["reasoning"] == {"effort": "low"}


@checks("11", "key scopes, budgets and spend use the resolved model")
async def scopes_and_records_use_the_resolved_model(payload: Json) -> None:
    models = {"team/opus": "openai/claude-opus-5", "opus": "openai/claude-opus-5"}
    may = await play(payload, body=body_of(payload, model="team/opus-fast"), models=models, key=SECOND_KEY)
    assert (may.status, may.record["deployment"], may.record["key"]) == (200, "team/opus", "limited")
    may_not = await play(payload, body=body_of(payload, model="opus-fast"), models=models, key=SECOND_KEY)
    assert (may_not.status, may_not.error["code"]) == (403, "model_forbidden")


@checks("11", "response `model` echoes what Cursor sent")
async def the_response_has_the_requested_name(payload: Json) -> None:
    played = await play(payload)
    assert played.folded.model == payload["request"]["body"]["model"]
    assert played.sent["model"] == configured_name(payload) != played.folded.model


FAILURES: list[tuple[str, Sequence[Step], str, str]] = [
    ("a rate limit", [error(429, b'{"error":{"message":"m"}}')], "upstream_rate_limited", "RL"),
    ("a failure", [error(500, b"<html>")], "upstream_error", "UE"),
    ("overload", [error(503)], "upstream_error", "UE"),
    ("a rejected key", [error(401, b'{"error":{"message":"m"}}')], "upstream_unauthorized", "UE"),
    ("silence", [stall()], "upstream_timeout", "UT"),
    ("a broken connection", [close()], "upstream_protocol", "UP"),
]


@checks("13", "status 400 and type invalid_request_error on this route for every upstream failure")
async def every_failure_is_a_400(payload: Json) -> None:
    for what, script, code, ended in FAILURES:
        played = await play(payload, script, pipeline="  request_timeout_s: 0.3" if what == "silence" else "")
        assert played.status == 400, what
        assert (played.error["type"], played.error["code"]) == ("invalid_request_error", code), what
        assert played.record["end"] == ended, what


SAID = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Let me"}


@checks("13", "avoid the token pair 'overloaded_error: Overloaded' in message")
async def cursors_classifier_is_not_triggered(payload: Json) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    name = payload["request"]["body"]["model"]
    for upstream in ("openai/gpt-5.4", "anthropic/claude-sonnet-5"):
        played = await play(payload, [json_answer(overloaded, 529)], models={name: upstream})
        assert played.status == 400
        assert "overloaded_error: Overloaded" not in played.answer.text
        begun = streamed([*sibling(payload, "14")["mock_upstream_events"][:3], SAID, overloaded])
        if upstream.startswith("anthropic"):
            message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": []}
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me"}}
            begun = streamed([{"type": "message_start", "message": message}, delta, overloaded])
        reported = await play(payload, begun, models={name: upstream})
        assert (reported.folded.content or "").startswith("Let me\n\n[")
        assert "overloaded_error: Overloaded" not in reported.answer.text


@checks("13", "make it a setting (cursor_error_status: 400|passthrough)")
async def the_status_is_a_setting(payload: Json) -> None:
    for setting, status in (("400", 400), ("passthrough", 429)):
        assert (await play(payload, pipeline=f"  cursor_error_status: {setting}")).status == status


@checks("13", "other routes keep real statuses")
async def other_routes_get_real_statuses(payload: Json) -> None:
    played = await play(payload, path="/v1/chat/completions", user_agent=SDK)
    assert (played.status, played.error["type"], played.error["code"]) == (
        *(429, "rate_limit_error", "upstream_rate_limited"),
    )
    assert played.answer.headers["retry-after"] == "20"


@checks("14", "one error text, though both `error` and response.failed came")
async def a_failure_is_reported_once(payload: Json) -> None:
    message = payload["mock_upstream_events"][-1]["response"]["error"]["message"]
    assert ((await play(payload)).folded.content or "").count(message) == 1


def truncated(payload: Json) -> str:
    """Return the arguments of request 15, which are not complete."""
    (piece,) = of_type(events_of(payload), "response.function_call_arguments.delta")
    text: str = piece["delta"]
    assert not text.endswith("}")
    return text


@checks("14", "an unfinished tool call is never closed with finish_reason tool_calls")
async def an_unfinished_call_must_not_be_run(payload: Json) -> None:
    cut_off = sibling(payload, "15")
    begun = cut_off["mock_upstream_events"][:4]
    played = await play(payload, streamed([*begun, *events_of(payload)[-2:]]))
    assert played.folded.finish_reason == "stop"
    assert played.folded.tool_calls[0]["arguments"] == truncated(cut_off)


@checks("14", "if nothing was sent yet: prefer a real 400 JSON answer (13)")
async def a_failure_before_any_output_is_a_400(payload: Json) -> None:
    answer_events = events_of(payload)
    played = await play(payload, streamed([*answer_events[:2], *answer_events[-2:]]))
    assert (played.status, played.error["type"], played.error["code"]) == (
        *(400, "invalid_request_error", "upstream_error"),
    )
    assert answer_events[-1]["response"]["error"]["message"] in played.error["message"]


@checks("14", "spend/failure logging still records a failure")
async def a_failure_in_the_stream_is_recorded(payload: Json) -> None:
    record = (await play(payload)).record
    assert (record["status"], record["end"], record["error"]) == (200, "UE", "upstream_error")


@checks("15", "finish_reason length wins over tool_calls")
async def length_wins(payload: Json) -> None:
    folded = (await play(payload)).folded
    assert (folded.finish_reason, len(folded.tool_calls)) == ("length", 1)
    assert folded.tool_calls[0]["arguments"] == truncated(payload)


@checks("15", "content_filter reason maps to content_filter")
async def content_filter_is_reported(payload: Json) -> None:
    answer_events = events_of(payload)
    answer_events[-1]["response"]["incomplete_details"]["reason"] = "content_filter"
    assert (await play(payload, streamed(answer_events))).folded.finish_reason == "content_filter"


@checks("16", "tool_choice is dropped when there are no tools")
async def no_choice_without_tools(payload: Json) -> None:
    empty: list[Any] = [None, []]
    for tools in empty:
        sent = (await play(payload, body=body_of(payload, tools=tools))).sent
        assert "tool_choice" not in sent
        assert "tools" not in sent


@checks("16", "blank user messages are dropped")
async def blank_messages_are_dropped_and_images_kept(payload: Json) -> None:
    body = body_of(payload)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body["messages"].insert(4, {"role": "user", "content": [{"type": "text", "text": " "}, image]})
    sent = (await play(payload, body=body)).sent["input"]
    users = [item["content"] for item in sent if item["role"] == "user"]
    assert [content for content in users if isinstance(content, str)] == [body["messages"][1]["content"]]
    kinds = [[part["type"] for part in content] for content in users if isinstance(content, list)]
    assert sorted(kinds) in (
        [["input_image"], ["input_text"]],
        [["input_text"], ["input_text", "input_image"]],
    )


@checks("16", "for Anthropic models without prefill: append a user turn 'Continue.'")
async def a_model_without_prefill_is_asked_to_continue(payload: Json) -> None:
    body = body_of(payload, stream=False)
    sent = (await play(payload, [ANTHROPIC_ANSWER], body=body, models={body["model"]: "anthropic/claude-opus-5"})).sent
    *_, assistant, last = sent["messages"]
    assert assistant["role"] == "assistant"
    assert last["role"] == "user"
    assert [block["text"] for block in last["content"]] == ["Continue."]


@checks("16", "temperature:0 is dropped for models that refuse it")
async def temperature_is_omitted_for_models_that_refuse_it(payload: Json) -> None:
    for upstream, is_sent in (("openai/gpt-5", False), ("openai/o3", False), ("openai/gpt-4.1", True)):
        models = {payload["request"]["body"]["model"]: upstream}
        assert ("temperature" in (await play(payload, models=models)).sent) is is_sent, upstream
    body = body_of(payload, stream=False)
    sent = (await play(payload, [ANTHROPIC_ANSWER], body=body, models={body["model"]: "anthropic/claude-opus-5"})).sent
    assert "temperature" not in sent


@checks("20", "same envelope rule as 03")
async def a_document_has_the_same_envelope(payload: Json) -> None:
    item = payload["mock_upstream_http"]["body"]["output"][-1]
    for agent in ("Cursor/1.0", SDK):
        played = await play(payload, user_agent=agent)
        envelope_is_a_function(played, item["input"])
        [call] = played.answer.json()["choices"][0]["message"]["tool_calls"]
        assert call.keys() == {"id", "type", "function"}
        assert (call["id"], call["type"]) == (item["call_id"], "function")


@pytest.mark.parametrize(
    ("name", "payload"),
    once(
        pytest.param(name, *found.values, id=f"{found.id}-{name}", marks=found.marks)
        for name in CHECKS
        for found in payloads(name[:2])
    ),
)
async def test_assertion(name: str, payload: Json) -> None:
    _, _, beginning = name.partition(": ")
    if "assertions" in payload:
        assert sum(text.startswith(beginning) for text in payload["assertions"]) == 1
    await CHECKS[name](payload)


@needs_shared
def test_all_payloads_are_found_and_every_assertion_has_a_check_or_a_reason() -> None:
    shared = [payload for payload in (found.values[0] for found in payloads()) if "assertions" in payload]
    assert len(shared) == 14
    for payload in shared:
        for text in payload["assertions"]:
            found = [known for known in (*CHECKS, *NOT_HERE) if f"{payload['name'][:2]}: {text}".startswith(known)]
            assert len(found) == 1, text


# --- the table of model names (request 11) ---------------------------------------------------------------------------

VARIANTS = [
    pytest.param(found.values[0], row, id=f"{found.id}-{row.get('sent')}", marks=found.marks)
    for found in payloads("11")
    for row in (found.values[0]["notes"]["table"] if found.values[0] else [{}])
]


@pytest.mark.parametrize(("payload", "row"), VARIANTS)
async def test_a_model_name_is_read_as_in_the_table(payload: Json, row: Json) -> None:
    body = body_of(payload, model=row["sent"])
    if "body_reasoning_effort" in row:
        body["reasoning"] = {"effort": row["body_reasoning_effort"]}
    configured = row.get("configured") or row["resolved"] or row["sent"].removesuffix("-thinking")
    played = await play(payload, body=body, models={configured: f"openai/{configured}"})
    if row["resolved"] is None:
        assert (played.status, played.error["code"]) == (404, "model_not_found")
        return
    assert played.sent["model"] == row["resolved"]
    effort = row.get("effort", row.get("body_reasoning_effort"))
    assert played.sent.get("reasoning", {}).get("effort") == effort
    assert played.folded.model == row["sent"]
