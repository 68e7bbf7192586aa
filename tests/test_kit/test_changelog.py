"""The changelog's form is checked before a release, and the text of the release is its section."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.release.__main__ import check
from kit.release.changelog import problems_of, release_text

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
# Changelog

Changes, newest first.

## Unreleased

## 1.10.0 - 2026-03-01

In short: better.

### Added

- A thing, which
  takes two lines.

### Fixed

- Another.

## 1.9.0 - 2026-02-01 [YANKED]

### Removed

- A third.
"""


def test_our_own_changelog_is_in_order() -> None:
    assert problems_of((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) == []


def test_a_good_changelog_has_no_problems() -> None:
    assert problems_of(GOOD) == []
    assert problems_of(GOOD.replace("## Unreleased\n", "## Unreleased\n\n### Added\n\n- Soon.\n")) == []


def test_the_text_of_a_release_is_its_section_without_its_title() -> None:
    assert release_text(GOOD, "1.10.0").splitlines()[0] == "In short: better."
    assert release_text(GOOD, "1.10.0").endswith("- Another.")
    assert release_text(GOOD, "1.9.0") == "### Removed\n\n- A third."
    with pytest.raises(LookupError, match=r"no section '## 1\.11\.0 - DATE'"):
        release_text(GOOD, "1.11.0")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# Changelog\n", "# Changes\n", "line 1: the title '# Changelog' is missing"),
        ("## Unreleased\n", "", "the first section is not '## Unreleased'"),
        ("## Unreleased\n", "## Unreleased - 2026-04-01\n", "line 5: Unreleased has a date"),
        (" - 2026-03-01", "", "line 7: 1.10.0 has no date such as 2026-12-31: none"),
        ("2026-03-01", "2026-02-30", "line 7: 1.10.0 has no date such as 2026-12-31: 2026-02-30"),
        ("2026-03-01", "20260301", "line 7: 1.10.0 has no date such as 2026-12-31: 20260301"),
        ("2026-03-01", "2026-01-01", "line 20: 1.9.0 has a later date than 1.10.0 above it"),
        ("1.10.0", "1.9.0", "line 20: 1.9.0 is not older than 1.9.0 above it: the newest comes first, and each once"),
        ("1.10.0", "next", "line 7: next is not a version such as 1.2.3"),
        ("## 1.10.0 - ", "## Version 1.10 of ", "line 7: '## Version 1.10 of 2026-03-01' is not of the form"),
        ("### Fixed", "### Bugs", "line 16: '### Bugs' is not one of '### Added, Changed, Deprecated, Removed"),
        ("### Fixed", "### Added", "line 16: Added occurs twice in 1.10.0"),
        ("- Another.", "", "Fixed of 1.10.0 is empty"),
        ("### Removed\n\n- A third.", "", "1.9.0 is empty"),
        ("## 1.9.0 ", "## [1.9.0] ", "line 20: '## [1.9.0] - 2026-02-01 [YANKED]' is not of the form"),
    ],
)
def test_each_fault_is_named_with_its_place(old: str, new: str, problem: str) -> None:
    assert old in GOOD
    assert any(found.startswith(problem) for found in problems_of(GOOD.replace(old, new, 1)))


def test_all_places_must_have_the_version_that_is_released(tmp_path: Path) -> None:
    (tmp_path / "CHANGELOG.md").write_text(GOOD, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.10.0"\n', encoding="utf-8")
    package = tmp_path / "pipeline" / "gateway"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('headrace 1.10.0')\n", encoding="utf-8")
    chart = tmp_path / "deploy" / "helm" / "headrace" / "Chart.yaml"
    chart.parent.mkdir(parents=True)
    chart.write_text('version: 1.10.0\nappVersion: "1.10.0"\n', encoding="utf-8")
    text, problems = check(tmp_path, "1.10.0")
    assert (problems, text.splitlines()[0]) == ([], "In short: better.")
    chart.write_text("version: 1.9.0\n", encoding="utf-8")
    of_the_chart = [
        "deploy/helm/headrace/Chart.yaml, version is 1.9.0",
        "deploy/helm/headrace/Chart.yaml, appVersion is unknown",
    ]
    assert check(tmp_path, "1.10.0")[1] == [f"{place}, not 1.10.0" for place in of_the_chart]
    (package / "__main__.py").write_text("raise SystemExit(1)\n", encoding="utf-8")
    assert check(tmp_path, "1.11.0")[1] == [
        "pyproject.toml is 1.10.0, not 1.11.0",
        "headrace --version is unknown, not 1.11.0",
        *(f"{place}, not 1.11.0" for place in of_the_chart),
        "CHANGELOG.md has no section '## 1.11.0 - DATE': rename '## Unreleased', and begin a new one",
    ]
