"""The stream reaches the client with status 200."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from kit.engine.lanes import spent_s
from kit.service.contexts import FakeResponse, context

from pipeline import Inlet, Outlet, Pipeline, RequestContext, codec_stage
from pipeline.testing import check_stage, collect, virtual_ns
from stages.keep_alive import COMMENT
from stages.write_sse import write_sse


def test_it_passes_every_check() -> None:
    assert check_stage(write_sse, b"data: 1\n\n", b"data: 2\n\n", context=context) == []


async def test_a_batch_is_one_write_and_the_response_is_ended() -> None:
    response = FakeResponse()
    await Pipeline(write_sse).run([[b"a"], [b"b", b"c"]], context(response=response))
    assert response.status == 200
    assert response.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert response.headers[b"cache-control"] == b"no-cache"
    assert response.headers[b"x-accel-buffering"] == b"no"
    assert response.writes == [b"a", b"bc", b""]
    assert response.ended


async def test_the_response_ends_with_done_and_nothing_follows() -> None:
    response = FakeResponse()
    done = b"data: [DONE]\n\n"
    await Pipeline(write_sse).run([[b"a"], [b"b", done], [b"late"]], context(response=response))
    assert response.writes == [b"a", b"b" + done]
    assert response.ended


async def test_an_empty_stream_is_still_a_response() -> None:
    response = FakeResponse()
    await collect(write_sse, context=lambda: context(response=response))
    assert (response.status, response.body, response.ended) == (200, b"", True)


async def test_only_what_the_client_does_not_accept_at_once_waits() -> None:
    for is_slow, drains in ((False, 0), (True, 3)):
        response = FakeResponse(is_slow=is_slow)
        await Pipeline(write_sse).run([[b"a"], [b"b"]], context(response=response))
        assert response.writes == [b"a", b"b", b""]
        assert (response.ended, response.drains) == (True, drains)


# --- what it notes ---------------------------------------------------------------------------------------------------


class _SeeTokens:
    """Notes the tokens that are marked as such, as decode_events does."""

    def __init__(self, ctx: RequestContext) -> None:
        self._timeline = ctx.timeline

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        if b"token" in batch[0]:
            self._timeline.see_token(is_output=True)
        return batch

    def flush(self) -> list[bytes]:
        return []


see_tokens = codec_stage("see_tokens", _SeeTokens)


async def paced(*script: bytes | float) -> AsyncIterator[list[bytes]]:
    for item in script:
        if isinstance(item, bytes):
            yield [item]
        else:
            await trio.sleep(item)


async def written(response: FakeResponse, *script: bytes | float, is_fused: bool = True) -> RequestContext:
    """Write a stream on trio's clock, and return the request with its figures."""
    ctx = context(response=response, clock=virtual_ns)
    chain = Pipeline(see_tokens).then(write_sse)
    await (chain.fused() if is_fused else chain).run(paced(*script), ctx)
    return ctx


def passed_s(ctx: RequestContext) -> dict[str, float]:
    return {name: round(ns / 1e9, 6) for name, ns in ctx.timeline.points.items()}


both_ways = pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "tasks"])


@both_ways
async def test_what_the_socket_accepts_is_noted_when_it_does(is_fused: bool, autojump_clock: trio.abc.Clock) -> None:
    script = (1.0, b"head", 1.0, b"a token", 1.0, b"a token")
    ctx = await written(FakeResponse(), *script, is_fused=is_fused)
    assert passed_s(ctx) == {"first_byte_out": 1, "first_token": 2, "first_output_token": 2, "first_token_out": 2}
    assert ctx.timeline.client_ns == 0


@both_ways
async def test_a_slow_socket_that_accepts_nothing_has_the_first_byte_when_it_is_drained(
    is_fused: bool, autojump_clock: trio.abc.Clock
) -> None:
    ctx = await written(FakeResponse(is_slow=True, drain_s=10), 1.0, b"a token", is_fused=is_fused)
    assert passed_s(ctx) == {"first_token": 1, "first_output_token": 1, "first_byte_out": 11, "first_token_out": 11}
    assert ctx.timeline.client_ns / 1e9 == pytest.approx(20)  # the end of the response waited as well
    assert spent_s(ctx.lanes[-1])["outside"] == pytest.approx(20)
    assert ctx.timeline.transits_ns(1)[0] / 1e9 == pytest.approx(10, rel=0.03)


@both_ways
async def test_a_slow_socket_that_accepts_a_part_at_once_has_the_first_byte_at_once(
    is_fused: bool, autojump_clock: trio.abc.Clock
) -> None:
    response = FakeResponse(is_slow=True, takes_some=True, drain_s=10)
    ctx = await written(response, 1.0, b"a token", is_fused=is_fused)
    assert passed_s(ctx) == {"first_token": 1, "first_output_token": 1, "first_byte_out": 1, "first_token_out": 1}
    assert ctx.timeline.transits_ns(1)[0] / 1e9 == pytest.approx(10, rel=0.03)  # all of it crossed only then


async def test_the_first_token_is_out_when_its_own_batch_is_and_not_with_one_before_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    response = FakeResponse(is_slow=True, takes_some=True, drain_s=10)
    ctx = await written(response, 1.0, b"head", 1.0, b"a token", is_fused=False)
    # While the client was still to read the head, the token was decoded, by a task of its own.
    assert passed_s(ctx) == {"first_byte_out": 1, "first_token": 2, "first_output_token": 2, "first_token_out": 11}


@both_ways
async def test_a_comment_is_not_a_first_byte_and_crosses_nothing(
    is_fused: bool, autojump_clock: trio.abc.Clock
) -> None:
    for response in (FakeResponse(), FakeResponse(is_slow=True, takes_some=True)):
        ctx = await written(response, 1.0, COMMENT, 1.0, COMMENT, is_fused=is_fused)
        assert response.body == COMMENT * 2
        assert passed_s(ctx) == {}
        assert ctx.timeline.transits_ns(1) == []
        ctx = await written(FakeResponse(), 1.0, COMMENT, 1.0, b"a token", is_fused=is_fused)
        assert passed_s(ctx)["first_byte_out"] == passed_s(ctx)["first_token_out"]


async def test_a_slow_client_is_waited_for_outside_at_the_end_too(autojump_clock: trio.abc.Clock) -> None:
    ctx = await written(FakeResponse(is_slow=True, drain_s=10), 1.0)
    assert ctx.timeline.client_ns / 1e9 == pytest.approx(10)
    assert ctx.timeline.transits_ns(1) == []


class _EndsWithIt:
    """Ends its input with the last batch, as decode_events does with a failure."""

    done = False

    def __init__(self, ctx: RequestContext) -> None: ...

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        self.done = batch == [b"the failure"]
        return batch

    def flush(self) -> list[bytes]:
        return []


class _FullAtTheEnd(FakeResponse):
    """A client whose socket has room for everything but the end of the response."""

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        self._is_slow = last
        return super().write_nowait(data, last=last)


async def test_an_end_that_does_not_fit_is_waited_for_in_the_own_task(autojump_clock: trio.abc.Clock) -> None:
    class Relay:
        name = "relay"
        accepts = emits = bytes

        async def run(self, inlet: Inlet[bytes], outlet: Outlet[bytes], ctx: RequestContext) -> None:
            async for batch in inlet:
                await outlet.send(batch)

    response = _FullAtTheEnd(drain_s=10)
    ends = codec_stage("ends_with_it", _EndsWithIt)
    chain = Pipeline(Relay()).then(ends).then(write_sse).fused()
    await chain.run(paced(1.0, b"text", 1.0, b"the failure"), context(response=response))
    assert (response.body, response.ended, response.drains) == (b"textthe failure", True, 1)
