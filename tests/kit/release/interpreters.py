"""The Pythons of a machine: each CPython that headrace supports, once."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

OLDEST = (3, 11)
_NAME = re.compile(r"python3\.(\d+)")
_ASK = "import platform, sys; print(platform.python_implementation(), platform.python_version(), sys.executable)"


def folders() -> Iterator[Path]:
    """Yield where Pythons are installed: in PATH, by Debian, pyenv and uv, in /opt, and where CI services have them."""
    home = Path.home()
    yield from (Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry)
    yield from (Path("/usr/bin"), Path("/usr/local/bin"))
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    for parent, pattern in (
        (pyenv, "versions/*/bin"),
        (uv, "*/bin"),
        (Path("/opt"), "python*/bin"),
        (Path("/opt"), "hostedtoolcache/Python/*/*/bin"),
    ):
        yield from sorted(parent.glob(pattern))


def find_interpreters(places: Iterable[Path] | None = None) -> dict[str, Path]:
    """Return the interpreters by their version, such as ``3.13.0``, the oldest first.

    A version that is found more than once is listed once, as is one that a virtual environment or a shim leads to.
    """
    found: dict[str, Path] = {}
    asked: set[Path] = set()
    for folder in folders() if places is None else places:
        for file in sorted(folder.glob("python3.*")):
            name = _NAME.fullmatch(file.name)
            if name is None or (3, int(name[1])) < OLDEST or file.resolve() in asked or not os.access(file, os.X_OK):
                continue
            asked.add(file.resolve())
            if answer := ask(file):
                found.setdefault(*answer)
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])]))


def ask(file: Path) -> tuple[str, Path] | None:
    """Return the version of a CPython and its real file, or None if it is something else, or does not run."""
    try:
        ran = subprocess.run([file, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = ran.stdout.strip().split(" ", 2)
    if ran.returncode or len(answer) != 3 or answer[0] != "CPython":
        return None
    return answer[1], Path(answer[2]).resolve()
