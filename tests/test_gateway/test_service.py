"""What a worker takes over from its supervisor."""

from __future__ import annotations

import os

import pytest

from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.service import shared_counts
from stages.admission import counts as module
from stages.admission.counts import shared_file


def test_too_many_workers_are_an_error_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 1)
    fd = shared_file()
    first = shared_counts(fd)
    with pytest.raises(ConfigError, match=r"^pipeline_settings.workers: 1 processes count .* start fewer workers"):
        shared_counts(fd)
    assert first.in_flight(0) == 0
    os.close(fd)
