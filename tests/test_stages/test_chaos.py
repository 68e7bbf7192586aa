"""The stages that lose time on purpose: they change nothing, and lose exactly what they are told to."""

from __future__ import annotations

import pytest
import trio.testing
from kit.service.config_texts import MASTER

from pipeline import Pipeline, RequestContext
from pipeline.gateway.cli import main
from pipeline.testing import check_stage, virtual_ns
from stages.chaos import CHAOS, ChaosOptions, make_chaos_busy, make_chaos_wait
from stages.events import Finished, Heartbeat, ReasoningDelta, StreamEvent, TextDelta

EVENTS: list[StreamEvent] = [
    ReasoningDelta("hm"),
    Heartbeat(),
    *(TextDelta(f"word {number} ") for number in range(8)),
    Finished("stop"),
]


def test_they_change_nothing() -> None:
    assert check_stage(make_chaos_busy(ChaosOptions(ms=0.01)), *EVENTS) == EVENTS
    assert check_stage(make_chaos_wait(ChaosOptions(ms=1, every=2)), *EVENTS) == EVENTS


async def test_waits_are_declared_and_exact(autojump_clock: trio.testing.MockClock) -> None:
    for every, waits in ((1, 9), (4, 2), (10, 0)):
        ctx = RequestContext("test", clock=virtual_ns)
        await Pipeline(make_chaos_wait(ChaosOptions(ms=300, every=every))).run([EVENTS[:3], EVENTS[3:]], ctx)
        [lane] = ctx.lanes
        [times] = lane.stages
        assert (times.outside_ns, times.busy_ns) == (waits * 300_000_000, 0)


async def test_work_is_the_stages_own() -> None:
    ctx = RequestContext("test")
    await Pipeline(make_chaos_busy(ChaosOptions(ms=5, every=3))).run([[event] for event in EVENTS], ctx)
    [lane] = ctx.lanes
    [times] = lane.stages
    assert times.busy_ns >= 3 * 5_000_000
    assert times.outside_ns == 0


def test_they_are_there_without_being_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{plugin.name:20} {plugin.summary}" in listed for plugin in CHAOS)


@pytest.mark.parametrize(
    ("options", "problem"),
    [("{ms: -1}", ">= 0"), ("{ms: 1, every: 0}", ">= 1"), ("{}", "ms"), ("{ms: 1, evry: 2}", "evry")],
)
def test_options_are_checked(
    options: str, problem: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path_factory.mktemp("chaos") / "config.yaml"
    config.write_text(
        "model_list:\n  - {model_name: m, litellm_params: {model: canned/timed}}\n"
        f"general_settings: {{master_key: {MASTER}}}\n"
        f"pipeline_settings: {{stages: [{{use: chaos_wait, options: {options}}}]}}\n"
    )
    assert main(["check-config", str(config)]) == 2
    assert problem in capsys.readouterr().err
