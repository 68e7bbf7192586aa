"""The script of ``canned/timed``: when each part of an answer comes, whatever the request and whoever reads it.

``canned/timed:head=400ms;tokens=50;gap=20ms;stall=1s@25`` begins its answer after 400 ms, and says 50 tokens, one each
20 ms, with a pause of a second before the 25th. Semicolons, because a comma ends a plain scalar in a flow mapping of
YAML. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from stages.upstreams.canned.events import CannedMessage

SCRIPT: Final = "timed"
"""The model's name; its script follows after a colon, and may be absent."""

MAX_TOKENS: Final = 100_000
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Half of what one event may have (`stages.wire.sse`): the last events hold the whole text again."""
MAX_WAIT_S: Final = 3600

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)\Z")
_COUNT = re.compile(r"\d{1,9}\Z")


class Timing(Struct, frozen=True):
    """When what comes, in seconds; a token is a word.

    Attributes:
        head_s: from the request to the head of the answer, and the events before the first token.
        first_s: from the head to the first token.
        tokens: how many tokens there are.
        gap_s: from one token to the next.
        stall_s, stall_at: a pause of ``stall_s`` more is made before the token ``stall_at``, counted from 1.
        fail_after: the answer breaks off after so many tokens; None if it does not.
        token_bytes: the length of a token, with the space before it.
    """

    head_s: float = 0.0
    first_s: float = 0.0
    tokens: int = 20
    gap_s: float = 0.0
    stall_s: float = 0.0
    stall_at: int = 0
    fail_after: int | None = None
    token_bytes: int = 6

    def text(self) -> CannedMessage:
        """Return the whole answer."""
        word = "x" * (self.token_bytes - 1)
        return CannedMessage(" ".join([word] * self.tokens))

    def due_s(self) -> Iterator[float]:
        """Yield when each token is due, in seconds after the head."""
        for number in range(self.tokens):
            stalled_s = self.stall_s if 0 < self.stall_at <= number + 1 else 0.0
            yield self.first_s + number * self.gap_s + stalled_s

    @property
    def whole_s(self) -> float:
        """From the request to the last token."""
        return self.head_s + self.first_s + (self.tokens - 1) * self.gap_s + self.stall_s


def is_timed(model: str) -> bool:
    """Return whether a model of ``canned/`` has a script."""
    return model.partition(":")[0] == SCRIPT


@lru_cache(maxsize=256)
def parse_timing(model: str) -> Timing:
    """Return what a model's name says, such as ``timed:head=400ms;tokens=50``.

    Raises:
        ValueError: if it is not valid; the message is a sentence that says what was expected.
    """
    timing = Timing()
    script = model.partition(":")[2]
    seen: set[str] = set()
    for item in filter(None, (item.strip() for item in script.split(";"))):
        name, _, value = item.partition("=")
        if name in seen:
            raise ValueError(f"{name} is there twice: write it once")
        seen.add(name)
        timing = _with(timing, name, value)
    if timing.stall_at > timing.tokens:
        raise ValueError(f"stall pauses before token {timing.stall_at}, but there are {timing.tokens}: write tokens=")
    if timing.fail_after is not None and timing.fail_after >= timing.tokens:
        raise ValueError(f"fail={timing.fail_after} is not before the last of {timing.tokens} tokens: write less")
    if timing.tokens * timing.token_bytes > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes: write fewer tokens or bytes")
    return timing


def _with(timing: Timing, name: str, value: str) -> Timing:
    match name:
        case "head":
            return replace(timing, head_s=_seconds(name, value))
        case "first":
            return replace(timing, first_s=_seconds(name, value))
        case "gap":
            return replace(timing, gap_s=_seconds(name, value))
        case "tokens":
            return replace(timing, tokens=_count(name, value, least=1))
        case "fail":
            return replace(timing, fail_after=_count(name, value, least=0))
        case "bytes":
            return replace(timing, token_bytes=_count(name, value, least=2))
        case "stall":
            pause, at, token = value.partition("@")
            if not at:
                raise ValueError(f"stall={value} has no token: expected a pause and a token, such as stall=1s@25")
            return replace(timing, stall_s=_seconds(name, pause), stall_at=_count(name, token, least=1))
        case _:
            raise ValueError(f"{name!r} is not known: expected head, first, tokens, gap, stall, fail or bytes")


def _seconds(name: str, text: str) -> float:
    if text == "0":
        return 0.0
    if (match := _DURATION.match(text)) is None:
        raise ValueError(f"{name}={text} is not a duration: expected a number and its unit, such as 400ms or 1.5s")
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if seconds > MAX_WAIT_S:
        raise ValueError(f"{name}={text} is longer than an hour: write less")
    return seconds


def _count(name: str, text: str, *, least: int) -> int:
    if not _COUNT.match(text) or not least <= int(text) <= MAX_TOKENS:
        raise ValueError(f"{name}={text} is out of range: expected a whole number from {least} to {MAX_TOKENS}")
    return int(text)
