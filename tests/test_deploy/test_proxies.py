"""Clients of real proxies see what docs/proxies.md says: with the files of deploy/, and with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.deploy.proxy_drains import drains
from kit.deploy.proxy_settings import QUESTIONS, Question, trials_of
from kit.deploy.proxy_trials import measured
from kit.needs import PROXIES, needs

pytestmark = [pytest.mark.deploy, needs(PROXIES), pytest.mark.timeout(300)]


@pytest.mark.parametrize("question", [question for question in QUESTIONS if question != "drain"])
async def test_the_files_of_deploy_pass_streams_on_and_mistakes_are_seen(question: Question, tmp_path: Path) -> None:
    found = await measured(trials_of(question), tmp_path)
    assert {str(trial): str(seen) for trial, seen in found.items() if seen.is_good != trial.is_good} == {}


async def test_with_the_files_of_deploy_no_request_is_lost_when_a_server_is_drained(tmp_path: Path) -> None:
    found = await drains(trials_of("drain"), tmp_path)
    assert {str(trial): str(seen) for trial, seen in found.items() if seen.is_good != trial.is_good} == {}
