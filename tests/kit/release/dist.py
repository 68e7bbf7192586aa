"""Builds what a release consists of: wheel, sdist, SBOM and checksums, the same bytes from the same commit."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from kit.release.lock import contents
from kit.release.sbom import bill, encoded
from kit.release.versions import project

CHECKSUMS, SBOM = "SHA256SUMS", "headrace.cdx.json"
EPOCH = "SOURCE_DATE_EPOCH"
"""The variable for the time that a build claims to be of. Source: https://reproducible-builds.org/specs/."""
UNKNOWN_EPOCH = 1580601600
"""Hatchling's time for a tree that has none, such as an unpacked sdist: 2020-02-02."""


def epoch_of(root: Path) -> int:
    """Return the time of a build, in seconds since 1970: of the environment, or of the last commit, if there is one."""
    if given := os.environ.get(EPOCH):
        return int(given)
    time = git(root, "log", "-1", "--format=%ct")
    return int(time) if time else UNKNOWN_EPOCH


def uncommitted(root: Path) -> list[str]:
    """Return what in the working tree is not in its last commit. An sdist would have it."""
    return git(root, "status", "--porcelain").splitlines()


def git(root: Path, *arguments: str) -> str:
    """Return what git prints; nothing if there is no repository at ``root`` itself, or no git."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def build(source: Path, folder: Path, epoch: int, *targets: str) -> list[Path]:
    """Build ``targets`` (``wheel``, ``sdist``) of a source tree, with this environment's hatchling and no network.

    Raises:
        RuntimeError: if that fails.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    command += [argument for target in targets for argument in ("-t", target)]
    environ = {**os.environ, EPOCH: str(epoch)}
    ran = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"hatchling could not build {source}:\n{ran.stdout}{ran.stderr}")
    return sorted([*folder.glob("headrace-*.whl"), *folder.glob("headrace-*.tar.gz")])


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checksums(files: Iterable[Path]) -> str:
    """Return what ``sha256sum --check`` reads."""
    return "".join(f"{digest(file)}  {file.name}\n" for file in sorted(files))


def make_dist(root: Path, folder: Path) -> list[Path]:
    """Write everything that a release consists of into an empty ``folder``, and return the files.

    Raises:
        RuntimeError: if the build fails.
        ValueError: if the SBOM would not be valid.
        LookupError: if a licence is unknown.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    epoch = epoch_of(root)
    table = project(root)
    packages = build(root, folder, epoch, "sdist", "wheel")
    document = bill(table, contents(root, table), {file.name: digest(file) for file in packages}, epoch)
    listed = folder / SBOM
    listed.write_text(encoded(document), encoding="utf-8")
    sums = folder / CHECKSUMS
    sums.write_text(checksums([*packages, listed]), encoding="utf-8")
    return [*packages, listed, sums]
