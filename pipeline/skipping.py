"""A codec stage whose failure is its own: the request goes on without it."""

from __future__ import annotations

import logging
from typing import Any, TypeGuard

from pipeline.context import RequestContext
from pipeline.line import CodecStage
from pipeline.outcome import Outcome

log = logging.getLogger("headrace")


def skipping(stage: Any) -> CodecStage[Any, Any]:
    """Return the stage with the rule that it is skipped from its first failure on.

    Then what it held comes first (its codec's method ``skip``), and everything passes unchanged from the item on at
    which it failed. So that this is exact, it gets its input item by item.

    Raises:
        ValueError: if it cannot be skipped: it is not a codec, or it may hold something and has no ``skip``.
    """
    if not _is_codec(stage) or stage.is_waiting or stage.tick_s is not None:
        raise ValueError("on_error: skip needs a codec that neither waits nor ticks")
    if not stage.has_skip and not stage.holds_nothing:
        raise ValueError(
            "on_error: skip needs to know what its codec holds: give it a method `skip(self) -> list`, which returns "
            "what it has taken but not given"
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
        self._request_id = ctx.request_id
        self._codec: Any = None  # None once it is skipped
        try:
            self._codec = stage.open(ctx)
        except Exception as error:
            self._give_up(error)
        self._opened = self._codec

    @property
    def done(self) -> bool:
        return self._codec is not None and getattr(self._codec, "done", False)

    def feed(self, batch: list[Any], /) -> list[Any]:
        given: list[Any] = []
        for at, item in enumerate(batch):
            if self._codec is None:
                return [*given, *batch[at:]]
            try:
                given += self._codec.feed([item])
            except Exception as error:
                given += self._give_up(error)
                given.append(item)
            if self.done:
                break
        return given

    def flush(self) -> list[Any]:
        if self._codec is None:
            return []
        try:
            given: list[Any] = self._codec.flush()
        except Exception as error:
            return self._give_up(error)
        return given

    def close(self, outcome: Outcome) -> None:
        if self._opened is not None:
            self._opened.close(outcome)

    def _give_up(self, error: Exception) -> list[Any]:
        """Go on without the codec, and return what it held."""
        kind = f"{type(error).__module__}.{type(error).__qualname__}"
        log.warning("stage %s failed in request %s and is skipped: %s", self._stage.name, self._request_id, kind)
        codec, self._codec = self._codec, None
        if codec is None or not self._stage.has_skip:
            return []
        try:
            held: list[Any] = codec.skip()
        except Exception as worse:
            kind = f"{type(worse).__module__}.{type(worse).__qualname__}"
            log.error("stage %s lost what it held in request %s: %s", self._stage.name, self._request_id, kind)
            return []
        return held
