"""The engine is independent: importing it loads none of what is built on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABOVE = ("stages", "msgspec", "httpx", "httptools", "quart", "quart_trio", "hypercorn", "yaml", "pipeline.gateway")

LOADED = f"import sys, {{module}}; print([name for name in {ABOVE!r} if name in sys.modules])"


@pytest.mark.parametrize("module", ["pipeline", "pipeline.testing", "pipeline.registry"])
def test_the_engine_loads_nothing_that_is_built_on_it(module: str) -> None:
    command = [sys.executable, "-c", LOADED.format(module=module)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_check_above_notices_a_loaded_module() -> None:
    command = [sys.executable, "-c", LOADED.format(module="stages.events")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.strip() == "['stages', 'msgspec']"


def test_the_public_names_are_those_that_the_package_lists() -> None:
    code = "import pipeline; print(sorted(n for n in vars(pipeline) if n[0] != '_' and n not in pipeline_modules))"
    code = f"pipeline_modules = {sorted(path.stem for path in (ROOT / 'pipeline').iterdir())!r}\n" + code
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    names = set(eval(ran.stdout))
    assert {"Pipeline", "Stage", "Codec", "WaitingCodec", "per_event", "codec_stage", "Inlet", "Outlet"} <= names
    assert {"RequestContext", "Slot", "Lane", "Party", "Plugin", "DownstreamGone", "PipelineError"} <= names
    assert not {"trio", "CodecStage", "Link", "Loop", "blame", "Any"} & names
