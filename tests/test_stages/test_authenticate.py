"""The client is identified by its key before the body is read."""

from __future__ import annotations

import pytest
from kit.service.contexts import RECEIVED_S

from pipeline import ClientFault, RequestContext
from pipeline.testing import check_stage, collect
from stages.authenticate import authenticate
from stages.principal import Principal
from stages.slots import HEAD, PRINCIPAL, ReceivedHead

ALICE = Principal("alice", models=("gpt-*",))


def context(headers: dict[bytes, bytes], *, differing: frozenset[bytes] = frozenset()) -> RequestContext:
    """Return the context of a request that nobody has been identified for yet."""
    ctx = RequestContext("test-1")
    ctx[HEAD] = ReceivedHead(headers, RECEIVED_S, None, differing=differing)
    return ctx


class OneKey:
    def authenticate(self, presented: bytes) -> Principal | None:
        return ALICE if presented == b"sk-alice" else None


def test_it_passes_every_check_and_does_not_change_the_body() -> None:
    def new() -> RequestContext:
        return context({b"authorization": b"Bearer sk-alice"})

    assert check_stage(authenticate(OneKey()), b'{"a"', b": 1", b"}", context=new) == [b'{"a"', b": 1", b"}"]


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-alice"},
        {b"authorization": b"bearer  sk-alice "},
        {b"x-api-key": b"sk-alice"},
        {b"api-key": b"sk-alice"},
        {b"api-key": b"Bearer sk-alice"},
        {b"x-goog-api-key": b"sk-alice"},
        {b"x-litellm-api-key": b"sk-alice"},
        {b"x-litellm-api-key": b"Bearer sk-alice"},
    ],
)
async def test_every_header_that_clients_use_is_read(headers: dict[bytes, bytes]) -> None:
    ctx = context(headers)
    await collect(authenticate(OneKey()), b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is ALICE


async def test_who_is_known_already_is_not_asked_again() -> None:
    ctx = context({b"authorization": b"Bearer sk-bob"})
    ctx[PRINCIPAL] = ALICE
    assert await collect(authenticate(OneKey()), b"x", context=lambda: ctx) == [b"x"]
    assert ctx[PRINCIPAL] is ALICE


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "no API key was sent"),
        ({b"authorization": b"Bearer "}, "no API key was sent"),
        ({b"authorization": b"Basic abc"}, "no API key was sent"),
        ({b"authorization": b"Bearer sk-bob"}, "API key is unknown"),
        ({b"authorization": "Bearer sk-älice".encode()}, "API key is unknown"),
    ],
)
async def test_a_missing_or_unknown_key_is_refused_before_the_body_is_read(
    headers: dict[bytes, bytes], message: str
) -> None:
    with pytest.raises(ClientFault, match=message) as refusal:
        await collect(authenticate(OneKey()), context=lambda: context(headers))
    assert refusal.value.code == "unauthorized"
    assert refusal.value.stage == "authenticate"


async def test_a_request_without_a_key_may_be_let_in_but_not_one_with_a_wrong_key() -> None:
    nobody = Principal("anonymous")
    ctx = context({})
    await collect(authenticate(OneKey(), anonymous=nobody), b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is nobody
    with pytest.raises(ClientFault, match="API key is unknown"):
        await collect(authenticate(OneKey(), anonymous=nobody), context=lambda: context({b"api-key": b"sk-bob"}))


@pytest.mark.parametrize(
    ("headers", "differing", "message"),
    [
        (
            {b"authorization": b"Bearer sk-alice", b"x-api-key": b"sk-bob"},
            (),
            "the headers authorization and x-api-key have different keys",
        ),
        ({b"x-api-key": b"sk-bob", b"api-key": b"sk-alice"}, (), "the headers x-api-key and api-key have different"),
        ({b"authorization": b"Bearer sk-alice"}, (b"authorization",), "the header authorization came more than once"),
        ({b"x-api-key": b"sk-alice"}, (b"x-api-key",), "the header x-api-key came more than once"),
        ({b"api-key": b"sk-bob", b"x-goog-api-key": b"sk-alice"}, (), "the headers api-key and x-goog-api-key have"),
        ({b"x-litellm-api-key": b"sk-alice"}, (b"x-litellm-api-key",), "the header x-litellm-api-key came more than"),
        ({b"x-litellm-api-key": b""}, (b"x-litellm-api-key",), "the header x-litellm-api-key came more than once"),
    ],
)
async def test_two_different_keys_are_refused(
    headers: dict[bytes, bytes], differing: tuple[bytes, ...], message: str
) -> None:
    with pytest.raises(ClientFault, match=message) as refusal:
        await collect(authenticate(OneKey()), b"x", context=lambda: context(headers, differing=frozenset(differing)))
    assert refusal.value.code == "invalid_request"
    assert "sk-" not in refusal.value.public


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-alice", b"x-api-key": b"sk-alice", b"api-key": b"sk-alice"},
        {b"authorization": b"Basic abc", b"x-api-key": b"sk-alice"},
        {b"authorization": b"Bearer ", b"x-api-key": b"sk-alice"},
    ],
)
async def test_one_key_in_several_headers_is_one_key(headers: dict[bytes, bytes]) -> None:
    ctx = context(headers, differing=frozenset({b"cookie"}))
    await collect(authenticate(OneKey()), b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is ALICE


@pytest.mark.parametrize("others", [(), (b"authorization", b"x-api-key")])
async def test_litellms_header_counts_alone(others: tuple[bytes, ...]) -> None:
    of_others = {b"authorization": b"Bearer sk-bob", b"x-api-key": b"sk-carol"}
    ctx = context({**of_others, b"x-litellm-api-key": b"sk-alice"}, differing=frozenset(others))
    await collect(authenticate(OneKey()), b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is ALICE
    wrong = {b"authorization": b"Bearer sk-alice", b"x-litellm-api-key": b"sk-bob"}
    with pytest.raises(ClientFault, match="API key is unknown"):
        await collect(authenticate(OneKey()), context=lambda: context(wrong))


@pytest.mark.parametrize(("value", "key_header"), [(b"", None), (b"sk-bob", "Authorization")])
async def test_litellms_header_does_not_count_if_it_is_empty_or_another_one_is_configured(
    value: bytes, key_header: str | None
) -> None:
    ctx = context({b"authorization": b"Bearer sk-alice", b"x-litellm-api-key": value})
    await collect(authenticate(OneKey(), key_header=key_header), b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is ALICE


@pytest.mark.parametrize("value", [b"sk-alice", b"Bearer sk-alice"])
async def test_with_a_key_header_the_others_are_not_looked_at(value: bytes) -> None:
    headers = {b"x-gateway-key": value, b"authorization": b"Bearer proxy", b"x-api-key": b"proxy"}
    stage = authenticate(OneKey(), key_header="X-Gateway-Key")
    ctx = context(headers, differing=frozenset({b"authorization"}))
    await collect(stage, b"x", context=lambda: ctx)
    assert ctx[PRINCIPAL] is ALICE
    with pytest.raises(ClientFault, match="send it in the header x-gateway-key") as refusal:
        await collect(stage, context=lambda: context({b"authorization": b"Bearer sk-alice"}))
    assert refusal.value.code == "unauthorized"
