"""Settings of the whole suite: how many examples hypothesis tries, and which skips are allowed.

Hypothesis tries 100 examples of each property; with ``HYPOTHESIS_PROFILE=ci`` 500, with ``nightly`` 20 000.
A test that fixes ``max_examples`` itself keeps its number.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from kit.needs import is_known, skipped_line

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None)
settings.register_profile(
    "nightly", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(PROFILE)

_SKIPPED = pytest.StashKey[list[tuple[str, str]]]()
"""Node id and reason of everything that was skipped."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SKIPPED] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PROFILE == "nightly":
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # none: twenty thousand examples take their time


def pytest_collection_finish() -> None:
    """Leave out of all collections what the suite itself consists of: many tests look for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kernel_stamps() -> Generator[None]:
    """Have the kernel stamp packets: for tests that expect a stamp."""
    from kit.time.stamps import stamping  # it needs the engine, and most runs do not need it

    with stamping():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _note(item.config, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _note(collector.config, report)
    return report


def _note(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        config.stash[_SKIPPED].append((report.nodeid, report.longrepr[2].removeprefix("Skipped: ")))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and not all(is_known(reason) for _, reason in session.config.stash[_SKIPPED]):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = config.stash[_SKIPPED]
    if line := skipped_line(reason for _, reason in skipped):
        terminalreporter.write_line(line)
    for node, reason in skipped:
        if not is_known(reason):
            terminalreporter.write_line(f"skipped for a reason that tests/kit/needs.py does not list: {node}: {reason}")
