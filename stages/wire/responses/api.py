"""The Responses API as one record: what the rest of the service needs to know of this API.

Source: https://platform.openai.com/docs/api-reference/responses (2025-11).
"""

from __future__ import annotations

from typing import Final

from stages.events import StreamEvent
from stages.request import ResponsesRequest
from stages.wire.answers.request_traits import traits_of
from stages.wire.api import AnswerDecoder, Api
from stages.wire.foreign_json import Json
from stages.wire.responses.decoder import ResponsesDecoder, decode_document
from stages.wire.responses.quirks import ResponsesQuirks, usual_quirks
from stages.wire.responses.request import native_request
from stages.wire.responses.wrapped_calls import UnwrappingDecoder, WrappedCalls


def _build(request: ResponsesRequest, model: str, quirks: ResponsesQuirks) -> dict[str, Json]:
    return native_request(request.body, quirks=quirks, model=model, stream=request.stream, mended=request.mended)


def _open(request: ResponsesRequest, quirks: ResponsesQuirks) -> AnswerDecoder:
    decoder = ResponsesDecoder(traits_of(request), keeps_plain=quirks.has_plain_reasoning)
    return UnwrappingDecoder(decoder, request.custom_tools) if _wraps(request, quirks) else decoder


def _decode(document: bytes, request: ResponsesRequest, quirks: ResponsesQuirks) -> list[StreamEvent]:
    events = decode_document(document, traits_of(request), keeps_plain=quirks.has_plain_reasoning)
    return WrappedCalls(request.custom_tools).feed(events) if _wraps(request, quirks) else events


def _wraps(request: ResponsesRequest, quirks: ResponsesQuirks) -> bool:
    """Whether `native_request` offers the request's custom tools as functions."""
    return bool(request.custom_tools) and not quirks.has_custom_tools


RESPONSES: Final = Api(
    name="responses",
    endpoint="/responses",
    quirks=ResponsesQuirks,
    usual_quirks=usual_quirks,
    build_request=_build,
    open_decoder=_open,
    decode_document=_decode,
)
