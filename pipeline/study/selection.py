"""Which requests of a recording a command looks at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from pipeline.study.recording import StudyError
from pipeline.study.records import Recorded, RecordedRequest, seconds_of


class Selection(Struct, kw_only=True, frozen=True):
    """What must be true of a request; None if anything may be.

    Attributes:
        model: the model that the client asked for.
        deployment: the id of the deployment.
        end: its end code.
        since_s, until_s: when it ended at the earliest, and before when, in seconds since the epoch; for stalls, too.
    """

    model: str | None = None
    deployment: str | None = None
    end: str | None = None
    since_s: float | None = None
    until_s: float | None = None

    def of(self, events: Iterable[Recorded]) -> Iterator[Recorded]:
        """Yield the requests for which it is true, and the stalls of the time."""
        for event in events:
            if isinstance(event, RecordedRequest) and not (
                self.model in (None, event.model)
                and self.deployment in (None, event.deployment)
                and self.end in (None, event.end)
            ):
                continue
            if self._is_in_time(event):
                yield event

    def _is_in_time(self, event: Recorded) -> bool:
        if self.since_s is None and self.until_s is None:
            return True
        at_s = event.ended_s
        return (
            at_s is not None
            and (self.since_s is None or at_s >= self.since_s)
            and (self.until_s is None or at_s < self.until_s)
        )


def parsed_time(text: str | None) -> float | None:
    """Return a time that was written as in the log, ``2026-11-30T12:00:00Z``, in seconds since the epoch.

    Raises:
        StudyError: if it is not one.
    """
    if text is None:
        return None
    at_s = seconds_of(text if "T" in text and (text[-1:] in "Zz" or "+" in text) else f"{text}+00:00")
    if at_s is None:
        raise StudyError(f"{text!r} is not a time: write it as in the log, such as 2026-11-30T12:00:00Z (UTC)")
    return at_s
