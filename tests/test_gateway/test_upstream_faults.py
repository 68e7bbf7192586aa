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
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
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
from kit.time.patience import patiently
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.kinds import TEXT as TEXT_OF_ANSWERS
from kit.upstreams.names import Names
from kit.upstreams.scripted import (
    Exchange,
    Step,
    close,
    end,
    error,
    event,
    events,
    full_backlog,
    json_answer,
    pieces,
    reset,
    scripted_upstream,
    sse_head,
    stall,
)

from pipeline import Plugin, per_event
from pipeline.gateway import upstream_clients
from pipeline.gateway.config import model_list
from pipeline.registry import NoOptions
from stages.events import StreamEvent, TextDelta
from stages.upstreams import Timeouts
from stages.upstreams.transport.resolve import Resolver

UPSTREAM_KEY = "sk-upstream-secret-0123456789"
"""The key of the deployments of `kit.service.running.model`."""


@asynccontextmanager
async def asking(*script: Step, pipeline: str = "", **params: Any) -> AsyncIterator[Service]:
    """Serve the model ``up``, whose upstream follows the script for each request; then check that nothing is left."""
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url, **params), pipeline) as service,
    ):
        yield service
        await assert_nothing_is_left(service)
        # Each connection that is open is an idle one of the pool.
        with patiently():
            while upstream.open_connections != service.app.clients.idle_connections:
                await trio.sleep(0.002)


async def assert_nothing_is_left(service: Service) -> None:
    """Check that no request runs, and that none holds a connection or a slot of the pool."""
    with patiently():
        while service.app.bridge.active or service.app.clients.active_connections:
            await trio.sleep(0.002)


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


@dataclass(frozen=True)
class Outcome:
    """What a fault becomes: the status before the first byte, and the code and the record's end at any time."""

    status: int
    code: str
    end: str
    message: str = ""

    def __str__(self) -> str:
        return self.code


PROTOCOL = Outcome(502, "upstream_protocol", "UP")


def failed(message: str) -> Outcome:
    return Outcome(502, "upstream_error", "UE", message)


def rejected(status: int, message: str = "") -> Outcome:
    return Outcome(status, "upstream_rejected", "UE", message)


def rate_limited(message: str) -> Outcome:
    return Outcome(429, "upstream_rate_limited", "RL", message)


def too_late(message: str) -> Outcome:
    return Outcome(504, "upstream_timeout", "UT", message)


async def assert_status(outcome: Outcome, *script: Step, pipeline: str = "", **params: Any) -> None:
    """Check that a fault before the first byte is a status, for clients of both profiles, streaming or not."""
    async with asking(*script, pipeline=pipeline, **params) as service:
        for stream in (True, False):
            answer = await answer_to(service, stream=stream)
            reported = error_of(answer)
            assert (answer.status, reported["code"]) == (outcome.status, outcome.code)
            assert outcome.message in reported["message"]
            record = await last_record(service)
            assert (record["end"], record["status"], record["error"]) == (outcome.end, outcome.status, outcome.code)
            # Cursor hides the text of 429 and 5xx responses.
            masked = await answer_to(service, stream=stream, agent=CURSOR)
            assert masked.status == (outcome.status if outcome.status in (401, 403, 404) else 400)
            reported = error_of(masked)
            assert (reported["type"], reported["code"]) == ("invalid_request_error", outcome.code)
            assert outcome.message in reported["message"]
            assert (await last_record(service))["end"] == outcome.end


async def assert_told_in_stream(outcome: Outcome, *rest: Step, pipeline: str = "", **params: Any) -> None:
    """Check that a fault after some text is told in the stream, and is a status to a client that does not stream."""
    async with asking(*begun("Hello, ", "wor"), *rest, pipeline=pipeline, **params) as service:
        answer = await answer_to(service)
        reported = fold_stream(answer.body)
        assert (answer.status, reported.content) == (200, "Hello, wor")
        assert reported.error is not None
        assert reported.error["code"] == outcome.code
        assert outcome.message in reported.error["message"]
        assert (reported.finish_reason, reported.is_done) == (None, False)
        record = await last_record(service)
        assert (record["end"], record["status"], record["error"]) == (outcome.end, 200, outcome.code)

        shown = fold_stream((await answer_to(service, agent=CURSOR)).body)
        assert shown.content is not None
        assert shown.content.startswith("Hello, wor\n\n[upstream error: ")
        assert reported.error["message"] in shown.content
        assert (shown.finish_reason, shown.is_done, shown.error) == ("stop", True, None)
        assert (await last_record(service))["end"] == outcome.end

        refused = await answer_to(service, stream=False)
        assert refused.status >= 400, "a client that does not stream has seen nothing yet"
        assert error_of(refused)["code"] == outcome.code


async def assert_told(outcome: Outcome, *rest: Step) -> None:
    """Check a fault of a stream both before its first event and after some text."""
    await assert_status(outcome, sse_head(), *rest)
    await assert_told_in_stream(outcome, *rest)


# Before there is an answer.


async def test_row_1_an_upstream_that_refuses_connections_is_a_502() -> None:
    """The upstream refuses the connection: 502 `upstream_unreachable`."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with serving(model("up", f"http://127.0.0.1:{unused.getsockname()[1]}")) as service:
            answer = await answer_to(service)
            assert (answer.status, error_of(answer)["code"]) == (502, "upstream_unreachable")
            assert "refused the connection" in error_of(answer)["message"]
            assert (await last_record(service))["end"] == "UC"
            await assert_nothing_is_left(service)


CONNECT_S = 0.2


@pytest.fixture
def short_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for a connection than a service does, which has no setting for it."""
    monkeypatch.setattr(model_list, "Timeouts", partial(Timeouts, connect_s=CONNECT_S))


@pytest.mark.usefixtures("short_connect")
async def test_row_2_a_connection_that_hangs_is_a_504() -> None:
    """The upstream never accepts the connection: 504 `upstream_timeout`, after 10 s."""
    with full_backlog() as port:
        async with serving(model("up", f"http://127.0.0.1:{port}")) as service:
            answer = await answer_to(service)
            assert (answer.status, error_of(answer)["code"]) == (504, "upstream_timeout")
            assert f"did not accept our connection within {CONNECT_S} s" in error_of(answer)["message"]
            assert (await last_record(service))["end"] == "UT"
            await assert_nothing_is_left(service)


@pytest.mark.usefixtures("short_connect")
@pytest.mark.parametrize(
    ("is_dead", "outcome"),
    [
        (False, Outcome(502, "upstream_unreachable", "UC", "its name does not resolve; check api_base")),
        (True, too_late(f"did not accept our connection within {CONNECT_S} s")),
    ],
    ids=["unknown", "slow"],
)
async def test_row_3_a_name_that_does_not_resolve_is_a_502_or_a_504(
    is_dead: bool, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream's name does not resolve: 502 `upstream_unreachable`; or not in time: 504 `upstream_timeout`."""
    names = Names(is_dead=is_dead)
    monkeypatch.setattr(upstream_clients, "Resolver", partial(Resolver, names))
    async with serving(model("up", "http://no.such.name")) as service:
        answer = await answer_to(service)
        assert (answer.status, error_of(answer)["code"]) == (outcome.status, outcome.code)
        assert outcome.message in error_of(answer)["message"]
        assert (await last_record(service))["end"] == outcome.end
        await assert_nothing_is_left(service)
    names.answers.set()


@pytest.mark.usefixtures("short_connect")
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", close()),
            Outcome(502, "upstream_unreachable", "UC", "TLS handshake failed"),
        ),
        ((stall(),), too_late(f"did not accept our connection within {CONNECT_S} s")),
    ],
    ids=["fails", "hangs"],
)
async def test_row_4_a_tls_handshake_that_fails_is_a_502(script: tuple[Step, ...], outcome: Outcome) -> None:
    """The TLS handshake with the upstream fails: 502 `upstream_unreachable`; it hangs: 504 `upstream_timeout`."""
    async with scripted_upstream(*script, reads=False) as upstream:
        async with serving(model("up", upstream.url.replace("http://", "https://"))) as service:
            answer = await answer_to(service)
            assert (answer.status, error_of(answer)["code"]) == (outcome.status, outcome.code)
            assert outcome.message in error_of(answer)["message"]
            assert (await last_record(service))["end"] == outcome.end
            await assert_nothing_is_left(service)


@pytest.mark.usefixtures("short_connect")
async def test_row_5_a_request_for_which_the_pool_has_no_room_is_a_503() -> None:
    """All connections to upstreams are in use: 503 `upstream_pool_full` with Retry-After, and the others go on."""
    limits = "  upstream_max_connections: 1"
    seen = trio.Event()

    async def wait(exchange: Exchange) -> None:
        await seen.wait()

    rest = (wait, event(completed("Hello")), end())
    async with (
        asking(*begun("Hello"), *rest, pipeline=limits) as service,
        await RawClient.open(("127.0.0.1", service.port)) as first,
    ):
        await first.send(post_bytes(ask()))
        await first.read_until(b'"content":"Hello"')
        for agent, status in ((OPENAI_LIKE, 503), (CURSOR, 400)):
            answer = await answer_to(service, agent=agent)
            assert (answer.status, answer.headers["retry-after"]) == (status, "1")
            assert error_of(answer)["code"] == "upstream_pool_full"
        assert [record["end"] for record in service.records] == ["OV", "OV"]
        seen.set()
        await first.read_until(b"[DONE]")
        await service.record(2)
        assert service.records[2]["end"] == "OK"


async def test_row_6_an_upstream_that_closes_before_its_head_is_a_502() -> None:
    """The upstream closes the connection without an answer: 502 `upstream_protocol`."""
    await assert_status(PROTOCOL, close())


async def test_row_7_an_upstream_that_resets_before_its_head_is_a_502() -> None:
    """The upstream resets the connection without an answer: 502 `upstream_protocol`."""
    await assert_status(PROTOCOL, reset())


async def test_row_8_an_upstream_that_does_not_speak_http_is_a_502() -> None:
    """The upstream answers with something other than HTTP: 502 `upstream_protocol`."""
    await assert_status(PROTOCOL, b"SSH-2.0-OpenSSH_9.9\r\n\r\n", stall())


async def test_row_9_an_upstream_that_does_not_begin_to_answer_is_a_504() -> None:
    """The upstream never begins to answer: 504 `upstream_timeout`."""
    await assert_status(too_late("did not begin to answer within 0.3 s"), stall(), timeout=0.3)


async def test_row_10_an_upstream_that_goes_silent_is_a_504_or_told_in_the_stream() -> None:
    """The upstream sends a head or some text, and then nothing: 504 `upstream_timeout`, or told in the stream."""
    await assert_status(too_late("sent nothing within 0.3 s"), sse_head(), stall(), timeout=0.3)
    await assert_told_in_stream(too_late("nothing came within 0.3 s"), stall(), stream_timeout=0.3, timeout=30)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (json_answer({"error": {"message": "no such tool"}}, 400), rejected(400, "no such tool")),
        (json_answer({"detail": "bad"}, 422), rejected(422)),
        (
            json_answer({"error": {"message": f"bad key {UPSTREAM_KEY}"}}, 401),
            Outcome(502, "upstream_unauthorized", "UE", "bad key [redacted]"),
        ),
        (error(404), Outcome(502, "upstream_not_found", "UE")),
    ],
    ids=["400", "422", "401", "404"],
)
async def test_row_11_a_refusal_of_the_upstream_is_mapped(script: bytes, outcome: Outcome) -> None:
    """The upstream refuses: its 400 or 422 with its reason; its 401, 403 and 404 as 502, since they concern our key."""
    await assert_status(outcome, script)


async def test_row_11_a_rate_limit_passes_on_when_to_try_again() -> None:
    """The upstream limits the rate: 429, or for Cursor 400, with the upstream's Retry-After."""
    limited = json_answer({"error": {"message": "slow down"}}, 429, headers=[("retry-after", "7")])
    async with asking(limited) as service:
        for agent, status in ((OPENAI_LIKE, 429), (CURSOR, 400)):
            answer = await answer_to(service, agent=agent)
            assert (answer.status, answer.headers["retry-after"]) == (status, "7")
            assert error_of(answer)["code"] == "upstream_rate_limited"
            record = await last_record(service)
            assert (record["end"], record["upstream_status"]) == ("RL", 429)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (json_answer({"error": {"message": "oops"}}, 500), "upstream answered 500: oops"),
        (error(503, b"<html>", content_type="text/html"), "upstream answered 503"),
    ],
    ids=["500", "503 in HTML"],
)
async def test_row_12_an_upstream_that_fails_is_a_502(script: bytes, message: str) -> None:
    """The upstream answers with a 5xx: 502 `upstream_error`, with its reason."""
    await assert_status(failed(message), script)


async def test_row_13_a_redirect_is_a_502() -> None:
    """The upstream redirects: 502 `upstream_protocol`."""
    await assert_status(
        replace(PROTOCOL, message="redirect"), error(302, headers=[("location", "http://127.0.0.1:1/")])
    )


async def test_row_13_a_redirect_is_not_followed() -> None:
    """The upstream redirects: the other address is not asked, and gets no key."""
    async with scripted_upstream(*good_answer()) as elsewhere:
        async with asking(error(307, headers=[("location", f"{elsewhere.url}/v1/responses")])) as service:
            assert (await answer_to(service)).status == 502
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (error(200, b"<html>", content_type="text/html"), "text/html"),
        (error(200, gzip.compress(b"{}"), headers=[("content-encoding", "gzip")]), "content-encoding 'gzip'"),
    ],
    ids=["HTML", "gzip"],
)
async def test_row_14_an_answer_of_the_wrong_kind_is_a_502(script: bytes, message: str) -> None:
    """The upstream answers 200 with HTML, or compressed: 502 `upstream_protocol`."""
    await assert_status(replace(PROTOCOL, message=message), script)


async def test_row_29_a_compressed_answer_is_refused_before_it_is_decompressed() -> None:
    """The upstream sends a zip bomb: 502 `upstream_protocol`; nothing of it is decompressed."""
    bomb = error(200, gzip.compress(bytes(50 << 20)), headers=[("content-encoding", "gzip")])
    await assert_status(replace(PROTOCOL, message="content-encoding 'gzip'"), bomb)


async def test_cursor_gets_the_true_status_if_that_is_configured() -> None:
    async with asking(error(503), pipeline="  cursor_error_status: passthrough") as service:
        assert (await answer_to(service, agent=CURSOR)).status == 502


# Within an answer: before its first event, and after some text.


async def test_row_15_a_reset_within_an_answer_is_told() -> None:
    """The upstream resets the connection within its answer: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, reset())


@pytest.mark.parametrize("part", [b'100\r\ndata: {"ty', b""], ids=["in a chunk", "between chunks"])
async def test_row_16_a_close_within_an_answer_is_told(part: bytes) -> None:
    """The upstream closes the connection within its answer: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, part, close())


async def test_row_17_a_bad_chunk_header_is_told() -> None:
    """The upstream's chunks are malformed: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, b"zz\r\n", stall())


@pytest.mark.parametrize("last", [b": hm\n\n", b"data: [DONE]\n\n"], ids=["comment", "[DONE]"])
async def test_row_18_an_answer_without_its_last_event_is_told(last: bytes) -> None:
    """The upstream's answer ends without its last event: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, event(last), end())


async def test_row_19_an_event_that_is_not_json_is_told() -> None:
    """The upstream sends an event that is not JSON: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, event(b'data: {"type": "response.output_te\n\n'), end())


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (failed_event("server_error", "I broke"), failed("I broke")),
        (failed_event("server_error", f"key {UPSTREAM_KEY}"), failed("key [redacted]")),
        (failed_event("rate_limit_exceeded", "slow down"), rate_limited("slow down")),
        (failed_event("invalid_prompt", "no"), rejected(400, "no")),
        ({"type": "error", "code": "server_error", "message": "I broke"}, failed("I broke")),
        ({"type": "error", "error": {"code": "server_error", "message": "I broke"}}, failed("I broke")),
    ],
    ids=["fails", "names the key", "rate", "prompt", "error event", "nested error event"],
)
async def test_row_20_an_answer_that_fails_is_told(failure: dict[str, Any], outcome: Outcome) -> None:
    """The upstream reports a failure within its answer: the status that it means, or told in the stream."""
    await assert_told(outcome, event(failure), end())


async def test_row_23_an_event_that_is_too_large_is_told() -> None:
    """The upstream sends an event of more than 16 MiB: 502 `upstream_protocol`, or told in the stream."""
    await assert_told(PROTOCOL, b"1100000\r\n", pieces(b"data: " + b"x" * ((17 << 20) - 6), 1 << 20), close())


async def trickle(exchange: Exchange) -> None:
    """Send comments forever."""
    while True:
        await event(b": hm\n\n")(exchange)
        await trio.sleep(0.02)


async def test_row_30_an_answer_that_takes_too_long_is_told() -> None:
    """The answer is not complete within `request_timeout_s`: 504 `upstream_timeout`, or told in the stream."""
    limits: dict[str, Any] = {"pipeline": "  request_timeout_s: 0.5", "timeout": 30, "stream_timeout": 30}
    outcome = too_late("did not finish its answer within 0.5 s")
    await assert_status(outcome, sse_head(), trickle, **limits)
    await assert_told_in_stream(outcome, trickle, **limits)


# What is not a fault.


async def whole(service: Service) -> tuple[Folded, Folded]:
    return fold_stream((await answer_to(service)).body), fold_document((await answer_to(service, stream=False)).body)


async def test_row_21_events_after_the_end_are_ignored() -> None:
    """The upstream sends events after the last one: they are ignored, and the answer is whole."""
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
    """The upstream sends unknown events, comments and junk lines: they are ignored, and the answer is whole."""
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
    """Any line ends and separators within the text, in slices of any size: the text arrives unchanged."""
    payloads = [CREATED, delta(TEXT), delta(TEXT), completed(TEXT * 2)]
    lines = "".join(f"data: {json.dumps(payload, ensure_ascii=ascii_only)}\n\n" for payload in payloads)
    stream = lines.replace("\n", line_end).encode()
    async with asking(sse_head(length=len(stream)), pieces(stream, size)) as service:
        for folded in await whole(service):
            assert folded.content == TEXT * 2
            assert folded.finish_reason == "stop"


async def test_row_26_a_thousand_events_in_one_read_are_a_thousand_deltas() -> None:
    """The upstream sends a thousand events in one write: all of them arrive, in their order."""
    words = [f"{number} " for number in range(1000)]
    script = (sse_head(), events([CREATED, *map(delta, words), completed("".join(words))], per="write"), end())
    async with asking(*script) as service:
        folded = fold_stream((await answer_to(service)).body)
        assert folded.content == "".join(words)


async def test_row_27_a_lone_surrogate_still_becomes_valid_json() -> None:
    """The upstream's text has half an emoji or a NUL: the client gets valid UTF-8 and valid JSON."""
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
    """The upstream sends a stream under another content type, or none: it is read as the stream that it is."""
    answer = ANSWERS[kind]
    parts = (*answer.text, *answer.finish, *answer.end)
    script = (sse_head(content_type=content_type), events(parts), end())
    async with asking(*script, model=answer.upstream) as service:
        for agent in (OPENAI_LIKE, CURSOR):
            folded = fold_stream((await answer_to(service, agent=agent)).body)
            assert (folded.content, folded.finish_reason, folded.error) == (TEXT_OF_ANSWERS, "stop", None)


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_row_87_a_stream_that_nobody_asked_for_is_read_under_another_type(content_type: str) -> None:
    """A stream instead of a document, under a type that says neither, is read."""
    async with asking(sse_head(content_type=content_type), *good_answer()[1:]) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_row_87_a_document_under_another_type_is_read(content_type: str) -> None:
    """A document under a type that says neither is read."""
    body = b"\n  " + json.dumps(response_of("Hello")).encode()
    async with asking(error(200, body, content_type=content_type)) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_a_document_under_the_type_of_a_stream_is_read() -> None:
    """A document under the type of a stream is read."""
    body = b"\n" + json.dumps(response_of("Hello")).encode()
    async with asking(error(200, body, content_type="text/event-stream")) as service:
        for folded in await whole(service):
            assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_an_error_under_the_type_of_a_stream_keeps_its_reason() -> None:
    """An error document under the type of a stream is told with its reason."""
    body = json.dumps({"error": {"message": "no such tool", "code": "invalid_value"}}).encode()
    async with asking(error(200, body, content_type="text/event-stream")) as service:
        for stream in (True, False):
            reported = json.loads((await answer_to(service, stream=stream)).body)["error"]
            assert (reported["code"], reported["message"]) == ("upstream_rejected", "no such tool")


@pytest.mark.parametrize("first", [b": ping\n\n", b"", b"\n"])
async def test_row_87_a_stream_under_the_type_of_a_document_that_was_asked_for_is_read(first: bytes) -> None:
    """A stream under the type of a document is read."""
    script = (*([event(first)] if first else []), *good_answer()[1:])
    async with asking(sse_head(content_type="application/json"), *script) as service:
        folded = fold_document((await answer_to(service, stream=False)).body)
        assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_a_stream_under_its_type_may_begin_with_a_cut_name() -> None:
    """A stream whose first read ends within a field's name is read."""
    opening = b"data: " + json.dumps(CREATED).encode() + b"\n\n"
    async with asking(sse_head(), event(b"da"), event(opening[2:]), *good_answer()[1:]) as service:
        folded = fold_stream((await answer_to(service)).body)
        assert (folded.content, folded.finish_reason) == ("Hello", "stop")


async def test_row_87_what_is_read_to_find_out_is_passed_on_at_once() -> None:
    """What was read to tell a stream from a document reaches the client at once."""
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
    """The upstream compresses its answer unasked: 502 `upstream_protocol`, and no byte of it is shown."""
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
    """The upstream gives its reason in `error.metadata.raw`, as text, HTML or gzip: it is shown, with keys redacted."""
    async with asking(script) as service:
        for stream in (True, False):
            for agent in (OPENAI_LIKE, CURSOR):
                answer = await answer_to(service, stream=stream, agent=agent)
                reported = error_of(answer)
                assert (answer.status, reported["code"]) == (400, "upstream_rejected")
                assert reported["message"] == message


async def test_row_88_the_upstreams_own_code_is_shown_and_logged() -> None:
    """The upstream's own code is shown and logged beside ours."""
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
    """A stage raises an error that quotes a secret: 500 `internal_error`, or told in the stream, without it."""
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
