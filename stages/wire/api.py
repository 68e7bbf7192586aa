"""What one upstream API is: where it is posted to, how a request is built, how an answer is decoded.

Each folder beside this module (``responses``, ``chat``, ``anthropic``) exports one `Api`. Everything else takes an API
from the table `stages.upstreams.apis.APIS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct

from stages.events import Failed, StreamEvent
from stages.request import ResponsesRequest
from stages.wire.foreign_json import Json

QuirksT = TypeVar("QuirksT")

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def _no_headers(_: dict[str, Json]) -> Mapping[str, str]:
    return NO_HEADERS


class AnswerDecoder(Protocol):
    """Decodes one answer: bytes in, however they were cut, events out. The last event is Finished or Failed."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer is whole although its last event was not returned: nothing that is needed may follow."""
        ...

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        """Take what was read, return the events in it."""
        ...

    def flush(self) -> list[StreamEvent]:
        """Take the end of the input, return the last events."""
        ...

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        """Take the failure that ended the input, return the last events: what is still held, then the failure."""
        ...


class Api(Struct, Generic[QuirksT], frozen=True, kw_only=True):
    """One upstream API.

    Attributes:
        name: as configurations and tables of providers write it.
        endpoint: what its addresses end with: ``/chat/completions``.
        version: the path that must stand before the endpoint on every server (``/v1``); None if the provider says.
        headers: sent with every request.
        key_header: a header that carries the key too, besides the one that the provider wants.
        trusts_openai_prefix: whether the provider ``openai`` with another address is still taken for OpenAI's own API.
        quirks: the type of what a provider's row says about this API.
        usual_quirks: the quirks where the provider's row has none, by the upstream's name of the model.
        build_request: the body to post, from the request, the upstream's name of the model, and the quirks.
            Raises `stages.wire.bad_request.BadRequest` if the request has no form in this API.
        open_decoder: a decoder for the stream that answers the request.
        headers_of: the headers that a body needs besides `headers`, names in lower case and values in a small set: a
            deployment's own header of the same name is joined with them, as one list.
        decode_document: the events of an answer that is one JSON document, as its stream would have given them.
    """

    name: str
    endpoint: str
    version: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    key_header: str | None = None
    trusts_openai_prefix: bool = True
    quirks: type[QuirksT]
    usual_quirks: Callable[[str], QuirksT]
    build_request: Callable[[ResponsesRequest, str, QuirksT], dict[str, Json]]
    open_decoder: Callable[[ResponsesRequest, QuirksT], AnswerDecoder]
    decode_document: Callable[[bytes, ResponsesRequest, QuirksT], list[StreamEvent]]
    headers_of: Callable[[dict[str, Json]], Mapping[str, str]] = _no_headers
