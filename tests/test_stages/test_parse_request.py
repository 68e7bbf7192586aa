"""The body as it arrives becomes one request, or a clear refusal."""

from __future__ import annotations

import pytest
from kit.service.contexts import context

from pipeline import ClientFault
from pipeline.testing import check_stage, collect
from stages.parse_request import parse_request

BODY = b'{"model": "gpt-5", "input": "hi", "stream": true}'


def test_it_passes_every_check() -> None:
    (request,) = check_stage(parse_request(1000), BODY[:7], BODY[7:20], BODY[20:], context=context, holds_all=True)
    assert (request.requested_model, request.stream, request.body["input"]) == ("gpt-5", True, "hi")


async def test_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    taken = 0

    def endless() -> list[bytes]:
        nonlocal taken
        taken += 1
        return [b"x" * 100]

    from pipeline import Pipeline

    with pytest.raises(ClientFault, match="larger than 1,000 bytes") as refusal:
        await Pipeline(parse_request(1000)).run(iter(endless, None), context())
    assert refusal.value.code == "body_too_large"
    assert taken < 20


async def test_a_body_with_a_content_length_over_the_limit_is_refused_before_its_first_byte() -> None:
    with pytest.raises(ClientFault) as refusal:
        await collect(parse_request(1000), context=lambda: context({b"content-length": b"1001"}))
    assert refusal.value.code == "body_too_large"


async def test_a_body_of_exactly_the_limit_is_accepted() -> None:
    (request,) = await collect(
        parse_request(len(BODY)), BODY, context=lambda: context({b"content-length": b"%d" % len(BODY)})
    )
    assert request.requested_model == "gpt-5"


async def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(ClientFault, match="compressed") as refusal:
        await collect(parse_request(1000), BODY, context=lambda: context({b"content-encoding": b"gzip"}))
    assert refusal.value.code == "unsupported_encoding"


async def test_a_bad_field_is_named() -> None:
    with pytest.raises(ClientFault) as refusal:
        await collect(parse_request(1000), b'{"model": 5, "input": "hi"}', context=context)
    assert (refusal.value.param, refusal.value.code) == ("model", "invalid_request")


async def test_the_model_in_the_path_replaces_a_missing_one_in_the_body() -> None:
    (request,) = await collect(parse_request(1000), b'{"input": "hi"}', context=lambda: context(model_in_path="my-gpt"))
    assert request.requested_model == "my-gpt"


async def test_a_chat_body_is_kept_as_it_came_only_if_that_is_wanted() -> None:
    chat = b'{"model": "m", "messages": [{"role": "user", "content": "hi", "name": null}], "odd": {"a": null}}'
    for wanted, body, sent in (
        (True, chat, {"model": "m", "messages": [{"role": "user", "content": "hi", "name": None}], "odd": {"a": None}}),
        (False, chat, None),
        (True, BODY, None),  # in the shape of Responses
    ):
        (request,) = await collect(parse_request(1000, keeps_sent=wanted), body, context=context)
        assert request.sent == sent
