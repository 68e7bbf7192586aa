"""The version of a release: written in pyproject.toml, and the same wherever else it is written."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path("deploy/helm/headrace/Chart.yaml")


def project(root: Path) -> Mapping[str, Any]:
    """Return the table ``project`` of pyproject.toml."""
    table: Mapping[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def versions(root: Path) -> dict[str, str]:
    """Return where a version is written, and which."""
    chart = yaml.safe_load((root / CHART).read_text(encoding="utf-8"))
    return {
        "pyproject.toml": str(project(root)["version"]),
        "headrace --version": installed_version(root),
        **{f"{CHART}, {name}": str(chart.get(name, "")) for name in ("version", "appVersion")},
    }


def installed_version(root: Path) -> str:
    """Return what the command of this interpreter's environment says; empty if it fails."""
    command = [sys.executable, "-m", "pipeline.gateway", "--version"]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    return said.strip().removeprefix("headrace ")


def disagreements(found: Mapping[str, str], wanted: str) -> list[str]:
    """Return a line for each place whose version is not ``wanted``."""
    return [f"{place} is {version or 'unknown'}, not {wanted}" for place, version in found.items() if version != wanted]


def python_versions(root: Path) -> list[str]:
    """Return the versions of Python that the classifiers name: ``3.11`` and later."""
    prefix = "Programming Language :: Python :: 3."
    return ["3." + name.removeprefix(prefix) for name in project(root)["classifiers"] if name.startswith(prefix)]
