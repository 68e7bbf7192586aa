"""The token counts that upstreams nest in their usage."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.json import Decoder


class TokenDetails(Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    reasoning_tokens: Any = None


TOKEN_DETAILS = Decoder(TokenDetails)
