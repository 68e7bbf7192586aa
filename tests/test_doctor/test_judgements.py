"""What is concluded from what was measured, without any network."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.gateway.doctor.client import ErrorOf, error_of, failure_text
from pipeline.gateway.doctor.connection import judge_address, judge_https
from pipeline.gateway.doctor.entering import judge_arrival, judge_wrong_key
from pipeline.gateway.doctor.findings import ok
from pipeline.gateway.doctor.proxies import REMEDIES, proxy_of, remedy_for
from pipeline.gateway.doctor.report import line_of
from pipeline.gateway.doctor.requests import judge_cursor, judge_large_body
from pipeline.gateway.doctor.server_page import ServerPage
from pipeline.gateway.doctor.streaming import judge_compression, judge_idle, judge_stream, probe_stream
from pipeline.gateway.doctor.streams import Arrival, StreamCall, StreamChoice, StreamChunk, StreamDelta, Streamed
from pipeline.gateway.doctor.target import Plan, Target, Visit

NOW = datetime(2026, 11, 30, tzinfo=UTC)
PLAN = Plan(tokens=5, gap_s=0.25, idle_s=75)
PAGE = ServerPage(
    headrace="1.0",
    http_version="1.1",
    headers=["authorization", "user-agent", "x-forwarded-for"],
    peer="10.0.0.1",
    is_peer_trusted=True,
    keep_alive_interval_s=15,
    max_body_mb=100,
    allow_anonymous=False,
    key_header=None,
)
VISIT = Visit(
    target=Target(base=httpx.URL("https://host/cursor"), key="sk-the-key", tls=ssl.create_default_context()),
    client=httpx.AsyncClient(),
    plan=PLAN,
    proxy="nginx",
    page=PAGE,
)
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def streamed(*arrivals: Arrival, ended_s: float = 2.0, is_done: bool = True, failure: str = "") -> Streamed:
    return Streamed(status=200, headers=SSE, arrivals=arrivals, ended_s=ended_s, is_done=is_done, failure=failure)


def tokens_at(*times_s: float) -> Streamed:
    return streamed(*(Arrival(at_s, 1) for at_s in times_s))


@given(st.floats(0, 10), st.lists(st.floats(0, 0.2), min_size=5, max_size=5))
def test_a_steady_stream_is_never_called_buffered(network_s: float, jitter_s: list[float]) -> None:
    times_s = [network_s + number * 0.25 + late_s for number, late_s in enumerate(jitter_s)]
    assert judge_stream(tokens_at(*times_s), PLAN, VISIT).status == "ok"


@given(st.floats(1.0, 30), st.floats(0, 0.2))
def test_a_stream_that_comes_at_its_end_is_always_called_buffered(at_s: float, spread_s: float) -> None:
    found = judge_stream(tokens_at(*[at_s + number * spread_s / 5 for number in range(5)]), PLAN, VISIT)
    assert found.status == "problem"
    assert found.measured.startswith("buffered: 5 tokens, sent one each 250 ms")
    assert "proxy_buffering off" in found.remedy


def test_a_stream_with_one_long_pause_is_slow_and_not_buffered() -> None:
    plan = replace(PLAN, gap_s=0.5)
    found = judge_stream(tokens_at(0, 0.5, 1.0, 2.2, 2.7), plan, VISIT)
    assert found.status == "warning"
    assert "0.70 s" in found.measured


def test_a_stream_that_is_cut_off_names_the_request() -> None:
    cut = replace(
        streamed(Arrival(0.1, 1), is_done=False, failure="the connection was reset"),
        headers={**SSE, "x-request-id": "abc"},
    )
    found = judge_stream(cut, PLAN, VISIT)
    assert found.status == "problem"
    assert "cut off after 2.0 s, 1 tokens: the connection was reset" in found.measured
    assert found.remedy == "see headrace's log for the request abc"


def test_compression_is_named() -> None:
    coded = replace(tokens_at(0, 1), headers={**SSE, "content-encoding": "gzip"})
    assert judge_compression(coded, None).status == "warning"
    assert judge_compression(tokens_at(0, 1), None).status == "ok"
    assert judge_compression(Streamed(status=0), None).status == "not tested"


def comments(*times_s: float, ended_s: float, is_done: bool = True) -> Streamed:
    return streamed(*(Arrival(at_s, is_comment=True) for at_s in times_s), ended_s=ended_s, is_done=is_done)


@pytest.mark.parametrize(
    ("answer", "every_s", "status", "text"),
    [
        (comments(15, 30, 45, 60, ended_s=75), 15, "ok", "with 4 comments, silent for up to 15.0 s"),
        (comments(ended_s=75), 15, "warning", "buffered or removed on the way"),
        (comments(ended_s=75), 0, "warning", "keep_alive_interval_s is 0"),
        (comments(ended_s=75), 90, "ok", "with 0 comments"),
        (comments(15, 30, ended_s=40, is_done=False), 15, "problem", "cut off after 40.0 s, of which the last 10.0 s"),
        (Streamed(status=504, ended_s=60.0, error=b"<html>"), 90, "problem", "status 504 after 60.0 s"),
        (Streamed(status=0, ended_s=60.0, failure="reset"), 90, "problem", "cut off after 60.0 s"),
        (
            Streamed(status=503, ended_s=1.0, error=b'{"error": {"message": "overloaded"}}'),
            15,
            "problem",
            "status 503: overloaded",
        ),
    ],
)
def test_a_silent_stream(answer: Streamed, every_s: float, status: str, text: str) -> None:
    found = judge_idle(answer, replace(VISIT, page=replace(PAGE, keep_alive_interval_s=every_s)))
    assert found.status == status
    assert text in found.measured


def test_the_time_between_comments_that_is_advised_is_shorter_than_the_silence_that_was_cut() -> None:
    found = judge_idle(comments(ended_s=60, is_done=False), VISIT)
    assert found.remedy == "nginx: proxy_read_timeout 600s, or in headrace's file: keep_alive_interval_s: 30"


@pytest.mark.parametrize(
    ("addresses", "host", "status"),
    [
        (["93.184.216.34"], "gateway.example.com", "ok"),
        (["2606:2800:220:1::1"], "gateway.example.com", "ok"),
        (["10.0.0.7"], "gateway.example.com", "problem"),
        (["127.0.0.1", "::1"], "localhost", "problem"),
        (["fe80::1%eth0"], "printer.example.com", "problem"),
        (["100.64.0.1"], "machine.tailnet.ts.net", "problem"),
        (["93.184.216.34"], "nas", "problem"),
        (["93.184.216.34"], "nas.local", "problem"),
        (["93.184.216.34", "192.168.1.2"], "gateway.example.com", "warning"),
    ],
)
def test_an_address_that_cursor_refuses(addresses: list[str], host: str, status: str) -> None:
    assert judge_address(host, addresses).status == status


@pytest.mark.parametrize(("days", "status"), [(60, "ok"), (14, "ok"), (13, "warning"), (1, "warning")])
def test_a_certificate_that_ends_soon(days: int, status: str) -> None:
    end = NOW + timedelta(days=days, hours=1)
    found = judge_https({"notAfter": f"{end:%b %d %H:%M:%S %Y} GMT"}, "TLSv1.3", NOW)
    assert found.status == status
    assert f"certificate until {end:%Y-%m-%d} ({days} day" in found.measured
    assert judge_https(None, "TLSv1.3", NOW).status == "ok"


def statuses(page: ServerPage, proxy: str | None = "nginx") -> dict[str, str]:
    return {found.check: found.status for found in judge_arrival(page, proxy)}


SENT = [
    *("authorization", "user-agent", "traceparent", "x-cursor-conversation-id", "x-cursor-request-id"),
    *("x-headrace-doctor", "x_headrace_doctor"),
]


def test_how_a_request_arrives() -> None:
    good = replace(PAGE, headers=[*SENT, "x-forwarded-for"])
    assert set(statuses(good).values()) == {"ok"}
    assert statuses(replace(good, http_version="1.0"))["http version"] == "warning"
    assert statuses(replace(good, headers=[*SENT[:-1], "forwarded"]))["headers"] == "warning"
    assert statuses(replace(good, headers=SENT))["client address"] == "warning"
    assert statuses(replace(good, headers=SENT), None)["client address"] == "ok"
    assert statuses(replace(good, is_peer_trusted=False))["client address"] == "warning"
    lost = judge_arrival(replace(good, headers=[*SENT[:2], *SENT[3:]]), None)
    assert [found.measured for found in lost if found.check == "headers"] == ["lost on the way: traceparent"]


def test_a_wrong_key() -> None:
    assert judge_wrong_key(401, PAGE, None).status == "ok"
    assert judge_wrong_key(200, PAGE, "Caddy").status == "problem"
    assert judge_wrong_key(200, replace(PAGE, allow_anonymous=True), None).status == "warning"
    assert judge_wrong_key(502, PAGE, None).status == "warning"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error": {"message": "model is missing", "code": "invalid_request"}}', "ok"),
        (400, b'{"error": {"message": "too large", "code": "body_too_large"}}', "warning"),
        (400, b'{"error": {"message": "no", "code": "overloaded"}}', "warning"),
        (413, b"<html>413 Request Entity Too Large</html>", "problem"),
        (502, b"", "problem"),
    ],
)
def test_a_large_body(status: int, body: bytes, expected: str) -> None:
    found = judge_large_body(status, body, 2.0, VISIT)
    assert found.status == expected
    assert found.measured.startswith("25 MiB")


def test_a_large_body_is_a_matter_of_the_limit_only_if_the_proxy_says_so() -> None:
    too_large, broken = (judge_large_body(status, b"<html>", 2.0, VISIT) for status in (413, 500))
    assert too_large.remedy == remedy_for("large body", VISIT.proxy)
    assert (broken.status, broken.remedy) == ("problem", "see the log of the proxy")
    of_another_gateway = judge_large_body(200, b"data: {}", 2.0, replace(VISIT, page=None))
    assert of_another_gateway.status == "ok"


def test_what_is_not_tls_and_what_has_no_address_is_said_in_words() -> None:
    assert failure_text(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]")).startswith("the TLS handshake failed")
    assert failure_text(socket.gaierror(-2, "Name or service not known")) == "the name has no address"
    assert failure_text(ConnectionRefusedError(111, "")) == "connection refused"


def test_an_answer_that_cursor_cannot_show() -> None:
    role, text = StreamChoice(StreamDelta(role="assistant")), StreamChoice(StreamDelta(content="one"))
    call, end = StreamChoice(StreamDelta(tool_calls=[StreamCall(0)])), StreamChoice(finish_reason="stop")

    def judged(*choices: StreamChoice, error: ErrorOf | None = None) -> str:
        chunks = (*(StreamChunk([choice]) for choice in choices), *([StreamChunk(error=error)] if error else ()))
        answer = replace(tokens_at(0.1, 0.2), chunks=chunks)
        found = judge_cursor(answer, "gpt-5", VISIT)
        return f"{found.status}: {found.measured}"

    assert judged(role, text, end).startswith("ok: gpt-5: 2 parts of text, 0 calls")
    assert judged(role, call, end).startswith("ok: ")
    assert judged(text, end) == "problem: gpt-5: the stream has no first part with a role"
    assert "no text and no calls" in judged(role, end)
    assert "no finish_reason" in judged(role, text)
    assert "the stream ends with an error: key [redacted] is bad" in judged(
        role, error=ErrorOf("key sk-the-key is bad")
    )


@pytest.mark.parametrize(
    ("headers", "answer", "name"),
    [
        ({"server": "nginx/1.22.1"}, b"", "nginx"),
        ({"server": "openresty"}, b"", "nginx"),
        ({"server": "headrace", "via": "1.1 Caddy"}, b"", "Caddy"),
        ({"server": "cloudflare", "cf-ray": "1"}, b"", "Cloudflare"),
        ({"server": "headrace"}, b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", "nginx"),
        ({}, b"HTTP/1.1 400 Bad request\r\n\r\nYour browser sent an invalid request.", "HAProxy"),
        ({}, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request", "Caddy"),
        ({"server": "headrace"}, b"HTTP/1.1 400 Bad Request\r\nserver: headrace\r\n\r\n{}", None),
        ({}, b"", None),
    ],
)
def test_which_proxy_it_is(headers: dict[str, str], answer: bytes, name: str | None) -> None:
    assert proxy_of(headers, answer) == name


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(["server", "via"]), st.text(max_size=20)))
def test_whatever_is_answered_leads_to_a_name_or_to_none(answer: bytes, headers: dict[str, str]) -> None:
    found = proxy_of(headers, answer)
    assert found is None or found in {name for known in REMEDIES.values() for name in known} | {
        *("Envoy", "AWS ELB", "Fly.io", "Vercel", "ngrok")
    }


def test_each_remedy_is_for_the_proxy_or_for_the_three_that_are_known_best() -> None:
    assert remedy_for("stream", "nginx").startswith("nginx: proxy_buffering off")
    assert remedy_for("large body", "ngrok").startswith("nginx: client_max_body_size 100m;; HAProxy: ")
    for topic in REMEDIES:
        assert remedy_for(topic, None)


@given(st.binary(max_size=60))
def test_no_body_is_an_error_document_by_accident(body: bytes) -> None:
    assert error_of(body) is None or b"error" in body


class Scripted(httpx.AsyncBaseTransport):
    """Answers each request with the next of several streams: when each of its tokens comes, and whether it ends."""

    def __init__(self, *scripts: tuple[list[float], bool]) -> None:
        self.left = list(scripts)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        times_s, is_whole = self.left.pop(0)
        return httpx.Response(200, headers=SSE, stream=Timed(times_s, is_whole))


class Timed(httpx.AsyncByteStream):
    def __init__(self, times_s: list[float], is_whole: bool) -> None:
        self.times_s = times_s
        self.is_whole = is_whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        began_s = trio.current_time()
        for at_s in self.times_s:
            await trio.sleep_until(began_s + at_s)
            yield b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
        if self.is_whole:
            yield b"data: [DONE]\n\n"


STEADY = ([0.0, 0.25, 0.5, 0.75, 1.0], True)
LATE = ([0.0, 1.0, 1.0, 1.0, 1.0], True)
CUT = ([0.0, 0.25], False)


@pytest.mark.parametrize(
    ("scripts", "unasked", "status"),
    [
        ([STEADY, LATE], 1, "ok"),
        ([LATE, STEADY, LATE], 1, "ok"),
        ([LATE, LATE, LATE, STEADY], 1, "problem"),
        ([CUT, STEADY], 1, "problem"),
    ],
)
async def test_a_stream_is_called_buffered_only_if_it_is_so_each_time(
    scripts: list[tuple[list[float], bool]], unasked: int, status: str, autojump_clock: trio.testing.MockClock
) -> None:
    server = Scripted(*scripts)
    async with httpx.AsyncClient(transport=server) as client:
        found, _ = await probe_stream(replace(VISIT, client=client))
    assert found.status == status
    assert found.measured.startswith("buffered") == (scripts[0] is LATE and status == "problem")
    assert len(server.left) == unasked


def test_a_server_does_not_command_the_terminal() -> None:
    line = line_of(ok("server", "headrace \x1b]0;title\x07\x1b[2J"), has_colour=False)
    assert line == "ok          server          headrace ?]0;title??[2J"
