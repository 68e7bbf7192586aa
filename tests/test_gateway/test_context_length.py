"""A conversation that is too long for the model is reported so that Cursor can recover, whichever vendor says so.

Cursor summarises the chat and repeats the call only after an error that it knows as "context too long". So each form
gets the code, the type, the param and the first sentence of OpenAI's own error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import trio
from kit.clients.chat_fold import Folded, fold_stream
from kit.clients.chat_posts import AGENTS, CREATED, CURSOR, OPENAI_LIKE, ask, delta, failed_event, post_bytes
from kit.clients.raw import Answer, RawClient
from kit.service.running import CONFIG, Service, model, serving
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import Exchange, Step, end, error, events, json_answer, scripted_upstream, sse_head

RESPONSES, CHAT, ANTHROPIC = "openai/gpt-5", "deepseek/deepseek-chat", "anthropic/claude-sonnet-4-5"
NO_NUMBERS = "Your input exceeds the context window of this model. Please adjust your input and try again."


def numbered(limit: int, used: int) -> str:
    return (
        f"This model's maximum context length is {limit} tokens. However, your messages resulted in {used} tokens. "
        "Please reduce the length of the messages."
    )


class Form(NamedTuple):
    """What a vendor answers, and how the message must begin."""

    upstream: str
    script: Sequence[Step]
    begins: str
    has: str = ""
    """The vendor's own text."""


def refused(text: str, status: int = 400, **fields: Any) -> tuple[bytes]:
    return (json_answer({"error": {"message": text, "type": "invalid_request_error", **fields}}, status),)


def streamed(*payloads: dict[str, Any] | bytes) -> tuple[Step, ...]:
    return (sse_head(), events(payloads), end())


OPENAI_TEXT = (
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 131072 tokens. "
    "Please reduce the length of the messages."
)
CLAUDE_TEXT = "prompt is too long: 208310 tokens > 200000 maximum"
GEMINI_TEXT = "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."
COPILOT_TEXT = "prompt token count of 140000 exceeds the limit of 128000"
CLAUDE_ERROR = {"type": "error", "error": {"type": "invalid_request_error", "message": CLAUDE_TEXT}}
FORMS = {
    # HTTP errors.
    "OpenAI Responses": Form(RESPONSES, refused(NO_NUMBERS, code="context_length_exceeded"), NO_NUMBERS),
    "OpenAI Chat": Form(CHAT, refused(OPENAI_TEXT, code="context_length_exceeded", param="messages"), OPENAI_TEXT),
    "DeepSeek and vLLM, by text": Form(CHAT, refused(OPENAI_TEXT, code=400), OPENAI_TEXT),
    "a code without a text": Form(CHAT, refused("", code="context_length_exceeded"), NO_NUMBERS),
    "Anthropic": Form(ANTHROPIC, (json_answer(CLAUDE_ERROR, 400),), numbered(200000, 208310), CLAUDE_TEXT),
    "Anthropic with the output": Form(
        ANTHROPIC,
        refused("input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length"),
        "This model's maximum context length is 200000 tokens. However, you requested 207951 tokens (199759 in the "
        "messages, 8192 in the completion). Please reduce the length of the messages or completion.",
        "exceed context limit: 199759 + 8192",
    ),
    "Gemini": Form(
        CHAT,
        (json_answer([{"error": {"code": 400, "message": GEMINI_TEXT, "status": "INVALID_ARGUMENT"}}], 400),),
        numbered(1048575, 1196265),
        GEMINI_TEXT,
    ),
    "Mistral": Form(
        CHAT,
        (
            json_answer(
                {
                    "object": "error",
                    "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
                    "maximum context length",
                    "code": 3051,
                },
                422,
            ),
        ),
        numbered(32768, 40000),
        "Prompt contains 40000 tokens",
    ),
    "OpenRouter": Form(
        CHAT,
        refused(
            "This endpoint's maximum context length is 131072 tokens. However, you requested about 195847 tokens "
            "(185847 of text input, 10000 in the output). Please reduce the length of either one.",
            code=400,
        ),
        "This model's maximum context length is 131072 tokens. However, you requested 195847 tokens (185847 in the ",
        "This endpoint's maximum context length",
    ),
    "OpenRouter with the vendor's document in metadata.raw": Form(
        CHAT,
        refused("Provider returned error", code=400, metadata={"raw": json.dumps(CLAUDE_ERROR), "provider_name": "A"}),
        numbered(200000, 208310),
        f"Provider returned error: {CLAUDE_TEXT}",
    ),
    "vLLM since 2026": Form(
        CHAT,
        refused(
            "You passed 131073 input tokens and requested 0 output tokens. However, the model's context length is only "
            "131072 tokens, resulting in a maximum input length of 131072 tokens.",
            code=400,
        ),
        numbered(131072, 131073),
        "You passed 131073",
    ),
    "vLLM's decoder": Form(
        RESPONSES,
        refused("The decoder prompt (length 12324) is longer than the maximum model length of 8192."),
        numbered(8192, 12324),
    ),
    "llama.cpp and LM Studio": Form(
        CHAT, refused("Context size has been exceeded.", 500, code=500), NO_NUMBERS, "Context size"
    ),
    "Bedrock Mantle": Form(
        RESPONSES, refused("prompt tokens (300000) exceed model maximum (262144)"), numbered(262144, 300000)
    ),
    "GLM": Form(
        CHAT,
        refused("number of input tokens (210000) has exceeded max_prompt_tokens (200000) limit", 413),
        numbered(200000, 210000),
        "max_prompt_tokens",
    ),
    "GitHub Copilot": Form(
        RESPONSES, refused(COPILOT_TEXT, code="model_max_prompt_tokens_exceeded"), numbered(128000, 140000)
    ),
    "LiteLLM around vLLM": Form(
        CHAT,
        (
            json_answer(
                {
                    "detail": "ContextWindowExceededError: Hosted_vllmException - The input (1492905 tokens) is longer "
                    "than the\n model's context length (1048576 tokens)."
                },
                500,
            ),
        ),
        numbered(1048576, 1492905),
        "Hosted_vllmException",
    ),
    "plain text": Form(
        CHAT, (error(400, COPILOT_TEXT.encode(), content_type="text/plain"),), numbered(128000, 140000), COPILOT_TEXT
    ),
    # Failures within an answer that began as a success.
    "response.failed": Form(
        RESPONSES, streamed(CREATED, failed_event("context_length_exceeded", NO_NUMBERS)), NO_NUMBERS
    ),
    "an error event of the Responses API": Form(
        RESPONSES,
        streamed({"type": "error", "error": {"code": "context_length_exceeded", "message": NO_NUMBERS}}),
        NO_NUMBERS,
    ),
    "llama.cpp in a stream": Form(
        CHAT,
        streamed({"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}),
        NO_NUMBERS,
    ),
    "an error in a stream of chunks": Form(
        CHAT, streamed({"error": {"message": OPENAI_TEXT, "code": 400}}), OPENAI_TEXT
    ),
    "an error in a stream of chunks with metadata.raw": Form(
        CHAT,
        streamed(
            {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": GEMINI_TEXT}}},
        ),
        numbered(1048575, 1196265),
        GEMINI_TEXT,
    ),
    "an error event of Anthropic's": Form(ANTHROPIC, streamed(CLAUDE_ERROR), numbered(200000, 208310), CLAUDE_TEXT),
    "a full window before any output": Form(
        ANTHROPIC,
        streamed(
            anthropic_stream.head(usage={"input_tokens": 200000}),
            *anthropic_stream.thinking(0, "sig"),
            anthropic_stream.last("model_context_window_exceeded"),
            anthropic_stream.STOP,
        ),
        NO_NUMBERS,
    ),
    "a full window before any chunk": Form(
        CHAT, streamed(chat_stream.chunk({}, "model_context_window_exceeded"), b"data: [DONE]\n\n"), NO_NUMBERS
    ),
    "a document under the type of a stream": Form(
        CHAT,
        (
            error(
                200,
                json.dumps({"error": {"message": CLAUDE_TEXT, "code": 400}}).encode(),
                content_type="text/event-stream",
            ),
        ),
        numbered(200000, 208310),
        CLAUDE_TEXT,
    ),
    # The same, in documents.
    "a document that failed": Form(
        RESPONSES,
        (
            json_answer(
                {"status": "failed", "error": {"code": "context_length_exceeded", "message": NO_NUMBERS}, "output": []}
            ),
        ),
        NO_NUMBERS,
    ),
    "a document of Anthropic's": Form(ANTHROPIC, (json_answer(CLAUDE_ERROR),), numbered(200000, 208310), CLAUDE_TEXT),
    "an empty document": Form(
        ANTHROPIC, (error(200, anthropic_stream.document(reason="model_context_window_exceeded")),), NO_NUMBERS
    ),
}


async def post(service: Service, agent: str, *, stream: bool) -> Answer:
    async with await RawClient.open(("127.0.0.1", service.port)) as client:
        await client.send(post_bytes(ask(stream=stream), agent=agent))
        return await client.read_answer()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_each_form_is_a_400_that_begins_with_openais_sentence(form: Form) -> None:
    async with (
        scripted_upstream(*form.script) as upstream,
        serving(model("up", upstream.url, model=form.upstream)) as service,
    ):
        for stream in (True, False):
            for agent in AGENTS:
                answer = await post(service, agent, stream=stream)
                reported = json.loads(answer.body)["error"]
                assert answer.status == 400
                message = reported.pop("message")
                assert reported == {
                    "type": "invalid_request_error",
                    "param": "messages",
                    "code": "context_length_exceeded",
                }
                assert message.startswith(form.begins)
                assert form.has in message
                assert "retry-after" not in answer.headers
                record = await service.record(len(service.records) - 1)
                assert (record["end"], record["error"]) == ("UE", "context_length_exceeded")


async def after_a_heartbeat(form: Form, agent: str) -> Folded:
    """Return what a client reads whose response had begun, with a comment, when the upstream answered."""
    beaten = trio.Event()

    async def wait(exchange: Exchange) -> None:
        await beaten.wait()

    async with (
        scripted_upstream(wait, *form.script) as upstream,
        serving(model("up", upstream.url, model=form.upstream), "  keep_alive_interval_s: 0.02") as service,
        await RawClient.open(("127.0.0.1", service.port)) as client,
    ):
        await client.send(post_bytes(ask(stream=True), agent=agent))
        head = await client.read_head()
        assert head.status == 200
        body = b""
        while size := int((await client.read_until(b"\r\n"))[:-2], 16):
            body += (await client.read_exactly(size + 2))[:-2]
            beaten.set()
        assert body.startswith(b": keepalive\n\n")
        record = await service.record(0)
        assert (record["end"], record["status"], record["error"]) == ("UE", 200, "context_length_exceeded")
        return fold_stream(body)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_each_form_after_a_heartbeat_begins_the_text_or_the_error(form: Form) -> None:
    shown = await after_a_heartbeat(form, CURSOR)
    assert shown.content is not None
    assert shown.content.startswith(form.begins)
    assert form.has in shown.content
    assert shown.content.endswith("\n\n[upstream error: context_length_exceeded]")
    assert (shown.finish_reason, shown.is_done, shown.error) == ("stop", True, None)

    reported = (await after_a_heartbeat(form, OPENAI_LIKE)).error
    assert reported is not None
    assert reported.pop("message").startswith(form.begins)
    assert reported == {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}


async def test_a_failure_after_some_text_follows_it() -> None:
    script = streamed(CREATED, delta("Let me"), failed_event("context_length_exceeded", NO_NUMBERS))
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        shown = fold_stream((await post(service, CURSOR, stream=True)).body)
        assert shown.content == f"Let me\n\n{NO_NUMBERS}\n\n[upstream error: context_length_exceeded]"
        reported = fold_stream((await post(service, OPENAI_LIKE, stream=True)).body)
        assert reported.error is not None
        assert reported.error["message"] == NO_NUMBERS
        assert (await post(service, CURSOR, stream=False)).status == 400


@pytest.mark.parametrize(
    ("upstream_model", "payloads"),
    [
        (
            ANTHROPIC,
            [
                anthropic_stream.head(),
                *anthropic_stream.text(0, "Hello"),
                anthropic_stream.last("model_context_window_exceeded"),
                anthropic_stream.STOP,
            ],
        ),
        (
            CHAT,
            [chat_stream.chunk({"content": "Hello"}), chat_stream.chunk({}, "model_context_window_exceeded")],
        ),
    ],
    ids=["anthropic", "chat"],
)
async def test_a_window_that_fills_after_some_output_ends_the_answer_with_length(
    upstream_model: str, payloads: list[dict[str, Any]]
) -> None:
    async with (
        scripted_upstream(*streamed(*payloads)) as upstream,
        serving(model("up", upstream.url, model=upstream_model)) as service,
    ):
        for agent in AGENTS:
            folded = fold_stream((await post(service, agent, stream=True)).body)
            assert (folded.content, folded.finish_reason, folded.error) == ("Hello", "length", None)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (
            429,
            {
                "message": "Request too large for gpt-5 in organization org-1 on tokens per min (TPM): Limit 30000, "
                "Requested 51000. The input or output tokens must be reduced in order to run successfully.",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            },
            "upstream_rate_limited",
        ),
        (
            400,
            {
                "message": "max_tokens is too large: 50000. This model supports at most 16384 completion tokens, "
                "whereas you provided 50000.",
                "code": "invalid_value",
            },
            "upstream_rejected",
        ),
        (
            400,
            {"message": "max_tokens (300000) exceeds the model's context window of 128000", "code": "invalid_value"},
            "upstream_rejected",
        ),
        *(
            (status, {"message": "Your plan's maximum context length is 8000 tokens", "code": "plan"}, code)
            for status, code in (
                (401, "upstream_unauthorized"),
                (403, "upstream_unauthorized"),
                (404, "upstream_not_found"),
            )
        ),
    ],
    ids=["a rate limit", "too much output", "more output than the window", "401", "403", "404"],
)
async def test_other_complaints_about_tokens_are_not_taken_for_it(status: int, body: dict[str, str], code: str) -> None:
    async with (
        scripted_upstream(json_answer({"error": body}, status)) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        for agent in AGENTS:
            answer = await post(service, agent, stream=True)
            reported = json.loads(answer.body)["error"]
            assert reported["code"] == code
            assert reported["message"] == f"upstream answered {status}: {body['message']}"
            assert reported["upstream_code"] == body["code"]
            record = await service.record(len(service.records) - 1)
            assert record["upstream_code"] == body["code"]


async def test_a_credential_in_the_vendors_text_is_not_shown() -> None:
    text = f"{CLAUDE_TEXT}; key sk-upstream-secret-0123456789"
    async with (
        scripted_upstream(*refused(text)) as upstream,
        serving(model("up", upstream.url)) as service,
    ):
        answer = await post(service, CURSOR, stream=True)
        assert json.loads(answer.body)["error"]["message"].endswith("200000 maximum; key [redacted]")


async def test_a_chat_that_is_too_long_for_all_windows_is_reported_alike_before_anybody_is_asked() -> None:
    config = CONFIG.replace("num_retries: 0", "num_retries: 0, enable_pre_call_checks: true")
    sized = f"{model('up', 'http://127.0.0.1:1')}    model_info: {{max_input_tokens: 100}}\n"
    async with serving(sized, config=config) as service:
        for stream in (True, False):
            for agent in AGENTS:
                async with await RawClient.open(("127.0.0.1", service.port)) as client:
                    await client.send(post_bytes(ask(stream=stream, input="word " * 1000), agent=agent))
                    answer = await client.read_answer()
                assert answer.status == 400
                assert json.loads(answer.body)["error"] == {
                    "message": numbered(100, 1000),
                    "type": "invalid_request_error",
                    "param": "messages",
                    "code": "context_length_exceeded",
                }
                record = await service.record(len(service.records) - 1)
                assert (record["error"], record["stage"]) == ("context_length_exceeded", "choose_deployment")
