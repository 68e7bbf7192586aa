"""What is fuzzed: seeds, a mutator that knows their structure, and a check of one input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random
from typing import ClassVar

DATA = Path(__file__).parent.parent / "data"
CORPUS = DATA / "fuzz"
"""Seeds and findings: a folder for each target."""


class Target(ABC):
    """One kind of input.

    Attributes:
        name: its folder in the corpus.
        seeds: the inputs that others are made of.
        counts: how many inputs had each outcome.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        found = {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).glob("*")) if path.is_file()}
        self.corpus: dict[str, bytes] = found
        self.seeds: list[bytes] = [*found.values(), *self.recorded()]
        self.counts: dict[str, int] = {}

    def recorded(self) -> list[bytes]:
        """Return what other tests have already."""
        return []

    @abstractmethod
    def mutated(self, data: bytes, rng: Random) -> bytes:
        """Return another input that is like ``data``."""

    @abstractmethod
    async def outcome(self, data: bytes) -> str:
        """Return in a word what becomes of an input.

        Raises:
            AssertionError: if it must not become that. Any other exception is a finding as well.
        """

    async def check(self, data: bytes) -> str:
        """Check one input, and count and return its outcome."""
        word = await self.outcome(data)
        self.counts[word] = self.counts.get(word, 0) + 1
        return word
