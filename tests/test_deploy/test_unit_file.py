"""The numbers of the systemd unit fit the defaults of headrace. What systemd makes of it: test_unit.py."""

from __future__ import annotations

from pathlib import Path

from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.http.crew import READY_LIMIT_S
from pipeline.gateway.open_files import files_needed
from pipeline.gateway.supervision import KILL_MARGIN_S

UNIT = Path(__file__).parents[2] / "deploy/systemd/headrace.service"
LINES = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#"))
DEFAULTS = PipelineSettings()


def test_a_drain_ends_before_systemd_kills_it() -> None:
    assert int(LINES["TimeoutStopSec"]) > DEFAULTS.shutdown_delay_s + DEFAULTS.graceful_timeout_s + KILL_MARGIN_S


def test_headrace_gives_up_a_start_before_systemd_does() -> None:
    assert int(LINES["TimeoutStartSec"]) > READY_LIMIT_S


def test_all_connections_may_have_their_files() -> None:
    assert int(LINES["LimitNOFILE"]) >= files_needed(DEFAULTS.max_connections)
