"""docs/doctor.md has each check, as it is described in the code, and a row for each bad setting that is tested."""

from __future__ import annotations

import re
from pathlib import Path

from kit.service.proxy_cases import CASES

from pipeline.gateway.doctor.findings import CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_each_check_is_explained_in_its_order() -> None:
    rows = re.findall(r"^\| `([a-z0-9 ]+)` \| ([^|]+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert dict(rows) == CHECKS
    assert [name for name, _ in rows] == list(CHECKS)


def test_each_bad_setting_has_a_row_with_its_finding() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| (nginx|HAProxy|Caddy) \|", line)]
    found = [(cells[0][2:], cells[1], cells[2].partition(" (also")[0]) for cells in rows]
    expected = [(case.proxy.name, case.name, f"{case.status} `{case.check}`") for case in CASES]
    assert found[3:] == expected
    assert [cells[2] for cells in found[:3]] == ["-", "-", "-"]
    assert "NOT FOUND" not in PAGE
