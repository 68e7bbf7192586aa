"""``headrace.env``: variables beside the configuration, so that keys need not be in it nor in the shell.

Every command that reads a configuration reads the file in the same folder, if there is one. A variable that the process
has comes first. The format is what ``sh`` (``set -a; . ./headrace.env``), systemd's ``EnvironmentFile=`` and
``docker run --env-file`` read as well: ``NAME=value`` lines, ``#`` comments and blank lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.gateway.config.problems import ConfigError

ENV_FILE: Final = "headrace.env"
MAX_BYTES: Final = 65536
_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9_./:+=@%,~-]+")
"""What every reader of such a file takes as it is. Other values are not written."""


def env_file_of(config: str | Path) -> Path:
    """Return the name of the file that belongs to a configuration, whether it exists or not."""
    return Path(config).parent / ENV_FILE


def with_env_file(config: str | Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that hold for a configuration: the process's, then those of the file.

    Raises:
        ConfigError: if there is a file that cannot be read or used.
    """
    own = read_env_file(env_file_of(config))
    return {**own, **{name: value for name, value in environ.items() if value.strip() or name not in own}}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file; none if it does not exist.

    Raises:
        ConfigError: if it cannot be read, or a line is not a variable. No message shows any of its text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "the name is not valid"
        raise ConfigError([f"{path}: cannot be read ({reason}): check its permissions, or remove it"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([f"{path}: is larger than {MAX_BYTES} bytes: it is for a few variables"])
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            problems.append(f"{path}:{number}: is not a variable: expected NAME=value")
            continue
        value = match[2].strip()
        is_quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        found[match[1]] = value[1:-1] if is_quoted else value
    if problems:
        raise ConfigError(problems)
    return found


def can_be_written(value: str) -> bool:
    """Return whether every reader of such a file would read a value as it is."""
    return _PLAIN_VALUE.fullmatch(value) is not None


def write_env_file(path: Path, variables: Mapping[str, str]) -> None:
    """Write variables to a file that only its owner can read; it is replaced as a whole, or not at all.

    Args:
        path: the file. Lines of it that set other variables stay as they are.
        variables: each `can_be_written`.

    Raises:
        OSError: if it cannot be written.
    """
    kept: list[str] = []
    if path.exists():
        for line in path.read_text("utf-8", "surrogateescape").splitlines():
            match = _LINE.fullmatch(line.strip())
            if match is None or match[1] not in variables:
                kept.append(line)
    else:
        kept.append("# Read by headrace with the configuration in this folder. Keep it out of version control.")
    text = "".join(f"{line}\n" for line in [*kept, *(f"{name}={value}" for name, value in variables.items())])
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    new.replace(path)
