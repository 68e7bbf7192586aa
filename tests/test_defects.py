"""None of the 29 defects of LiteLLM that docs/facts/litellm.md lists exists here: one test each, by number."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kit.clients.chat_fold import Folded, chunks_of, fold_document, fold_stream
from kit.clients.chat_posts import CREATED, CURSOR, completed, delta, post_bytes, response_of
from kit.service.running import KEY, Service, model, serving
from kit.time.patience import patiently
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    Step,
    close,
    end,
    error,
    event,
    events,
    json_answer,
    reset,
    scripted_upstream,
    sse_head,
)

Json = dict[str, Any]

BY_CHAT = "openai/chat_completions/gpt-x"
BY_ANTHROPIC = "anthropic/claude-x"
UPSTREAM_KEY = "sk-upstream-secret-0123456789"
"""The upstream's key in the deployments of `service.model`."""
USAGE: Json = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 3},
}


def final(*output: Json, status: str = "completed", **fields: Any) -> Json:
    """Return a terminal event."""
    base = response_of("") | {"status": status, "output": list(output), "usage": USAGE}
    return {"type": f"response.{status}", "response": base | fields}


def message(*parts: Json) -> Json:
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": list(parts)}


def output_text(text: str, *annotations: Json, **fields: Any) -> Json:
    return {"type": "output_text", "text": text, "annotations": list(annotations)} | fields


def call(arguments: str = "", call_id: str = "call_a", **fields: Any) -> Json:
    item = {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": "Read", "arguments": arguments}
    return item | fields


def added(item: Json, output_index: int = 0) -> Json:
    return {"type": "response.output_item.added", "output_index": output_index, "item": item}


def done(item: Json, output_index: int = 0) -> Json:
    return {"type": "response.output_item.done", "output_index": output_index, "item": item}


def arguments(text: str, output_index: int = 0) -> Json:
    return {"type": "response.function_call_arguments.delta", "output_index": output_index, "delta": text}


def answering(*payloads: Json) -> Step:
    """Answer as the real API does: a stream if requested, otherwise the terminal event's response as a document."""

    async def step(exchange: Exchange) -> None:
        if exchange.request.json().get("stream"):
            await exchange.send(sse_head())
            for payload in payloads:
                await exchange.send_chunk(_frame(payload))
            await exchange.send(b"0\r\n\r\n")
        else:
            body = json.dumps(payloads[-1]["response"]).encode()
            await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            await exchange.send(b"content-length: %d\r\n\r\n%b" % (len(body), body))

    return step


def _frame(payload: Json) -> bytes:
    return b"data: %b\n\n" % json.dumps(payload).encode()


@asynccontextmanager
async def calling(
    *script: Step, upstream: str = "openai/gpt-5", pipeline: str = "", name: str = "up"
) -> AsyncIterator[tuple[Service, ScriptedUpstream]]:
    async with (
        scripted_upstream(*script) as up,
        serving(model(name, up.url, upstream=upstream), pipeline) as service,
    ):
        yield service, up


async def ask(service: Service, *, stream: bool, agent: str = "openai-like/1.0", **fields: Any) -> Folded:
    """Send a request and fold the answer; a refusal becomes a `Folded` with an error."""
    body = {"model": "up", "input": "hi", "stream": stream} | fields
    answer = await service.post(body, user_agent=agent)
    if answer.status_code != 200:
        return Folded(error=answer.json()["error"] | {"status": answer.status_code})
    return fold_stream(answer.content) if stream else fold_document(answer.content)


async def both(*payloads: Json, **fields: Any) -> tuple[Folded, Folded]:
    """Send the request with and without a stream."""
    async with calling(answering(*payloads)) as (service, _):
        return await ask(service, stream=True, **fields), await ask(service, stream=False, **fields)


# Accounting, and what is sent upstream


async def test_defect_01_each_body_shape_is_logged_with_its_key() -> None:
    config_key = "sk-limited-key-0123456789"
    async with calling(answering(CREATED, delta("Hi"), final(message(output_text("Hi")))), name="team/x") as (
        service,
        _,
    ):
        chat = {"messages": [{"role": "user", "content": "hi"}]}
        for shape in ({"input": "hi"}, chat):
            for stream in (True, False):
                await service.post({"model": "team/x", "stream": stream} | shape, key=config_key)
        assert len(service.records) == 4
        for record in service.records:
            assert (record["key"], record["model"], record["deployment"]) == ("limited", "team/x", "team/x")
            assert (record["prompt_tokens"], record["completion_tokens"]) == (11, 7)
            assert record["end"] == "OK"


async def test_defect_02_nothing_of_ours_is_sent_to_the_provider() -> None:
    async with calling(answering(CREATED, delta("Hi"), final())) as (service, up):
        metadata = {"cursorConversationId": "c-1"}
        await service.post(
            {"model": "up", "input": "hi", "stream": True, "stream_options": {"include_usage": True}},
            user_agent="Cursor/1.0",
            x_forwarded_for="203.0.113.7",
        )
        await service.post({"model": "up", "input": "hi", "stream": True, "metadata": metadata})
        first, second = (request.json() for request in up.requests)
        assert "metadata" not in first
        assert second["metadata"] == metadata
        for request in up.requests:
            sent = json.dumps(request.headers) + request.body.decode()
            assert KEY not in sent
            assert "203.0.113.7" not in sent
            assert "Cursor/1.0" not in sent
            assert "include_usage" not in sent
            assert request.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert first.pop("reasoning") == {"summary": "auto"}  # what GPT-5 thinks anyway is to be shown
        allowed = {"model", "input", "stream", "store", "include", "prompt_cache_key", "stream_options"}
        assert set(first) <= allowed


# The stream


async def test_defect_03_an_empty_arguments_delta_does_no_harm() -> None:
    whole = call('{"path":"a"}')
    stream = [
        CREATED,
        added(call()),
        arguments(""),
        arguments('{"path"'),
        arguments(""),
        arguments(':"a"}'),
        final(whole),
    ]
    for folded in await both(*stream):
        assert folded.tool_calls == [{"id": "call_a", "name": "Read", "arguments": '{"path":"a"}'}]
        assert folded.finish_reason == "tool_calls"


async def test_defect_04_arguments_that_arrive_only_with_their_done_event_are_shown() -> None:
    ended = {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": '{"path":"a"}'}
    for last in (ended, done(call('{"path":"a"}'))):
        for folded in await both(CREATED, added(call()), last, final(call('{"path":"a"}'))):
            assert [it["arguments"] for it in folded.tool_calls] == ['{"path":"a"}']


async def test_defect_05_a_final_response_without_output_changes_nothing() -> None:
    stream = [CREATED, added(call()), arguments("{}"), done(call("{}")), final()]
    async with calling(sse_head(), events(stream), end()) as (service, _):  # always streams
        for wants_stream in (True, False):
            folded = await ask(service, stream=wants_stream)
            assert [it["arguments"] for it in folded.tool_calls] == ["{}"]
            assert folded.finish_reason == "tool_calls"


async def test_defect_06_a_model_may_repeat_itself() -> None:
    deltas = [delta("    ") for _ in range(300)]
    for folded in await both(CREATED, *deltas, final(message(output_text("    " * 300)))):
        assert folded.content == "    " * 300
        assert folded.finish_reason == "stop"


PATCH = '*** Begin Patch\n*** Update File: a.py\n@@\n-print("a")\n+print("ü")\n*** End Patch\n'
APPLY_PATCH: Json = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}


def chat_chunk(delta: Json, finish_reason: str | None = None, **fields: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    base = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "gpt-x"}
    return base | {"choices": [choice]} | fields


def chat_call(tool: Json, text: str) -> list[Json]:
    """Stream a call of the only declared tool, with its text in the tool's only field, four bytes at a time."""
    function = tool["function"]
    [name] = function["parameters"]["properties"]
    wrapped = json.dumps({name: text})
    start = {"index": 0, "id": "call_a", "type": "function", "function": {"name": function["name"], "arguments": ""}}
    pieces = [wrapped[at : at + 4] for at in range(0, len(wrapped), 4)]
    return [
        chat_chunk({"role": "assistant", "content": None, "tool_calls": [start]}),
        *(chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces),
        chat_chunk({}, "tool_calls"),
    ]


def chat_document(message: Json, finish_reason: str = "stop") -> Json:
    choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish_reason}
    base = {"id": "chatcmpl-up", "object": "chat.completion", "created": 1_790_000_000, "model": "gpt-x"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return base | {"choices": [choice], "usage": usage}


async def test_defect_07_a_custom_call_over_a_chat_upstream_is_the_raw_patch() -> None:
    async def play(exchange: Exchange) -> None:
        asked = exchange.request.json()
        [tool] = asked["tools"]
        if tool["type"] == "custom":  # an upstream that accepts grammar tools gets them unchanged
            pytest.fail("this deployment is not known to take custom tools")
        if asked.get("stream"):
            await exchange.send(sse_head())
            for chunk in chat_call(tool, PATCH):
                await exchange.send_chunk(_frame(chunk))
            await exchange.send_chunk(b"data: [DONE]\n\n")
            await exchange.send(b"0\r\n\r\n")
            return
        [name] = tool["function"]["parameters"]["properties"]
        function = {"name": tool["function"]["name"], "arguments": json.dumps({name: PATCH})}
        message = {"content": None, "tool_calls": [{"id": "call_a", "type": "function", "function": function}]}
        await exchange.send(json_answer(chat_document(message, "tool_calls")))

    async with calling(play, upstream="hosted_vllm/chat_completions/x") as (service, _):
        for stream in (True, False):
            folded = await ask(service, stream=stream, tools=[APPLY_PATCH])
            assert folded.tool_calls == [{"id": "call_a", "name": "ApplyPatch", "arguments": PATCH}]
            assert folded.finish_reason == "tool_calls"


async def test_defect_08_parts_of_a_summary_are_one_choice_with_a_blank_line_between() -> None:
    def summary(part: int, text: str) -> Json:
        return {
            "type": "response.reasoning_summary_text.delta",
            "output_index": 0,
            "summary_index": part,
            "delta": text,
        }

    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in ("a", "b")],
    }
    stream = [CREATED, summary(0, "a"), summary(1, "b"), delta("Hi") | {"output_index": 1}]
    for folded in await both(*stream, final(item, message(output_text("Hi")))):  # the fold allows only choice 0
        assert folded.reasoning == "a\n\nb"
        assert folded.content == "Hi"


async def test_defect_09_refusals_are_shown() -> None:
    refused = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "I can't."}
    for folded in await both(CREATED, refused, final(message({"type": "refusal", "refusal": "I can't."}))):
        assert (folded.refusal, folded.content, folded.finish_reason) == ("I can't.", None, "stop")


async def test_defect_09_refusals_of_a_chat_upstream_are_given() -> None:
    chunks = [chat_chunk({"role": "assistant", "refusal": "I can't."}), chat_chunk({}, "stop")]
    async with chat_upstream(chunks, chat_document({"content": None, "refusal": "I can't."})) as service:
        for stream in (True, False):
            folded = await ask(service, stream=stream)
            assert (folded.refusal, folded.content, folded.finish_reason) == ("I can't.", None, "stop")


@asynccontextmanager
async def chat_upstream(chunks: list[Json], document: Json, *, upstream: str = BY_CHAT) -> AsyncIterator[Service]:
    """Serve the model ``up`` from a Chat Completions upstream."""

    async def play(exchange: Exchange) -> None:
        if exchange.request.json().get("stream"):
            await exchange.send(sse_head())
            for chunk in chunks:
                await exchange.send_chunk(_frame(chunk))
            await exchange.send_chunk(b"data: [DONE]\n\n")
            await exchange.send(b"0\r\n\r\n")
        else:
            await exchange.send(json_answer(document))

    async with calling(play, upstream=upstream) as (service, _):
        yield service


async def test_defect_10_usage_is_sent_if_and_only_if_it_is_requested() -> None:
    async with calling(answering(CREATED, delta("Hi"), final(message(output_text("Hi"))))) as (service, _):
        asked = await ask(service, stream=True, stream_options={"include_usage": True})
        assert asked.usage == {
            "prompt_tokens": 11,
            "completion_tokens": 7,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        assert (await ask(service, stream=True)).usage is None
        assert (await ask(service, stream=True, stream_options={"include_usage": False})).usage is None
        assert (await ask(service, stream=False)).usage == asked.usage


async def test_defect_11_the_usage_chunk_has_no_choices_and_no_other_fields_of_its_own() -> None:
    async with calling(answering(CREATED, delta("Hi"), final())) as (service, _):
        for shape in ({"input": "hi"}, {"messages": [{"role": "user", "content": "hi"}]}):
            body = {"model": "up", "stream": True, "stream_options": {"include_usage": True}} | shape
            *_, usage = chunks_of((await service.post(body)).content)
            assert usage["choices"] == []
            assert set(usage) == {"id", "object", "created", "model", "choices", "usage"}
            assert set(usage["usage"]) <= {
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "prompt_tokens_details",
                "completion_tokens_details",
            }


async def test_defect_12_a_text_that_arrives_only_with_its_done_event_is_shown() -> None:
    ended = {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi"}
    for last in (ended, done(message(output_text("Hi")))):
        for folded in await both(CREATED, last, final(message(output_text("Hi")))):
            assert folded.content == "Hi"


async def test_defect_13_raw_reasoning_is_shown() -> None:
    raw = {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "hm"}
    item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    last = final(item, message(output_text("Hi")))
    for folded in await both(CREATED, raw, delta("Hi") | {"output_index": 1}, last):
        assert (folded.reasoning, folded.content) == ("hm", "Hi")


async def test_defect_13_reasoning_of_a_chat_upstream_is_given() -> None:
    chunks = [
        chat_chunk({"role": "assistant", "reasoning_content": "hm"}),
        chat_chunk({"content": "Hi"}),
        chat_chunk({}, "stop"),
    ]
    async with chat_upstream(chunks, chat_document({"content": "Hi", "reasoning_content": "hm"})) as service:
        for stream in (True, False):
            folded = await ask(service, stream=stream)
            assert (folded.reasoning, folded.content) == ("hm", "Hi")


async def test_defect_13_reasoning_of_anthropic_is_given() -> None:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": []}
    usage = {"input_tokens": 3, "output_tokens": 2}
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "text", "text": "Hi"}]
    stream: list[Json] = [
        {"type": "message_start", "message": head | {"usage": usage, "stop_reason": None}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    document = head | {"content": blocks, "stop_reason": "end_turn", "usage": usage}

    async def play(exchange: Exchange) -> None:
        if exchange.request.json().get("stream"):
            await exchange.send(sse_head())
            for payload in stream:
                await exchange.send_chunk(b"event: %b\n%b" % (payload["type"].encode(), _frame(payload)))
            await exchange.send(b"0\r\n\r\n")
        else:
            await exchange.send(json_answer(document))

    async with calling(play, upstream=BY_ANTHROPIC) as (service, _):
        for wants_stream in (True, False):
            folded = await ask(service, stream=wants_stream)
            assert (folded.reasoning, folded.content) == ("hm", "Hi")


async def test_defect_14_citations_are_shown_and_other_annotations_do_no_harm() -> None:
    url = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    file = {"type": "file_citation", "file_id": "file_1", "index": 0, "filename": "a.txt"}
    at = {"output_index": 0, "content_index": 0}
    stream = [
        CREATED,
        delta("Hi"),
        *(
            {"type": "response.output_text.annotation.added", "annotation_index": n, "annotation": annotation} | at
            for n, annotation in enumerate((file, url))
        ),
        final(message(output_text("Hi", file, url))),
    ]
    nested = {name: value for name, value in url.items() if name != "type"}
    for folded in await both(*stream):
        assert folded.content == "Hi"
        assert folded.annotations == [{"type": "url_citation", "url_citation": nested}]


async def test_defect_15_log_probabilities_are_sent_when_they_are_requested() -> None:
    token = {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}
    stream = [CREATED, delta("Hi") | {"logprobs": [token]}, final(message(output_text("Hi", logprobs=[token])))]
    for folded in await both(*stream, logprobs=True):
        assert folded.logprobs == [token]
    for folded in await both(*stream):
        assert folded.logprobs == []


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"type": "image_generation_call", "id": "ig_1", "result": "AAAA"}, None),
        ({"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}", "server_label": "s"}, None),
        ({"type": "local_shell_call", "id": "n_1", "call_id": "call_n", "action": {"command": ["ls"]}}, "local_shell"),
        ({"type": "computer_call", "id": "n_1", "call_id": "call_n", "action": {"type": "wait"}}, "computer"),
        ({"type": "apply_patch_call", "id": "n_1", "call_id": "call_n", "operation": {"path": "a"}}, "apply_patch"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
async def test_defect_16_items_that_chat_does_not_have_are_answered_alike(item: Json, name: str | None) -> None:
    streamed, whole = await both(CREATED, added(item), done(item), final(item))
    for folded in (streamed, whole):
        assert [call["name"] for call in folded.tool_calls] == ([name] if name else [])
        assert folded.finish_reason == ("tool_calls" if name else "stop")
        assert folded.content is None
    assert streamed.tool_calls == whole.tool_calls


# Failures


@pytest.mark.parametrize(
    ("code", "status"), [("rate_limit_exceeded", 429), ("invalid_prompt", 400), ("server_error", 502)]
)
async def test_defect_17_a_failed_response_has_the_same_status_in_both_modes(code: str, status: int) -> None:
    failed = final(status="failed", error={"code": code, "message": "Said by the upstream."})
    for folded in await both(CREATED, failed):
        assert folded.error is not None
        assert (folded.error["status"], folded.error["message"]) == (status, "Said by the upstream.")


@pytest.mark.parametrize("shape", ["flat", "nested"])
async def test_defect_18_an_error_event_keeps_its_message_in_every_shape(shape: str) -> None:
    failure: Json = {"code": "server_error", "message": "Said by the upstream."}
    event_of: Json = {"type": "error"} | (failure if shape == "flat" else {"error": failure})
    async with calling(sse_head(), events([CREATED, delta("Let"), event_of]), end()) as (service, _):
        folded = await ask(service, stream=True)
        assert folded.content == "Let"
        assert folded.error is not None
        assert folded.error["message"] == "Said by the upstream."


@pytest.mark.parametrize("breaking", [close(), reset(), end()], ids=["close", "reset", "end"])
async def test_defect_19_a_broken_stream_is_reported_as_each_client_needs_it(breaking: Step) -> None:
    async with calling(sse_head(), events([CREATED, delta("Let")]), breaking) as (service, _):
        strict = await service.post({"model": "up", "input": "hi", "stream": True})
        folded = fold_stream(strict.content)  # one error in OpenAI's shape, and nothing after it
        assert folded.content == "Let"
        assert folded.error is not None
        assert folded.error["code"] in ("upstream_protocol", "upstream_unreachable")
        for internal in ("httpx", "Error:", "Traceback", "trio", "127.0.0.1", "headrace"):
            assert internal not in folded.error["message"]
        shown = await ask(service, stream=True, agent=CURSOR)
        assert shown.content is not None
        assert shown.content.startswith("Let\n\n[upstream error: ")
        assert (shown.finish_reason, shown.is_done) == ("stop", True)


async def test_defect_20_a_chat_stream_without_a_finish_reason_is_not_a_success() -> None:
    async with chat_upstream([chat_chunk({"role": "assistant", "content": "Let"})], {}) as service:
        folded = await ask(service, stream=True)
        assert folded.content == "Let"
        assert folded.error is not None
        assert (folded.finish_reason, folded.is_done) == (None, False)


async def test_defect_21_an_upstreams_error_is_passed_on_in_readable_form() -> None:
    refusal = {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    limited = error(429, json.dumps(refusal).encode(), headers=[("retry-after", "7")])
    async with calling(limited) as (service, _):
        for stream in (True, False):
            answer = await service.post({"model": "up", "input": "hi", "stream": stream})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
            details = answer.json()["error"]
            assert "Slow down." in details["message"]
            assert "\\" not in details["message"]
            assert "{" not in details["message"]
            assert (details["type"], details["code"]) == ("rate_limit_error", "upstream_rate_limited")
    refused = {"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}.", "code": "invalid_api_key"}}
    async with calling(error(401, json.dumps(refused).encode())) as (service, _):
        answer = await service.post({"model": "up", "input": "hi"})
        assert answer.status_code == 502  # a 401 would blame the client's key
        assert UPSTREAM_KEY not in answer.text
        assert answer.json()["error"]["code"] == "upstream_unauthorized"
    field = {
        "error": {"message": "Unknown parameter: 'x'.", "type": "invalid_request_error", "param": "x", "code": "u"}
    }
    async with calling(error(400, json.dumps(field).encode())) as (service, _):
        details = (await service.post({"model": "up", "input": "hi"})).json()["error"]
        assert details["param"] == "x"
        assert "Unknown parameter: 'x'." in details["message"]


# Requests


async def test_defect_22_parameters_and_items_of_chat_in_a_responses_body_are_translated() -> None:
    schema = {"type": "object", "properties": {}}
    body = {
        "model": "up",
        "stream": True,
        "max_completion_tokens": 64,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}},
        "reasoning_effort": "high",
        "verbosity": "low",
        "input": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_a", "index": 0, "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "done"},
            {"role": "user", "content": "go on"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
    }
    async with calling(answering(CREATED, delta("Hi"), final())) as (service, up):
        assert (await service.post(body)).status_code == 200
        sent = up.requests[0].json()
        assert sent["max_output_tokens"] == 64
        assert sent["text"]["format"] == {"type": "json_schema", "name": "s", "schema": schema, "strict": True}
        assert sent["text"]["verbosity"] == "low"
        assert sent["reasoning"]["effort"] == "high"
        assert not {"max_completion_tokens", "response_format", "reasoning_effort", "verbosity", "messages"} & set(sent)
        kinds = [item.get("type", "message") for item in sent["input"]]
        assert kinds == ["message", "function_call", "function_call_output", "message"]
        [first, asked, output, _] = sent["input"]
        assert first["content"] in ("hi", [{"type": "input_text", "text": "hi"}])
        assert (asked["call_id"], asked["name"], asked["arguments"]) == ("call_a", "f", "{}")
        assert (output["call_id"], output["output"]) == ("call_a", "done")
        assert sent["tools"][0]["name"] == "f"


async def test_defect_23_of_two_conversations_in_one_body_one_is_used_and_no_field_is_left_over() -> None:
    async with calling(answering(CREATED, delta("Hi"), final())) as (service, up):
        both_given = {
            "model": "up",
            "stream": True,
            "input": "from input",
            "messages": [{"role": "user", "content": "m"}],
        }
        assert (await service.post(both_given)).status_code == 200
        empty = both_given | {"input": []}
        assert (await service.post(empty)).status_code == 200
        first, second = (request.json() for request in up.requests)
        assert "messages" not in first
        assert "messages" not in second
        assert "from input" in json.dumps(first["input"])
        assert '"m"' not in json.dumps(first["input"])
        assert '"m"' in json.dumps(second["input"])


async def test_defect_24_a_stream_that_broke_is_not_continued_by_another_model() -> None:
    breaking = {"type": "error", "error": {"code": "server_error", "message": "Oh."}}
    async with scripted_upstream(sse_head(), events([CREATED, delta("Partial"), breaking]), end()) as up:
        models = model("up", up.url) + model("up", up.url)
        async with serving(models) as service:
            folded = await ask(service, stream=True)
            assert folded.content == "Partial"
            assert folded.error is not None
            assert len(up.requests) == 1


# What the client sees meanwhile, and its form


async def test_defect_25_a_client_gets_comments_before_the_models_first_output() -> None:
    heard = trio.Event()

    async def until_heard(exchange: Exchange) -> None:
        await heard.wait()

    slow = (sse_head(), event(CREATED), until_heard, events([delta("Hi"), final(message(output_text("Hi")))]), end())
    async with calling(*slow, pipeline="  keep_alive_interval_s: 0.1") as (service, _):
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        async with stream:
            await stream.send_all(post_bytes({"model": "up", "input": "hi", "stream": True}))
            received = b""
            with patiently():
                while b": keepalive" not in received:
                    received += await stream.receive_some()
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"Hi" not in received
            heard.set()
            with patiently():
                while b"[DONE]" not in received:
                    received += await stream.receive_some()
            assert b'"content":"Hi"' in received


async def test_defect_26_chunks_and_documents_have_all_required_fields_and_no_others() -> None:
    stream = [CREATED, delta("Hi"), added(call(), 1), arguments("{}", 1), final(message(output_text("Hi")), call("{}"))]
    async with calling(answering(*stream)) as (service, _):
        chunks = chunks_of((await service.post({"model": "up", "input": "hi", "stream": True})).content)
        for chunk in chunks:
            assert set(chunk) == {"id", "object", "created", "model", "choices"}
            [choice] = chunk["choices"]
            assert set(choice) == {"index", "delta", "finish_reason"}
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["tool_calls"]
        calls = [it for chunk in chunks for it in chunk["choices"][0]["delta"].get("tool_calls", ())]
        assert set(calls[0]) == {"index", "id", "type", "function"}
        assert all(set(it) == {"index", "function"} for it in calls[1:])
        document = (await service.post({"model": "up", "input": "hi"})).json()
        assert set(document) == {"id", "object", "created", "model", "choices", "usage"}
        [choice] = document["choices"]
        assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
        assert set(choice["message"]) == {"role", "content", "refusal", "tool_calls"}
        [made] = choice["message"]["tool_calls"]
        assert set(made) == {"id", "type", "function"}


async def test_defect_27_ids_and_times_are_those_of_chat_completions() -> None:
    async with calling(answering(CREATED, delta("Hi"), final(message(output_text("Hi"))))) as (service, _):
        for stream in (True, False):
            folded = await ask(service, stream=stream)
            assert folded.id is not None
            assert folded.id.startswith("chatcmpl-")
            assert len(folded.id) < 64
            assert folded.created == 1_790_000_000  # the upstream's time


async def test_defect_28_counted_call_ids_are_kept_unless_the_conversation_has_used_them() -> None:
    asked = call("{}", "call_0")
    stream = [CREATED, added(call(call_id="call_0")), arguments("{}"), final(asked)]
    for folded in await both(*stream):
        assert [it["id"] for it in folded.tool_calls] == ["call_0"]
    history = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "call_0", "name": "Read", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_0", "output": "done"},
    ]
    for folded in await both(
        *stream, input=history
    ):  # Bedrock starts again at 0: two calls with one id would be confused
        assert [it["id"] for it in folded.tool_calls] == ["fc_1"]


async def test_defect_29_an_answer_without_text_has_a_role_and_an_end() -> None:
    async with calling(answering(CREATED, completed("") | {"response": final()["response"]})) as (service, _):
        first, last = chunks_of((await service.post({"model": "up", "input": "hi", "stream": True})).content)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}


def test_every_defect_of_the_list_has_a_test() -> None:
    numbers = {int(name.split("_")[2]) for name in globals() if name.startswith("test_defect_")}
    assert numbers == set(range(1, 30))
