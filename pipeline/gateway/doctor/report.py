"""How findings are printed: a line each, with colour on a terminal, or one JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

import msgspec

from pipeline.gateway.doctor.findings import CHECKS, Finding, Status, exit_status
from pipeline.study.tables import coloured, printable

_COLOURS: Final[dict[Status, str]] = {"ok": "good", "warning": "ours", "problem": "bad", "not tested": "dim"}
_WIDTH: Final = max(map(len, CHECKS))


def in_short(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings for a reader: one for all checks in a row that were not made for the same reason."""
    for (status, measured, _), group in groupby(findings, lambda one: (one.status, one.measured, one.remedy)):
        first, *others = group
        if status != "not tested" or not others:
            yield from (first, *others)
            continue
        names = ", ".join(one.check for one in (first, *others))
        yield Finding(check=f"{1 + len(others)} checks", status=status, measured=f"{measured}: {names}")


def line_of(finding: Finding, *, has_colour: bool) -> str:
    """Return a finding as one line; servers that are asked have a say in its text, but not in what a terminal does."""
    status = f"{finding.status:<10}"
    about = f"{finding.about}: " if finding.about else ""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    text = printable(" ".join(f"{finding.check:<{_WIDTH}}  {about}{finding.measured}{remedy}".splitlines()))
    return f"{coloured(status, _COLOURS[finding.status]) if has_colour else status}  {text}"


def last_line(findings: Sequence[Finding]) -> str:
    """Return how many there are of each status."""
    counts = Counter(finding.status for finding in findings)
    return ", ".join(
        f"{counts[status]} {status}{'s' if status in ('warning', 'problem') and counts[status] != 1 else ''}"
        for status in ("problem", "warning", "ok", "not tested")
        if counts[status]
    )


def as_json(findings: Sequence[Finding]) -> str:
    """Return all of them as one document."""
    document = {"has_problem": bool(exit_status(findings)), "findings": findings}
    return msgspec.json.format(msgspec.json.encode(document)).decode()
