"""The distribution as installed: the content of the wheel, the command, and the Procfile.

tests/test_deploy/test_release.py installs it as a user would, with every Python.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from kit.release.dist import build, epoch_of

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks.processes import free_port  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # pip, and many Python processes in sequence


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the working tree, without network."""
    folder = tmp_path_factory.mktemp("dist")
    [built] = build(ROOT, folder, epoch_of(ROOT), "wheel")
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    [built] = build(ROOT, folder, epoch_of(ROOT), "sdist")
    with tarfile.open(built) as archive:
        archive.extractall(folder, filter="data")
    return folder / built.name.removesuffix(".tar.gz")


def test_the_sdist_holds_all_that_its_own_tests_and_targets_need(sdist: Path) -> None:
    needed = [
        *("Makefile", "Procfile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "config.example.yaml"),
        *(
            "requirements/run.txt",
            "requirements/image.txt",
            "requirements/build.txt",
            "requirements/dev.txt",
            "requirements/deploy.txt",
            "requirements/audit.txt",
            "clients/package-lock.json",
            ".ci/run",
            ".ci/packages.txt",
            ".github/workflows/release.yml",
            ".dockerignore",
            "deploy/docker/Dockerfile",
        ),
        *("docs/index.md", "benchmarks/__main__.py", "tests/conftest.py", "tests/data/streams/responses/agent.sse"),
    ]
    assert [name for name in needed if not (sdist / name).is_file()] == []
    files = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*") if path.is_file()}
    kept = {path for path in files if not {"__pycache__", ".hypothesis"} & set(path.parts)}
    assert {path for path in kept if not (sdist / path).is_file()} == set()


def test_the_sdist_runs_its_own_tests(sdist: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(sdist)}
    pytest_command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    ran = run(*pytest_command, "tests/test_wire/test_sse.py", "tests/test_engine/test_imports.py", cwd=sdist, env=env)
    assert " passed" in ran
    assert "failed" not in ran


def test_the_wheel_holds_both_packages_typed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = ConfigParser()
        [info] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        points.read_string(archive.read(f"{info}/entry_points.txt").decode())
        metadata = archive.read(f"{info}/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {"pipeline", "stages", info}
    assert {"pipeline/py.typed", "stages/py.typed"} <= names
    modules = {
        str(path.relative_to(ROOT)) for package in ("pipeline", "stages") for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules
    assert not [name for name in names if "__pycache__" in name or "test_" in name]
    assert dict(points["console_scripts"]) == {"headrace": "pipeline.gateway.__main__:main"}
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)
    assert any(name.endswith("LICENSE") for name in names)


def test_the_wheel_installs_and_is_imported_from_there(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", *command, "--target", str(site), str(wheel), cwd=tmp_path)
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = (
        "import pipeline, stages, pipeline.gateway.cli as cli; print(pipeline.__file__, stages.__file__, cli.__file__)"
    )
    found = run(sys.executable, "-c", where, cwd=tmp_path, env=env).split()
    assert [Path(path).relative_to(site).parts[0] for path in found] == ["pipeline", "stages", "pipeline"]
    assert run(sys.executable, str(site / "bin" / "headrace"), "--version", cwd=tmp_path, env=env).startswith(
        "headrace "
    )
    assert "decode_events" in run(sys.executable, "-m", "pipeline.gateway", "stages", cwd=tmp_path, env=env)


def test_the_engine_alone_loads_nothing_of_the_gateway(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pipeline; "
        "print(sorted({'stages', 'msgspec', 'httpx', 'httptools', 'quart', 'hypercorn', 'yaml'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(wheel)}
    assert run(sys.executable, "-c", code, cwd=tmp_path, env=env) == "[]\n"


def test_the_procfile_starts_under_honcho() -> None:
    port = free_port()
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        "PYTHON": sys.executable,
        "PORT": str(port),
        "HEADRACE_MASTER_KEY": "sk-procfile-test-0123456789",
    }
    command = [sys.executable, "-m", "honcho", "start", "--port", str(port), "web"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        deadline = time.monotonic() + 100
        answer = ""
        while not answer:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the service did not come up"
            try:
                with opener.open(f"http://127.0.0.1:{port}/health/liveliness", timeout=5) as response:
                    answer = response.read().decode()
            except OSError:
                time.sleep(0.05)
        assert answer == '"I\'m alive!"'
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
        with socket.socket() as later, pytest.raises(ConnectionRefusedError):
            later.connect(("127.0.0.1", port))
    finally:
        if process.poll() is None:
            process.terminate()  # not kill: honcho has to end the service, which holds the pipe that is read to its end
            process.communicate(timeout=100)
