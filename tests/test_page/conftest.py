"""One Chromium, one tab and one stand-in for all tests of a process: to start them takes most of the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.page.browser import Browser, Tab, chromium
from kit.page.stand_in import StandIn, standing_in


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def only_tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as tab:
        yield tab


@pytest.fixture
def tab(only_tab: Tab) -> Iterator[Tab]:
    """The tab, as if it were new."""
    yield only_tab
    only_tab.clear()


@pytest.fixture(scope="session")
def only_stand_in() -> Iterator[StandIn]:
    with standing_in() as running:
        yield running


@pytest.fixture
def stand_in(only_stand_in: StandIn) -> StandIn:
    """The stand-in, as if it were new."""
    only_stand_in.begin()
    return only_stand_in
