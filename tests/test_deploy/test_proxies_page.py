"""docs/proxies.md has a row for each setting that is tried with a real proxy."""

from __future__ import annotations

from pathlib import Path

from kit.deploy.proxy_settings import QUESTIONS, trials_of

PAGE = (Path(__file__).parents[2] / "docs" / "proxies.md").read_text(encoding="utf-8")


def test_each_setting_that_is_tried_has_a_row_with_its_verdict() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(tuple(f"| {question} | " for question in QUESTIONS))]
    found = [tuple(line[2:].split(" | ")[:4]) for line in rows]
    trials = [trial for question in QUESTIONS for trial in trials_of(question)]
    verdicts = {True: "good", False: "bad"}
    expected = [(trial.question, trial.proxy.name, trial.setting, verdicts[trial.is_good]) for trial in trials]
    assert [row for row in found if len(row) == 4] == expected
