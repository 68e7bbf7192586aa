"""headrace as a subject: configured, started on its core, ready."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Literal, get_args

from benchmarks.loads import Subject, Tools
from benchmarks.processes import CORES, ROOT, SERVER_CORES, free_port, module_with_tree, python, running

KEY = "sk-bench-0123456789abcdef"
"""The key that the loads send; not a secret: the server runs for a minute on 127.0.0.1."""

_CONFIG = """\
model_list:
{deployments}general_settings: {{master_key: {key}}}
pipeline_settings: {{log_level: {log_level}{more}}}
"""
_DEPLOYMENT = """\
  - model_name: "mock-*"
    litellm_params: {{model: "openai/mock-*", api_base: "http://127.0.0.1:{port}/v1", api_key: sk-upstream}}
"""

SILENT = "headrace, log level warning"
"""The name of headrace without the record of each request that it logs at its default level, info."""
LogLevel = Literal["info", "warning"]
LOG_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)


def configuration(upstream_port: int, log_level: LogLevel = "info", settings: str = "", deployments: int = 1) -> str:
    """Return the service's configuration; ``settings`` and ``deployments`` as in `serving`."""
    return _CONFIG.format(
        deployments=_DEPLOYMENT.format(port=upstream_port) * deployments,
        key=KEY,
        log_level=log_level,
        more=f", {settings}" if settings else "",
    )


@contextlib.contextmanager
def serving(
    tools: Tools,
    *,
    name: str = "headrace",
    source: Path = ROOT,
    module: str = "",
    workers: int = 1,
    log_level: LogLevel = "info",
    settings: str = "",
    deployments: int = 1,
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Generator[Subject]:
    """Run headrace for the length of a block. Its log goes to a file, `Server.output`.

    Args:
        tools: the tools whose upstream it calls.
        name: its name in the tables.
        source: the tree from which it runs.
        module: a module of ours that runs it.
        workers: the number of its processes, and of cores that they may use.
        log_level: what it logs.
        settings: further ``pipeline_settings``, as YAML on one line, such as ``execution: fused``.
        deployments: how many answer; all are the same upstream.
        path: a further folder with Python modules, such as a plugin's.
        environ: further variables of its environment.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(configuration(tools.port, log_level, settings, deployments))
        address = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        cores = SERVER_CORES if workers == 1 else CORES[:workers] if len(CORES) > workers else []
        command = [*(module_with_tree(module, source) if module else python("-m", "pipeline.gateway")), "serve"]
        paths = os.pathsep.join(map(str, [source, *([path] if path else [])]))
        environ = {"PYTHONPATH": paths, **(environ or {})}
        with running([*command, *address], cores=cores, cwd=source, environ=environ) as server:
            server.wait_ready(port)
            yield Subject(name, port, [server.pid], cores=workers, settings={"token": KEY}, server=server)


def start_up_s(tools: Tools, source: Path = ROOT) -> float:
    """Start headrace once, and return the time from the command to the first 200 on /livez."""
    began = time.perf_counter()
    with serving(tools, source=source):
        return time.perf_counter() - began
