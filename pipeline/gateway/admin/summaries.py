"""A request in short, as lists show it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Struct, UnsetType


class RequestSummary(Struct, kw_only=True):
    """What lists say of a request; the fields are those of its record.

    Attributes:
        traced: true if the request was traced per batch.
    """

    request_id: str
    ts: str
    worker: int = 1
    end: str
    status: int | None = None
    model: str | None = None
    deployment: str | None = None
    stream: bool | None = None
    total_ms: float
    first_token_ms: float | None = None
    party_ms: dict[str, float] = {}
    traced: bool | UnsetType = UNSET


class _WithTrace(RequestSummary, kw_only=True):
    trace: msgspec.Raw | UnsetType = UNSET


def summaries_of(lines: Iterable[bytes]) -> list[RequestSummary]:
    """Return the summaries of requests that were recorded."""
    found: list[RequestSummary] = []
    for line in lines:
        one = msgspec.json.decode(line, type=_WithTrace)
        fields = {name: getattr(one, name) for name in RequestSummary.__struct_fields__}
        if one.trace is not UNSET:
            fields["traced"] = True
        found.append(RequestSummary(**fields))
    return found
