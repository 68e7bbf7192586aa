"""Chat Completions as one record: what the rest of the service needs to know of this API.

Source: https://platform.openai.com/docs/api-reference/chat (2025-11).
"""

from __future__ import annotations

from typing import Final

from stages.events import StreamEvent
from stages.request import ResponsesRequest
from stages.wire.answers.request_traits import traits_of
from stages.wire.api import Api
from stages.wire.chat.decoder import ChatDecoder, decode_chat_document
from stages.wire.chat.quirks import ChatQuirks, usual_quirks
from stages.wire.chat.request import chat_request
from stages.wire.foreign_json import Json


def _build(request: ResponsesRequest, model: str, quirks: ChatQuirks) -> dict[str, Json]:
    return chat_request(request, model=model, quirks=quirks)


def _open(request: ResponsesRequest, quirks: ChatQuirks) -> ChatDecoder:
    return ChatDecoder(traits_of(request), tags_thoughts=quirks.tags_thoughts)


def _decode(document: bytes, request: ResponsesRequest, quirks: ChatQuirks) -> list[StreamEvent]:
    return decode_chat_document(document, traits_of(request), tags_thoughts=quirks.tags_thoughts)


CHAT: Final = Api(
    name="chat",
    endpoint="/chat/completions",
    # `openai/...` with an api_base of one's own is how any compatible server is configured, and those know neither the
    # `developer` role nor custom tools.
    trusts_openai_prefix=False,
    quirks=ChatQuirks,
    usual_quirks=usual_quirks,
    build_request=_build,
    open_decoder=_open,
    decode_document=_decode,
)
