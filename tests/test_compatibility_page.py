"""docs/compatibility.md and SECURITY.md name only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text(encoding="utf-8")
SECURITY = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [PAGE, SECURITY], ids=["compatibility", "security"])
def test_every_test_that_the_page_names_exists(page: str) -> None:
    named = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", page)
    assert len(named) > 20
    for file, test in named:
        source = (TESTS / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{file} has no {test}"


def test_every_row_about_a_client_or_an_upstream_names_its_test() -> None:
    for section in PAGE.split("\n### ")[1:]:
        title = section.partition("\n")[0]
        text = section.partition("\n## ")[0]
        rows = [line for line in text.splitlines() if line.startswith("|")][2:]
        assert rows, title
        names_all = "All rows: `test_" in text or title == "Reasoning display"
        for row in rows:
            assert names_all or "`test_" in row, f"{title}: {row}"
