"""Which web pages may read our responses (CORS; the Fetch standard, 3.3, 2026-11)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

EXPOSED: Final = (
    *("x-request-id", "x-headrace-deployment", "x-headrace-attempts", "retry-after", "server-timing"),
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
)
"""The headers of responses that a web page may read, besides those that it always may."""
_EXPOSED: Final = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())
_VARY: Final = (b"vary", b"origin")


class Cors:
    """The headers that a response has for its origin.

    Args:
        origins: those that are allowed; ``*`` allows all, which is safe, because keys are sent in headers and not in
            cookies. Without any, browsers keep our responses from all other pages.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        # Browsers send scheme and host in lower case, and no slash after them.
        allowed = [origin.rstrip("/").lower().encode("ascii") for origin in origins]
        self._by_origin: dict[bytes | None, Headers] = {}
        self._others: Headers = []
        if b"*" in allowed:
            self._others = [_allowing(b"*"), _EXPOSED]
        elif allowed:
            # One value only may be sent, so it is that of the request; a cache must know that there are others.
            self._by_origin = {origin: [_allowing(origin), _EXPOSED, _VARY] for origin in allowed}
            self._others = [_VARY]

    def headers_for(self, origin: bytes | None) -> Headers:
        """Return the headers of a response to a request with this ``Origin``, or without one."""
        return self._by_origin.get(origin, self._others)


def _allowing(origin: bytes) -> tuple[bytes, bytes]:
    return (b"access-control-allow-origin", origin)


NO_ORIGINS: Final = Cors(())
