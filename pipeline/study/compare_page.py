"""What ``headrace compare`` prints."""

from __future__ import annotations

from collections import Counter

from pipeline.study.compare import ComparedFigure, Comparison
from pipeline.study.tables import Paint, ms_text, number, table, wrapped


def compare_page(comparison: Comparison, paint: Paint, *, shows_all: bool = False) -> list[str]:
    """Return the lines: what was found, the figures that differ, and how many do not or cannot be judged."""
    found = [one for one in comparison.figures if one.differs]
    counts = Counter(one.verdict for one in comparison.figures)
    lines = [paint(line, "bold") for line in wrapped(_headline(comparison, found))]
    shown = comparison.figures if shows_all else found
    if shown:
        rows = [
            [
                one.figure,
                number(one.a_median if one.by == "median" else one.a_mean),
                number(one.b_median if one.by == "median" else one.b_mean),
                f"{one.shown.difference:+.3f}",
                f"{one.shown.low:+.3f} to {one.shown.high:+.3f}",
                one.verdict + (" (mean)" if one.by == "mean" else ""),
            ]
            for one in shown
        ]
        head, *rest = table(["median, in ms", "A", "B", "B - A", "95 % interval", "verdict"], rows)
        colours = {"slower": "bad", "faster": "good"}
        lines += ["", paint(head, "dim")]
        lines += [paint(line, colours.get(one.verdict, "dim")) for line, one in zip(rest, shown, strict=True)]
    judged = f"{counts['no difference']} figures do not differ noticeably"
    unclear = f"of {counts['cannot tell']} figures the recordings cannot tell" + (
        ": record more requests" if counts["cannot tell"] else ""
    )
    return [*lines, "", *wrapped(f"{judged}; {unclear}. The intervals hold for all figures together.")]


def _headline(comparison: Comparison, found: list[ComparedFigure]) -> str:
    if not found:
        if all(one.verdict == "cannot tell" for one in comparison.figures):
            return "Cannot tell: there are too few requests, or their times vary too much."
        return "No difference was found."
    first = found[0]
    difference, low, high = first.shown
    was, now = (first.a_median, first.b_median) if first.by == "median" else (first.a_mean, first.b_mean)
    sentence = (
        f"{first.figure} is {first.verdict} in B: its {first.by} went from {ms_text(was)} to {ms_text(now)} a request, "
        f"by {abs(difference):.3f} ms (with 95 % confidence between {min(abs(low), abs(high)):.3f} and "
        f"{max(abs(low), abs(high)):.3f} ms)."
    )
    if comparison.culprit is None:
        return f"{sentence} No stage and no wait alone explains it."
    total = next((one for one in found if one.figure == "total_ms"), None)
    if total is not None:
        sentence += f" The whole request is {total.verdict} by {ms_text(abs(total.shown.difference))}."
    return sentence
