"""Which of a client's headers an upstream gets that is the client's own: all that concern the two of them.

Nothing of a client's headers is sent to any other upstream (`stages.upstreams.Deployment.is_transparent`).

Source: RFC 9110, sections 7.6.1 (headers of one connection) and 8; RFC 9112, section 6 (framing).
"""

from __future__ import annotations

from collections.abc import Mapping
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


def passed_on(headers: Mapping[bytes, bytes], api: Api[Any], *, is_raw: bool = False) -> Headers:
    """Return the headers of a client's request that are sent on, with its key as the API wants it.

    Args:
        headers: all of them, names in lower case.
        api: that of the upstream.
        is_raw: whether the body is sent on as it is, with the headers that describe it.
    """
    connection = headers.get(b"connection", b"").lower()
    dropped = {*_OF_THE_CONNECTION, *_OURS, *(() if is_raw else _OF_THE_BODY)}
    dropped |= {name.strip() for name in connection.split(b",")}
    sent = {name: value for name, value in headers.items() if name not in dropped}
    if api.key_header is not None and api.key_header.encode() not in sent:
        _add_key(sent, api.key_header.encode())
    return tuple(sent.items())


def _add_key(sent: dict[bytes, bytes], name: bytes) -> None:
    """Send the client's key in a header of this name too, as `config.headers` does with a configured one.

    Anthropic itself takes a key there only, and a token (``sk-ant-oat``) as Bearer only.
    """
    value = sent.get(_AUTHORIZATION, b"")
    key = value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b""
    if not key or key.startswith(b"sk-ant-oat"):
        return
    sent[name] = key
    if key.startswith(b"sk-ant-"):
        del sent[_AUTHORIZATION]
