"""A codec stage whose failure is its own: the request goes on without it.

What it held must come out exactly once, wherever in its code it failed. No author can promise that of a `feed` that
stopped halfway: it may have taken half of the item, or given half of what it held. So the codec is asked before each
item what it would return, while it is still whole, and the answer is used if that item is the one at which it fails.
"""

from __future__ import annotations

import logging
from typing import Any, TypeGuard

from pipeline.context import RequestContext
from pipeline.errors import places_of
from pipeline.line import CodecStage
from pipeline.outcome import Outcome

log = logging.getLogger("headrace")


def skipping(stage: Any) -> CodecStage[Any, Any]:
    """Return the stage with the rule that it is skipped from its first failure on.

    Then what it held comes first (its codec's method ``skip``, called before that item), and everything passes
    unchanged from the item on at which it failed. So that this is exact, it gets its input item by item.

    Raises:
        ValueError: if it cannot be skipped: it is not a codec, or it may hold something and has no ``skip``.
    """
    if not _is_codec(stage) or stage.is_waiting or stage.tick_s is not None:
        raise ValueError("on_error: skip needs a codec that neither waits nor ticks")
    if not stage.has_skip and not stage.holds_nothing:
        raise ValueError(
            "on_error: skip needs to know what its codec holds: give it a method `skip(self) -> list`, which returns "
            "what it has taken but not given, [] if it never holds anything, and changes nothing"
        )
    return CodecStage(
        stage.name,
        lambda ctx: _Skipping(stage, ctx),
        accepts=stage.accepts,
        emits=stage.emits,
        has_done=stage.has_done,
        has_close=stage.has_close,
    )


def _is_codec(stage: object) -> TypeGuard[CodecStage[Any, Any]]:
    return isinstance(stage, CodecStage)


class _Skipping:
    def __init__(self, stage: CodecStage[Any, Any], ctx: RequestContext) -> None:
        self._stage = stage
        self._request_id, self._skipped = ctx.request_id, ctx.skipped
        self._codec: Any = None  # None once it is skipped
        try:
            self._codec = stage.open(ctx)
        except Exception as error:
            self._give_up(error, [])
        self._opened = self._codec

    @property
    def done(self) -> bool:
        return self._codec is not None and getattr(self._codec, "done", False)

    def feed(self, batch: list[Any], /) -> list[Any]:
        given: list[Any] = []
        for at, item in enumerate(batch):
            if self._codec is None:
                return [*given, *batch[at:]]
            held = self._held()
            try:
                given += self._codec.feed([item])
            except Exception as error:
                given += self._give_up(error, held)
                given.append(item)
            if self.done:
                break
        return given

    def flush(self) -> list[Any]:
        if self._codec is None:
            return []
        held = self._held()
        try:
            given: list[Any] = self._codec.flush()
        except Exception as error:
            return self._give_up(error, held)
        return given

    def close(self, outcome: Outcome) -> None:
        if self._opened is not None:
            self._opened.close(outcome)

    def _held(self) -> list[Any] | Exception:
        """Return what the codec holds, in a list that is not its own, or why it cannot say."""
        if not self._stage.has_skip:
            return []
        try:
            return [*self._codec.skip()]
        except Exception as error:
            return error

    def _give_up(self, error: Exception, held: list[Any] | Exception) -> list[Any]:
        """Go on without the codec, and return what it held."""
        name, self._codec = self._stage.name, None
        self._skipped.append(name)
        log.warning("stage %s failed in request %s and is skipped: %s", name, self._request_id, places_of(error))
        if isinstance(held, Exception):
            log.error("stage %s lost what it held in request %s: %s", name, self._request_id, places_of(held))
            return []
        return held
