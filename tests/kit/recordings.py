"""The recordings, payloads and schemas beside the project; without them the tests that need them are skipped.

The project's own data is in ``tests/data`` and covers the same rules, so that a lone clone is still tested.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings of ../shared are not on this machine")


def recordings(kind: str) -> list[Path]:
    """Return all recorded streams of one upstream API: ``responses``, ``chat`` or ``anthropic``."""
    return sorted((SHARED / "recorded" / kind).glob("*.sse"))


def expected_of(recording: Path) -> dict[str, Any]:
    """Return what a client must end up with."""
    name = recording.name.removesuffix(".sse") + ".expected.json"
    expected: dict[str, Any] = json.loads(recording.with_name(name).read_text())
    return expected


def payloads() -> list[Path]:
    """Return all requests in Cursor's form."""
    return sorted((SHARED / "payloads").glob("*.json"))
