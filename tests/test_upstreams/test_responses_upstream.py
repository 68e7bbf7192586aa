"""The Responses upstream: its requests, which answers it accepts, and the code of each fault."""

from __future__ import annotations

import gzip
import json
import re
import socket
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trio
from kit.time.cancel_at import CancelAt
from kit.time.patience import AT_ONCE_S, patiently
from kit.upstreams.names import Names
from kit.upstreams.opened import Marks, open_answer
from kit.upstreams.paced import Paced
from kit.upstreams.scripted import (
    Exchange,
    Step,
    close,
    end,
    error,
    events,
    head,
    in_turn,
    json_answer,
    reset,
    scripted_upstream,
    sse,
    sse_head,
    stall,
    wait,
)

from pipeline import Overloaded, PipelineError, UpstreamFault
from stages.request import ResponsesRequest
from stages.upstreams import Deployment, Timeouts, UpstreamAnswer, UpstreamCall
from stages.upstreams.http import HttpUpstream
from stages.upstreams.transport.httpx_transport import HttpxTransport
from stages.upstreams.transport.resolve import Resolver
from stages.upstreams.transport.tls import client_context
from stages.upstreams.transport.transport import HeadraceTransport
from stages.wire.responses.api import RESPONSES

KEY = "sk-proj-abcdefgh1234567890SECRET"
EVENTS = [{"type": "response.created"}, {"type": "response.completed"}]
STREAM = b"".join(map(sse, EVENTS))
GOOD: tuple[Step, ...] = (sse_head(), events(EVENTS), end())
SSL = client_context()

Make = Callable[..., HeadraceTransport | HttpxTransport]


@pytest.fixture(params=["headrace", "httpx"])
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "headrace":
        return lambda **settings: HeadraceTransport(ssl_context=SSL, **settings)
    return lambda **settings: HttpxTransport(ssl_context=SSL, **settings)


def call_to(
    url: str,
    *,
    stream: bool = True,
    headers: tuple[tuple[str, str], ...] = (("Authorization", f"Bearer {KEY}"),),
    body: dict[str, object] | None = None,
    **limits: float | None,
) -> UpstreamCall:
    return UpstreamCall(
        request=ResponsesRequest(
            requested_model="nice", stream=stream, include_usage=True, body={"input": "hi"} if body is None else body
        ),
        deployment=Deployment(
            id="d1",
            model_name="nice",
            model="gpt-5",
            provider="openai",
            kind="responses",
            url=f"{url}/v1/responses",
            headers=headers,
            timeouts=Timeouts(**{"connect_s": 30.0, **limits}),  # type: ignore[arg-type]
        ),
        model="gpt-5",
    )


async def read(answer: UpstreamAnswer) -> bytes:
    got = b""
    while chunk := await answer.receive():
        got += chunk
    return got


async def ask(transport: httpx.AsyncBaseTransport, call: UpstreamCall) -> bytes:
    async with aclosing(await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call)) as answer:
        return await read(answer)


async def fault_of(transport: httpx.AsyncBaseTransport, call: UpstreamCall) -> PipelineError:
    """Return the error of the call, after checking that it contains no secret."""
    with pytest.raises(PipelineError) as caught:
        await ask(transport, call)
    assert_has_no_secret(caught.value)
    return caught.value


def assert_has_no_secret(fault: PipelineError) -> None:
    text = "".join(traceback.format_exception(fault)) + repr(fault.__context__) + repr(fault.__cause__)
    assert "SECRET" not in text
    assert fault.__context__ is None
    assert "httpx" not in fault.public
    assert "h11" not in fault.public


# --- good answers ----------------------------------------------------------------------------------------------------


async def test_the_upstream_gets_the_body_and_the_deployments_headers_and_nothing_else(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        call = call_to(
            up.url,
            headers=(("Authorization", f"Bearer {KEY}"), ("X-Extra", "é"), ("Accept-Encoding", "gzip")),
            body={"input": [{"role": "user", "content": "hi 😀"}], "unknown": {"kept": [1]}},
        )
        assert await ask(transport, call) == STREAM
        (request,) = up.requests
        assert (request.method, request.path) == ("POST", "/v1/responses")
        shown = {"reasoning": {"summary": "auto"}}  # GPT-5 thinks anyway
        assert request.json() == {**call.request.body, "model": "gpt-5", "stream": True, **shown}
        agent = request.headers.pop("user-agent")
        assert re.fullmatch(r"headrace(/[0-9.]+)?", agent)
        assert request.headers == {
            "host": up.url.removeprefix("http://"),
            "authorization": f"Bearer {KEY}",
            "x-extra": "é",
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "content-length": str(len(request.body)),
        }


async def test_a_deployment_may_override_the_agent_but_not_the_framing(make: Make) -> None:
    headers = (("User-Agent", "mine"), ("content-length", "3"), ("Transfer-Encoding", "gzip"), ("Host", "other"))
    async with scripted_upstream(*GOOD) as up, make() as transport:
        assert await ask(transport, call_to(up.url, headers=headers)) == STREAM
        received = up.requests[0].headers
        assert (received["user-agent"], received["host"]) == ("mine", "other")
        assert received["content-length"] == str(len(up.requests[0].body))
        assert "transfer-encoding" not in received


async def test_without_streaming_json_is_requested_and_returned(make: Make) -> None:
    async with scripted_upstream(json_answer({"output": []})) as up, make() as transport:
        async with aclosing(
            await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url, stream=False))
        ) as answer:
            assert answer.is_stream is False
            assert json.loads(await read(answer)) == {"output": []}
            assert await answer.receive() == b""
        assert up.requests[0].headers["accept"] == "application/json"
        assert up.requests[0].json()["stream"] is False


@pytest.mark.parametrize(
    ("content_type", "is_stream"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        (None, True),
        ("application/json", False),
        ("application/vnd.x+json; charset=utf-8", False),
    ],
)
async def test_the_content_type_decides_between_stream_and_document(
    make: Make, content_type: str | None, is_stream: bool
) -> None:
    script = (sse_head(content_type=content_type), events([b"x"]), end())
    async with scripted_upstream(*script) as up, make() as transport:
        async with aclosing(await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))) as answer:
            assert answer.is_stream is is_stream
            assert await read(answer) == b"x"


async def test_connections_are_reused_and_a_half_read_one_is_closed(make: Make) -> None:
    async with scripted_upstream(in_turn(GOOD, GOOD, (sse_head(), events(EVENTS), stall()), GOOD)) as up:
        async with make() as transport:
            await ask(transport, call_to(up.url))
            await ask(transport, call_to(up.url))
            assert len(up.connections) == 1
            async with aclosing(
                await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))
            ) as answer:
                await answer.receive()
            left_at = trio.current_time()
            closed = await up.connection_closed()
            assert closed.closed_at is not None
            assert closed.closed_at - left_at < AT_ONCE_S
            assert await ask(transport, call_to(up.url)) == STREAM
            assert len(up.connections) == 2


@pytest.mark.parametrize(
    "script",
    [(stall(),), (sse_head(), stall()), (sse_head(), events(EVENTS), stall()), (head(503), stall())],
    ids=["before the head", "before the first event", "mid-stream", "within an error"],
)
async def test_cancelling_closes_the_upstream_connection_at_once(make: Make, script: tuple[Step, ...]) -> None:
    async with scripted_upstream(*script) as up, make() as transport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, transport, call_to(up.url))
            await up.request_received()
            await trio.sleep(0.02)
            left_at = trio.current_time()
            nursery.cancel_scope.cancel()
        closed = await up.connection_closed()
        assert closed.closed_at is not None
        assert closed.closed_at - left_at < AT_ONCE_S
        assert (transport.active_connections, transport.idle_connections) == (0, 0)


async def test_an_answer_whose_end_does_not_matter_returns_its_connection_except_over_httpx(make: Make) -> None:
    left, ended = trio.Event(), trio.Event()

    async def end_late(exchange: Exchange) -> None:
        await left.wait()
        await exchange.send(end())
        ended.set()

    script = in_turn((sse_head(), events(EVENTS), end_late), GOOD)
    async with scripted_upstream(script) as up, make(max_connections=1) as transport:
        answer = await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))
        got = b""
        while got != STREAM:
            got += await answer.receive()
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await answer.receive()
            finally:
                await answer.aclose(is_answered=True)
        assert scope.cancelled_caught
        if isinstance(transport, HttpxTransport):
            await up.connection_closed()
        else:
            left.set()
            with patiently():
                await ended.wait()
        assert await ask(transport, call_to(up.url)) == STREAM
        assert len(up.connections) == (2 if isinstance(transport, HttpxTransport) else 1)


async def test_a_connection_whose_end_came_with_the_answer_is_kept_over_httpx_too(make: Make) -> None:
    whole = sse_head() + b"%x\r\n%b\r\n" % (len(STREAM), STREAM) + end()
    async with scripted_upstream(whole) as up, make() as transport:
        for _ in range(2):
            answer = await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))
            assert await answer.receive() == STREAM
            await answer.aclose(is_answered=True)
        assert len(up.connections) == 1
        assert (transport.active_connections, transport.idle_connections) == (0, 1)


POINTS = ["upstream_slot", "upstream_resolved", "upstream_connected", "upstream_sent", "upstream_head"]


async def test_the_points_of_a_call_are_marked(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        upstream = HttpUpstream(RESPONSES, lambda _: transport)
        reached: list[Marks] = []
        for _ in range(2):
            reached.append(Marks())
            async with aclosing(await open_answer(upstream, call_to(up.url), reached[-1])) as answer:
                await read(answer)
        fresh = [point for point in POINTS if point != "upstream_resolved" or isinstance(transport, HeadraceTransport)]
        assert reached == [fresh, ["upstream_slot", "upstream_sent", "upstream_head"]]


@pytest.mark.parametrize(
    "script",
    [(error(503, b"{}"),), (error(200, b"<html>", content_type="text/html"),)],
    ids=["refusal", "HTML"],
)
async def test_a_head_that_is_not_good_is_not_marked(make: Make, script: tuple[Step, ...]) -> None:
    marks = Marks()
    async with scripted_upstream(*script) as up, make() as transport:
        with pytest.raises(UpstreamFault):
            await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url), marks)
    assert marks[-1] == "upstream_sent"


async def test_preparing_a_call_encodes_it_without_sending_anything(make: Make) -> None:
    async with scripted_upstream(*GOOD) as up, make() as transport:
        upstream = HttpUpstream(RESPONSES, lambda _: transport)
        prepared = upstream.prepare(call_to(up.url))
        assert json.loads(prepared.body)["model"] == "gpt-5"
        assert up.connections == []
        for _ in range(2):
            async with aclosing(await upstream.open(prepared, Marks())) as answer:
                assert await read(answer) == STREAM
        assert [request.body for request in up.requests] == [prepared.body] * 2


async def test_an_upstream_that_closes_a_kept_connection_twice_is_reported_once(make: Make) -> None:
    async with scripted_upstream(in_turn(GOOD, (close(),))) as up, make() as transport:
        await ask(transport, call_to(up.url))
        fault = await fault_of(transport, call_to(up.url))
        assert isinstance(fault, UpstreamFault)
        assert (fault.code, len(up.requests)) == ("upstream_protocol", 3)
        assert transport.active_connections == 0


async def test_the_deadline_of_a_whole_call_includes_the_second_try(
    make: Make, mock_clock: trio.testing.MockClock
) -> None:
    async def pass_time(exchange: Exchange) -> None:
        mock_clock.jump(0.2)

    async with (
        scripted_upstream(in_turn(GOOD, (pass_time, close()), (pass_time, stall()))) as up,
        make() as transport,
    ):
        await ask(transport, call_to(up.url))
        fault = await fault_of(transport, call_to(up.url, total_s=0.3))
        assert (fault.code, len(up.requests)) == ("upstream_timeout", 3)
        assert "did not finish its answer within 0.3 s" in fault.public


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("script", [GOOD, (error(503, b'{"error": "later"}'),)], ids=["good", "refused"])
async def test_row_60_a_cancel_at_any_step_leaves_nothing_open(
    make: Make, script: tuple[Step, ...], after: bool
) -> None:
    """A call is cancelled at any step: no connection is left in use."""
    async with scripted_upstream(*script) as up, make() as transport:
        for step in range(1, 100):
            with trio.CancelScope() as scope:
                cancelling = CancelAt(trio.lowlevel.current_task(), scope, step, after=after)
                trio.lowlevel.add_instrument(cancelling)
                try:
                    with suppress(UpstreamFault):
                        await ask(transport, call_to(up.url))
                finally:
                    trio.lowlevel.remove_instrument(cancelling)
            assert transport.active_connections == 0, f"step {step}"
            if not cancelling.has_hit:
                break
        assert 1 < step < 99


async def test_a_hundred_streams_at_once(make: Make) -> None:
    async with scripted_upstream(sse_head(), events(EVENTS, gap_s=0.005), end()) as up, make() as transport:
        upstream = HttpUpstream(RESPONSES, lambda _: transport)
        got: list[bytes] = []

        async def one() -> None:
            async with aclosing(await open_answer(upstream, call_to(up.url))) as answer:
                got.append(await read(answer))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)
        assert got == [STREAM] * 100
        assert transport.active_connections == 0


# --- faults of the network -------------------------------------------------------------------------------------------


async def test_an_upstream_that_refuses_connections_is_unreachable(make: Make) -> None:
    with socket.socket() as bound:  # bound, so that no other process can take the port, and not listening
        bound.bind(("127.0.0.1", 0))
        async with make() as transport:
            fault = await fault_of(transport, call_to(f"http://127.0.0.1:{bound.getsockname()[1]}"))
    assert isinstance(fault, UpstreamFault)
    assert fault.code == "upstream_unreachable"
    assert fault.public == (
        "the upstream of model 'nice' cannot be reached: it refused the connection; "
        "check that it is running, and check api_base"
    )
    assert isinstance(fault.__cause__, httpx.ConnectError)


async def test_a_name_that_does_not_resolve_and_a_failed_handshake_have_different_messages(make: Make) -> None:
    async with make(resolver=Resolver(Names())) as transport:
        fault = await fault_of(transport, call_to("http://no.such.name"))
        assert (fault.code, "does not resolve" in fault.public) == ("upstream_unreachable", True)
        async with scripted_upstream(b"HTTP/1.1 400 Bad Request\r\n\r\n", close(), reads=False) as up:
            fault = await fault_of(transport, call_to(up.url.replace("http://", "https://")))
        assert (fault.code, "TLS handshake failed" in fault.public) == ("upstream_unreachable", True)


PROTOCOL_FAULTS: dict[str, tuple[Step, ...]] = {
    "closed before the head": (close(),),
    "reset before the head": (reset(),),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", stall()),
    "reset mid-stream": (sse_head(), events(EVENTS), wait(0.02), reset()),
    "closed mid-stream": (sse_head(), events(EVENTS), close()),
    "bad chunk": (sse_head(), events(EVENTS), b"zz\r\n", stall()),
    "redirect": (error(302, headers=[("location", "https://example.com/")]),),
    "HTML": (error(200, b"<html>sign in</html>", content_type="text/html"),),
    "gzip": (
        sse_head(headers=[("content-encoding", "gzip")], length=len(gzip.compress(STREAM))),
        gzip.compress(STREAM),
    ),
    "no content": (head(204),),
}


@pytest.mark.parametrize("name", PROTOCOL_FAULTS)
async def test_a_broken_protocol_has_its_code(make: Make, name: str) -> None:
    async with scripted_upstream(*PROTOCOL_FAULTS[name]) as up, make() as transport:
        fault = await fault_of(transport, call_to(up.url))
        assert isinstance(fault, UpstreamFault)
        assert fault.code == "upstream_protocol"
        assert fault.public.startswith("the upstream of model 'nice' ")
        assert transport.active_connections == 0
        if name == "HTML":
            assert "'text/html'" in fault.public
            assert "sign in" not in fault.public
        if name == "redirect":
            assert (fault.status_hint, "example.com" in fault.public) == (302, False)


async def test_data_before_a_fault_is_returned_first(make: Make) -> None:
    async with scripted_upstream(sse_head(), events(EVENTS), b"zz\r\n", stall()) as up, make() as transport:
        got = b""
        async with aclosing(await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))) as answer:
            while got != STREAM:
                got += await answer.receive()
            with pytest.raises(UpstreamFault) as caught:
                await answer.receive()
        assert caught.value.code == "upstream_protocol"
        assert_has_no_secret(caught.value)


async def test_a_missing_content_type_is_a_fault_if_json_was_requested(make: Make) -> None:
    async with scripted_upstream(sse_head(content_type=None), end()) as up, make() as transport:
        fault = await fault_of(transport, call_to(up.url, stream=False))
        assert (fault.code, "no content-type" in fault.public) == ("upstream_protocol", True)


async def test_a_full_pool_is_our_overload(make: Make) -> None:
    async with scripted_upstream(sse_head(), stall()) as up, make(max_connections=1) as transport:
        async with aclosing(await open_answer(HttpUpstream(RESPONSES, lambda _: transport), call_to(up.url))):
            fault = await fault_of(transport, call_to(up.url, connect_s=0.05))
    assert isinstance(fault, Overloaded)
    assert (fault.code, fault.retry_after_s) == ("upstream_pool_full", 1.0)


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "limits", "message"),
    [
        ((stall(),), {"headers_s": 0.1}, "did not begin to answer within 0.1 s"),
        ((sse_head(), stall()), {"first_event_s": 0.1}, "began to answer but sent nothing within 0.1 s"),
        ((sse_head(), events(EVENTS), stall()), {"idle_s": 0.1}, "nothing came within 0.1 s"),
        ((sse_head(), events([b"x"] * 99, gap_s=0.02)), {"total_s": 0.1}, "did not finish its answer within 0.1 s"),
        ((stall(),), {"total_s": 0.1}, "did not finish its answer within 0.1 s"),
    ],
    ids=["headers", "first event", "idle", "total", "total before the head"],
)
async def test_each_deadline_over_sockets(
    make: Make, script: tuple[Step, ...], limits: dict[str, Any], message: str
) -> None:
    async with scripted_upstream(*script) as up, make() as transport:
        started = trio.current_time()
        fault = await fault_of(transport, call_to(up.url, **limits))
        assert 0.1 <= trio.current_time() - started < AT_ONCE_S
        assert isinstance(fault, UpstreamFault)
        assert fault.code == "upstream_timeout"
        assert message in fault.public
        await up.connection_closed()


async def test_a_connect_deadline_has_its_own_message() -> None:
    names = Names(is_dead=True)
    async with HeadraceTransport(resolver=Resolver(names)) as transport:
        fault = await fault_of(transport, call_to("http://slow.name", connect_s=0.05))
    names.answers.set()
    assert (fault.code, "did not accept our connection within 0.05 s" in fault.public) == ("upstream_timeout", True)


@pytest.mark.parametrize(
    ("transport", "limits", "at_s", "message"),
    [
        (Paced(700), {}, 600, "did not begin to answer within 600 s"),
        (Paced(1, 50), {"first_event_s": 30}, 31, "began to answer but sent nothing within 30 s"),
        (Paced(1, 50, 9, 9, 11), {"idle_s": 10}, 79, "nothing came within 10 s"),
        (Paced(1, 5, 5, 5, 5), {"total_s": 13}, 13, "did not finish its answer within 13 s"),
        (Paced(99), {"total_s": 13}, 13, "did not finish its answer within 13 s"),
        (Paced(1, 5, 50), {"total_s": 100, "idle_s": 20}, 26, "nothing came within 20 s"),
    ],
    ids=["headers", "first event", "idle", "total", "total before the head", "idle before total"],
)
async def test_deadlines_pass_when_they_should(
    autojump_clock: trio.testing.MockClock, transport: Paced, limits: dict[str, Any], at_s: float, message: str
) -> None:
    started = trio.current_time()
    fault = await fault_of(transport, call_to("http://x", **limits))
    assert trio.current_time() - started == pytest.approx(at_s)
    assert (fault.code, message in fault.public) == ("upstream_timeout", True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "text/plain"])
@pytest.mark.parametrize("parts", [(b"\n", b"\r\nda", b"ta: {}\n\n"), (b"\n", b" ", b'{"id": 1}')])
async def test_what_an_answer_is_is_told_from_as_many_reads_as_that_takes(
    autojump_clock: trio.testing.MockClock, parts: tuple[bytes, ...], content_type: str, stream: bool
) -> None:
    transport = Paced(1, *[1] * len(parts), parts=parts, content_type=content_type)
    upstream = HttpUpstream(RESPONSES, lambda _: transport)
    async with aclosing(await open_answer(upstream, call_to("http://x", stream=stream))) as answer:
        assert await answer.receive() == b"".join(parts)
        assert answer.is_stream is (b"data" in b"".join(parts))
        assert await answer.receive() == b""


async def test_no_deadline_passes_while_events_arrive(autojump_clock: trio.testing.MockClock) -> None:
    limits: dict[str, Any] = {"headers_s": 6, "first_event_s": 6, "idle_s": 6, "total_s": None}
    assert await ask(Paced(5, *[5] * 1000), call_to("http://x", **limits)) == b"x" * 1000
    assert (
        await ask(Paced(900, 900, 900), call_to("http://x", headers_s=None, first_event_s=None, idle_s=None)) == b"xx"
    )


async def test_time_that_the_consumer_takes_does_not_count(autojump_clock: trio.testing.MockClock) -> None:
    async with aclosing(
        await open_answer(HttpUpstream(RESPONSES, lambda _: Paced(1, 1, 1)), call_to("http://x", idle_s=2))
    ) as answer:
        await answer.receive()
        await trio.sleep(1000)
        assert await answer.receive() == b"x"


# --- error statuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "upstream_rejected"),
        (401, "upstream_unauthorized"),
        (403, "upstream_unauthorized"),
        (404, "upstream_not_found"),
        (409, "upstream_rejected"),
        (422, "upstream_rejected"),
        (429, "upstream_rate_limited"),
        (500, "upstream_error"),
        (503, "upstream_error"),
        (529, "upstream_error"),
        (600, "upstream_protocol"),
    ],
)
async def test_each_status_has_its_code(make: Make, status: int, code: str) -> None:
    body = {"error": {"message": "No.", "type": "t", "param": "input[0]", "code": "c"}}
    async with scripted_upstream(json_answer(body, status)) as up, make() as transport:
        fault = await fault_of(transport, call_to(up.url))
        assert isinstance(fault, UpstreamFault)
        assert (fault.code, fault.status_hint, fault.param) == (code, status, "input[0]")
        assert fault.upstream_code == "c"
        remedy = "; if that server has Chat Completions only, set use_chat_completions_api: true"
        assert fault.public == (
            f"upstream answered 404: No{remedy}" if status == 404 else f"upstream answered {status}: No."
        )
        assert transport.active_connections == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "a"}}', "a"),
        (b'{"error": "b"}', "b"),
        (b'{"message": "c"}', "c"),
        (b'{"detail": "d"}', "d"),
        (b'{"detail": [{"loc": ["body"], "msg": "e", "type": "t"}]}', "e"),
        (b'[{"error": {"code": 400, "message": "f", "status": "INVALID"}}]', "f"),
        (b'{"error": {"message": "two\\nlines"}}', "two lines"),
        (b'{"error": {"message": ""}}', "Bad Request"),
        (b'{"error": {"code": 1}}', "Bad Request"),
        (b"<html><h1>nginx</h1></html>", "Bad Request"),
        (b"plain text", "plain text"),
        (b'{"error": {"message": "cut of', "Bad Request"),
        (b'{"error": {"message": "\xff"}}', "Bad Request"),
        (b"[" * 60_000, "Bad Request"),
        (b"[]", "Bad Request"),
        (b"", "Bad Request"),
        (json.dumps({"error": "x" * 5000}).encode(), "x" * 1999 + "…"),
        (json.dumps({"error": "x" * 70_000}).encode(), "Bad Request"),
    ],
    ids=range(18),
)
async def test_the_upstreams_own_message_is_found_in_many_shapes(make: Make, body: bytes, message: str) -> None:
    async with scripted_upstream(error(400, body)) as up, make() as transport:
        assert (await fault_of(transport, call_to(up.url))).public == f"upstream answered 400: {message}"


@pytest.mark.parametrize(
    ("message", "redacted"),
    [
        (f"Incorrect API key provided: {KEY}. See x.", "Incorrect API key provided: [redacted]. See x."),
        ("Incorrect API key provided: sk-proj-********CRET. See", "Incorrect API key provided: [redacted]. See"),
        ("Incorrect API key provided: sk-abc***xyz.", "Incorrect API key provided: [redacted]."),
        ("bad sk-ab...yz, sorry", "bad [redacted], sorry"),
        (f"header 'Authorization: Bearer {KEY}'", "header 'Authorization: [redacted]'"),
        ("got Bearer abc.def-ghi", "got Bearer [redacted]"),
        ("got Basic dXNlcjpwYXNz!", "got Basic [redacted]!"),
        ("token eyJhbGciOiJI.eyJzdWIi.c2ln is old", "token [redacted] is old"),
        ("key AIzaSyA1234567890 is off", "key [redacted] is off"),
        ("your key ********WXYZ is off", "your key [redacted] is off"),
        ("my-own-plain-SECRET-key is off", "[redacted] is off"),
        ("Your risk-based task-list is sk", "Your risk-based task-list is sk"),
        ("model 'gpt-5-basic' at the org-123 level", "model 'gpt-5-basic' at the org-123 level"),
    ],
)
async def test_echoed_keys_are_redacted(make: Make, message: str, redacted: str) -> None:
    headers = (("Authorization", f"Bearer {KEY}"), ("api-key", "my-own-plain-SECRET-key"))
    async with scripted_upstream(json_answer({"error": {"message": message}}, 401)) as up, make() as transport:
        fault = await fault_of(transport, call_to(up.url, headers=headers))
        assert fault.public == f"upstream answered 401: {redacted}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([("retry-after", "7")], 7.0),
        ([("retry-after-ms", "250"), ("retry-after", "1")], 0.25),
        (
            [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")],
            30.0,
        ),
        ([("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], 0.0),
        ([("retry-after", "soon")], None),
        ([("retry-after", "-1")], None),
        ([], None),
    ],
)
async def test_retry_after_is_parsed(make: Make, headers: list[tuple[str, str]], seconds: float | None) -> None:
    async with scripted_upstream(error(429, b"{}", headers=headers)) as up, make() as transport:
        fault = await fault_of(transport, call_to(up.url))
        assert (fault.code, fault.retry_after_s) == ("upstream_rate_limited", seconds)
        assert fault.public == "upstream answered 429: Too Many Requests"


async def test_an_endless_broken_or_unknown_error_body_is_replaced_by_the_status(make: Make) -> None:
    scripts: list[tuple[Step, ...]] = [
        (error(503, b"\x1b\x11\x00", headers=[("content-encoding", "br")]),),
        (error(503, gzip.compress(b'{"error":"hidden"}')[:-20], headers=[("content-encoding", "gzip")]),),
        (head(503, [("transfer-encoding", "chunked")]), events([b"x" * 60_000] * 3), stall()),
        (head(503, [("content-length", "99")]), b'{"er', reset()),
    ]
    async with scripted_upstream(in_turn(*scripts)) as up, make() as transport:
        for _ in scripts:
            fault = await fault_of(transport, call_to(up.url))
            assert (fault.code, fault.public) == ("upstream_error", "upstream answered 503: Service Unavailable")
        assert transport.active_connections == 0


async def test_an_error_body_that_does_not_arrive_takes_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    class Refusing(Paced):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            response.status_code = 500
            return response

    started = trio.current_time()
    fault = await fault_of(Refusing(1, 500), call_to("http://x"))
    assert trio.current_time() - started == pytest.approx(6)
    assert fault.public == "upstream answered 500: Internal Server Error"


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1:1", (("Authorization", f"Bearer {KEY}\n"),)),
        ("http://127.0.0.1:1", (("Authorization", f"Bearer {KEY}\N{ZERO WIDTH SPACE}"),)),
        ("http://127.0.0.1:1", (("Authorization", f"Bearer {KEY}\r\nx-evil: 1"),)),
        ("http://127.0.0.1:1", ((f"{KEY}\n", "x"),)),
        ("http://127.0.0.1:1/SECRET\n", ()),
        ("ftp://SECRET", ()),
        ("http://[SECRET", ()),
        ("http://SECRET..x", ()),
    ],
)
async def test_an_invalid_address_or_header_is_reported_without_its_value(
    make: Make, url: str, headers: tuple[tuple[str, str], ...]
) -> None:
    async with make() as transport:
        with pytest.raises(UpstreamFault) as caught:
            await ask(transport, call_to(url, headers=headers))
    fault = caught.value
    assert fault.code == "upstream_unreachable"
    assert "api_base" in fault.public
    assert "SECRET" not in fault.public + repr(fault) + repr(fault.__context__)
    if headers:
        assert_has_no_secret(fault)


@asynccontextmanager
async def raising(failure: Exception) -> AsyncGenerator[httpx.AsyncBaseTransport]:
    class Raises(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise failure

    yield Raises()


async def test_row_63_messages_do_not_contain_texts_of_foreign_exceptions() -> None:
    """An exception of a library quotes a secret: it is not in our message."""
    for failure in (
        httpx.LocalProtocolError("Illegal header value b'Bearer sk-SECRET\\n'"),
        UnicodeEncodeError("ascii", "sk-SECRET", 0, 1, "no"),
        httpx.InvalidURL("http://user:SECRET@x"),
    ):
        async with raising(failure) as transport:
            fault = await fault_of(transport, call_to("http://x"))
            assert fault.__cause__ is None
    async with raising(httpx.ReadError("peer said SECRET")) as transport:
        with pytest.raises(UpstreamFault) as caught:
            await ask(transport, call_to("http://x"))
        assert "SECRET" not in caught.value.public
        assert isinstance(caught.value.__cause__, httpx.ReadError)


async def test_a_bug_in_a_transport_is_not_reported_as_the_upstreams_fault() -> None:
    async with raising(ValueError("oops")) as transport:
        with pytest.raises(ValueError, match="oops"):
            await ask(transport, call_to("http://x"))
