"""Routes, keys and bad input, on the running service."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.raw import RawClient
from kit.service.running import KEY, serving

from pipeline.gateway.http.asgi import Message
from pipeline.gateway.reference import built_in_stages

LIMITED = "sk-limited-key-0123456789"
HELLO = {"model": "echo", "input": "Hello there"}

CHAT_PATHS = [
    "/cursor/chat/completions",
    "/cursor/v1/chat/completions",
    "/v1/chat/completions",
    "/chat/completions",
    "/openai/deployments/echo/chat/completions",
    "/cursor/chat/completions/",
    "/cursor//chat/completions",
    "//v1//chat//completions//",
    "/openai/v1/chat/completions",
    "/cursor/openai/chat/completions",
    "/cursor/openai/v1/chat/completions",
    "/cursor/openai/deployments/echo/chat/completions",
    "/cursor//openai/deployments/echo/chat/completions?api-version=2024-10-21",
    "/engines/echo/chat/completions",
]


@pytest.mark.parametrize("path", CHAT_PATHS)
async def test_the_chat_is_served_at_every_path_that_clients_use(path: str) -> None:
    async with serving() as service:
        whole = fold_document((await service.post(HELLO, path=path)).content)
        assert (whole.content, whole.finish_reason) == ("Hello there", "stop")
        answer = await service.post({**HELLO, "stream": True}, path=path)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        streamed = fold_stream(answer.content)
        assert (streamed.content, streamed.finish_reason, streamed.is_done) == ("Hello there", "stop", True)


async def test_the_body_needs_no_model_if_the_path_names_one() -> None:
    async with serving() as service:
        path = "/openai/deployments/echo/chat/completions"
        answer = await service.post({"messages": [{"role": "user", "content": "hi"}]}, path=path, key=None, api_key=KEY)
        assert fold_document(answer.content).content == "hi"
        assert answer.json()["model"] == "echo"


@pytest.mark.parametrize(
    "path",
    [
        *("/cursor/models", "/cursor/v1/models", "/v1/models", "/models", "/v1/models/", "/cursor//models"),
        *("/openai/models?api-version=2024-10-21", "/openai/v1/models", "/cursor/openai/v1/models"),
    ],
)
async def test_the_models_are_those_that_the_key_may_use(path: str) -> None:
    async with serving() as service:
        listed = (await service.get(path)).json()
        assert listed["object"] == "list"
        assert [entry["id"] for entry in listed["data"]] == ["echo", "story", "agent"]
        assert {entry["object"] for entry in listed["data"]} == {"model"}
        assert [entry["id"] for entry in (await service.get(path, key=LIMITED)).json()["data"]] == ["echo"]
        assert (await service.get(path, key=None)).status_code == 401
        assert (await service.get(path, key="sk-wrong")).json()["error"]["code"] == "unauthorized"


async def test_health_needs_no_key_and_readiness_fails_while_draining() -> None:
    async with serving() as service:
        for path in ("/health/liveliness", "/health/liveness", "/livez"):
            alive = await service.get(path, key=None)
            assert (alive.status_code, alive.json()) == (200, "I'm alive!")
        for path in ("/health/readiness", "/readyz"):
            assert (await service.get(path, key=None)).json()["status"] == "healthy"
        service.application.generations.drain()
        assert (await service.get("/readyz", key=None)).status_code == 503
        assert (await service.post(HELLO)).status_code == 200
        service.app.bridge.cut_off()
        refused = await service.post(HELLO)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "1"


async def test_other_servers_than_ours_get_the_same_answers_to_health_checks() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async with serving() as service:
        for path in service.application.answers:
            sent.clear()
            scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
            scope |= {"headers": [(b"host", b"t")], "http_version": "1.1", "scheme": "http", "root_path": ""}
            await service.application(scope, trio.sleep_forever, send)
            ours = await service.get(path, key=None)
            assert sent[0]["status"] == ours.status_code == 200
            assert b"".join(message.get("body", b"") for message in sent) == ours.content


async def test_a_browser_may_send_a_preflight_request() -> None:
    async with serving() as service:
        answer = await service.get(
            "/cursor/chat/completions",
            method="OPTIONS",
            key=None,
            origin="vscode-file://vscode-app",
            access_control_request_method="POST",
            access_control_request_headers="authorization, content-type",
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
        assert (await service.post(HELLO)).headers["access-control-allow-origin"] == "*"


TWO_ORIGINS = '  allowed_origins: ["https://A.example/", "http://localhost:3000"]'


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example", "https://a.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("https://b.example", None),
        (None, None),
    ],
)
async def test_row_86_the_origin_that_asks_is_the_one_that_is_allowed(
    method: str, origin: str | None, allowed: str | None
) -> None:
    """With several `allowed_origins` the response names the one that asked, and `Vary: Origin` for caches."""
    headers = {} if origin is None else {"origin": origin}
    async with serving(pipeline=TWO_ORIGINS) as service:
        if method == "POST":
            answer = await service.post(HELLO, **headers)
        else:
            answer = await service.get("/cursor/models", method=method, key=KEY, **headers)
        assert answer.status_code == (204 if method == "OPTIONS" else 200)
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers["vary"] == "origin"


async def test_row_86_with_no_allowed_origins_nothing_is_said_of_origins() -> None:
    """With an empty `allowed_origins` no response says anything of origins, so that browsers refuse it to all pages."""
    async with serving(pipeline="  allowed_origins: []") as service:
        answer = await service.post(HELLO, origin="https://a.example")
        assert {"access-control-allow-origin", "vary"}.isdisjoint(answer.headers)


@pytest.mark.parametrize(
    ("key", "model", "status", "code"),
    [
        (None, "echo", 401, "unauthorized"),
        ("", "echo", 401, "unauthorized"),
        ("sk-wrong", "echo", 401, "unauthorized"),
        ("sk-\xe4", "echo", 401, "unauthorized"),
        (LIMITED, "story", 403, "model_forbidden"),
        (LIMITED, "nope", 403, "model_forbidden"),
        (LIMITED, "team/x", 404, "model_not_found"),
        (KEY, "nope", 404, "model_not_found"),
    ],
)
async def test_row_51_keys_and_models_are_checked(key: str | None, model: str, status: int, code: str) -> None:
    """The key is missing, wrong or not ASCII: 401; it may not use the model: 403."""
    async with serving() as service:
        for stream in (True, False):
            answer = await service.post(
                {"model": model, "input": "hi", "stream": stream},
                key=None,
                **({"x_api_key": key} if key is not None else {}),
            )
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert "sk-" not in answer.text


@pytest.mark.parametrize("header", ["api_key", "x_api_key", "x_goog_api_key", "x_litellm_api_key"])
async def test_a_key_is_taken_from_every_header_that_clients_use(header: str) -> None:
    async with serving() as service:
        for value in (KEY, f"Bearer {KEY}"):
            assert (await service.post(HELLO, key=None, **{header: value})).status_code == 200
            assert (await service.get("/v1/models/story", key=None, **{header: value})).status_code == 200
        both = await service.post(HELLO, key="sk-of-another-service", **{header: KEY})
        if header == "x_litellm_api_key":
            assert both.status_code == 200
            assert (await service.record(2))["key"] == "master"
        else:
            assert (both.status_code, both.json()["error"]["code"]) == (400, "invalid_request")


BAD_BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"   ", None),
    (b"{", None),
    (b'{"model": "echo", "input": "hi"} trailing', None),
    (b"\xff\xfe{\x00}\x00", None),
    (b'{"model": "echo", "input": "\xff"}', None),
    (b'{"model": "echo", "input": "hi", "temperature": NaN}', None),
    (b"[" * 100_000 + b"]" * 100_000, None),
    (b'{"model": "echo", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    (b'"text"', None),
    (b"[1, 2]", None),
    (b"null", None),
    (b"5", None),
    (b"{}", "model"),
    (b'{"input": "hi"}', "model"),
    (b'{"model": null, "input": "hi"}', "model"),
    (b'{"model": "", "input": "hi"}', "model"),
    (b'{"model": ["echo"], "input": "hi"}', "model"),
    (b'{"model": "echo"}', "input"),
    (b'{"model": "echo", "input": null}', "input"),
    (b'{"model": "echo", "input": 5}', "input"),
    (b'{"model": "echo", "input": []}', "input"),
    (b'{"model": "echo", "input": [1]}', "input[0]"),
    (b'{"model": "echo", "messages": "hi"}', "messages"),
    (b'{"model": "echo", "messages": []}', "messages"),
    (b'{"model": "echo", "messages": [{"role": "robot", "content": "hi"}]}', "messages[0].role"),
    (b'{"model": "echo", "input": "hi", "stream": "true"}', "stream"),
    (b'{"model": "echo", "input": "hi", "temperature": "hot"}', "temperature"),
    (b'{"model": "echo", "input": "hi", "tools": "x"}', "tools"),
    (b'{"model": "echo", "input": "hi", "tools": [1]}', "tools[0]"),
    (b'{"model": "echo", "input": "hi", "max_output_tokens": "x"}', "max_output_tokens"),
]


async def test_row_47_invalid_input_is_a_400_that_names_the_field_and_never_a_500() -> None:
    """The body is not JSON, too deep, in UTF-16, not an object or has wrong fields: 400 that names the field."""
    async with serving() as service:
        for body, param in BAD_BODIES:
            answer = await service.post(body)
            error: dict[str, Any] = answer.json()["error"]
            assert answer.status_code == 400, (body[:60], answer.text)
            assert error["code"] == "invalid_request"
            assert error["type"] == "invalid_request_error"
            assert error["param"] == param, (body[:60], error)
            assert "Traceback" not in answer.text
        assert {record["end"] for record in service.records} == {"BR"}


async def test_row_47_of_a_name_that_comes_twice_the_last_one_counts_everywhere() -> None:
    """A name comes twice in the body: the last one counts, for the scope of the key as for the call."""
    async with serving() as service:
        refused = await service.post(b'{"model": "echo", "model": "story", "input": "hi"}', key=LIMITED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_forbidden")
        served = await service.post(b'{"model": "story", "model": "echo", "input": "no", "input": "hi"}', key=LIMITED)
        assert (served.json()["model"], fold_document(served.content).content) == ("echo", "hi")


async def test_row_46_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    """The body is over `max_body_mb`: 413 `body_too_large`."""
    async with serving(pipeline="  max_body_mb: 0.5") as service:
        answer = await service.post(b"x" * 600_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert (await service.post(b"x" * 600_000, key=None)).status_code == 401
        assert (await service.post(HELLO)).status_code == 200


@pytest.mark.parametrize("gap_s", [0, 0.01], ids=["at once", "slowly"])
async def test_row_46_a_body_over_the_limit_is_refused_without_a_length(gap_s: float) -> None:
    """A body without a length grows over the limit, at once or slowly: 413, before it is complete."""
    async with serving(pipeline="  max_body_mb: 0.5") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            await client.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(11):
                await client.send(b"c350\r\n" + b"x" * 50_000 + b"\r\n")
                await trio.sleep(gap_s)
            answer = await client.read_answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "body_too_large")
            assert await client.read_to_end() == (b"", "fin")
        assert (await service.record())["end"] == "BR"


async def test_row_48_a_compressed_body_is_refused() -> None:
    """The client compresses its body: 415 `unsupported_encoding`."""
    async with serving() as service:
        answer = await service.post(HELLO, content_encoding="gzip")
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize("drips", [False, True])
async def test_row_45_a_body_that_does_not_arrive_is_a_408(drips: bool) -> None:
    """The client sends its body too slowly, or stops: 408 `body_timeout`."""
    async with serving(pipeline="  body_timeout_s: 0.2") as service:
        stream = await trio.open_tcp_stream("127.0.0.1", service.port)
        async with stream:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            await stream.send_all(head.encode() + b'Content-Length: 100000\r\n\r\n{"model"')
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while True:
                        await stream.send_all(b" ")
                        await trio.sleep(0.02)

                if drips:
                    nursery.start_soon(drip)
                answer = bytes(await stream.receive_some(65536))
                nursery.cancel_scope.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"body_timeout"' in answer


async def test_a_request_id_is_accepted_or_made() -> None:
    async with serving() as service:
        answer = await service.post(HELLO, x_request_id="abc-1.2:3")
        assert answer.headers["x-request-id"] == "abc-1.2:3"
        assert answer.json()["id"] == "chatcmpl-abc-1.2:3"
        for bad in ("a b", "x" * 129, '"'):
            made = (await service.post(HELLO, x_request_id=bad)).headers["x-request-id"]
            assert made != bad
            assert len(made) == 24
        assert (await service.record(0))["request_id"] == "abc-1.2:3"


async def test_the_record_says_where_the_time_went_and_holds_no_text() -> None:
    async with serving() as service:
        secret = "the-quick-brown-fox"
        await service.post({"model": "echo", "input": secret, "stream": True}, user_agent="Cursor/1.0")
        record = await service.record()
        text = json.dumps(record)
        assert secret not in text
        assert KEY not in text
        assert record["key"] == "master"
        assert (record["model"], record["deployment"], record["stream"]) == ("echo", "echo", True)
        assert (record["end"], record["status"]) == ("OK", 200)
        assert isinstance(record["bytes"], int)
        assert record["bytes"] > 500
        assert record["events"] == 4  # started, one delta, usage, finished
        assert float(str(record["total_ms"])) > 0
        others = ("answer_call", "collect_completion", "write_json")  # of other requests
        of_a_stream = [name for name, _ in built_in_stages() if name not in others]
        assert list(record["stages"]) == of_a_stream


@pytest.mark.parametrize("agent", ["Cursor/1.0", "OpenAI/Python"])
async def test_reasoning_is_shown_as_configured(agent: str) -> None:
    body = {"model": "agent", "input": "hi", "stream": True}
    shown: dict[str, tuple[bool, bool]] = {}
    for display, mark in {"reasoning_content": "<", "think": "<think>", "details": "<details>", "none": "<"}.items():
        async with serving(pipeline=f"  reasoning_display: {display}") as service:
            folded = fold_stream((await service.post(body, user_agent=agent)).content)
            shown[display] = (bool(folded.reasoning), (folded.content or "").startswith(mark))
    assert shown == {
        "reasoning_content": (True, False),
        "think": (False, True),
        "details": (False, True),
        "none": (False, False),
    }


async def test_fused_and_separate_stages_send_the_same_bytes_and_have_the_same_figures() -> None:
    answers: list[object] = []
    for execution in ("fused", "tasks"):
        async with serving(pipeline=f"  execution: {execution}") as service:
            answer = await service.post({"model": "agent", "input": "hi", "stream": True})
            folded = fold_stream(answer.content)
            record = await service.record()
            calls = [(call["name"], call["arguments"]) for call in folded.tool_calls]
            passed = {
                name: [number for figure, number in figures.items() if not figure.endswith("_ms")]
                for name, figures in record["stages"].items()
            }
            answers.append((folded.content, folded.reasoning, calls, list(passed.items())))
    assert answers[0] == answers[1]
