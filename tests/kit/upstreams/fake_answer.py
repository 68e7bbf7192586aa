"""The start of a fake answer: tests override what they are about."""

from __future__ import annotations


class FakeAnswer:
    """An `UpstreamAnswer` without a body, from an upstream that knows nothing of arrivals and overload."""

    arrived_ns = 0
    is_backing_off = False

    def __init__(self, *, is_stream: bool = True) -> None:
        self.is_stream = is_stream

    async def receive(self) -> bytes:
        """Return the end of the body."""
        return b""

    async def back_off(self) -> None:
        """Do nothing."""

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Do nothing."""
