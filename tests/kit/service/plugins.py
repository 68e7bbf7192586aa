"""Make a distribution discoverable as if it had been installed, without pip and without network."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "data" / "plugin_example"


def describe(site: Path, project: Path) -> None:
    """Put into ``site`` the metadata that pip would make from the project's pyproject."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in about["entry-points"].items()
        )
    )


def install(monkeypatch: pytest.MonkeyPatch, site: Path, project: Path = EXAMPLE) -> None:
    """Put ``project``'s modules on the path, and `describe` it in ``site``."""
    describe(site, project)
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(project)
    for module in project.glob("*.py"):
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
