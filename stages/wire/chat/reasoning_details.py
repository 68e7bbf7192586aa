"""``reasoning_details`` of one answer: the pieces of a stream, put together as they must be sent back.

OpenRouter and MiniMax send reasoning as typed objects (``reasoning.text``, ``reasoning.summary``,
``reasoning.encrypted``) with an index each, cut into pieces in a stream. In the next turn they expect the whole objects
again, in their order and unchanged; OpenRouter refuses tool turns of Gemini 3 without them.

Source: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens, "Preserving reasoning" (2026-11);
https://platform.minimax.io/docs/guides/text-m2-function-call (2026-11).
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw
from msgspec.json import Decoder

from stages.wire.foreign_json import Json, read_list

_DETAIL: Final = Decoder(dict[str, Json])
_TEXTS: Final = ("text", "summary")


class ReasoningDetails:
    """Collects the details of one stretch of reasoning."""

    def __init__(self) -> None:
        self._details: list[dict[str, Json]] = []

    def __bool__(self) -> bool:
        return bool(self._details)

    def add(self, pieces: Raw) -> None:
        """Take the details of a chunk, or of a whole message."""
        for piece in read_list(_DETAIL, pieces):
            if piece is not None:
                self._add(piece)

    def take(self) -> list[dict[str, Json]]:
        """Return the whole details, and start anew."""
        details, self._details = self._details, []
        return details

    def _add(self, piece: dict[str, Json]) -> None:
        last = self._details[-1] if self._details else None
        if last is None or not _continues(last, piece):
            self._details.append(piece)
            return
        for key, value in piece.items():
            before = last.get(key)
            if key in _TEXTS and isinstance(value, str) and isinstance(before, str):
                # Some versions of MiniMax send all that there is so far in every chunk.
                is_whole = bool(before) and value.startswith(before) and _is_minimax(last)
                last[key] = value if is_whole else before + value
            elif value is not None:
                last[key] = value


def _continues(last: dict[str, Json], piece: dict[str, Json]) -> bool:
    """Return whether a piece adds to the last object, rather than being one of its own.

    Encrypted data is never cut. An object that has its signature is complete.
    """
    return (
        last.get("type") == piece.get("type")
        and last.get("index") == piece.get("index")
        and any(key in last or key in piece for key in _TEXTS)
        and not last.get("signature")
        and (last.get("id") is None or piece.get("id") in (None, last.get("id")))
    )


def _is_minimax(detail: dict[str, Json]) -> bool:
    return str(detail.get("format")).lower().startswith("minimax")
