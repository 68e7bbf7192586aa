"""The C tools of ../shared/tools, for developers who have them and gcc: ``--tools c``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.plan import Load
from benchmarks.processes import ROOT, family, rss_kb

SOURCES = ROOT.parent / "shared" / "tools"


@cache
def compiled() -> Path:
    """Compile the tools once in this process; give the folder with them.

    Raises:
        SystemExit: if the sources or gcc are missing, saying so.
    """
    if not (SOURCES / "loadgen.c").exists() or shutil.which("gcc") is None:
        raise SystemExit(f"--tools c needs gcc and {SOURCES}: leave it out to use the Python tools")
    folder = Path(tempfile.mkdtemp(prefix="headrace-tools-"))
    for name in ("mockup", "loadgen"):
        command = ["gcc", "-O2", "-o", str(folder / name), str(SOURCES / f"{name}.c"), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def can_run(load: Load) -> bool:
    """Say whether loadgen can do this: it has no other headers, and only repeats."""
    return load.mode == "repeat" and not load.headers and not load.hint


def command(load: Load, output: Path) -> list[str]:
    """Give the command line of a load. A burst without stamps is not known to the C upstream, so it stamps."""
    pids = [str(member) for pid in load.pids for member in family(pid)]
    options = {
        "-p": load.port, "-u": load.path, "-t": load.token, "-m": load.model.replace("-t0", "-t1"),
        "-c": load.connections, "-D": load.seconds, "-W": load.warmup_s, "-r": load.open_per_s or 1_000_000,
        "-S": int(load.stream), "-e": load.events, "-R": int(load.dialect == "responses"), "-P": ",".join(pids),
        "-o": output,
    }  # fmt: skip
    arguments = [
        str(part) for name, value in options.items() if value not in ("", 0) or name == "-S" for part in (name, value)
    ]
    return [str(compiled() / "loadgen"), *arguments]


def figures(load: Load, output: Path, rss_before_kb: int) -> dict[str, Any]:
    """Give loadgen's result in the form of `benchmarks.load`."""
    said = msgspec.json.decode(output.read_bytes().splitlines()[-1])

    def spread(name: str) -> dict[str, float]:
        if not said[name]["n"]:
            return {"n": 0}
        return {k: v if k == "n" else round(v / 1000, 4) for k, v in said[name].items()}

    errors = {"error": said["err"], "not 200": said["non200"], "short": said["short"]}
    errors = {kind: count for kind, count in errors.items() if count}
    return {
        "seconds": said["secs"],
        "events": said["events"],
        "events_per_s": said["ev_s"],
        "complete": said["done"],
        "requests_per_s": said["req_s"],
        "errors": errors,
        "error_count": sum(errors.values()),
        "events_per_read": said["ev_per_read"],
        "bytes": said["bytes"],
        "active": said["active"],
        "added_ms": spread("added_us") if "-d" in load.model else {"n": 0},
        "first_ms": spread("ttfc_us"),
        "total_ms": spread("total_us"),
        "server_cpu": said["cpu_util"],
        "cpu_us_per_event": said["cpu_us_per_event"],
        "cpu_us_per_request": said["cpu_us_per_req"],
        "rss_before_kb": rss_before_kb,
        "rss_kb": rss_kb(member for pid in load.pids for member in family(pid)),
        "load_cpu": round(said["gen_cpu_s"] / (said["secs"] + load.warmup_s), 4),
    }
