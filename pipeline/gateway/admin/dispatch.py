"""``/latency`` and ``/metrics``: what all processes of the service have counted and recorded, answered by any of them.

A plain ASGI application for GET and HEAD. It reads the file that the processes share, so that it makes no difference
which of them is asked, or whether the one that served a request is still alive; the supervisor serves it as well
(`pipeline.gateway.metrics.address`). The page itself has nothing to hide, and asks for the key that its data needs.

What may read much of that file does so in a thread: a recorder has tens of thousands of lines.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import parse_qs

import msgspec
import trio

from pipeline import ClientFault, PipelineError
from pipeline.gateway.admin.access import Access
from pipeline.gateway.admin.answers import NOT_KEPT, data_answer, failure_answer, json_answer, send_answer
from pipeline.gateway.admin.now import Now
from pipeline.gateway.admin.page_files import INDEX, page_answer
from pipeline.gateway.admin.summaries import summaries_of
from pipeline.gateway.board import all_running, read_board
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.door import OwnAnswer
from pipeline.gateway.metrics.text import CONTENT_TYPE, metrics_text
from pipeline.gateway.recorded import cursor_now, line_of, lines_after, newest_lines
from pipeline.gateway.recorder import KINDS, STALL
from pipeline.gateway.routes import METRICS_PATH, PAGE_PATH, raw_path_of, served_path_of
from pipeline.segments import SegmentFile

CURSOR_HEADER: Final = b"x-headrace-cursor"
LOST_HEADER: Final = b"x-headrace-lost"
MORE_HEADER: Final = b"x-headrace-more"
"""Sent if there are more lines than one response may have."""
WATCHED_S: Final = 5.0
"""For how long the processes show what is running, after somebody has asked."""
MAX_LIMIT: Final = 1000
LISTED: Final = 100
"""How many requests are listed, unless ``limit`` says otherwise."""


class Admin:
    """The application.

    Args:
        file: what all processes share.
        access: returns who may read it now.
    """

    def __init__(self, file: SegmentFile, access: Callable[[], Access]) -> None:
        self._file = file
        self._access = access
        self._now = Now(file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            answer = await self._answer(scope)
        except PipelineError as error:
            more = [(b"allow", b"GET, HEAD")] if error.code == "method_not_allowed" else None
            answer = failure_answer(error, more)
        await send_answer(scope, send, answer)

    async def _answer(self, scope: Scope) -> OwnAnswer:
        path: str = scope["path"]
        served = served_path_of(raw_path_of(scope))
        if served is None or served.kind != "admin":
            raise _unknown(path)
        if scope["method"] not in ("GET", "HEAD"):
            raise ClientFault(f"{path} does not accept {scope['method']}: use GET", code="method_not_allowed")
        access = self._access()
        if path == METRICS_PATH:
            await access.check_metrics(scope)
            # In a thread: it may take 20 ms.
            return data_answer(await trio.to_thread.run_sync(metrics_text, self._file), CONTENT_TYPE)
        access.check_exists(PAGE_PATH)
        what, _, name = path.removeprefix(PAGE_PATH).lstrip("/").partition("/")
        if path == f"{PAGE_PATH}/":  # what the page refers to is relative to the path without the slash
            return OwnAnswer(308, [(b"location", b"../latency"), (b"content-length", b"0"), *NOT_KEPT], b"")
        if not what or what == "static":
            found = page_answer(name if what else INDEX, dict(scope["headers"]).get(b"if-none-match"))
            if found is None:
                raise _unknown(path)
            return found
        await access.check_master(scope)
        return await self._data(what, name, _Query(scope["query_string"]), path)

    async def _data(self, what: str, name: str, query: _Query, path: str) -> OwnAnswer:
        if name:
            request_id, _, more = name.partition("/")
            if what != "requests" or more not in ("", "trace"):
                raise _unknown(path)
            line = await self._line(request_id)
            return await self._trace(line) if more else json_answer(line)
        match what:
            case "now":
                self._file.note_watching(WATCHED_S)
                return json_answer(await self._now.shared())
            case "running":
                self._file.note_watching(WATCHED_S)
                return json_answer(all_running(map(read_board, self._file.views())))
            case "records":
                return await self._records(query)
            case "requests":
                return await self._requests(query)
            case _:
                raise _unknown(path)

    async def _records(self, query: _Query) -> OwnAnswer:
        after, views = query.text("after"), self._file.views()
        if after == "now":
            return data_answer(b"", _JSON_LINES, [(CURSOR_HEADER, cursor_now(views).encode()), (LOST_HEADER, b"0")])
        try:
            found = await trio.to_thread.run_sync(lines_after, views, after, query.limit(MAX_LIMIT))
        except ValueError:
            raise ClientFault(
                f"`after` must be what the header {CURSOR_HEADER.decode()} said, or `now`", param="after"
            ) from None
        body = b"".join(line + b"\n" for line in found.lines)
        more = [(CURSOR_HEADER, found.cursor.encode()), (LOST_HEADER, b"%d" % found.lost)]
        if found.is_cut:
            more.append((MORE_HEADER, b"1"))
        return data_answer(body, _JSON_LINES, more)

    async def _requests(self, query: _Query) -> OwnAnswer:
        kind = query.text("kind") or "recent"
        if kind != "recent" and kind not in KINDS:
            raise ClientFault(f"`kind` must be one of recent, {', '.join(KINDS)}", param="kind")
        marks, limit = KINDS.get(kind, 0), query.limit(LISTED)
        return json_answer(summaries_of(await self._newest_lines(marks=marks, without=STALL, limit=limit)))

    async def _line(self, request_id: str) -> bytes:
        line = await trio.to_thread.run_sync(line_of, self._file.views(), request_id)
        if line is None:
            raise ClientFault(
                "the flight recorder has no finished request with this id: it is still running, or so long ago that "
                "others have taken its place (pipeline_settings.recorder_mb)",
                code="record_not_found",
            )
        return line

    async def _trace(self, line: bytes) -> OwnAnswer:
        from pipeline.study.perfetto import perfetto_trace  # here: hardly any server needs them
        from pipeline.study.recording import StudyError
        from pipeline.study.records import RecordedRequest, RecordedStall

        record = msgspec.json.decode(line, type=RecordedRequest)
        lines = await self._newest_lines(marks=STALL, without=0, limit=MAX_LIMIT)
        stalls = [msgspec.json.decode(stall, type=RecordedStall) for stall in lines]
        try:
            trace = await trio.to_thread.run_sync(perfetto_trace, [record], stalls)
        except StudyError as error:
            raise ClientFault(
                f"{error}; it is missing where this server runs: or record the requests, and use `headrace trace` "
                "elsewhere",
                code="not_installed",
            ) from None
        name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in record.request_id)
        disposition = f'attachment; filename="{name}.pftrace"'.encode("ascii", "replace")
        return data_answer(trace, b"application/octet-stream", [(b"content-disposition", disposition)])

    async def _newest_lines(self, *, marks: int, without: int, limit: int) -> list[bytes]:
        find = partial(newest_lines, self._file.views(), marks=marks, without=without, limit=limit)
        return await trio.to_thread.run_sync(find)


class _Query:
    """The query of a request."""

    def __init__(self, query: bytes) -> None:
        self._values = parse_qs(query.decode("latin-1"))

    def text(self, name: str) -> str:
        """Return a value; an empty string if there is none."""
        return self._values.get(name, [""])[-1]

    def limit(self, default: int) -> int:
        """Return ``limit``, at most `MAX_LIMIT`."""
        text = self.text("limit")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not 0 < len(text) < 10 or not int(text):
            raise ClientFault("`limit` must be a whole number from 1", param="limit")
        return min(int(text), MAX_LIMIT)


_JSON_LINES: Final = b"application/jsonl"


def _unknown(path: str) -> ClientFault:
    return ClientFault(f"there is no path {path}", code="route_not_found")
