"""Checks all locked packages against the advisories that are published for them: ``make audit``.

pip-audit exits with 0 although it has checked nothing, if its index of advisories does not know the packages, as a
mirror of PyPI does not. So its report is read here, and the exit status says which of three it was: `CLEAN`, `FOUND`,
or `UNCHECKED` if so much as one package could not be checked. A line for each file says it in words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REQUIREMENTS = Path("requirements")
CLEAN, FOUND, UNCHECKED = 0, 1, 3  # 2 is make's own


def verdict(report: str, complaint: str = "") -> tuple[list[str], int]:
    """Return what to print, and the exit status.

    Args:
        report: what pip-audit wrote to stdout: JSON, or nothing if it failed.
        complaint: what it wrote to stderr; the last line says why it failed.
    """
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        return [f"not audited: pip-audit failed, perhaps since pypi.org cannot be reached: {why}"], UNCHECKED
    found = [
        f"{package['name']} {package['version']}: {advisory['id']}, mended in {advisory['fix_versions'] or 'none'}"
        for package in packages
        for advisory in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if found:
        return [*found, f"{len(found)} known advisories for {len(packages)} locked packages"], FOUND
    if skipped:
        which = "none" if len(skipped) == len(packages) else f"all but {', '.join(skipped)}"
        return [
            "not audited: pip-audit's index (pypi.org) was not reached, or is a mirror without advisories: "
            f"it knows {which} of {len(packages)} locked packages"
        ], UNCHECKED
    return [f"no known advisories for {len(packages)} locked packages"], CLEAN


def audit(file: Path) -> tuple[list[str], int]:
    """Run pip-audit, of this interpreter's environment, over a file of locked requirements."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--requirement", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return verdict(ran.stdout, ran.stderr)


def main() -> int:
    statuses: set[int] = set()
    for file in sorted(REQUIREMENTS.glob("*.txt")):
        lines, status = audit(file)
        sys.stdout.writelines(f"{file}: {line}\n" for line in lines)
        statuses.add(status)
    return FOUND if FOUND in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
