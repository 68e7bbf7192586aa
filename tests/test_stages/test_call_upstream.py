"""Bytes are passed on as they arrive, failures keep their place, and nothing stays open."""

from __future__ import annotations

import pytest
import trio
from kit.service.contexts import call, context
from kit.upstreams.fake_answer import FakeAnswer

from pipeline import ClientFault, Pipeline, UpstreamFault
from pipeline.testing import assert_cancels_cleanly, check_stage, collect
from stages.call_upstream import call_upstream
from stages.events import Failed
from stages.slots import ANSWER
from stages.upstreams import Mark, UpstreamAnswer, UpstreamCall


class Answer(FakeAnswer):
    """Plays its script: bytes, waits in seconds, and perhaps an exception at the end."""

    def __init__(self, upstream: Scripted) -> None:
        super().__init__()
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


class Scripted:
    """An upstream whose head takes a second."""

    def __init__(
        self, *script: bytes | float | Exception, refusal: Exception | None = None, unfit: Exception | None = None
    ) -> None:
        self.script = list(script)
        self.refusal = refusal
        self.unfit = unfit
        self.open_now = 0

    def prepare(self, call: UpstreamCall, /) -> UpstreamCall:
        if self.unfit is not None:
            raise self.unfit
        return call

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
        await trio.sleep(1)
        if self.refusal is not None:
            raise self.refusal
        self.open_now += 1
        return Answer(self)


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


async def test_a_read_waits_for_as_long_as_the_answer_backs_off(autojump_clock: trio.abc.Clock) -> None:
    class Overloaded(Answer):
        @property
        def is_backing_off(self) -> bool:  # type: ignore[override]
            return len(self.script) == 1 and not self.has_backed_off

        has_backed_off = False

        async def back_off(self) -> None:
            await trio.sleep(0.2)
            self.has_backed_off = True

        async def receive(self) -> bytes:
            assert not self.is_backing_off
            return await super().receive()

    class Upstream(Scripted):
        async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
            await super().open(prepared, mark)
            return Overloaded(self)

    started_at = trio.current_time()
    given = await collect(call_upstream({"responses": Upstream(b"one", b"two")}), call(), context=context)
    assert given == [b"one", b"two"]
    assert trio.current_time() - started_at == pytest.approx(1.2)  # the head takes a second


async def test_a_failure_after_the_head_comes_after_the_bytes(autojump_clock: trio.abc.Clock) -> None:
    upstream = Scripted(b"one", UpstreamFault("the connection broke", code="upstream_protocol"))
    given = await collect(call_upstream({"responses": upstream}), call(), context=context)
    assert given == [b"one", Failed("upstream_protocol", "the connection broke")]
    assert upstream.open_now == 0


async def test_the_answer_is_stored_for_the_decoder(autojump_clock: trio.abc.Clock) -> None:
    ctx = context()
    await collect(call_upstream({"responses": Scripted(b"x")}), call(), context=lambda: ctx)
    assert ctx[ANSWER].is_stream


async def test_a_cancel_at_any_step_leaves_no_connection_open(autojump_clock: trio.abc.Clock) -> None:
    upstream = Scripted(b"one", 1.0, b"two")

    async def run() -> None:
        await Pipeline(call_upstream({"responses": upstream})).run([[call()]], context())
        assert upstream.open_now == 0

    assert await assert_cancels_cleanly(run) > 2
    assert upstream.open_now == 0
