"""How findings are printed: a line each, with colour on a terminal, or one JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from pipeline.gateway.doctor.findings import CHECKS, Finding, Status, exit_status

_COLOURS: Final[dict[Status, str]] = {"ok": "32", "warning": "33", "problem": "31", "not tested": "2"}
_WIDTH: Final = max(map(len, CHECKS))


def line_of(finding: Finding, *, has_colour: bool) -> str:
    """Return a finding as one line."""
    status = f"{finding.status:<10}"
    if has_colour:
        status = f"\x1b[{_COLOURS[finding.status]}m{status}\x1b[0m"
    about = f"{finding.about}: " if finding.about else ""
    remedy = f" -> {finding.remedy}" if finding.remedy else ""
    return " ".join(f"{status}  {finding.check:<{_WIDTH}}  {about}{finding.measured}{remedy}".splitlines())


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
