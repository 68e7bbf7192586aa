"""Parse the body, in any of its dialects, into one normal form.

Takes: the body as it arrives (bytes). Gives: one ResponsesRequest, when the body is complete.
Holds: the body, at most ``max_body_bytes``. Waits: for its turn to work on a large body, which is parsed in slices.
Raises: when the stage opens, which is before the client is asked for its body (``100 Continue``): ClientFault
``body_too_large`` if the announced length exceeds the limit, ``unsupported_encoding`` for a compressed body. Later:
``body_too_large`` as soon as more has arrived; ``invalid_request`` with the field's name.
"""

from __future__ import annotations

from pipeline import ClientFault, Lane, RequestContext, Stage, codec_stage
from stages.large_bodies import in_slices
from stages.request import ResponsesRequest
from stages.slots import HEAD, ReceivedHead
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.request import parse_body
from stages.wire.slices import LARGE_BYTES


class _BodyParser:
    __slots__ = ("_body", "_head", "_keeps_sent", "_max_bytes")

    def __init__(self, head: ReceivedHead, max_bytes: int, *, keeps_sent: bool) -> None:
        self._head = head
        self._keeps_sent = keeps_sent
        self._max_bytes = max_bytes
        self._body = bytearray()  # a list of parts would have to be joined, which for 93 MiB takes 60 ms and a copy
        self._check_head()

    async def feed(self, batch: list[bytes], lane: Lane, /) -> list[ResponsesRequest]:
        for part in batch:
            self._check(len(self._body) + len(part))
            self._body += part
        return []

    async def flush(self, lane: Lane, /) -> list[ResponsesRequest]:
        size_bytes = len(self._body)
        return [self._parse() if size_bytes < LARGE_BYTES else await in_slices(size_bytes, self._parse)]

    def _parse(self) -> ResponsesRequest:
        body, self._body = self._body, bytearray()
        try:
            return parse_body(body, model=self._head.model_in_path, keeps_sent=self._keeps_sent)
        except BadRequest as bad:
            raise ClientFault(bad.message, param=bad.param, code=bad.code) from None

    def _check_head(self) -> None:
        encoding = self._head.headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (b"", b"identity"):
            raise ClientFault(
                "the request body is compressed (Content-Encoding): send it uncompressed",
                code="unsupported_encoding",
            )
        announced = self._head.headers.get(b"content-length", b"")
        if announced.isdigit():
            self._check(int(announced))

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise ClientFault(
                f"the request body is larger than {self._max_bytes:,} bytes: "
                "start a new chat, send smaller images, or raise pipeline_settings.max_body_mb",
                code="body_too_large",
            )


def parse_request(max_body_bytes: int, *, keeps_sent: bool = False) -> Stage[bytes, ResponsesRequest]:
    """Return the stage.

    Args:
        max_body_bytes: the size of the largest body that is accepted.
        keeps_sent: whether a chat body is also kept as it came, to be sent on unchanged.
    """

    def open(ctx: RequestContext) -> _BodyParser:
        return _BodyParser(ctx[HEAD], max_body_bytes, keeps_sent=keeps_sent)

    return codec_stage("parse_request", open)
