"""How much may be repeated: an outage must not be made worse by everybody asking again."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 10
SHARE: Final = 0.1
"""Of the requests of the last 10 s."""
LEAST_PER_S: Final = 1
"""So that who is alone gets all of the repetitions that are configured."""


class RetryBudget:
    """Counts requests, repetitions and moves by the second, over the last ten."""

    __slots__ = ("_moves", "_requests", "_retries", "_seconds")

    def __init__(self) -> None:
        self._seconds: deque[list[float]] = deque()  # each with its number, its requests, its repetitions and its moves
        self._requests = self._retries = self._moves = 0.0

    def note_request(self, now_s: float) -> None:
        """Note a request, whatever becomes of it."""
        self._second(now_s)[1] += 1
        self._requests += 1

    def note_move(self, now_s: float) -> None:
        """Note that another deployment is asked. It always may be, but it leaves less of the share to repetitions."""
        self._second(now_s)[3] += 1
        self._moves += 1

    def take(self, now_s: float) -> bool:
        """Take a repetition out of the budget; return whether there was one left."""
        second = self._second(now_s)
        if self._retries + 1 > max(SHARE * self._requests - self._moves, LEAST_PER_S * WINDOW_S):
            return False
        second[2] += 1
        self._retries += 1
        return True

    def _second(self, now_s: float) -> list[float]:
        number = now_s // 1
        seconds = self._seconds
        if seconds and seconds[-1][0] == number:
            return seconds[-1]
        while seconds and seconds[0][0] <= number - WINDOW_S:
            _, requests, retries, moves = seconds.popleft()
            self._requests -= requests
            self._retries -= retries
            self._moves -= moves
        seconds.append([number, 0, 0, 0])
        return seconds[-1]
