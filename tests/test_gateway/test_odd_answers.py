"""Odd answers of upstreams through the real server: mended, never garbled, and an empty one says why.

Each row of `kit.upstreams.odd_answers`, on each upstream kind that it concerns, to a client that streams and to one
that does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from kit.clients.chat_fold import Folded, fold_document, fold_stream
from kit.clients.chat_posts import CURSOR, OPENAI_LIKE, ask
from kit.service.running import Logged, model, serving
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.odd_answers import (
    EMPTY_ANSWERS,
    ODD_ANSWERS,
    UPSTREAMS,
    EmptyAnswer,
    OddAnswer,
    call_item,
    event,
    responses,
)
from kit.upstreams.scripted import Step, end, events, json_answer, scripted_upstream, sse, sse_head

from stages.mending import MENDS

Json = dict[str, Any]


async def answers_to(
    kind: str,
    script: Sequence[Step],
    agents: Sequence[str] = (OPENAI_LIKE,),
    *,
    streams: Sequence[bool] = (True, False),
) -> list[tuple[Folded, Logged]]:
    """Ask once as each agent, streaming and not; return what it gets and the record of its request."""
    found: list[tuple[Folded, Logged]] = []
    async with (
        scripted_upstream(*script) as upstream,
        serving(model("up", upstream.url, upstream=UPSTREAMS[kind])) as service,
    ):
        for agent in agents:
            for stream in streams:
                response = await service.post(ask(stream=stream), user_agent=agent)
                assert response.status_code == 200, response.text
                folded = fold_stream(response.content) if stream else fold_document(response.content)
                found.append((folded, await service.record(len(found))))
    return found


def streamed(stream: Sequence[bytes]) -> tuple[Step, ...]:
    return (sse_head(), events(stream), end())


@pytest.mark.parametrize("case", ODD_ANSWERS, ids=lambda case: case.name)
async def test_rows_76_78_an_odd_answer_is_mended(case: OddAnswer) -> None:
    """The upstream counts oddly, or splits an emoji over two deltas: mended, and nothing is lost."""
    for folded, record in await answers_to(case.kind, streamed(case.events)):
        assert folded.content == case.text
        assert folded.reasoning == case.reasoning
        assert [(call["name"], call["arguments"]) for call in folded.tool_calls] == list(case.calls)
        assert [found["url_citation"]["url"] for found in folded.annotations] == list(case.urls)
        assert folded.finish_reason == ("tool_calls" if case.calls else "stop")
        assert folded.is_done
        assert tuple(record.get("mended", ())) == case.mended


@pytest.mark.parametrize("case", EMPTY_ANSWERS, ids=lambda case: case.name)
async def test_an_empty_answer_says_why_to_cursor(case: EmptyAnswer) -> None:
    for folded, record in await answers_to(case.kind, streamed(case.events), (CURSOR,)):
        assert folded.content == case.shown
        assert (folded.finish_reason, folded.reasoning) == (case.finish, case.reasoning)
        assert record["mended"] == ["empty_answer"]


@pytest.mark.parametrize("case", EMPTY_ANSWERS, ids=lambda case: case.name)
async def test_an_empty_answer_stays_empty_for_other_clients(case: EmptyAnswer) -> None:
    for folded, record in await answers_to(case.kind, streamed(case.events)):
        assert (folded.content, folded.finish_reason, folded.reasoning) == (None, case.finish, case.reasoning)
        assert "mended" not in record


async def test_a_refusal_is_shown_as_text_to_cursor_only() -> None:
    refused = streamed(responses(event("refusal.delta", content_index=0, delta="I will not.")))
    for folded, record in await answers_to("responses", refused, (CURSOR,)):
        assert (folded.content, folded.refusal) == ("I will not.", "I will not.")
        assert "mended" not in record
    for folded, _ in await answers_to("responses", refused):
        assert (folded.content, folded.refusal) == (None, "I will not.")


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        ("chat", [sse(chat_stream.chunk({"content": "a"}, "null"))]),
        (
            "anthropic",
            [*map(sse, [anthropic_stream.head(), *anthropic_stream.text(0, "a"), anthropic_stream.last("null")])],
        ),
    ],
)
async def test_a_finish_reason_null_in_words_and_then_a_cut_is_an_error(kind: str, stream: list[bytes]) -> None:
    [(folded, record)] = await answers_to(kind, streamed(stream), streams=[True])
    assert folded.content == "a"
    assert folded.error is not None
    assert folded.error["code"] == "upstream_protocol"
    assert record["mended"] == ["finish"]
    [(shown, _)] = await answers_to(kind, streamed(stream), (CURSOR,), streams=[True])
    assert shown.content is not None
    assert shown.content.startswith("a\n\n[upstream error: ")


# Documents, for a client that does not stream.


_CALLING = {"id": "resp_1", "status": "completed", "output": [call_item({"x": 1})]}
_CHAT_CALL = chat_stream.call(None, None, "f", {"x": 1})
_DETAIL = {"type": "reasoning.text", "text": "hm"}


@pytest.mark.parametrize(
    ("kind", "document", "text", "reasoning", "arguments"),
    [
        ("responses", _CALLING, None, "", ['{"x": 1}']),
        ("chat", chat_stream.document({"tool_calls": [_CHAT_CALL, _CHAT_CALL]}), None, "", ['{"x": 1}', '{"x": 1}']),
        ("chat", chat_stream.document({"content": "a", "thinking": "hm"}), "a", "hm", []),
        ("chat", chat_stream.document({"content": "a", "reasoning_details": [_DETAIL]}), "a", "hm", []),
        (
            "chat",
            chat_stream.document({"content": "a", "reasoning": "hm", "reasoning_details": [_DETAIL]}),
            "a",
            "hm",
            [],
        ),
        ("gemini", chat_stream.document({"content": "<thought>hm</thought>a"}), "a", "hm", []),
    ],
    ids=["objects", "objects in chat", "thinking", "reasoning_details", "details beside reasoning", "thought tags"],
)
async def test_an_odd_document_is_mended(
    kind: str, document: Json | bytes, text: str | None, reasoning: str, arguments: list[str]
) -> None:
    body = json.loads(document) if isinstance(document, bytes) else document
    [(folded, _)] = await answers_to(kind, (json_answer(body),), streams=[False])
    assert (folded.content, folded.reasoning) == (text, reasoning)
    assert [call["arguments"] for call in folded.tool_calls] == arguments


@pytest.mark.parametrize(
    ("kind", "document", "shown"),
    [
        (
            "anthropic",
            anthropic_stream.document(reason="refusal", stop_details={"category": "bio", "explanation": "No."}),
            "[no answer: the model refused to answer (bio): No.]",
        ),
        ("chat", chat_stream.document({"content": None}), "[no answer: the upstream's answer is empty; try again]"),
        (
            "responses",
            json.dumps({"id": "r", "status": "completed", "output": [{"type": "compaction"}]}).encode(),
            "[no answer: the upstream compacted the conversation and ended the turn]",
        ),
    ],
)
async def test_an_empty_document_says_why_to_cursor(kind: str, document: bytes, shown: str) -> None:
    [(folded, record)] = await answers_to(kind, (json_answer(json.loads(document)),), (CURSOR,), streams=[False])
    assert folded.content == shown
    assert record["mended"] == ["empty_answer"]


def test_every_row_uses_words_of_the_vocabulary() -> None:
    used = {word for case in ODD_ANSWERS for word in case.mended} | {"empty_answer", "finish"}
    assert used <= MENDS.keys()
