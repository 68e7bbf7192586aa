"""What arrived before the body of a request, as the stages and the keys want it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from pipeline.gateway.client_address import Proxies
from stages.slots import ReceivedHead
from stages.wire.trace_context import TRACESTATE

_NO_NAMES: Final = frozenset[bytes]()


def received_head(scope: Mapping[str, Any], proxies: Proxies, model_in_path: str | None = None) -> ReceivedHead:
    """Return it.

    Args:
        scope: ASGI's, of the request.
        proxies: those that are trusted to name the client.
        model_in_path: the model that the path names, if it does.
    """
    sent: list[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(sent)
    peer = scope.get("client")
    client = proxies.client_of(peer[0] if peer else None, sent)
    received_s = int(time.time())  # noqa: TID251 - the one wall clock of a request: `created`
    differing = _differing(sent) if len(headers) != len(sent) else _NO_NAMES
    if TRACESTATE in differing:  # a list, which may come in several parts
        headers[TRACESTATE] = b",".join(value for name, value in sent if name == TRACESTATE)
    return ReceivedHead(headers, received_s, model_in_path, client, differing)


def _differing(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Return the names that came more than once, with different values."""
    first: dict[bytes, bytes] = {}
    return frozenset(name for name, value in headers if first.setdefault(name, value) != value)
