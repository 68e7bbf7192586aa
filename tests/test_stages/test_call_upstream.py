"""Bytes are passed on as they arrive, failures keep their place, and nothing stays open."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kit.engine.lanes import spent_s
from kit.service.contexts import call, context
from kit.upstreams.fake_answer import FakeAnswer

from pipeline import ClientFault, Pipeline, RequestContext, UpstreamFault, codec_stage
from pipeline.testing import assert_cancels_cleanly, check_stage, collect, virtual_ns
from pipeline.timeline import Point
from stages.call_upstream import call_upstream
from stages.events import Failed
from stages.slots import IS_STREAM, SENT_REASONING
from stages.upstreams import Mark, UpstreamAnswer, UpstreamCall

HEAD_S = 1.0


class Answer(FakeAnswer):
    """Plays its script: bytes, waits in seconds, and perhaps an exception at the end."""

    def __init__(self, upstream: Scripted) -> None:
        super().__init__(is_stream=upstream.is_stream)
        self.upstream = upstream
        self.script = list(upstream.script)

    async def receive(self) -> bytes:
        while self.script:
            item = self.script.pop(0)
            if isinstance(item, Exception):
                raise item
            if isinstance(item, bytes):
                return item
            await trio.sleep(item)
        return b""

    async def aclose(self, *, is_answered: bool = False) -> None:
        self.upstream.open_now -= 1
        self.upstream.answered.append(is_answered)


class Scripted:
    """An upstream whose head takes a second.

    Attributes:
        open_now: how many answers are open.
        answered: what each answer was told when it was closed.
    """

    def __init__(
        self,
        *script: bytes | float | Exception,
        refusal: Exception | None = None,
        unfit: Exception | None = None,
        is_stream: bool = True,
        answer: type[Answer] = Answer,
    ) -> None:
        self.script = list(script)
        self.refusal = refusal
        self.unfit = unfit
        self.is_stream = is_stream
        self.open_now = 0
        self.answered: list[bool] = []
        self._answer = answer

    def prepare(self, call: UpstreamCall, /) -> UpstreamCall:
        if self.unfit is not None:
            raise self.unfit
        return call

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
        mark("upstream_sent")
        await trio.sleep(HEAD_S)
        if self.refusal is not None:
            raise self.refusal
        mark("upstream_head")
        self.open_now += 1
        return self._answer(self)


def test_it_passes_every_check_and_waits_only_outside() -> None:
    upstream = Scripted(b"one", 2.0, b"two", b"three")
    given = check_stage(call_upstream({"responses": upstream}), call(), context=context)
    assert given == [b"one", b"two", b"three"]
    assert upstream.open_now == 0


async def test_a_refusal_is_raised_so_that_it_can_become_a_status(autojump_clock: trio.abc.Clock) -> None:
    refusal = UpstreamFault("upstream answered 503", code="upstream_error", status_hint=503)
    with pytest.raises(UpstreamFault) as raised:
        await collect(call_upstream({"responses": Scripted(refusal=refusal)}), call(), context=context)
    assert raised.value is refusal
    assert raised.value.stage == "call_upstream"


async def test_a_request_without_a_form_in_the_upstreams_api_is_refused_before_it_is_sent(
    autojump_clock: trio.abc.Clock,
) -> None:
    unfit = ClientFault("input[0] has no form in this API", code="invalid_request")
    started_at = trio.current_time()
    with pytest.raises(ClientFault) as raised:
        await collect(call_upstream({"responses": Scripted(unfit=unfit)}), call(), context=context)
    assert raised.value is unfit
    assert trio.current_time() == started_at  # nothing was sent


MISMATCH = (
    "upstream answered 400: messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a "
    "different conversation. Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior`."
)
USER: dict[str, str] = {"role": "user", "content": "hi"}
THOUGHT = {"type": "reasoning", "summary": [], "anthropic_blocks": [{"type": "thinking", "signature": "s"}]}
WITH_THOUGHT = {"input": [USER, THOUGHT, {"role": "assistant", "content": "a"}, USER], "store": False}


class Forgetful:
    has_forgotten = False

    def plain_input(self, items: list[dict[str, Any]], /) -> list[dict[str, Any]]:
        return items

    def forget(self) -> None:
        self.has_forgotten = True


class RefusesReasoning(Scripted):
    """Refuses each request that has reasoning of earlier turns, or the first ``refusals`` requests."""

    def __init__(self, message: str = MISMATCH, status: int = 400, refusals: int = 0) -> None:
        super().__init__(b"answer")
        self.fault = UpstreamFault(message, code="upstream_rejected", status_hint=status)
        self.refusals = refusals
        self.bodies: list[dict[str, Any]] = []

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
        self.bodies.append(prepared.request.body)
        if THOUGHT in list(prepared.request.body["input"]) or len(self.bodies) <= self.refusals:
            self.refusal = self.fault
        else:
            self.refusal = None
        return await super().open(prepared, mark)


@pytest.mark.parametrize(
    "message",
    [
        MISMATCH,
        "upstream answered 400: messages.1.content.0: Invalid `signature` in `thinking` block",
        "upstream answered 400: Invalid signature in thinking block",
        "upstream answered 400: messages.9.content.0: `thinking` or `redacted_thinking` blocks in the latest "
        "assistant message cannot be modified. These blocks must remain as they were in the original response.",
        "upstream answered 400: messages.1.content.0: each thinking block must contain non-whitespace thinking",
    ],
)
async def test_what_refuses_earlier_reasoning_is_asked_once_more_without_it(
    message: str, autojump_clock: trio.abc.Clock
) -> None:
    upstream, asked, sent = RefusesReasoning(message), call(body=WITH_THOUGHT), Forgetful()
    ctx = context(upstream_call=asked)
    ctx[SENT_REASONING] = sent
    assert await collect(call_upstream({"responses": upstream}), asked, context=lambda: ctx) == [b"answer"]
    first, second = upstream.bodies
    assert second == {**first, "input": [item for item in first["input"] if item is not THOUGHT]}
    assert asked.request.mended == {"thinking_dropped"}
    assert sent.has_forgotten
    assert upstream.open_now == 0


@pytest.mark.parametrize(
    ("body", "message", "status"),
    [
        ({"input": "hi"}, MISMATCH, 400),
        ({"input": [USER]}, MISMATCH, 400),
        (WITH_THOUGHT, "upstream answered 400: prompt is too long", 400),
        (WITH_THOUGHT, MISMATCH, 503),
    ],
)
async def test_other_refusals_are_final(
    body: dict[str, Any], message: str, status: int, autojump_clock: trio.abc.Clock
) -> None:
    upstream, asked = RefusesReasoning(message, status, refusals=9), call(body=body)
    with pytest.raises(UpstreamFault, match="upstream answered"):
        await collect(call_upstream({"responses": upstream}), asked, context=context)
    assert len(upstream.bodies) == 1
    assert not asked.request.mended


async def test_a_second_refusal_is_reported_and_forgets_nothing(autojump_clock: trio.abc.Clock) -> None:
    upstream, asked, sent = RefusesReasoning(refusals=2), call(body=WITH_THOUGHT), Forgetful()
    ctx = context(upstream_call=asked)
    ctx[SENT_REASONING] = sent
    with pytest.raises(UpstreamFault):
        await collect(call_upstream({"responses": upstream}), asked, context=lambda: ctx)
    assert len(upstream.bodies) == 2
    assert not sent.has_forgotten


async def test_without_a_store_there_is_nothing_to_forget(autojump_clock: trio.abc.Clock) -> None:
    given = await collect(call_upstream({"responses": RefusesReasoning()}), call(body=WITH_THOUGHT), context=context)
    assert given == [b"answer"]


class BackingOff(Answer):
    """Does not want to be read before the last item of its script, for 0.2 s."""

    BACKOFF_S = 0.2
    has_backed_off = False

    @property
    def is_backing_off(self) -> bool:  # type: ignore[override]
        return len(self.script) == 1 and not self.has_backed_off

    async def back_off(self) -> None:
        await trio.sleep(self.BACKOFF_S)
        self.has_backed_off = True

    async def receive(self) -> bytes:
        assert not self.is_backing_off
        return await super().receive()


async def test_a_read_waits_for_as_long_as_the_answer_backs_off(autojump_clock: trio.abc.Clock) -> None:
    started_at = trio.current_time()
    upstream = Scripted(b"one", b"two", answer=BackingOff)
    given = await collect(call_upstream({"responses": upstream}), call(), context=context)
    assert given == [b"one", b"two"]
    assert trio.current_time() - started_at == pytest.approx(HEAD_S + BackingOff.BACKOFF_S)


async def figures_of(upstream: Scripted) -> RequestContext:
    """Run the stage on trio's clock, and return the request with its figures."""
    ctx = context(clock=virtual_ns)
    await collect(call_upstream({"responses": upstream}), call(), context=lambda: ctx)
    return ctx


async def test_what_it_waits_for_is_the_upstreams_time_but_a_pause_of_our_own_is_ours(
    autojump_clock: trio.abc.Clock,
) -> None:
    ctx = await figures_of(Scripted(2.0, b"one", b"two", answer=BackingOff))
    client_ns, ours_ns, upstream_ns = ctx.timeline.parties_ns(virtual_ns())
    assert client_ns == 0
    assert ours_ns / 1e9 == pytest.approx(BackingOff.BACKOFF_S)
    assert upstream_ns / 1e9 == pytest.approx(HEAD_S + 2.0)
    assert spent_s(ctx.lanes[0]) == {"outside": pytest.approx(HEAD_S + 2.0 + BackingOff.BACKOFF_S)}


class Late(Answer):
    """Had arrived half a second before it was read."""

    LATE_S = 0.5

    @property
    def arrived_ns(self) -> int:  # type: ignore[override]
        return virtual_ns() - round(self.LATE_S * 1e9)


async def test_bytes_that_had_arrived_while_the_loop_was_busy_were_inside_from_then_on(
    autojump_clock: trio.abc.Clock,
) -> None:
    ctx = await figures_of(Scripted(2.0, b"one", 2.0, b"two", answer=Late))
    [lane] = ctx.lanes
    in_time_s = HEAD_S + 4.0 - 3 * Late.LATE_S  # the head, and two reads
    assert spent_s(lane) == {"outside": pytest.approx(in_time_s), "ready": pytest.approx(3 * Late.LATE_S)}
    _, ours_ns, upstream_ns = ctx.timeline.parties_ns(virtual_ns())
    assert ours_ns / 1e9 == pytest.approx(3 * Late.LATE_S)
    assert upstream_ns / 1e9 == pytest.approx(in_time_s)


async def test_the_end_and_the_closing_are_points_after_those_of_the_upstream(autojump_clock: trio.abc.Clock) -> None:
    ctx = await figures_of(Scripted(b"one", 2.0))
    points = {name: (ns - ctx.timeline.born_ns) / 1e9 for name, ns in ctx.timeline.points.items()}
    assert points == {
        "upstream_sent": 0,
        "upstream_head": pytest.approx(HEAD_S),
        "upstream_end": pytest.approx(HEAD_S + 2),
        "upstream_closed": pytest.approx(HEAD_S + 2),
    }


async def test_a_failure_before_the_head_has_no_later_points(autojump_clock: trio.abc.Clock) -> None:
    ctx = context(clock=virtual_ns)
    refused = Scripted(refusal=UpstreamFault("upstream answered 503", code="upstream_error"))
    with pytest.raises(UpstreamFault):
        await collect(call_upstream({"responses": refused}), call(), context=lambda: ctx)
    wanted: set[Point] = {"upstream_sent"}
    assert set(ctx.timeline.points) == wanted


async def test_a_failure_after_the_head_comes_after_the_bytes(autojump_clock: trio.abc.Clock) -> None:
    upstream = Scripted(b"one", UpstreamFault("the connection broke", code="upstream_protocol"))
    given = await collect(call_upstream({"responses": upstream}), call(), context=context)
    assert given == [b"one", Failed("upstream_protocol", "the connection broke")]
    assert upstream.open_now == 0


@pytest.mark.parametrize("is_stream", [True, False])
async def test_whether_the_answer_is_a_stream_is_noted_for_the_decoder(
    is_stream: bool, autojump_clock: trio.abc.Clock
) -> None:
    ctx = context(is_stream=not is_stream)
    await collect(call_upstream({"responses": Scripted(b"x", is_stream=is_stream)}), call(), context=lambda: ctx)
    assert ctx[IS_STREAM] is is_stream


class Corrected(Answer):
    """Its first bytes say that it is a document."""

    async def receive(self) -> bytes:
        chunk = await super().receive()
        self.is_stream = False
        return chunk


async def test_the_first_bytes_may_correct_whether_it_is_a_stream(autojump_clock: trio.abc.Clock) -> None:
    ctx = context()
    await collect(call_upstream({"responses": Scripted(b"{", b"}", answer=Corrected)}), call(), context=lambda: ctx)
    assert ctx[IS_STREAM] is False


async def test_an_answer_whose_reader_has_all_it_wants_is_closed_as_answered(autojump_clock: trio.abc.Clock) -> None:
    class TakesOne:
        done = False

        def feed(self, batch: list[bytes | Failed], /) -> list[bytes | Failed]:
            self.done = True
            return batch

        def flush(self) -> list[bytes | Failed]:
            return []

    take_one = codec_stage("take_one", lambda ctx: TakesOne(), codec=TakesOne)
    for rest in (100.0, b"two"):  # it waits for the upstream, or has more to send
        upstream = Scripted(b"one", rest, 100.0)
        began = trio.current_time()
        given = await Pipeline(call_upstream({"responses": upstream})).then(take_one).run([[call()]], context())
        assert given == [b"one"]
        assert trio.current_time() - began == pytest.approx(HEAD_S)
        assert (upstream.answered, upstream.open_now) == ([True], 0)


async def test_an_answer_that_is_cancelled_or_read_to_its_end_is_closed_as_it_is(
    autojump_clock: trio.abc.Clock,
) -> None:
    for upstream in (Scripted(b"one"), Scripted(b"one", 100.0)):
        with trio.move_on_after(HEAD_S + 1):
            await collect(call_upstream({"responses": upstream}), call(), context=context)
        assert upstream.answered == [False]


async def test_row_60_a_cancel_at_any_step_leaves_no_connection_open(autojump_clock: trio.abc.Clock) -> None:
    """The stage that calls the upstream is cancelled at any step: no connection is left open."""
    upstream = Scripted(b"one", 1.0, b"two")

    async def run() -> None:
        await Pipeline(call_upstream({"responses": upstream})).run([[call()]], context())
        assert upstream.open_now == 0

    assert await assert_cancels_cleanly(run) > 2
    assert upstream.open_now == 0
