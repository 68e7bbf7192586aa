"""Find out whose request this is, before its body is read.

Takes: the body as it arrives (bytes). Gives: the same, 1:1.
Holds: nothing. Fills: PRINCIPAL.
Raises: ClientFault ``unauthorized`` if the key is missing or unknown, when the stage opens.
Source: OpenAI API reference, Authentication (2026-08): ``Authorization: Bearer``; ``api-key`` as Azure OpenAI has it,
``x-api-key`` as Anthropic has it; LiteLLM accepts all three.
"""

from __future__ import annotations

from typing import Protocol

from pipeline import ClientFault, CodecStage, RequestContext, codec_stage
from stages.principal import Principal
from stages.slots import HEAD, PRINCIPAL

BEARER = b"bearer "


class Keys(Protocol):
    """Who may use the service."""

    def authenticate(self, presented: bytes) -> Principal | None:
        """Give the owner of a key, in constant time; None if nobody has it."""
        ...


class _PassOn:
    """The body is not this stage's business."""

    def feed(self, batch: list[bytes], /) -> list[bytes]:
        return batch

    def flush(self) -> list[bytes]:
        return []


def authenticate(keys: Keys, *, anonymous: Principal | None = None) -> CodecStage[bytes, bytes]:
    """Make the stage; ``anonymous`` is who a request without a key is, None to refuse it."""

    def open(ctx: RequestContext) -> _PassOn:
        ctx[PRINCIPAL] = identify(ctx[HEAD].headers, keys, anonymous)
        return _PassOn()

    return codec_stage("authenticate", open, accepts=bytes, emits=bytes)


def identify(headers: dict[bytes, bytes], keys: Keys, anonymous: Principal | None = None) -> Principal:
    """Give whose key the headers hold.

    Raises:
        ClientFault: ``unauthorized`` if there is none, or nobody has it.
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
        raise ClientFault("this API key is not known here: check it, or ask the operator for one", code="unauthorized")
    return principal


def presented_key(headers: dict[bytes, bytes]) -> bytes:
    """Give the key that a request presents, or ``b""``."""
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return headers.get(b"x-api-key") or headers.get(b"api-key") or b""
