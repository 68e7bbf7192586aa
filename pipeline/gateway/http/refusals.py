"""Refusals: what the server itself answers when a request cannot be passed to the application.

The server knows what is wrong, and names it by a code. Statuses and bodies are decided by the program that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

RefusalCode = Literal[
    "malformed_request",
    "request_timeout",
    "uri_too_long",
    "headers_too_large",
    "method_not_supported",
    "transfer_coding_not_supported",
    "http_version_not_supported",
    "too_many_connections",
    "internal_error",
]


class RefusedRequest(Exception):
    """The bytes of a client are not a request that we serve. Refuse it and close: the framing is lost.

    Args:
        code: what is wrong.
        message: the same in a sentence, and what would be right; holds nothing that the client sent.
    """

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code: RefusalCode = code
        self.message = message


@dataclass(frozen=True, slots=True)
class RefusalResponse:
    """The response to a request that is refused; the server adds the headers of framing and connection."""

    status: int
    content_type: bytes
    body: bytes
    retry_after_s: int | None = None


MakeRefusal = Callable[[RefusalCode, str], RefusalResponse]
"""Takes the code and the message of a refusal."""
