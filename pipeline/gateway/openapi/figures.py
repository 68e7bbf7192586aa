"""What the paths of the figures do: ``/metrics``, and all of ``/latency``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.gateway.admin.dispatch import CURSOR_HEADER, LISTED, LOST_HEADER, MAX_LIMIT, MORE_HEADER
from pipeline.gateway.admin.shapes import NowDocument, RequestLine, StallLine
from pipeline.gateway.admin.summaries import RequestSummary
from pipeline.gateway.board import RunningRequest
from pipeline.gateway.openapi.operation import JSON, KEY_CODES, MASTER_CODES, TEXT, UNCHANGED, Operation, Query
from pipeline.gateway.openapi.schemas import Schema, list_of, ref
from pipeline.gateway.recorder import KINDS
from pipeline.gateway.routes import METRICS_PATH, PAGE_PATH


def _limit(default: int) -> Query:
    what = f"How many at most; there are never more than {MAX_LIMIT:,}."
    return Query("limit", what, {"type": "integer", "minimum": 1, "default": default})


def _figures(
    id: str,
    summary: str,
    content: Mapping[str, Schema],
    *,
    codes: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    query: tuple[Query, ...] = (),
) -> Operation:
    return Operation(
        id=id,
        tag="latency",
        summary=summary,
        description="For the master key.",
        content=content,
        codes=(*MASTER_CODES, "route_not_found", *codes),
        headers=headers,
        query=query,
    )


FIGURES: Final[Mapping[str, Operation]] = {
    METRICS_PATH: Operation(
        id="getMetrics",
        tag="health",
        summary="Show the figures of all workers, for Prometheus",
        description="For the master key, and for keys with `metrics: true`.",
        content={"text/plain": TEXT},
        codes=(*KEY_CODES, "metrics_forbidden", "route_not_found"),
    ),
    PAGE_PATH: Operation(
        id="getLatencyPage",
        tag="latency",
        summary="Show the page for browsers",
        description="It asks for the master key, which its data needs.",
        needs_key=False,
        content={"text/html": TEXT},
        codes=("route_not_found",),
        also=UNCHANGED,
        headers=("etag",),
    ),
    f"{PAGE_PATH}/static/{{file}}": Operation(
        id="getLatencyFile",
        tag="latency",
        summary="Load a file of the page",
        needs_key=False,
        content={"*/*": {}},
        codes=("route_not_found",),
        also=UNCHANGED,
        headers=("etag",),
    ),
    f"{PAGE_PATH}/now": _figures(
        "getLatencyNow", "Show what has been counted since the start, and what happens now", {JSON: ref(NowDocument)}
    ),
    f"{PAGE_PATH}/running": _figures(
        "listRunning", "List the requests that run, the longest idle first", {JSON: list_of(RunningRequest)}
    ),
    f"{PAGE_PATH}/records": _figures(
        "listRecords",
        "Follow the records of requests and stalls, one on each line",
        {"application/jsonl": {"anyOf": [ref(RequestLine), ref(StallLine)]}},
        headers=tuple(name.decode() for name in (CURSOR_HEADER, LOST_HEADER, MORE_HEADER)),
        query=(
            Query("after", "What the header `x-headrace-cursor` said, or `now`; absent for all there are.", TEXT),
            _limit(MAX_LIMIT),
        ),
    ),
    f"{PAGE_PATH}/requests": _figures(
        "listRequests",
        "List the last requests in short, the newest first",
        {JSON: list_of(RequestSummary)},
        query=(
            Query("kind", "Which ones.", {"type": "string", "enum": ["recent", *KINDS], "default": "recent"}),
            _limit(LISTED),
        ),
    ),
    f"{PAGE_PATH}/requests/{{request_id}}": _figures(
        "getRequest", "Show the record of a finished request", {JSON: ref(RequestLine)}, codes=("record_not_found",)
    ),
    f"{PAGE_PATH}/requests/{{request_id}}/trace": _figures(
        "getTrace",
        "Load a finished request as a trace for Perfetto",
        {"application/octet-stream": {}},
        codes=("record_not_found", "not_installed"),
    ),
}
"""By the path's template."""
