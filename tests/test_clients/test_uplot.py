"""The chart library of the page at ``/latency`` is the npm package, byte for byte."""

from __future__ import annotations

import json

import pytest
from kit.needs import NODE_CLIENTS, NODE_CLIENTS_FOLDER, ROOT, needs

PAGE = ROOT / "pipeline" / "gateway" / "admin" / "page"
PACKAGE = NODE_CLIENTS_FOLDER / "node_modules" / "uplot"


@needs(NODE_CLIENTS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("uPlot.iife.min.js", "dist/uPlot.iife.min.js"),
        ("uPlot.LICENSE.txt", "LICENSE"),
    ],
)
def test_it_is_the_npm_package(ours: str, theirs: str) -> None:
    assert (PAGE / ours).read_bytes() == (PACKAGE / theirs).read_bytes()


@needs(NODE_CLIENTS)
def test_its_version_is_locked() -> None:
    locked = json.loads((ROOT / "clients" / "package.json").read_text())["dependencies"]["uplot"]
    assert json.loads((PACKAGE / "package.json").read_text())["version"] == locked
