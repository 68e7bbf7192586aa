"""Installs a wheel or an sdist as a user would, in a fresh environment, and uses what was installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kit.release.dist import build, digest, epoch_of
from kit.release.versions import project

LOCK = Path("requirements/run.txt")
ECHO, WORDS = "headrace-echo", "Hello there"
"""The model of ``headrace demo`` that repeats what it is told, and what that is."""


class TrialFailed(Exception):
    """What was installed does not do what it should, or could not be installed; the message has what was printed."""


class Environment:
    """A fresh virtual environment of one Python, with what headrace needs, locked, but without headrace.

    It has no pip of its own, which saves seconds and the package python3-venv: pip is that of this process.

    Args:
        python: the interpreter.
        folder: where it is created.
        root: the checkout, or unpacked sdist, whose lock is installed.

    Raises:
        TrialFailed: if a locked package has no wheel for this Python, or cannot be reached.
    """

    def __init__(self, python: Path, folder: Path, root: Path) -> None:
        self._root = root
        self._bin = folder / "bin"
        if not (folder / "pyvenv.cfg").exists():
            run("create an environment", [str(python), "-m", "venv", "--without-pip", str(folder)], cwd=root)
            self._pip(
                "install its locked packages", "--only-binary", ":all:", "--require-hashes", "-r", str(root / LOCK)
            )

    def copy(self, python: Path, folder: Path) -> Environment:
        """Return another fresh environment: with the same packages and their bytecode, and without headrace."""
        run("create an environment", [str(python), "-m", "venv", "--without-pip", str(folder)], cwd=self._root)
        [packages] = self._bin.parent.glob("lib/python3.*/site-packages")

        def ours(where: str, names: list[str]) -> list[str]:
            here = Path(where) == packages
            return [name for name in names if here and name.startswith(("pipeline", "stages", "headrace"))]

        target = folder / packages.relative_to(self._bin.parent)
        shutil.copytree(packages, target, ignore=ours, dirs_exist_ok=True)
        return Environment(python, folder, self._root)

    def install(self, file: Path) -> None:
        """Install a wheel, or an sdist, which is built with the locked hatchling and no network.

        Raises:
            TrialFailed: if that fails.
        """
        self._pip(f"install {file.name}", "--no-index", "--no-build-isolation", str(file))

    def headrace(self, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
        """Return what ``headrace`` prints. No setting of this process reaches it.

        Raises:
            TrialFailed: if it fails.
        """
        command = [str(self._bin / "headrace"), *arguments]
        return run(
            f"run headrace {arguments[0]}", command, cwd=self._bin, environ={**clean_environ(), **(environ or {})}
        )

    def try_out(self, version: str, example: Path) -> None:
        """Use the command, and have ``headrace demo`` answer over sockets, streaming and not.

        Args:
            version: what it must be.
            example: a configuration that needs nothing but a master key.

        Raises:
            TrialFailed: if something is not as it should be.
        """
        said = self.headrace("--version").strip()
        expect(said == f"headrace {version}", f"headrace --version printed {said!r}")
        checked = self.headrace(
            "check-config", str(example), environ={"HEADRACE_MASTER_KEY": "sk-of-a-trial-0123456789"}
        )
        expect("canned/story" in checked, f"headrace check-config printed:\n{checked}")
        command = [str(self._bin / "headrace"), "demo", "--port", "0", "--log-format", "json"]
        with subprocess.Popen(
            command, cwd=self._bin, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                greeting = ""
                for line in process.stdout or ():
                    greeting += line
                    if '"stream": true' in line:
                        break
                talk_to(greeting)
            finally:
                process.terminate()

    def _pip(self, what: str, *arguments: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "--disable-pip-version-check"]
        run(what, [*pip, "install", "--quiet", "--no-compile", "--no-deps", *arguments], cwd=self._root)


def check_packages(root: Path, folder: Path) -> tuple[Path, Path]:
    """Check wheel and sdist without installing them, and return them.

    Raises:
        TrialFailed: if something is wrong with them.
    """
    wheels, sdists = sorted(folder.glob("headrace-*.whl")), sorted(folder.glob("headrace-*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise TrialFailed(f"{folder} has not one wheel and one sdist: run `make dist`")
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(wheels[0]), str(sdists[0])]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise TrialFailed(f"twine check: {checked.stdout}{checked.stderr}")
    with tempfile.TemporaryDirectory(prefix="headrace-sdist-") as temporary:
        unpacked = Path(temporary, "source")
        unpacked.mkdir()
        unpack = ["tar", "-xzf", str(sdists[0].resolve()), "-C", str(unpacked), "--strip-components=1"]
        subprocess.run(unpack, check=True)
        [rebuilt] = build(unpacked, Path(temporary, "dist"), epoch_of(root), "wheel")
        if digest(rebuilt) != digest(wheels[0]):
            raise TrialFailed("the wheel that the sdist builds has other bytes than the wheel of the checkout")
    return wheels[0], sdists[0]


def try_with(python: Path, wheel: Path, sdist: Path, root: Path) -> None:
    """Install wheel and sdist, each in a fresh environment, and use them.

    Raises:
        TrialFailed: if that fails.
    """
    version = str(project(root)["version"])
    with tempfile.TemporaryDirectory(prefix="headrace-trial-") as temporary:
        first = Environment(python, Path(temporary, "wheel"), root)
        first.install(wheel.resolve())
        first.try_out(version, root / "config.example.yaml")
        second = first.copy(python, Path(temporary, "sdist"))
        second.install(sdist.resolve())
        second.try_out(version, root / "config.example.yaml")


def try_each(found: Mapping[str, Path], wheel: Path, sdist: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Try all interpreters, as many at a time as there are cores, and yield the version of each and what failed."""

    def problem(python: Path) -> str:
        try:
            try_with(python, wheel, sdist, root)
        except TrialFailed as error:
            return f"FAILED: {error}"
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from zip(found, threads.map(problem, found.values()), strict=True)


def talk_to(greeting: str) -> None:
    """Ask the service that printed this greeting for a stream, and for a whole answer."""
    found = re.search(r"(http://127\.0\.0\.1:\d+).*?\n +key +(\S+)", greeting, re.DOTALL)
    if found is None:
        raise TrialFailed(f"headrace demo printed no address and key:\n{greeting}")
    url, key = found.groups()
    chunks = events(post(url, key, {"model": ECHO, "input": WORDS, "stream": True}))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    finishes = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    expect(WORDS in text and finishes == ["stop"], f"the stream had {text!r} and ended with {finishes}")
    answer = json.loads(post(url, key, {"model": ECHO, "input": WORDS}))
    text = answer["choices"][0]["message"]["content"]
    expect(WORDS in text, f"the answer was {text!r}")


def post(url: str, key: str, body: Mapping[str, object]) -> bytes:
    """Return the complete response to a chat request.

    Raises:
        TrialFailed: if it is an error, or none comes.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/cursor/chat/completions", json.dumps(body).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as response:
            received: bytes = response.read()
    except OSError as error:
        raise TrialFailed(f"a request to headrace demo failed: {error}") from error
    return received


def events(stream: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream; fail if its last line does not end it."""
    lines = [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: ")]
    expect(lines[-1:] == [b"[DONE]"], f"the stream ended with {lines[-1:]}")
    return [json.loads(line) for line in lines[:-1]]


def clean_environ() -> dict[str, str]:
    """Return the environment without what could lead to another Python's packages, or configure headrace."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "PYTHON", "VIRTUAL_"))
    }


def expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise TrialFailed(otherwise)


def run(what: str, command: list[str], *, cwd: Path, environ: Mapping[str, str] | None = None) -> str:
    """Return what a command prints.

    Raises:
        TrialFailed: if it fails.
    """
    try:
        ran = subprocess.run(
            command, cwd=cwd, env=environ or clean_environ(), capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrialFailed(f"could not {what} within 300 s") from None
    if ran.returncode:
        raise TrialFailed(f"could not {what}: exit status {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout
