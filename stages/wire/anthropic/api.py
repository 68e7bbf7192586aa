"""Anthropic's Messages API as one record: what the rest of the service needs to know of this API.

Source: https://platform.claude.com/docs/en/api/messages (2026-11).
"""

from __future__ import annotations

from typing import Final

from stages.events import StreamEvent
from stages.request import ResponsesRequest
from stages.wire.answers.request_traits import traits_of
from stages.wire.anthropic.decoder import AnthropicDecoder, decode_anthropic_document
from stages.wire.anthropic.request import anthropic_request, beta_headers, tool_names
from stages.wire.api import Api
from stages.wire.foreign_json import Json

VERSION: Final = "2023-06-01"
"""The only version that Messages have: https://platform.claude.com/docs/en/api/versioning (2026-11)."""


def _usual_quirks(_: str) -> None:
    """What a server takes depends on the model alone: see `models`."""


def _build(request: ResponsesRequest, model: str, _: None) -> dict[str, Json]:
    return {**anthropic_request(request, model=model), "stream": request.stream}


def _open(request: ResponsesRequest, _: None) -> AnthropicDecoder:
    return AnthropicDecoder(traits_of(request), tool_names(request))


def _decode(document: bytes, request: ResponsesRequest, _: None) -> list[StreamEvent]:
    return decode_anthropic_document(document, traits_of(request), tool_names(request))


ANTHROPIC: Final = Api(
    name="anthropic",
    endpoint="/messages",
    version="/v1",
    headers=(("anthropic-version", VERSION),),
    key_header="x-api-key",  # servers with several APIs take either: vLLM knows Bearer only
    quirks=type(None),
    usual_quirks=_usual_quirks,
    build_request=_build,
    open_decoder=_open,
    decode_document=_decode,
    headers_of=beta_headers,
)
