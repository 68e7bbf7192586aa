"""Identify the client by its key, before the body is read.

Takes: the body as it arrives (bytes). Gives: the same, 1:1.
Holds: nothing. Waits: for nothing. Fills: PRINCIPAL, unless the gateway has filled it to admit the request.
Raises: when the stage opens, ClientFault: ``unauthorized`` if the key is missing, `UnknownKey` if it is unknown,
``invalid_request`` if there are two different keys: who is asking must not depend on which of them is read. Only
``x-litellm-api-key`` is certain to be meant for a gateway: if it is there, the others are somebody else's.
Source: OpenAI API reference, Authentication (2026-08): ``Authorization: Bearer``; Azure OpenAI uses ``api-key``,
Anthropic ``x-api-key``, Google ``x-goog-api-key``. LiteLLM (proxy/auth/user_api_key_auth.py, 2026-11) accepts all of
them, ``x-litellm-api-key`` before any other, each with or without ``Bearer``, and only the header that
``litellm_key_header_name`` names, if it names one.
"""

from __future__ import annotations

from typing import Protocol

from pipeline import ClientFault, RequestContext, Stage, codec_stage
from stages.principal import Principal
from stages.slots import HEAD, PRINCIPAL, ReceivedHead

BEARER = b"bearer "
AUTHORIZATION = b"authorization"
KEY_HEADERS = (AUTHORIZATION, b"x-api-key", b"api-key", b"x-goog-api-key")
GATEWAY_KEY = b"x-litellm-api-key"
"""LiteLLM's own header. Whoever sends it may have another service's key in ``Authorization``."""


class UnknownKey(ClientFault):
    """The key is not one of ours; such requests are counted (`pipeline.gateway.wrong_keys`)."""

    code = "unauthorized"


class Keys(Protocol):
    """The keys that may use the service."""

    def authenticate(self, presented: bytes) -> Principal | None:
        """Return the principal of a key, compared in constant time; None if the key is unknown."""
        ...


class _PassOn:
    """Passes the body on unread."""

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        return batch

    def flush(self) -> list[bytes]:
        return []


def authenticate(
    keys: Keys, *, anonymous: Principal | None = None, key_header: str | None = None
) -> Stage[bytes, bytes]:
    """Return the stage.

    Args:
        keys: which keys there are.
        anonymous: the principal of a request without a key; None to refuse such requests.
        key_header: the only header in which a key is looked for; None for all that clients use.
    """
    names = key_names(key_header)

    def open(ctx: RequestContext) -> _PassOn:
        if ctx.get(PRINCIPAL) is None:
            ctx[PRINCIPAL] = identify(ctx[HEAD], keys, anonymous, names)
        return _PassOn()

    return codec_stage("authenticate", open)


def key_names(key_header: str | None) -> tuple[bytes, ...]:
    """Return the headers in which a key is looked for; ``key_header`` is as in `authenticate`."""
    return KEY_HEADERS if key_header is None else (key_header.lower().encode("ascii"),)


def identify(
    head: ReceivedHead, keys: Keys, anonymous: Principal | None = None, names: tuple[bytes, ...] = KEY_HEADERS
) -> Principal:
    """Return the principal of the key in one of the headers ``names``.

    Raises:
        ClientFault: ``unauthorized`` if the key is missing, `UnknownKey` if it is unknown, ``invalid_request`` if there
            are two different keys.
    """
    presented = presented_key(head, names)
    if not presented:
        if anonymous is not None:
            return anonymous
        raise ClientFault(
            "no API key was sent: send it as `Authorization: Bearer <key>` "
            "(in Cursor: Settings > Models > OpenAI API key)"
            if AUTHORIZATION in names
            else f"no API key was sent: send it in the header {names[0].decode()}",
            code="unauthorized",
        )
    principal = keys.authenticate(presented)
    if principal is None:
        raise UnknownKey("this API key is unknown: check it, or ask the operator for a key")
    return principal


def presented_key(head: ReceivedHead, names: tuple[bytes, ...] = KEY_HEADERS) -> bytes:
    """Return the key that a request presents, or ``b""``.

    Raises:
        ClientFault: ``invalid_request`` if it presents two different ones.
    """
    headers = head.headers
    if names is KEY_HEADERS and (headers.get(GATEWAY_KEY) or GATEWAY_KEY in head.differing):
        names = (GATEWAY_KEY,)
    presented, of = b"", b""
    for name in names:
        if (value := headers.get(name)) is None:
            continue
        if name in head.differing:
            raise ClientFault(
                f"the header {name.decode()} came more than once, with different values: send one key only"
            )
        has_scheme = value[: len(BEARER)].lower() == BEARER
        key = value[len(BEARER) :].strip() if has_scheme else b"" if name == AUTHORIZATION else value
        if presented and key and key != presented:
            raise ClientFault(
                f"the headers {of.decode()} and {name.decode()} have different keys: send one key only "
                "(if a proxy adds a key of its own, the operator can name the header that counts: "
                "pipeline_settings.key_header)"
            )
        if key and not presented:
            presented, of = key, name
    return presented
