"""The bridge on any other ASGI server, in virtual time: only ``receive``, ``send`` and a clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import CREATED, CURSOR, OPENAI_LIKE, ask, completed, delta
from kit.service.bridges import COMMENT, Browser, FakeUpstream, bridge_to
from kit.upstreams.scripted import sse

from pipeline import ClientFault, Inlet, Outlet, Plugin, RequestContext, UpstreamFault, per_event
from pipeline.gateway.config.settings import Execution
from pipeline.registry import NoOptions
from stages.events import StreamEvent, TextDelta
from stages.upstreams import UpstreamCall

HELLO = sse(CREATED) + sse(delta("Hello"))
END = sse(completed("Hello"))


async def test_an_answer_arrives_completely_and_is_recorded(autojump_clock: trio.testing.MockClock) -> None:
    for stream in (True, False):
        bridge, records = bridge_to(FakeUpstream(HELLO, END))
        browser = Browser(bridge, ask(stream=stream), pieces=5, x_request_id="id-1")
        await browser.ask()
        folded = (fold_stream if stream else fold_document)(browser.body)
        assert (browser.status, folded.content, folded.id, browser.ended) == (200, "Hello", "chatcmpl-id-1", True)
        assert browser.started is not None
        headers = dict(browser.started["headers"])
        assert headers[b"x-request-id"] == b"id-1"
        [record] = records
        assert (record["end"], record["status"], record["request_id"]) == ("OK", 200, "id-1")
        assert (record["bytes"], record["completion_tokens"]) == (len(browser.body), 2)
        assert "error" not in record
        assert bridge.active == set()


@pytest.mark.parametrize("stream", [True, False])
async def test_row_62_a_send_is_never_cut_in_half(stream: bool, autojump_clock: trio.testing.MockClock) -> None:
    """The client leaves during a send: the send is completed or cut as a whole, and the upstream is closed.

    h11's state advances before its bytes are sent, so a cancelled send would break the connection.
    """
    finished: list[bool] = []

    async def full_socket() -> None:
        finished.append(False)
        await trio.sleep(10)
        finished[-1] = True

    upstream = FakeUpstream(HELLO, END)
    bridge, records = bridge_to(upstream)
    browser = Browser(bridge, ask(stream=stream))
    browser.stuck = full_socket
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(5)  # in the middle of the first send
        assert finished == [False]
        browser.disconnected.set()
        await trio.sleep(1)
        assert finished == [False], "the send continues"
    assert finished
    assert all(finished)
    assert upstream.open == 0
    # A document is one write with its head: it was complete when the client left.
    assert [record["end"] for record in records] == ["DC" if stream else "OK"]
    assert browser.ended is not stream


async def test_a_silent_upstream_causes_comments_every_15_seconds_even_before_its_head(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = FakeUpstream(HELLO, 40.0, END, before_head=(50.0,))
    bridge, records = bridge_to(upstream)
    browser = Browser(bridge, ask())
    began = trio.current_time()
    await browser.ask()
    moments = [round(at - began, 3) for at, part in browser.sent if part == COMMENT]
    assert moments == [15, 30, 45, 65, 80]
    assert fold_stream(browser.body).content == "Hello"
    assert records[0]["end"] == "OK"


async def test_a_client_that_does_not_stream_gets_no_comments(autojump_clock: trio.testing.MockClock) -> None:
    bridge, _ = bridge_to(FakeUpstream(HELLO, END, before_head=(100.0,)))
    browser = Browser(bridge, ask(stream=False))
    await browser.ask()
    assert fold_document(browser.body).content == "Hello"


REFUSAL = UpstreamFault("upstream answered 429: slow down", code="upstream_rate_limited", retry_after_s=3)


async def test_a_failure_after_a_comment_is_reported_in_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    for agent in (OPENAI_LIKE, CURSOR):
        bridge, records = bridge_to(FakeUpstream(before_head=(20.0, REFUSAL)))
        browser = Browser(bridge, ask(), agent=agent)
        await browser.ask()
        assert (browser.status, browser.ended) == (200, True)
        assert browser.body.startswith(COMMENT)
        folded = fold_stream(browser.body)
        if agent == CURSOR:
            assert folded.content is not None
            assert folded.content.endswith("slow down]")
            assert (folded.finish_reason, folded.is_done) == ("stop", True)
        else:
            assert folded.error is not None
            assert folded.error["code"] == "upstream_rate_limited"
            assert not folded.is_done
        assert (records[0]["end"], records[0]["status"], records[0]["error"]) == ("RL", 200, "upstream_rate_limited")


async def test_the_same_failure_before_any_byte_is_a_status(autojump_clock: trio.testing.MockClock) -> None:
    bridge, records = bridge_to(FakeUpstream(before_head=(10.0, REFUSAL)))
    browser = Browser(bridge, ask())
    await browser.ask()
    assert (browser.status, browser.error["code"], browser.ended) == (429, "upstream_rate_limited", True)
    assert browser.started is not None
    assert dict(browser.started["headers"])[b"retry-after"] == b"3"
    assert (records[0]["end"], records[0]["stage"]) == ("RL", "call_upstream")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_that_outlasts_its_budget_and_grace_ends_with_504_or_in_the_stream(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The adapter ends the answer in time; this limit is for an adapter that does not."""
    upstream = FakeUpstream(HELLO, 10_000.0)
    bridge, records = bridge_to(upstream, request_timeout_s=60.0)
    browser = Browser(bridge, ask(stream=stream))
    began = trio.current_time()
    await browser.ask()
    assert trio.current_time() - began == pytest.approx(60 + 30)
    if stream:
        folded = fold_stream(browser.body)
        assert folded.content == "Hello"
        assert folded.error is not None
        assert folded.error["code"] == "deadline_exceeded"
    else:
        assert (browser.status, browser.error["code"]) == (504, "deadline_exceeded")
    assert records[0]["end"] == "UT"
    assert upstream.open == 0


async def test_an_upload_that_stops_is_a_408(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(HELLO, END)
    bridge, records = bridge_to(upstream, body_timeout_s=60.0)
    browser = Browser(bridge, ask())
    browser.upload_stops = True
    began = trio.current_time()
    await browser.ask()
    assert trio.current_time() - began == pytest.approx(60)
    assert (browser.status, browser.error["code"], records[0]["end"]) == (408, "body_timeout", "BR")
    assert upstream.calls == []


async def test_after_the_deadline_requests_are_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bridge, records = bridge_to(FakeUpstream(HELLO, 10.0, END))
    running, too_late = Browser(bridge, ask()), Browser(bridge, ask())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.ask)
        await trio.sleep(11)
        bridge.cut_off()
        await too_late.ask()
        assert (too_late.status, too_late.error["code"]) == (503, "draining")
        assert too_late.started is not None
        assert dict(too_late.started["headers"])[b"retry-after"] == b"1"
    assert fold_stream(running.body).content == "Hello"
    assert [record["end"] for record in records] == ["OK", "DR"]


async def test_requests_that_run_at_the_deadline_end_with_a_message(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(HELLO, 1000.0, END)
    bridge, records = bridge_to(upstream)
    streams, shown, whole = (
        Browser(bridge, ask()),
        Browser(bridge, ask(), agent=CURSOR),
        Browser(bridge, ask(stream=False)),
    )
    uploads = Browser(bridge, ask())
    uploads.upload_stops = True
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for browser in (streams, shown, whole, uploads):
            nursery.start_soon(browser.ask)
        await trio.sleep(1)
        assert len(bridge.active) == 4
        bridge.cut_off()
    assert trio.current_time() - began == pytest.approx(1)
    folded = fold_stream(streams.body)
    assert folded.content == "Hello"
    assert folded.error is not None
    assert folded.error["code"] == "draining"
    assert streams.ended
    text = fold_stream(shown.body)
    assert text.content is not None
    assert text.content.startswith("Hello\n\n[upstream error: draining: ")
    assert text.is_done
    for browser in (whole, uploads):
        assert (browser.status, browser.error["code"]) == (503, "draining")
    assert [record["end"] for record in records] == ["DR"] * 4
    assert bridge.active == set()
    assert upstream.open == 0


async def test_nothing_is_sent_after_a_disconnect(autojump_clock: trio.testing.MockClock) -> None:
    for before_head, sent in (((1000.0,), b""), ((), b"Hello")):
        upstream = FakeUpstream(HELLO, 1000.0, before_head=before_head)
        bridge, records = bridge_to(upstream, keep_alive_interval_s=0)
        browser = Browser(bridge, ask())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(browser.ask)
            await trio.sleep(5)
            browser.disconnected.set()
            await trio.testing.wait_all_tasks_blocked()
            assert upstream.open == 0
        assert sent in browser.body
        assert b"error" not in browser.body
        assert not browser.ended
        assert (records[0]["end"], records[0]["bytes"]) == ("DC", len(browser.body))


async def test_row_36_a_disconnect_between_the_status_and_the_first_chunk_closes_the_upstream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The client leaves after the status and before the first event: the upstream is closed, nothing more is sent."""
    upstream = FakeUpstream(1000.0, HELLO)
    bridge, records = bridge_to(upstream)
    browser = Browser(bridge, ask())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(20)
        assert (browser.status, browser.body) == (200, COMMENT)
        browser.disconnected.set()
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.open == 0
    assert (browser.body, browser.ended) == (COMMENT, False)
    assert (records[0]["end"], records[0]["status"]) == ("DC", 200)


class Fatal(BaseException):
    """What no stage may catch, as a KeyboardInterrupt."""


@pytest.mark.parametrize("execution", ["fused", "tasks"])
@pytest.mark.parametrize("text", ["Hello", " there"], ids=["before the first byte", "afterwards"])
async def test_row_61_what_is_not_an_exception_leaves_the_service_and_cuts_the_response(
    text: str, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    """A stage raises what is not an `Exception`: it leaves the service, the response is cut, the upstream closed."""

    def die(event: StreamEvent) -> list[StreamEvent]:
        if isinstance(event, TextDelta) and event.text == text:
            raise Fatal
        return [event]

    upstream = FakeUpstream(HELLO, 1.0, sse(delta(" there")), END)
    bridge, records = bridge_to(
        upstream, insertion=("decode_events", plugin("die", die, StreamEvent)), execution=execution
    )
    browser = Browser(bridge, ask())
    with pytest.raises(BaseException) as raised:
        await browser.ask()
    fatal = raised.value
    while isinstance(fatal, BaseExceptionGroup):
        (fatal,) = fatal.exceptions
    assert isinstance(fatal, Fatal)
    assert (b"Hello" in browser.body, browser.ended) == (text == " there", False)
    assert (upstream.open, bridge.active, len(records)) == (0, set(), 1)


async def test_a_request_that_is_cancelled_from_outside_leaves_nothing_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    upstream = FakeUpstream(HELLO, 1000.0)
    bridge, records = bridge_to(upstream)
    with trio.move_on_after(5) as outside:
        await Browser(bridge, ask()).ask()
    assert outside.cancelled_caught
    assert (upstream.open, bridge.active, len(records)) == (0, set(), 1)


# Plugins between the first pipeline's stages may do anything.


def plugin(name: str, fn: Any, kind: object) -> Plugin[NoOptions]:
    stage = per_event(fn)
    return Plugin(name, lambda _: stage, NoOptions, kind, kind)


@pytest.mark.parametrize("count", [0, 2])
async def test_a_stage_that_drops_or_duplicates_the_call_is_a_reported_bug(
    count: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def multiply(call: UpstreamCall) -> list[UpstreamCall]:
        return [call] * count

    upstream = FakeUpstream(HELLO, END)
    bridge, records = bridge_to(upstream, insertion=("choose_deployment", plugin("multiply", multiply, UpstreamCall)))
    browser = Browser(bridge, ask())
    await browser.ask()
    assert (browser.status, browser.error["code"]) == (500, "internal_error")
    assert (records[0]["end"], records[0]["error"]) == ("ST", "internal_error")
    assert upstream.calls == []
    assert f"{count} calls" in caplog.text
    assert "stage multiply failed" in caplog.text


class FailAtTheEnd:
    """Passes everything on, and fails five seconds after the end of it."""

    name = "fail_at_the_end"

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)
        with outlet.outside():
            await trio.sleep(5)
        raise UpstreamFault("too late", code="upstream_error")


async def test_a_failure_after_the_last_write_does_not_change_the_response(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stage = Plugin("fail_at_the_end", lambda _: FailAtTheEnd(), NoOptions, StreamEvent, StreamEvent)
    bridge, records = bridge_to(FakeUpstream(HELLO + END), insertion=("decode_events", stage))
    browser = Browser(bridge, ask())
    browser.stuck = lambda: trio.sleep(10)  # the socket is still accepting it when the stage fails
    await browser.ask()
    folded = fold_stream(browser.body)
    assert (folded.content, folded.is_done, folded.error, browser.ended) == ("Hello", True, None, True)
    assert (records[0]["end"], records[0]["status"], records[0]["error"]) == ("UE", 200, "upstream_error")


async def test_a_stage_may_refuse_a_request(autojump_clock: trio.testing.MockClock) -> None:
    def refuse(call: UpstreamCall) -> list[UpstreamCall]:
        raise ClientFault("not on a Sunday", param="model")

    bridge, records = bridge_to(
        FakeUpstream(HELLO, END), insertion=("choose_deployment", plugin("refuse", refuse, UpstreamCall))
    )
    browser = Browser(bridge, ask())
    await browser.ask()
    assert browser.status == 400
    assert browser.error == {
        "message": "not on a Sunday",
        "type": "invalid_request_error",
        "param": "model",
        "code": "invalid_request",
    }
    assert (records[0]["end"], records[0]["stage"]) == ("BR", "refuse")
