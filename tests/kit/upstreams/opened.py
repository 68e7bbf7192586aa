"""Open the answer to a call, as ``call_upstream`` does, and note its time points."""

from __future__ import annotations

from typing import TypeVar

from stages.upstreams import Mark, Upstream, UpstreamAnswer, UpstreamCall

Prepared = TypeVar("Prepared")


class Marks(list[str]):
    """The time points that were reached, in their order; a `Mark`."""

    def __call__(self, point: str) -> None:
        self.append(point)


async def open_answer(
    upstream: Upstream[Prepared], call: UpstreamCall, mark: Mark = lambda point: None
) -> UpstreamAnswer:
    """Return the answer of ``upstream``, which the caller must close."""
    return await upstream.open(upstream.prepare(call), mark)
