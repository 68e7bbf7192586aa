"""Which of a client's headers an upstream gets that is the client's own: all that concern the two of them.

Nothing of a client's headers is sent to any other upstream (`stages.upstreams.Deployment.is_transparent`).

Source: RFC 9110, sections 7.6.1 (headers of one connection) and 8; RFC 9112, section 6 (framing).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from stages.upstreams import Headers
from stages.wire.api import Api

_OF_THE_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade"}
)
_OURS: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect"}  # about the bytes between the client and us
    # Browsers send a cookie to each port of a host: those of other programs on this machine are not the upstream's.
    | {b"cookie"}
)
_OF_THE_BODY: Final = frozenset({b"content-type", b"accept-encoding"})
"""What `Endpoint` sets: the body is encoded anew, and the answer must not be compressed."""

_AUTHORIZATION: Final = b"authorization"
_BEARER: Final = b"bearer "


def passed_on(headers: Iterable[tuple[bytes, bytes]], api: Api[Any], *, is_raw: bool = False) -> Headers:
    """Return the headers of a client's request that are sent on, with its key as the API wants it.

    Args:
        headers: all of them in their order, names in lower case; one that is repeated stays so.
        api: that of the upstream.
        is_raw: whether the body is sent on as it is, with the headers that describe it.
    """
    received = tuple(headers)
    dropped = {*_OF_THE_CONNECTION, *_OURS, *(() if is_raw else _OF_THE_BODY)}
    for name, value in received:
        if name == b"connection":
            dropped |= {option.strip() for option in value.lower().split(b",")}
    sent = tuple((name, value) for name, value in received if name not in dropped)
    return sent if api.key_header is None else _with_key(sent, api.key_header.encode())


def _with_key(sent: Headers, name: bytes) -> Headers:
    """Return the headers with the client's key in one of this name too, as `config.headers` does with a configured one.

    Anthropic itself takes a key there only, and a token (``sk-ant-oat``) as Bearer only.
    """
    values = dict(sent)
    value = values.get(_AUTHORIZATION, b"")
    key = value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b""
    if name in values or not key or key.startswith(b"sk-ant-oat"):
        return sent
    if key.startswith(b"sk-ant-"):
        sent = tuple(pair for pair in sent if pair[0] != _AUTHORIZATION)
    return (*sent, (name, key))
