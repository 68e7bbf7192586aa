"""What ``headrace budget`` prints."""

from __future__ import annotations

from pipeline.study.budget import Judgement
from pipeline.study.tables import Paint, ms_text, printable


def budget_page(judgements: list[Judgement], paint: Paint) -> list[str]:
    """Return one line for each limit that is exceeded or cannot be judged, and one for the rest."""
    exceeded = [one for one in judgements if one.verdict == "exceeded"]
    unclear = [one for one in judgements if one.verdict == "cannot tell"]
    lines = [paint(_exceeded(one), "bad") for one in exceeded]
    lines += [printable(f"cannot tell: {one.figure}: {one.reason}") for one in unclear]
    within = len(judgements) - len(exceeded) - len(unclear)
    return [*lines, paint(f"{within} of {len(judgements)} limits are kept", "dim")]


def _exceeded(one: Judgement) -> str:
    value = ms_text(one.value or 0.0)
    if one.low is None or one.high is None:
        return f"exceeded: {one.figure} is {value}, and may be {ms_text(one.at_most)} at most"
    interval = f"{ms_text(one.low)} to {ms_text(one.high)}"
    return f"exceeded: {one.figure} has grown by {value} ({interval}), and may by {ms_text(one.at_most)} at most"
