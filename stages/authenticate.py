"""Identify the client by its key, before the body is read.

Takes: the body as it arrives (bytes). Gives: the same, 1:1.
Holds: nothing. Waits: for nothing. Fills: PRINCIPAL.
Raises: ClientFault ``unauthorized`` if the key is missing or unknown, when the stage opens.
Source: OpenAI API reference, Authentication (2026-08): ``Authorization: Bearer``; Azure OpenAI uses ``api-key`` and
Anthropic ``x-api-key``; LiteLLM accepts all three.
"""

from __future__ import annotations

from typing import Protocol

from pipeline import ClientFault, RequestContext, Stage, codec_stage
from stages.principal import Principal
from stages.slots import HEAD, PRINCIPAL

BEARER = b"bearer "


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


def authenticate(keys: Keys, *, anonymous: Principal | None = None) -> Stage[bytes, bytes]:
    """Return the stage; ``anonymous`` is the principal of a request without a key, None to refuse such requests."""

    def open(ctx: RequestContext) -> _PassOn:
        ctx[PRINCIPAL] = identify(ctx[HEAD].headers, keys, anonymous)
        return _PassOn()

    return codec_stage("authenticate", open)


def identify(headers: dict[bytes, bytes], keys: Keys, anonymous: Principal | None = None) -> Principal:
    """Return the principal of the key in the headers.

    Raises:
        ClientFault: ``unauthorized`` if the key is missing or unknown.
    """
    presented = presented_key(headers)
    if not presented:
        if anonymous is not None:
            return anonymous
        raise ClientFault(
            "no API key was sent: send it as `Authorization: Bearer <key>` "
            "(in Cursor: Settings > Models > OpenAI API key)",
            code="unauthorized",
        )
    principal = keys.authenticate(presented)
    if principal is None:
        raise ClientFault("this API key is unknown: check it, or ask the operator for a key", code="unauthorized")
    return principal


def presented_key(headers: dict[bytes, bytes]) -> bytes:
    """Return the key that a request presents, or ``b""``."""
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return headers.get(b"x-api-key") or headers.get(b"api-key") or b""
