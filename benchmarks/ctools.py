"""Load generator and mock upstream in C (``--tools c``), for developers who have them; the repository does not."""

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
    """Compile the tools once in this process, and return the folder with them.

    Raises:
        SystemExit: if the sources or gcc are missing; the message names them.
    """
    if not (SOURCES / "loadgen.c").exists() or shutil.which("gcc") is None:
        raise SystemExit(f"--tools c needs gcc and {SOURCES}: leave it out to use the Python tools")
    folder = Path(tempfile.mkdtemp(prefix="headrace-tools-"))
    for name in ("mockup", "loadgen"):
        command = ["gcc", "-O2", "-o", str(folder / name), str(SOURCES / f"{name}.c"), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def can_run(load: Load) -> bool:
    """Return whether loadgen supports the load: it cannot send other headers, and it can only repeat for a time."""
    return load.mode == "repeat" and not (load.headers or load.hint or load.ids or load.requests)


def command(load: Load, output: Path) -> list[str]:
    """Return the command line of a load. The C upstream has no bursts without stamps, so they are stamped."""
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
    """Return loadgen's result in the form of `benchmarks.load`."""
    result = msgspec.json.decode(output.read_bytes().splitlines()[-1])

    def spread(name: str) -> dict[str, float]:
        if not result[name]["n"]:
            return {"n": 0}
        return {k: v if k == "n" else round(v / 1000, 4) for k, v in result[name].items()}

    errors = {"error": result["err"], "not 200": result["non200"], "short": result["short"]}
    errors = {kind: count for kind, count in errors.items() if count}
    return {
        "seconds": result["secs"],
        "events": result["events"],
        "events_per_s": result["ev_s"],
        "complete": result["done"],
        "requests_per_s": result["req_s"],
        "errors": errors,
        "error_count": sum(errors.values()),
        "events_per_read": result["ev_per_read"],
        "bytes": result["bytes"],
        "active": result["active"],
        "added_ms": spread("added_us") if "-d" in load.model else {"n": 0},
        "first_ms": spread("ttfc_us"),
        "total_ms": spread("total_us"),
        "server_cpu": result["cpu_util"],
        "cpu_us_per_event": result["cpu_us_per_event"],
        "cpu_us_per_request": result["cpu_us_per_req"],
        "rss_before_kb": rss_before_kb,
        "rss_kb": rss_kb(member for pid in load.pids for member in family(pid)),
        "load_cpu": round(result["gen_cpu_s"] / (result["secs"] + load.warmup_s), 4),
    }
