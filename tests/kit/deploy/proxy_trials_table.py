"""Prints the table of docs/proxies.md: what clients of each proxy see, with good settings and with bad ones.

PYTHONPATH=.:tests python -m kit.deploy.proxy_trials_table
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trio
from kit.deploy.proxy_drains import Drained, drains
from kit.deploy.proxy_settings import QUESTIONS, Trial, trials_of
from kit.deploy.proxy_trials import Measured, measured


def row(trial: Trial, seen: Measured | Drained) -> str:
    """Return the row of a trial."""
    verdict = ("good" if trial.is_good else "bad") if seen.is_good == trial.is_good else "UNEXPECTED"
    return f"| {trial.question} | {trial.proxy.name} | {trial.setting} | {verdict} | {seen} |"


def main() -> None:
    """Print it."""
    with tempfile.TemporaryDirectory() as folder:
        for question in QUESTIONS:
            own = Path(folder, question.replace(" ", "-"))
            own.mkdir()
            trials = trials_of(question)
            if question == "drain":
                rows = [row(*one) for one in trio.run(drains, trials, own).items()]
            else:
                rows = [row(*one) for one in trio.run(measured, trials, own).items()]
            sys.stdout.write("\n".join(rows) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
