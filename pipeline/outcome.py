"""How the run of a pipeline ended, as it is told to the codecs that want to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: it was completed, it failed with ``error``, or neither, and so it was cancelled.

    Attributes:
        is_complete: whether all of its output was given and taken.
        error: the first failure in time, in whichever stage it happened.
    """

    is_complete: bool = False
    error: PipelineError | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether it was cancelled: the client has left, or the process is about to stop."""
        return not self.is_complete and self.error is None


COMPLETED: Final = Outcome(is_complete=True)
CANCELLED: Final = Outcome()
