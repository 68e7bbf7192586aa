"""headrace as a subject: configured, started on its core, ready."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from benchmarks.loads import Subject, Tools
from benchmarks.processes import CORES, ROOT, SERVER_CORES, free_port, python, running

KEY = "sk-bench-0123456789abcdef"
"""The key that the loads send; not a secret: the server runs for a minute on 127.0.0.1."""

_CONFIG = """\
model_list:
  - model_name: "mock-*"
    litellm_params: {{model: "openai/mock-*", api_base: "http://127.0.0.1:{port}/v1", api_key: sk-upstream}}
general_settings: {{master_key: {key}}}
pipeline_settings: {{log_level: warning{more}}}
"""


@contextlib.contextmanager
def serving(
    tools: Tools,
    *,
    name: str = "headrace",
    source: Path = ROOT,
    module: str = "pipeline.gateway",
    workers: int = 1,
    settings: str = "",
) -> Generator[Subject]:
    """Run headrace for the length of a block.

    Args:
        tools: the tools whose upstream it calls.
        name: its name in the tables.
        source: the tree from which it runs.
        module: the module to run instead of ``pipeline.gateway``.
        workers: the number of its processes, and of cores that they may use.
        settings: further ``pipeline_settings``, as YAML on one line, such as ``execution: fused``.
    """
    port = free_port()
    more = f", {settings}" if settings else ""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(_CONFIG.format(port=tools.port, key=KEY, more=more))
        address = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        cores = SERVER_CORES if workers == 1 else CORES[:workers] if len(CORES) > workers else []
        paths = os.pathsep.join(dict.fromkeys((str(source), str(ROOT))))  # ROOT has our own modules
        with running(
            python("-m", module, "serve", *address), cores=cores, cwd=source, environ={"PYTHONPATH": paths}
        ) as server:
            server.wait_ready(port)
            yield Subject(name, port, [server.pid], cores=workers, settings={"token": KEY})


def start_up_s(tools: Tools, source: Path = ROOT) -> float:
    """Start headrace once, and return the time from the command to the first 200 on /livez."""
    began = time.perf_counter()
    with serving(tools, source=source):
        return time.perf_counter() - began
