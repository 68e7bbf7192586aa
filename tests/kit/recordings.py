"""The recordings, payloads and schemas that the team keeps beside the project; what needs them is skipped without.

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
    """All recorded streams of one kind of upstream: ``responses``, ``chat``, ``anthropic``."""
    return sorted((SHARED / "recorded" / kind).glob("*.sse"))


def expected_of(recording: Path) -> dict[str, Any]:
    """What a client must end up with."""
    name = recording.name.removesuffix(".sse") + ".expected.json"
    expected: dict[str, Any] = json.loads(recording.with_name(name).read_text())
    return expected


def payloads() -> list[Path]:
    """All Cursor-shaped requests."""
    return sorted((SHARED / "payloads").glob("*.json"))
