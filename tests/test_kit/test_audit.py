"""`make audit` says that nothing was checked, where pip-audit would say that nothing was found."""

from __future__ import annotations

import json
from typing import Any

from kit.audit import CLEAN, FOUND, UNCHECKED, verdict

GOOD: dict[str, Any] = {"name": "trio", "version": "0.33.0", "vulns": []}
BAD: dict[str, Any] = {
    "name": "h2",
    "version": "4.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["4.1"], "aliases": [], "description": "long"}],
}
UNKNOWN: dict[str, Any] = {"name": "msgspec", "skip_reason": "Dependency not found on PyPI"}


def of(*packages: dict[str, Any]) -> tuple[list[str], int]:
    return verdict(json.dumps({"dependencies": packages, "fixes": []}))


def test_packages_without_advisories_are_clean() -> None:
    assert of(GOOD, GOOD) == (["no known advisories for 2 locked packages"], CLEAN)


def test_each_advisory_is_named_with_the_version_that_mends_it() -> None:
    assert of(GOOD, BAD, UNKNOWN) == (
        ["h2 4.0: PYSEC-1, mended in ['4.1']", "1 known advisories for 3 locked packages"],
        FOUND,
    )


def test_packages_that_the_index_does_not_know_are_not_clean() -> None:
    for packages, known in (((UNKNOWN, UNKNOWN), "knows none of 2"), ((GOOD, UNKNOWN), "knows all but msgspec of 2")):
        (line,), status = of(*packages)
        assert (line.startswith("not audited: "), known in line, status) == (True, True, UNCHECKED)


def test_an_index_that_cannot_be_reached_is_named_with_the_reason() -> None:
    (line,), status = verdict("", "Traceback\n  ...\nConnectionError: no route\n")
    assert line == "not audited: pip-audit failed, perhaps since pypi.org cannot be reached: ConnectionError: no route"
    assert status == UNCHECKED
