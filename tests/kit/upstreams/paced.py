"""Transports without sockets, for virtual time: they answer when a test says, within the deadlines of each request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

import httpx
import trio


class Paced(httpx.AsyncBaseTransport):
    """Answers after ``head_s`` and sends a chunk after each of ``gaps_s``, within the request's deadlines."""

    def __init__(
        self,
        head_s: float,
        *gaps_s: float,
        parts: Iterable[bytes] = (),
        content_type: str = "text/event-stream",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.head_s = head_s
        self.gaps_s = gaps_s
        self.parts = list(parts) or [b"x"] * len(gaps_s)
        self.status = status
        self.headers = {"content-type": content_type, **(headers or {})}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions["timeout"]
        await self.wait(self.head_s, timeouts)
        paced = self

        class Body(httpx.AsyncByteStream):
            coming = iter(zip(paced.gaps_s, paced.parts, strict=True))

            def __aiter__(self) -> AsyncIterator[bytes]:
                return self

            async def __anext__(self) -> bytes:
                gap_s, part = next(self.coming, (None, b""))
                if gap_s is None:
                    raise StopAsyncIteration
                await paced.wait(gap_s, timeouts)
                return part

        return httpx.Response(self.status, headers=self.headers, stream=Body())

    async def wait(self, duration_s: float, timeouts: dict[str, float | None]) -> None:
        limit_s = timeouts["read"]
        with trio.move_on_after(float("inf") if limit_s is None else limit_s) as scope:
            await trio.sleep(duration_s)
        if scope.cancelled_caught:
            raise httpx.ReadTimeout("late")


class InTurn(httpx.AsyncBaseTransport):
    """Answers each request as the next of ``answers`` does, and all further ones as the last.

    Attributes:
        asked_at: when each request came, from its own creation on.
    """

    def __init__(self, *answers: Paced) -> None:
        self._answers = list(answers)
        self._since = trio.current_time()
        self.asked_at: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked_at.append(round(trio.current_time() - self._since, 6))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return await answer.handle_async_request(request)
