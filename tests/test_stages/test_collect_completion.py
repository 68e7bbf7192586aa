"""All events become one document."""

from __future__ import annotations

import json

import pytest
from kit.service.contexts import RECEIVED_S, context

from pipeline import UpstreamFault
from pipeline.testing import check_stage, collect
from stages.collect_completion import collect_completion
from stages.events import Failed, Finished, Started, StreamEvent, TextDelta, Usage

EVENTS: list[StreamEvent] = [
    Started("resp_1", "gpt-5-2026", 0),
    TextDelta("Hel"),
    TextDelta("lo"),
    Usage(3, 2, 5),
    Finished("stop"),
]


def test_it_passes_every_check() -> None:
    (document,) = check_stage(collect_completion, *EVENTS, context=context, holds_all=True)
    completion = json.loads(document)
    assert completion["id"] == "chatcmpl-test-1"
    assert completion["created"] == RECEIVED_S
    assert completion["model"] == "gpt-5"
    assert completion["choices"][0]["message"]["content"] == "Hello"
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["total_tokens"] == 5


async def test_an_answer_that_broke_off_is_an_error() -> None:
    with pytest.raises(UpstreamFault, match="it broke"):
        await collect(collect_completion, *EVENTS[:2], Failed("upstream_error", "it broke"), context=context)
