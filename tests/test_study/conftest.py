"""What the service has really written, once for all tests of a process."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from kit.study.real import real_lines


@pytest.fixture(scope="session")
def real() -> list[dict[str, Any]]:
    """Return lines of the real service."""
    return trio.run(real_lines)
