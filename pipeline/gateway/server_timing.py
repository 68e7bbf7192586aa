"""W3C Server Timing: the client is told where the time of its request went.

A document has it in its head. A stream, whose head leaves before anything is known, may have it as its last comment.
Source: https://www.w3.org/TR/server-timing/ (Working Draft), read on 2026-11-30.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.gateway.asgi_client import AsgiResponse, Client
from pipeline.timeline import Timeline
from stages.wire.downstream.chat_stream import DONE

COMMENT_HEADER: Final = b"x-headrace-server-timing"
"""A request with this header, and 1 as its value, gets the comment."""


class ServerTiming:
    """Which responses have it.

    Args:
        in_heads: whether documents have it in their heads.
        in_comments: whether all streams have the comment; else those whose client asks for it.
    """

    def __init__(self, *, in_heads: bool, in_comments: bool) -> None:
        self._in_heads = in_heads
        self._in_comments = in_comments

    def response(
        self,
        client: Client,
        headers: list[tuple[bytes, bytes]],
        timeline: Timeline,
        asked: Mapping[bytes, bytes],
    ) -> AsgiResponse:
        """Return the response to a request.

        Args:
            client, headers, timeline: as of `AsgiResponse`.
            asked: the headers of the request.
        """
        kind = AsgiResponse
        if self._in_comments or asked.get(COMMENT_HEADER) == b"1":
            kind = _CommentedResponse
        return kind(client, headers, timeline, timing=server_timing if self._in_heads else None)


def server_timing(timeline: Timeline) -> bytes:
    """Return what is known of a request that still runs: whose time it was so far, and when its answer began, in ms."""
    parties_ns = timeline.parties_ns(timeline.clock())
    figures = b"client;dur=%d.%03d, ours;dur=%d.%03d, upstream;dur=%d.%03d" % (
        *divmod(parties_ns[0] // 1000, 1000),
        *divmod(parties_ns[1] // 1000, 1000),
        *divmod(parties_ns[2] // 1000, 1000),
    )
    if (first_ns := timeline.points.get("first_event")) is not None:
        figures += b", first_event;dur=%d.%03d" % divmod((first_ns - timeline.born_ns) // 1000, 1000)
    return figures


class _CommentedResponse(AsgiResponse):
    """A response whose stream has the comment. It is before ``[DONE]``: clients read no further."""

    __slots__ = ("_is_stream",)

    def start(self, status: int, headers: list[tuple[bytes, bytes]], *, is_whole: bool = False) -> None:
        """As in `AsgiResponse`."""
        self._is_stream = not is_whole
        super().start(status, headers, is_whole=is_whole)

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """As in `AsgiResponse`."""
        if last and self._is_stream:
            end = DONE if data.endswith(DONE) else b""
            data = b"%b: server-timing %b\n\n%b" % (data.removesuffix(DONE), server_timing(self._timeline), end)
        return super().write_nowait(data, last=last)
