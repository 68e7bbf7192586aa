"""The document reaches the client."""

from __future__ import annotations

from kit.service.contexts import FakeResponse, context

from pipeline import Pipeline
from pipeline.testing import check_stage
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


async def test_a_client_that_reads_slowly_is_waited_for_outside() -> None:
    response = FakeResponse(is_slow=True)
    ctx = context(response=response)
    await Pipeline(write_json).run([[b"{}"]], ctx)
    assert (response.body, response.ended, response.drains) == (b"{}", True, 1)
