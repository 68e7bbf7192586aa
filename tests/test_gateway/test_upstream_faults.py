"""What an upstream can do wrong, and what the client gets: one row of a table for each fault.

Before the first byte, a failure is a status with OpenAI's error body. Afterwards it is reported in the stream, after
the text so far and without ``[DONE]``; to Cursor, as text. Either way the HTTP response ends properly.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.clients.chat_posts import (
    CREATED,
    CURSOR,
    OPENAI_LIKE,
    ask,
    begun,
    completed,
    delta,
    failed_event,
    good_answer,
    post_bytes,
    response_of,
)
from kit.clients.raw import Answer, RawClient
from kit.service.running import KEY, Service, model, serving
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.kinds import TEXT as TEXT_OF_ANSWERS
from kit.upstreams.scripted import (
    Exchange,
    Step,
    close,
    end,
    error,
    event,
    events,
    json_answer,
    pieces,
    reset,
    scripted_upstream,
    sse_head,
    stall,
)

from pipeline import Plugin, per_event
from pipeline.registry import NoOptions
from stages.events import StreamEvent, TextDelta

UPSTREAM_KEY = "sk-upstream-secret-0123456789"
"""The key of the deployments of `kit.service.running.model`."""


@asynccontextmanager
async def asking(*script: Step, pipeline: str = "", **params: Any) -> AsyncIterator[Service]:
    """Serve the model ``up``, whose upstream follows the script for each request."""
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url, **params), pipeline) as service,
    ):
        yield service


async def answer_to(service: Service, *, stream: bool = True, agent: str = OPENAI_LIKE) -> Answer:
    """Post on a new connection; then check that the response ended properly, by using the connection again."""
    async with await RawClient.open(("127.0.0.1", service.port)) as client:
        await client.send(post_bytes(ask(stream=stream), agent=agent))
        answer = await client.read_answer()
        assert (await client.ask(path="/livez")).status == 200
    for secret in (UPSTREAM_KEY, KEY, "Traceback", "Error("):
        assert secret.encode() not in answer.raw_head + answer.body
    return answer


def error_of(answer: Answer) -> dict[str, Any]:
    document = json.loads(answer.body)
    assert set(document) == {"error"}
    assert set(document["error"]) - {"upstream_code"} == {"message", "type", "code", "param"}
    assert document["error"]["message"]
    details: dict[str, Any] = document["error"]
    return details


async def last_record(service: Service) -> dict[str, Any]:
    await service.record(0)
    record = service.records[-1]
    text = json.dumps(record)
    assert UPSTREAM_KEY not in text
    assert KEY not in text
    return record


@dataclass
class Fault:
    """A fault, and what it must become."""

    row: str
    script: tuple[Step, ...]
    status: int
    code: str
    end: str
    message: str = ""

    @property
    def timeout_s(self) -> float:
        """How long a silence may last: short only if it is the fault."""
        return 0.5 if self.code == "upstream_timeout" else 30


BEFORE = [
    Fault("6 closes before the head", (close(),), 502, "upstream_protocol", "UP"),
    Fault("7 resets before the head", (reset(),), 502, "upstream_protocol", "UP"),
    Fault("8 garbage for a status line", (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", stall()), 502, "upstream_protocol", "UP"),
    Fault("9 no head", (stall(),), 504, "upstream_timeout", "UT", "did not begin to answer within 0.5 s"),
    Fault("10 a head, then silence", (sse_head(), stall()), 504, "upstream_timeout", "UT", "sent nothing within 0.5 s"),
    Fault(
        "11 400",
        (json_answer({"error": {"message": "no such tool"}}, 400),),
        400,
        "upstream_rejected",
        "UE",
        "no such tool",
    ),
    Fault("11 422", (json_answer({"detail": "bad"}, 422),), 422, "upstream_rejected", "UE"),
    Fault(
        "11 401",
        (json_answer({"error": {"message": f"bad key {UPSTREAM_KEY}"}}, 401),),
        502,
        "upstream_unauthorized",
        "UE",
        "bad key [redacted]",
    ),
    Fault("11 404", (error(404),), 502, "upstream_not_found", "UE"),
    Fault(
        "12 500",
        (json_answer({"error": {"message": "oops"}}, 500),),
        502,
        "upstream_error",
        "UE",
        "upstream answered 500: oops",
    ),
    Fault("12 503 in HTML", (error(503, b"<html>", content_type="text/html"),), 502, "upstream_error", "UE"),
    Fault(
        "13 302",
        (error(302, headers=[("location", "http://127.0.0.1:1/")]),),
        502,
        "upstream_protocol",
        "UP",
        "redirect",
    ),
    Fault("14 HTML", (error(200, b"<html>", content_type="text/html"),), 502, "upstream_protocol", "UP", "text/html"),
    Fault(
        "14 gzip",
        (error(200, gzip.compress(b"{}"), headers=[("content-encoding", "gzip")]),),
        502,
        "upstream_protocol",
        "UP",
    ),
    Fault(
        "29 a zip bomb",
        (error(200, gzip.compress(bytes(50 << 20)), headers=[("content-encoding", "gzip")]),),
        502,
        "upstream_protocol",
        "UP",
    ),
    Fault("15 resets after the head", (sse_head(), reset()), 502, "upstream_protocol", "UP"),
    Fault("16 ends within a chunk", (sse_head(), b'100\r\ndata: {"ty', close()), 502, "upstream_protocol", "UP"),
    Fault("17 a bad chunk header", (sse_head(), b"zz\r\n", stall()), 502, "upstream_protocol", "UP"),
    Fault("18 ends without a terminal event", (sse_head(), event(b": hm\n\n"), end()), 502, "upstream_protocol", "UP"),
    Fault(
        "19 an event that is not JSON", (sse_head(), event(b"data: {nope\n\n"), end()), 502, "upstream_protocol", "UP"
    ),
    Fault(
        "20 fails",
        (sse_head(), event(failed_event("server_error", "I broke")), end()),
        502,
        "upstream_error",
        "UE",
        "I broke",
    ),
    Fault(
        "20 fails by rate",
        (sse_head(), event(failed_event("rate_limit_exceeded", "slow down")), end()),
        429,
        "upstream_rate_limited",
        "RL",
        "slow down",
    ),
    Fault(
        "20 fails by prompt",
        (sse_head(), event(failed_event("invalid_prompt", "no")), end()),
        400,
        "upstream_rejected",
        "UE",
        "no",
    ),
    Fault(
        "20 an error event",
        (sse_head(), event({"type": "error", "code": "server_error", "message": "I broke"}), end()),
        502,
        "upstream_error",
        "UE",
        "I broke",
    ),
    Fault(
        "23 an event over 16 MiB",
        (sse_head(until_close=True), pieces(b"data: " + b"x" * (17 << 20), 1 << 20), stall()),
        502,
        "upstream_protocol",
        "UP",
    ),
]


@pytest.mark.parametrize("fault", BEFORE, ids=lambda fault: fault.row)
async def test_a_fault_before_the_first_byte_is_a_status(fault: Fault) -> None:
    async with asking(*fault.script, timeout=fault.timeout_s) as service:
        for stream in (True, False):
            answer = await answer_to(service, stream=stream)
            reported = error_of(answer)
            assert (answer.status, reported["code"]) == (fault.status, fault.code)
            assert fault.message in reported["message"]
            record = await last_record(service)
            assert (record["end"], record["status"], record["error"]) == (fault.end, fault.status, fault.code)
            # Cursor hides the text of 429 and 5xx responses.
            masked = await answer_to(service, stream=stream, agent=CURSOR)
            assert masked.status == (fault.status if fault.status in (401, 403, 404) else 400)
            reported = error_of(masked)
            assert (reported["type"], reported["code"]) == ("invalid_request_error", fault.code)
            assert fault.message in reported["message"]
            assert (await last_record(service))["end"] == fault.end


async def test_row_1_an_upstream_that_refuses_connections_is_a_502() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with serving(model("up", f"http://127.0.0.1:{unused.getsockname()[1]}")) as service:
            answer = await answer_to(service)
            assert (answer.status, error_of(answer)["code"]) == (502, "upstream_unreachable")
            assert "refused the connection" in error_of(answer)["message"]
            assert (await last_record(service))["end"] == "UC"


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose listener accepts no further connection, so that connecting to it hangs."""
    with ExitStack() as held:
        listener = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


async def test_row_2_a_connection_that_hangs_is_a_504(full_port: int) -> None:
    async with serving(model("up", f"http://127.0.0.1:{full_port}"), "  request_timeout_s: 0.2") as service:
        answer = await answer_to(service)
        assert (answer.status, error_of(answer)["code"]) == (504, "upstream_timeout")
        assert (await last_record(service))["end"] == "UT"
        assert service.app.clients.active_connections == 0


async def test_row_11_a_rate_limit_passes_on_when_to_try_again() -> None:
    limited = json_answer({"error": {"message": "slow down"}}, 429, headers=[("retry-after", "7")])
    async with asking(limited) as service:
        for agent, status in ((OPENAI_LIKE, 429), (CURSOR, 400)):
            answer = await answer_to(service, agent=agent)
            assert (answer.status, answer.headers["retry-after"]) == (status, "7")
            assert error_of(answer)["code"] == "upstream_rate_limited"
            record = await last_record(service)
            assert (record["end"], record["upstream_status"]) == ("RL", 429)


async def test_row_13_a_redirect_is_not_followed() -> None:
    async with scripted_upstream(*good_answer()) as elsewhere:
        async with asking(error(307, headers=[("location", f"{elsewhere.url}/v1/responses")])) as service:
            assert (await answer_to(service)).status == 502
        assert elsewhere.requests == []


async def test_cursor_gets_the_true_status_if_that_is_configured() -> None:
    async with asking(error(503), pipeline="  cursor_error_status: passthrough") as service:
        assert (await answer_to(service, agent=CURSOR)).status == 502


async def trickle(exchange: Exchange) -> None:
    """Send comments forever."""
    while True:
        await event(b": hm\n\n")(exchange)
        await trio.sleep(0.02)


AFTER = [
    Fault("10 silence", (stall(),), 200, "upstream_timeout", "UT", "nothing came within 0.5 s"),
    Fault("15 resets", (reset(),), 200, "upstream_protocol", "UP"),
    Fault("16 ends within a chunk", (b'100\r\ndata: {"ty', close()), 200, "upstream_protocol", "UP"),
    Fault("16 closes between chunks", (close(),), 200, "upstream_protocol", "UP"),
    Fault("17 a bad chunk header", (b"zz\r\n", stall()), 200, "upstream_protocol", "UP"),
    Fault("18 ends without a terminal event", (end(),), 200, "upstream_protocol", "UP"),
    Fault(
        "18 sends [DONE] without a terminal event", (event(b"data: [DONE]\n\n"), end()), 200, "upstream_protocol", "UP"
    ),
    Fault(
        "19 an event that is not JSON",
        (event(b'data: {"type": "response.output_te\n\n'), end()),
        200,
        "upstream_protocol",
        "UP",
    ),
    Fault("20 fails", (event(failed_event("server_error", "I broke")), end()), 200, "upstream_error", "UE", "I broke"),
    Fault(
        "20 fails by rate",
        (event(failed_event("rate_limit_exceeded", "slow down")), end()),
        200,
        "upstream_rate_limited",
        "RL",
        "slow down",
    ),
    Fault(
        "20 an error event",
        (event({"type": "error", "error": {"code": "server_error", "message": "I broke"}}), end()),
        200,
        "upstream_error",
        "UE",
        "I broke",
    ),
    Fault(
        "20 names the key",
        (event(failed_event("server_error", f"key {UPSTREAM_KEY}")), end()),
        200,
        "upstream_error",
        "UE",
        "key [redacted]",
    ),
    Fault(
        "23 an event over 16 MiB",
        (b"1100000\r\n", pieces(b"data: " + b"x" * ((17 << 20) - 6), 1 << 20), close()),
        200,
        "upstream_protocol",
        "UP",
    ),
    Fault("30 the total deadline", (trickle,), 200, "upstream_timeout", "UT", "did not finish its answer within 1 s"),
]


@pytest.mark.parametrize("fault", AFTER, ids=lambda fault: fault.row)
async def test_a_fault_after_the_first_byte_is_reported_in_the_stream_after_the_text(fault: Fault) -> None:
    script = (*begun("Hello, ", "wor"), *fault.script)
    total_s, silence_s = (1, 30) if fault.row.startswith("30") else (30, fault.timeout_s)
    pipeline = f"  request_timeout_s: {total_s}"
    async with asking(*script, pipeline=pipeline, stream_timeout=silence_s, timeout=30) as service:
        answer = await answer_to(service)
        reported = fold_stream(answer.body)
        assert (answer.status, reported.content) == (200, "Hello, wor")
        assert reported.error is not None
        assert reported.error["code"] == fault.code
        assert fault.message in reported.error["message"]
        assert (reported.finish_reason, reported.is_done) == (None, False)
        record = await last_record(service)
        assert (record["end"], record["status"], record["error"]) == (fault.end, 200, fault.code)

        shown = fold_stream((await answer_to(service, agent=CURSOR)).body)
        assert shown.content is not None
        assert shown.content.startswith("Hello, wor\n\n[upstream error: ")
        assert reported.error["message"] in shown.content
        assert (shown.finish_reason, shown.is_done, shown.error) == ("stop", True, None)
        assert (await last_record(service))["end"] == fault.end

        refused = await answer_to(service, stream=False)
        assert refused.status >= 400, "a client that does not stream has seen nothing yet"
        assert error_of(refused)["code"] == fault.code


# What is not a fault.


async def whole(service: Service) -> tuple[Folded, Folded]:
    return fold_stream((await answer_to(service)).body), fold_document((await answer_to(service, stream=False)).body)


async def test_row_21_events_after_the_end_are_ignored() -> None:
    script = (
        sse_head(),
        events([CREATED, delta("Hello"), completed("Hello"), delta(" again"), failed_event("x", "y")]),
        end(),
    )
    async with asking(*script) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason, folded.error) == ("Hello", "stop", None)
        assert (await last_record(service))["end"] == "OK"


async def test_row_22_what_is_unknown_is_ignored() -> None:
    odd: list[dict[str, Any] | bytes] = [
        b": a comment\n\n",
        CREATED,
        b"id: 7\nretry: 1000\n\n",
        {"type": "response.something.new", "delta": "x"},
        b"event: ping\ndata: {}\n\n",
        b"nonsense\n\n",
        {**delta("Hello"), "obfuscation": "abc", "logprobs": []},
        b"\n\n\n",
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "moon_call", "id": "moon_1"}},
        completed("Hello"),
        b"data: [DONE]\n\n",
    ]
    async with asking(sse_head(), events(odd), end()) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


TEXT = 'Zeile eins\nline two\r\nthree\rfour \u2028\u2029\x85\x0b\x0c\x00\x1f five 🏇 „x“ \\n "q" </script>'


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=repr)
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_rows_24_25_28_text_arrives_unchanged_however_it_is_split(
    line_end: str, ascii_only: bool, size: int
) -> None:
    payloads = [CREATED, delta(TEXT), delta(TEXT), completed(TEXT * 2)]
    lines = "".join(f"data: {json.dumps(payload, ensure_ascii=ascii_only)}\n\n" for payload in payloads)
    stream = lines.replace("\n", line_end).encode()
    async with asking(sse_head(length=len(stream)), pieces(stream, size)) as service:
        for folded in await whole(service):
            assert folded.content == TEXT * 2
            assert folded.finish_reason == "stop"


async def test_row_26_a_thousand_events_in_one_read_are_a_thousand_deltas() -> None:
    words = [f"{number} " for number in range(1000)]
    script = (sse_head(), events([CREATED, *map(delta, words), completed("".join(words))], per="write"), end())
    async with asking(*script) as service:
        folded = fold_stream((await answer_to(service)).body)
        assert folded.content == "".join(words)


async def test_row_27_a_lone_surrogate_still_becomes_valid_json() -> None:
    broken = (
        b'data: {"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a\\ud83db\\u0000"}\n\n'
    )
    async with asking(sse_head(), events([CREATED, broken, completed("")]), end()) as service:
        answer = await answer_to(service)
        answer.body.decode("utf-8")
        folded = fold_stream(answer.body)
        assert folded.content is not None
        folded.content.encode("utf-8")
        assert (folded.content[0], folded.content[-2:]) == ("a", "b\x00")
        assert folded.finish_reason == "stop"


async def test_a_document_is_streamed_to_a_client_that_asked_for_a_stream() -> None:
    async with asking(json_answer(response_of("Hello"))) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason, folded.is_done) == ("Hello", "stop", True)


TYPES = ["text/plain", "text/plain; charset=utf-8", "application/octet-stream", "application/json", None]


@pytest.mark.parametrize("content_type", TYPES, ids=str)
@pytest.mark.parametrize("kind", ANSWERS)
async def test_row_87_a_stream_under_another_content_type_is_read(kind: str, content_type: str | None) -> None:
    answer = ANSWERS[kind]
    parts = (*answer.text, *answer.finish, *answer.end)
    script = (sse_head(content_type=content_type), events(parts), end())
    async with asking(*script, model=answer.upstream) as service:
        for agent in (OPENAI_LIKE, CURSOR):
            folded = fold_stream((await answer_to(service, agent=agent)).body)
            assert (folded.content, folded.finish_reason, folded.error) == (TEXT_OF_ANSWERS, "stop", None)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_row_87_a_stream_that_nobody_asked_for_is_read_under_another_type(content_type: str) -> None:
    async with asking(sse_head(content_type=content_type), *good_answer()[1:]) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_row_87_a_document_under_another_type_is_read(content_type: str) -> None:
    body = b"\n  " + json.dumps(response_of("Hello")).encode()
    async with asking(error(200, body, content_type=content_type)) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_a_document_under_the_type_of_a_stream_is_read() -> None:
    body = b"\n" + json.dumps(response_of("Hello")).encode()
    async with asking(error(200, body, content_type="text/event-stream")) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_an_error_under_the_type_of_a_stream_keeps_its_reason() -> None:
    body = json.dumps({"error": {"message": "no such tool", "code": "invalid_value"}}).encode()
    async with asking(error(200, body, content_type="text/event-stream")) as service:
        for stream in (True, False):
            reported = json.loads((await answer_to(service, stream=stream)).body)["error"]
            assert (reported["code"], reported["message"]) == ("upstream_rejected", "no such tool")


@pytest.mark.parametrize("first", [b": ping\n\n", b"", b"\n"])
async def test_row_87_a_stream_under_the_type_of_a_document_that_was_asked_for_is_read(first: bytes) -> None:
    script = (*([event(first)] if first else []), *good_answer()[1:])
    async with asking(sse_head(content_type="application/json"), *script) as service:
        folded = fold_document((await answer_to(service, stream=False)).body)
        assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_a_stream_under_its_type_may_begin_with_a_cut_name() -> None:
    opening = b"data: " + json.dumps(CREATED).encode() + b"\n\n"
    async with asking(sse_head(), event(b"da"), event(opening[2:]), *good_answer()[1:]) as service:
        folded = fold_stream((await answer_to(service)).body)
        assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_what_is_read_to_find_out_is_passed_on_at_once() -> None:
    seen = trio.Event()

    async def wait(exchange: Exchange) -> None:
        await seen.wait()

    head = sse_head(content_type="text/plain")
    opening = b"data: " + json.dumps(CREATED).encode() + b"\n\n"
    first = b"\xef\xbb\xbf" + opening + b"data: " + json.dumps(delta("Hello")).encode() + b"\n\n"
    cut = [event(first[at : at + 1]) for at in range(8)]
    async with (
        asking(head, *cut, event(first[8:]), wait, event(completed("Hello")), end()) as service,
        await RawClient.open(("127.0.0.1", service.port)) as client,
    ):
        await client.send(post_bytes(ask(stream=True)))
        await client.read_until(b'"content":"Hello"')
        seen.set()
        await client.read_until(b"data: [DONE]")
        record = await last_record(service)
        points = record["points_ms"]
        assert record["end"] == "OK"
        assert points["upstream_sent"] <= points["upstream_head"] <= points["first_event"]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("content_type", ["text/event-stream", "text/plain", "application/json"])
async def test_row_87_gzip_that_was_not_asked_for_is_refused_and_not_shown(content_type: str, declared: bool) -> None:
    body = gzip.compress(b"data: " + json.dumps(delta("Hello")).encode() + b"\n\n")
    headers = [("content-encoding", "gzip")] if declared else []
    async with asking(error(200, body, content_type=content_type, headers=headers)) as service:
        for stream in (True, False):
            answer = await answer_to(service, stream=stream)
            reported = error_of(answer)
            assert (answer.status, reported["code"]) == (502, "upstream_protocol")
            assert "answered with content-encoding 'gzip', although none was requested" in reported["message"]
            shown = await answer_to(service, stream=stream, agent=CURSOR)
            assert (shown.status, error_of(shown)["message"]) == (400, reported["message"])


REASONS: dict[str, tuple[bytes, str]] = {
    "a document in error.metadata.raw": (
        json_answer(
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {
                        "raw": json.dumps({"error": {"message": "no such tool: x", "code": "invalid_tool"}}),
                        "provider_name": "Azure",
                    },
                }
            },
            400,
        ),
        "upstream answered 400: Provider returned error: no such tool: x",
    ),
    "an object in error.metadata.raw": (
        json_answer(
            {"error": {"message": "Provider returned error", "metadata": {"raw": {"message": "no such tool"}}}}, 400
        ),
        "upstream answered 400: Provider returned error: no such tool",
    ),
    "a text in error.metadata.raw": (
        json_answer({"error": {"message": "", "metadata": {"raw": "no such tool"}}}, 400),
        "upstream answered 400: no such tool",
    ),
    "plain text": (
        error(400, b"no such tool\n", content_type="text/plain"),
        "upstream answered 400: no such tool",
    ),
    "plain text with a key": (
        error(400, f"no such key: {UPSTREAM_KEY}".encode(), content_type="text/plain"),
        "upstream answered 400: no such key: [redacted]",
    ),
    "gzip": (
        error(
            400,
            gzip.compress(b'{"error": {"message": "no such tool"}}'),
            headers=[("content-encoding", "gzip")],
        ),
        "upstream answered 400: no such tool",
    ),
    "gzip that no header declares": (
        error(400, gzip.compress(b"no such tool"), content_type="text/plain"),
        "upstream answered 400: no such tool",
    ),
    "a bomb": (
        error(400, gzip.compress(bytes(50 << 20)), headers=[("content-encoding", "gzip")]),
        "upstream answered 400: Bad Request",
    ),
    "an event": (
        error(400, b'event: error\ndata: {"error": {"message": "no such tool"}}\n\n', content_type="text/event-stream"),
        "upstream answered 400: no such tool",
    ),
    "HTML": (
        error(400, b"<html><head><title>No such &amp; tool</title></head><body>secret", content_type="text/html"),
        "upstream answered 400: No such & tool",
    ),
    "bytes": (
        error(400, b"\x00\x01\xff", content_type="application/octet-stream"),
        "upstream answered 400: Bad Request",
    ),
}


@pytest.mark.parametrize(("script", "message"), REASONS.values(), ids=REASONS)
async def test_row_88_the_reason_that_an_upstream_gives_is_shown(script: bytes, message: str) -> None:
    async with asking(script) as service:
        for stream in (True, False):
            for agent in (OPENAI_LIKE, CURSOR):
                answer = await answer_to(service, stream=stream, agent=agent)
                reported = error_of(answer)
                assert (answer.status, reported["code"]) == (400, "upstream_rejected")
                assert reported["message"] == message


async def test_row_88_the_upstreams_own_code_is_shown_and_logged() -> None:
    own, text = "insufficient_quota", "You exceeded your current quota"
    quota = {"message": text, "type": own, "code": own}
    failed = failed_event(own, text)
    scripts: list[tuple[Step, ...]] = [(json_answer({"error": quota}, 429),), (sse_head(), event(failed), end())]
    for script in scripts:
        async with asking(*script) as service:
            for agent in (OPENAI_LIKE, CURSOR):
                reported = error_of(await answer_to(service, agent=agent))
                assert (reported["code"], reported["upstream_code"]) == ("upstream_rate_limited", own)
                assert reported["message"].endswith(text)
                assert (await last_record(service))["upstream_code"] == own
    async with asking(*begun("Hello"), event(failed), end()) as service:
        folded = fold_stream((await answer_to(service)).body)
        assert folded.error is not None
        assert (folded.error["message"], folded.error["upstream_code"]) == (text, own)
        assert (await last_record(service))["upstream_code"] == own
        shown = fold_stream((await answer_to(service, agent=CURSOR)).body)
        assert shown.content == f"Hello\n\n[upstream error: {own}: {text}]"


# A stage that fails.


SECRET = "hunter2-is-the-password"


def breaking(on: str) -> dict[str, Plugin[NoOptions]]:
    """Return a plugin that raises an error, with a secret in its message, at the text ``on``."""

    def break_at(event: StreamEvent) -> Iterator[StreamEvent]:
        if isinstance(event, TextDelta) and event.text == on:
            raise ValueError(f"cannot process {SECRET}")
        yield event

    stage = per_event(break_at)
    return {"break_at": Plugin("break_at", lambda _: stage, NoOptions, StreamEvent, StreamEvent)}


INSERTED = "  stages: [{use: break_at, after: decode_events}]"


async def until_it_is_read(exchange: Exchange) -> None:
    """Wait until what was sent has reached the client: a failure in the same batch would discard it."""
    await trio.testing.wait_all_tasks_blocked(0.02)


@pytest.mark.parametrize("execution", ["tasks", "fused"])
async def test_rows_61_63_a_stage_that_breaks_is_reported_without_its_message(
    execution: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = f"{INSERTED}\n  execution: {execution}"
    async with scripted_upstream(*begun("Hello, "), until_it_is_read, event(delta("boom")), stall()) as upstream:
        for on, before in (("Hello, ", True), ("boom", False)):
            caplog.clear()
            async with serving(model("up", upstream.url), pipeline, plugins=breaking(on)) as service:
                with caplog.at_level(logging.DEBUG):
                    answer = await answer_to(service)
                    shown = await answer_to(service, agent=CURSOR)
                    refused = await answer_to(service, stream=False)
                if before:
                    reported = error_of(answer)
                    assert (answer.status, shown.status) == (500, 400)
                else:
                    folded = fold_stream(answer.body)
                    assert (answer.status, folded.content) == (200, "Hello, ")
                    assert folded.error is not None
                    reported = folded.error
                    assert not folded.is_done
                    text = fold_stream(shown.body)
                    assert text.content is not None
                    assert text.content.startswith("Hello, \n\n[upstream error: internal_error: ")
                    assert (text.finish_reason, text.is_done) == ("stop", True)
                assert reported["code"] == "internal_error"
                assert (refused.status, error_of(refused)["code"]) == (500, "internal_error")
                record = await last_record(service)
                assert (record["end"], record["error"], record["stage"]) == ("ST", "internal_error", "break_at")
                for where in (answer.body, shown.body, refused.body, json.dumps(record).encode()):
                    assert SECRET.encode() not in where
                logged = "\n".join(logging.Formatter().format(entry) for entry in caplog.records)
                assert SECRET not in logged
                assert "ValueError" in logged
                assert "break_at" in logged, "the operator can find the place"
        for connection in range(len(upstream.connections)):
            await upstream.connection_closed(connection)
