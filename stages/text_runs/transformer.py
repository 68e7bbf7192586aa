"""What changes the text of a run."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

RunKind: TypeAlias = Literal["text", "reasoning", "refusal", "arguments", "input"]
"""What a run is part of: ``arguments`` are a function call's, in JSON; ``input`` is the raw text for a custom tool."""


class Edit(NamedTuple):
    """A change of a run: its characters from ``start`` to ``end``, as they came in, have become ``size`` characters."""

    start: int
    end: int
    size: int


class Transformer(Protocol):
    """Changes the text of one run; how the text is cut must not matter.

    It may also have an attribute ``edits``, a list to which it appends an `Edit` with each change that it gives out, in
    order; `TextRuns` empties it. Only with that can citations and log probabilities beyond a change be kept.
    """

    def feed(self, text: str, /) -> str:
        """Return what can be given after this much text."""
        ...

    def flush(self) -> str:
        """Return what is left: the run is complete."""
        ...
