"""Settings of the whole suite: how many processes run it, how many examples hypothesis tries, and which skips are
allowed.

``make test`` runs it in `PROCESSES_PER_CORE` processes for each core (pytest-xdist), since many tests wait for
processes and timers; a plain ``pytest`` runs in one, as one wants it for a single file. Tests that measure exact times
are marked ``alone``, and run one by one after all others.

Hypothesis tries 100 examples of each property; with ``HYPOTHESIS_PROFILE=ci`` 500, with ``nightly`` 20 000.
A test that fixes ``max_examples`` itself keeps its number.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from kit.needs import is_known, skipped_line

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell, whose jobs ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else so would the processes that are interrupted here

PROCESSES_PER_CORE = 2
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None)
settings.register_profile(
    "nightly", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(PROFILE)


class Skips:
    """Everything that was skipped, in whichever process: node id and reason."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    @property
    def unknown(self) -> list[tuple[str, str]]:
        """Those for a reason that `kit.needs` does not list."""
        return [(node, reason) for node, reason in self.found if not is_known(reason)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.unknown:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if line := skipped_line(reason for _, reason in self.found):
            terminalreporter.write_line(line)
        for node, reason in self.unknown:
            terminalreporter.write_line(f"skipped for a reason that tests/kit/needs.py does not list: {node}: {reason}")

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            self.found.append((report.nodeid, report.longrepr[2].removeprefix("Skipped: ")))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips())


def pytest_xdist_auto_num_workers() -> int:
    """Return what ``-n auto`` means."""
    return PROCESSES_PER_CORE * (os.cpu_count() or 1)


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
