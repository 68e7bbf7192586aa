"""The document reaches the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from kit.engine.lanes import spent_s
from kit.service.contexts import FakeResponse, context

from pipeline import Pipeline
from pipeline.testing import check_stage, virtual_ns
from stages.write_json import write_json


def test_it_passes_every_check() -> None:
    assert check_stage(write_json, b'{"a"', b": 1}", context=context, holds_all=True) == []


async def test_the_document_is_one_write_with_its_length() -> None:
    response = FakeResponse()
    await Pipeline(write_json).run([[b'{"a"'], [b": 1}"]], context(response=response))
    assert response.status == 200
    assert response.headers == {b"content-type": b"application/json", b"content-length": b"8"}
    assert response.writes == [b'{"a": 1}']
    assert response.ended


async def document() -> AsyncIterator[list[bytes]]:
    """Arrive after a second, and end a second later."""
    await trio.sleep(1)
    yield [b"{}"]
    await trio.sleep(1)


@pytest.mark.parametrize(
    ("response", "first_byte_s", "all_s"),
    [
        (FakeResponse(), 2, 2),
        (FakeResponse(is_slow=True, drain_s=10), 12, 12),
        (FakeResponse(is_slow=True, takes_some=True, drain_s=10), 2, 12),
    ],
    ids=["accepts all", "accepts nothing at once", "accepts a part at once"],
)
async def test_a_client_that_reads_slowly_is_waited_for_outside(
    response: FakeResponse, first_byte_s: float, all_s: float, autojump_clock: trio.abc.Clock
) -> None:
    ctx = context(response=response, clock=virtual_ns)
    await Pipeline(write_json).run(document(), ctx)
    assert (response.body, response.ended) == (b"{}", True)
    assert ctx.timeline.points["first_byte_out"] / 1e9 == pytest.approx(first_byte_s)
    assert trio.current_time() == pytest.approx(all_s)
    waited_s = all_s - 2
    assert response.drains == (waited_s > 0)
    assert ctx.timeline.client_ns / 1e9 == pytest.approx(waited_s)
    assert spent_s(ctx.lanes[0]).get("outside", 0) == pytest.approx(waited_s)
    assert ctx.timeline.transits_ns(1)[0] / 1e9 == pytest.approx(all_s - 1, rel=0.03)  # since it arrived
