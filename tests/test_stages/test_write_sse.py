"""The stream reaches the client with status 200."""

from __future__ import annotations

from kit.service.contexts import FakeResponse, context

from pipeline import Pipeline
from pipeline.testing import check_stage, collect
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
