"""The end of an answer, whatever the upstream does at it: on every kind of upstream, and over both transports.

An upstream may send all of an answer and then neither its last event nor the end of the stream (row 75), or may have
closed the connection over which the next request is sent (row 74). The client gets all of its answer in either case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.raw import RawClient
from kit.service.records import assert_sums
from kit.service.running import Service, model, serving
from kit.time.patience import AT_ONCE_S
from kit.upstreams.kinds import ANSWERS, TEXT
from kit.upstreams.scripted import (
    Exchange,
    ScriptedUpstream,
    Step,
    close,
    event,
    in_turn,
    json_answer,
    reset,
    scripted_upstream,
    sse_head,
    stall,
)

from stages.decode_events import END_GRACE_S, decode_events

GRACE_S = 0.1

each_kind = pytest.mark.parametrize("kind", ANSWERS)
each_transport = pytest.mark.parametrize("transport", ["headrace", "httpx"])
both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less long for the end of an answer than a service does, so that many cases take little time."""
    assert decode_events.tick_s == END_GRACE_S
    monkeypatch.setattr(decode_events, "tick_s", GRACE_S)


@asynccontextmanager
async def asking(
    kind: str, transport: str, *script: Step, execution: str = "fused"
) -> AsyncIterator[tuple[Service, ScriptedUpstream]]:
    """Serve the model ``up``, whose upstream of this kind follows the script; a silence may last a minute."""
    pipeline = f"  transport: {transport}\n  execution: {execution}"
    async with scripted_upstream(*script) as upstream:
        up = model("up", upstream.url, upstream=ANSWERS[kind].upstream, timeout=60, stream_timeout=60)
        async with serving(up, pipeline) as service:
            yield service, upstream


async def post(service: Service, *, stream: bool) -> Folded:
    """Post a request on a new connection, and return what its client got."""
    async with await RawClient.open(("127.0.0.1", service.port)) as client:
        body = ask(stream=stream)
        if stream:
            body["stream_options"] = {"include_usage": True}
        await client.send(post_bytes(body))
        answer = await client.read_answer()
        assert (answer.status, (await client.ask(path="/livez")).status) == (200, 200), answer.body
    return (fold_stream if stream else fold_document)(answer.body)


def assert_whole(folded: Folded, record: dict[str, Any]) -> None:
    assert (folded.content, folded.finish_reason, folded.error) == (TEXT, "stop", None)
    assert folded.usage is not None
    assert (folded.usage["prompt_tokens"], folded.usage["completion_tokens"]) == (3, 2)
    assert (record["end"], record["prompt_tokens"], record["completion_tokens"]) == ("OK", 3, 2)
    assert_sums(record)
    assert record["first_token_ms"] is not None


class Finish:
    """Sends all of an answer but its last event and the end of the stream, and notes when.

    Args:
        kind: of the upstream.
        idle: sent again and again after that.
    """

    def __init__(self, kind: str, idle: bytes = b"") -> None:
        self._answer = ANSWERS[kind]
        self._idle = idle
        self.at: list[float] = []

    async def __call__(self, exchange: Exchange) -> None:
        for part in (*self._answer.text, *self._answer.finish):
            await event(part)(exchange)
        self.at.append(trio.current_time())
        while self._idle:
            await trio.sleep(0.05)
            await event(self._idle)(exchange)


@each_kind
@each_transport
@both_ways
@pytest.mark.usefixtures("short_grace")
async def test_row_75_an_answer_ends_within_a_second_of_its_finish_whatever_the_upstream_leaves_out(
    kind: str, transport: str, stream: bool
) -> None:
    """The upstream sends a finish and then neither `[DONE]` nor the end: the answer is whole within a second."""
    finish = Finish(kind)
    grace_s = 0 if kind == "responses" else GRACE_S  # there the finish is the last event
    script = in_turn((sse_head(), finish, stall()), (ANSWERS[kind].whole(),))
    async with asking(kind, transport, script) as (service, upstream):
        folded = await post(service, stream=stream)
        assert trio.current_time() - finish.at[0] < grace_s + AT_ONCE_S
        record = await service.record()
        assert_whole(folded, record)
        assert record["points_ms"]["upstream_end"] <= record["points_ms"]["last_byte_out"]
        assert service.app.clients.active_connections == 0
        # What it has left behind does not spoil the next answer.
        assert_whole(await post(service, stream=stream), await service.record(1))
        assert len(upstream.connections) == 2


@pytest.mark.parametrize(
    ("kind", "idle"),
    [("chat", b": still here\n\n"), ("anthropic", b": still here\n\n"), ("anthropic", b'data: {"type": "ping"}\n\n')],
)
@each_transport
@pytest.mark.usefixtures("short_grace")
async def test_row_75_what_keeps_the_connection_alive_does_not_put_the_end_off(
    kind: str, idle: bytes, transport: str
) -> None:
    """Comments and pings after the finish do not put the end off."""
    finish = Finish(kind, idle)
    async with asking(kind, transport, sse_head(), finish) as (service, _):
        folded = await post(service, stream=True)
        assert trio.current_time() - finish.at[0] < GRACE_S + AT_ONCE_S
        assert_whole(folded, await service.record())


@each_kind
async def test_row_75_an_answer_ends_the_same_if_each_stage_is_a_task(kind: str) -> None:
    """The same if each stage is a task."""
    finish = Finish(kind)
    async with asking(kind, "headrace", sse_head(), finish, stall(), execution="tasks") as (service, _):
        for number, stream in enumerate((True, False)):
            folded = await post(service, stream=stream)
            assert trio.current_time() - finish.at[number] < END_GRACE_S + AT_ONCE_S
            assert_whole(folded, await service.record(number))


@each_kind
@each_transport
@both_ways
@pytest.mark.parametrize("gone", [close(), reset()], ids=["closed", "reset"])
async def test_row_74_a_request_over_a_connection_that_the_upstream_closes_is_sent_once_more(
    kind: str, transport: str, stream: bool, gone: Step
) -> None:
    """The upstream closes a kept connection before it answers: the request is sent once more, on a new one."""
    whole = (ANSWERS[kind].whole(),)
    async with asking(kind, transport, in_turn(whole, (gone,), whole)) as (service, upstream):
        for number in range(2):
            assert_whole(await post(service, stream=stream), await service.record(number))
        assert [received.connection.requests for received in upstream.requests] == [2, 2, 1]
        assert len(upstream.connections) == 2
        _, again, once_more = upstream.requests
        assert (once_more.path, once_more.body) == (again.path, again.body)


@each_transport
async def test_row_74_a_new_connection_that_the_upstream_closes_is_a_502(transport: str) -> None:
    """The new connection is closed too: 502 `upstream_protocol`."""
    async with asking("chat", transport, in_turn((ANSWERS["chat"].whole(),), (close(),))) as (service, upstream):
        await post(service, stream=True)
        answer = await service.post(ask())
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_protocol")
        assert len(upstream.requests) == 3  # once over the kept connection, and once more
        assert (await service.record(1))["end"] == "UP"


async def test_an_answer_that_is_one_document_is_read_to_its_end() -> None:
    chat = {"id": "c", "object": "chat.completion", "model": "m", "choices": []}
    message = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    whole = json_answer({**chat, "choices": [message], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    async def slowly(exchange: Exchange) -> None:
        await exchange.send(whole[:-1])
        await trio.sleep(END_GRACE_S + 0.2)
        await exchange.send(whole[-1:])

    async with asking("chat", "headrace", slowly) as (service, _):
        for number, stream in enumerate((True, False)):
            assert_whole(await post(service, stream=stream), await service.record(number))
