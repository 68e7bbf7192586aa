"""Send ``: keepalive`` to the client after a silence, even before the upstream's first byte.

Proxies and Cursor's backend drop a stream that is silent for too long; all clients ignore comments.

Takes: bytes. Gives: the same, 1:1, and a comment after each interval without output.
Holds: nothing. Waits: only for its inlet and outlet. Raises: nothing.
Source: WHATWG HTML, server-sent events (2026-08), 9.2.7: "a comment line every 15 seconds or so".
"""

from __future__ import annotations

from pipeline import Stage, codec_stage

COMMENT = b": keepalive\n\n"


class _KeepAlive:
    def feed(self, batch: list[bytes], /) -> list[bytes]:
        return batch

    def flush(self) -> list[bytes]:
        return []

    def tick(self) -> list[bytes]:
        return [COMMENT]


def keep_alive(interval_s: float) -> Stage[bytes, bytes]:
    """Return the stage; ``interval_s`` is the longest silence."""
    codec = _KeepAlive()
    return codec_stage("keep_alive", lambda ctx: codec, codec=_KeepAlive, tick_s=interval_s)
