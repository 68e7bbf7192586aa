"""Records of requests that never ran, and their lines in the JSON log."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.gateway.request_record import RequestRecord


def request_record_of(request_id: str, end: Any = "OK", **fields: Any) -> RequestRecord:
    """Return a record with little in it; ``fields`` are set."""
    record = RequestRecord(
        request_id=request_id,
        client=None,
        key=None,
        model="m",
        deployment="d",
        stream=True,
        end=end,
        status=200,
        bytes=1,
        events=1,
        generation=1,
        total_ms=10.0,
        before_ms=None,
        first_byte_ms=None,
        first_token_ms=5.0,
        party_ms={},
        points_ms={},
        lanes={},
        stages={},
        links={},
    )
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def record_line(record: RequestRecord, **more: Any) -> bytes:
    """Return the line of a record, with further fields."""
    line = b'{"ts":"2026-11-30T12:00:00.000Z","event":"request",' + msgspec.json.encode(record)[1:-1]
    for name, value in more.items():
        line += b',"%b":%b' % (name.encode(), msgspec.json.encode(value))
    return line + b"}"
