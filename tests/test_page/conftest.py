"""One Chromium for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.page.browser import Browser, chromium
from kit.page.stand_in import StandIn, standing_in


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with standing_in() as running:
        yield running
