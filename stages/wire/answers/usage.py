"""The token counts that upstreams nest in their usage, in the words that Responses and Chat Completions share."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.json import Decoder


class TokenDetails(Struct):
    """The details of the input tokens or of the output tokens."""

    cached_tokens: Any = None  # foreign JSON, here and below
    cache_write_tokens: Any = None
    reasoning_tokens: Any = None


TOKEN_DETAILS = Decoder(TokenDetails)
