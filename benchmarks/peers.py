"""Other gateways: found if installed, and started with the smallest configuration that handles our loads.

Nothing is installed from here. A peer is searched for in ``benchmarks/.peers`` or $HEADRACE_PEERS, next to this Python,
and on PATH. Only LiteLLM has our endpoint and translates Responses into Chat Completions, as headrace does. The others
pass Chat Completions through, which is less work; a byte splice and nginx only copy bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateways import KEY
from benchmarks.loads import Subject, Tools
from benchmarks.processes import SERVER_CORES, free_port, python, running

FOLDER = Path(__file__).parent / ".peers"
_PIP = "python3 -m venv benchmarks/.peers && benchmarks/.peers/bin/pip install "
_CHAT: dict[str, Any] = {"path": "/v1/chat/completions"}


@dataclass(frozen=True, slots=True)
class Peer:
    """One other gateway.

    Attributes:
        work: what it does with a stream, for the table.
        how: the command that installs it.
        command: the command that starts it; ``{program}``, ``{port}``, ``{upstream}``, ``{folder}`` and ``{other}`` (a
            free port) are filled in.
        files: the files in ``{folder}``, filled in the same way.
        ready: the path that answers 200 when it is ready.
    """

    name: str
    program: str
    work: str
    how: str
    command: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/health"
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""

    def find(self) -> str | None:
        """Return the path of its program, or None if it is not installed."""
        places = [FOLDER / "bin", FOLDER / "node_modules" / ".bin", Path(sys.executable).parent]
        if os.environ.get("HEADRACE_PEERS"):
            given = Path(os.environ["HEADRACE_PEERS"])
            places = [given / "bin", given / "node_modules" / ".bin", *places]
        path = os.pathsep.join([*map(str, places), os.environ.get("PATH", "")])
        return shutil.which(self.program, path=path)

    @contextlib.contextmanager
    def serving(self, tools: Tools) -> Generator[Subject]:
        """Run it for the duration of a block, on the server's core.

        Raises:
            NotReady: if it does not start.
        """
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="headrace-peer-") as folder:
            words = {
                "program": self.find() or self.program,
                "port": str(port),
                "upstream": f"http://127.0.0.1:{tools.port}",
                "upstream_port": str(tools.port),
                "folder": folder,
                "other": str(free_port()),
                "key": KEY,
            }
            for name, text in self.files.items():
                Path(folder, name).write_text(_fill(text, words))
            command = [_fill(part, words) for part in self.command]
            environ = {name: _fill(value, words) for name, value in self.environ.items()}
            with running(
                command, cores=SERVER_CORES, environ={**environ, "PYTHONPATH": str(FOLDER.parent.parent)}
            ) as server:
                server.wait_ready(port, self.ready, patience_s=90, any_status=not self.ready.startswith("/health"))
                settings = {"token": KEY, **self.settings}
                settings["headers"] = {k: _fill(v, words) for k, v in settings.get("headers", {}).items()}
                yield Subject(self.name, port, [server.pid], settings=settings, model=self.model)


def _fill(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


_NGINX = """\
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events { worker_connections 20000; }
http {
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream mock { server 127.0.0.1:{upstream_port}; keepalive 2000; }
  server {
    listen 127.0.0.1:{port} backlog=1024;
    location / { proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
  }
}
"""

_LITELLM = """\
model_list:
  - model_name: "mock-*"
    litellm_params: {model: "openai/mock-*", api_base: "{upstream}/v1", api_key: sk-upstream}
general_settings: {master_key: {key}}
"""

PEERS = (
    Peer(
        name="LiteLLM",
        program="litellm",
        work="translates, as headrace does",
        how=_PIP + "'litellm[proxy]'",
        command=("{program}", "--config", "{folder}/config.yaml", "--host", "127.0.0.1", "--port", "{port}"),
        files={"config.yaml": _LITELLM},
        environ={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"},
        ready="/health/liveliness",
    ),
    Peer(
        name="ferrogw",
        program="ferrogw",
        work="passes chat through (Go)",
        how=_PIP + "ferrogw",
        command=("{program}", "serve"),
        files={"config.yaml": "strategy: {mode: single}\ntargets:\n  - virtual_key: openai\n"},
        environ={
            "PORT": "{port}",
            "MASTER_KEY": "{key}",
            "GATEWAY_CONFIG": "{folder}/config.yaml",
            "OPENAI_API_KEY": "sk-upstream",
            "OPENAI_BASE_URL": "{upstream}",
            "RATE_LIMIT_RPS": "1000000",  # with the default it refuses our loads
            "RATE_LIMIT_BURST": "1000000",
        },
        ready="/livez",
        settings=_CHAT,
        model="gpt-4o",  # it serves only the models in its catalogue
    ),
    Peer(
        name="smg",
        program="smg",
        work="passes chat through (Rust)",
        how=_PIP + "smg",
        command=(
            "{program}", "launch", "--host", "127.0.0.1", "--port", "{port}", "--worker-urls", "{upstream}",
            "--backend", "openai", "--prometheus-port", "{other}", "--log-level", "error",
        ),
        settings=_CHAT,
    ),
    Peer(
        name="Portkey",
        program="gateway",
        work="passes chat through (Node)",
        how="npm install --prefix benchmarks/.peers @portkey-ai/gateway",
        command=("{program}", "--headless", "--port={port}"),
        ready="/",
        settings={
            **_CHAT,
            "headers": {"x-portkey-provider": "openai", "x-portkey-custom-host": "{upstream}/v1"},
        },
    ),
    Peer(
        name="nginx",
        program="nginx",
        work="copies responses (C)",
        how="your system's package manager, such as: apt install nginx-light",
        command=("{program}", "-p", "{folder}", "-c", "{folder}/nginx.conf"),
        files={"nginx.conf": _NGINX},
        ready="/stats",
        settings={"path": "/v1/responses", "dialect": "responses"},
    ),
    Peer(
        name="byte splice",
        program=sys.executable,
        work="copies bytes (Python, trio)",
        how="part of headrace",
        command=(*python("-m", "benchmarks.splice"), "--port", "{port}", "--upstream", "{upstream_port}"),
        ready="/stats",
        settings={"path": "/v1/responses", "dialect": "responses"},
    ),
)  # fmt: skip
