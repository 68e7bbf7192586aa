"""The workflows are thin, pinned and frugal with rights, and what they call exists and does what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.release.changelog import release_text
from kit.release.versions import CHART, project, python_versions

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DIGEST = "sha256:" + "0123456789abcdef" * 4
BEFORE_CHECKOUT = "apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates git"
"""The only line that is neither a target nor .ci/run: the image of CI has no git."""


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    return loaded


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for job in workflow(file.name)["jobs"].values():
            yield from ((file.name, step) for step in job.get("steps", ()))


def make(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a target with this environment's Python, without installing anything into it."""
    venv = Path(sys.prefix)
    command = [
        "make",
        "--no-print-directory",
        f"VENV={venv}",
        "-o",
        f"{venv}/.run",
        "-o",
        f"{venv}/.deploy",
        *arguments,
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_") and name != "MAKEFLAGS"}
    return subprocess.run(command, cwd=cwd, env={**kept, **environ}, capture_output=True, text=True, check=False)


class StandIns:
    """Programs that write down how they were called, and answer nothing.

    Attributes:
        path: PATH with them.
    """

    def __init__(self, folder: Path) -> None:
        self._calls = folder / "calls"
        self._folder = folder / "bin"
        self._folder.mkdir()
        self.path = f"{self._folder}:{os.environ['PATH']}"

    def add(self, name: str, then: str = "") -> None:
        file = self._folder / name
        file.write_text(f'#!/bin/sh\necho {name} "$@" >> {self._calls}\n{then}\n', encoding="utf-8")
        file.chmod(0o755)

    def calls(self) -> list[str]:
        return self._calls.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
    return StandIns(tmp_path)


def test_each_step_is_a_pinned_action_or_one_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for name, step in steps():
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]), f"{name}: {step['uses']} is not pinned"
        elif step["run"] not in (".ci/run", BEFORE_CHECKOUT):
            called = re.fullmatch(r"make ([a-z-]+)(?: REQUIRE=--require-all)?", step["run"])
            assert called is not None, f"{name}: {step['run']!r} is not one target"
            assert called[1] in targets, f"{name}: `make {called[1]}` is not in the Makefile"


def test_each_pin_names_one_version_for_one_commit() -> None:
    pins: dict[str, set[tuple[str, str]]] = {}
    for file in WORKFLOWS:
        for line in re.findall(r"uses: (\S+/.*@.*)", file.read_text(encoding="utf-8")):
            pin = re.fullmatch(r"(\S+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", line)
            assert pin is not None, f"{file.name}: {line} does not name its version"
            pins.setdefault(pin[1], set()).add((pin[2], pin[3]))
    assert {action: pinned for action, pinned in pins.items() if len(pinned) != 1} == {}


def test_no_expression_is_within_a_script_and_no_secret_outlives_a_run() -> None:
    for name, step in steps():
        assert "${{" not in step.get("run", ""), f"{name}: {step['run']}"
    for file in WORKFLOWS:
        text = file.read_text(encoding="utf-8")
        assert "secrets." not in text
        assert "pull_request_target" not in text


def test_rights_are_given_to_jobs_one_by_one_and_never_all() -> None:
    for file in WORKFLOWS:
        loaded = workflow(file.name)
        assert loaded["permissions"] == {}
        assert "concurrency" in loaded
        for name, job in loaded["jobs"].items():
            assert isinstance(job["permissions"], dict), name
            writes = {right for right, level in job["permissions"].items() if level == "write"}
            if writes - {"id-token", "attestations"}:  # it publishes
                assert job["environment"] == "release", name
                assert "sign" in ancestors(loaded["jobs"], name), f"{name} could publish what was not tested"
    assert workflow("release.yml")["jobs"]["pypi"]["environment"] == "pypi"


def ancestors(jobs: dict[str, Any], name: str) -> set[str]:
    """Return the jobs that have succeeded before ``name`` begins."""
    needed = jobs[name].get("needs", [])
    direct = {needed} if isinstance(needed, str) else set(needed)
    return direct.union(*(ancestors(jobs, job) for job in direct))


def test_nothing_is_signed_or_published_before_all_tests_have_passed() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert ancestors(jobs, "sign") == {"ci", "build", "test"}
    assert all("sign" in ancestors(jobs, name) for name in ("pypi", "image", "chart", "github"))
    assert jobs["ci"]["uses"] == "$/.github/workflows/ci.yml"


def test_the_classifiers_are_pythons_that_a_release_is_tested_with() -> None:
    setup = [step["with"] for _, step in steps() if step.get("uses", "").startswith("actions/setup-python@")]
    most = max((str(given["python-version"]).split() for given in setup), key=len)
    assert set(python_versions(ROOT)) <= set(most)
    assert project(ROOT)["requires-python"] == f">={python_versions(ROOT)[0]}"


def test_the_check_of_a_release_prints_its_text_and_fails_for_another_version() -> None:
    version = str(project(ROOT)["version"])
    passed = make("release-check", VERSION=f"v{version}")
    text = release_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, f"{text}\n", "")
    assert make("release-check").stdout == passed.stdout
    failed = make("release-check", VERSION="v99.0.0")
    assert failed.returncode != 0
    assert "CHANGELOG.md has no section '## 99.0.0 - DATE'" in failed.stderr


def test_a_tag_is_never_a_part_of_a_script(tmp_path: Path) -> None:
    odd = f'v1.0.0"; touch {tmp_path}/harm; echo "$(touch {tmp_path}/harm)'
    assert make("release-check", VERSION=odd).returncode != 0
    assert not (tmp_path / "harm").exists()


def test_the_image_is_pushed_for_two_processors_with_its_origin_and_its_digest_is_passed_on(
    stand_ins: StandIns, tmp_path: Path
) -> None:
    metadata = f'{{\\n  "containerimage.config.digest": "sha256:00",\\n  "containerimage.digest": "{DIGEST}"\\n}}\\n'
    stand_ins.add("docker", f"printf '{metadata}' > {tmp_path}/build/image.json")
    output = tmp_path / "output"
    ran = make(
        *("release-image", f"BUILD={tmp_path}/build"), PATH=stand_ins.path, VERSION="v1.2.3", GITHUB_OUTPUT=str(output)
    )
    assert ran.returncode == 0, ran.stderr
    [call] = stand_ins.calls()
    assert "--platform linux/amd64,linux/arm64 --build-arg VERSION=1.2.3 --build-arg REVISION=" in call
    assert "--provenance mode=max --sbom true --file deploy/docker/Dockerfile" in call
    assert "--tag ghcr.io/headrace/headrace:1.2.3 " in call
    assert call.endswith(" --push .")
    assert output.read_text(encoding="utf-8") == f"digest={DIGEST}\n"


def test_the_token_of_the_registry_is_not_on_a_command_line(stand_ins: StandIns, tmp_path: Path) -> None:
    stand_ins.add("docker", f"cat > {tmp_path}/received")
    ran = make("release-login", PATH=stand_ins.path, GITHUB_TOKEN="of-the-run", GITHUB_ACTOR="somebody")
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")
    assert stand_ins.calls() == ["docker login ghcr.io --username somebody --password-stdin"]
    assert (tmp_path / "received").read_text(encoding="utf-8") == "of-the-run\n"


def test_the_chart_is_pushed_beside_the_image_and_its_digest_is_passed_on(stand_ins: StandIns, tmp_path: Path) -> None:
    build, output = tmp_path / "build", tmp_path / "output"
    stand_ins.add(
        "helm",
        f'if [ "$1" = package ]; then touch {build}/chart/headrace-1.2.3.tgz; '
        f'else echo "Pushed: x" >&2; echo "Digest: {DIGEST}" >&2; fi',
    )
    ran = make("release-chart", f"BUILD={build}", PATH=stand_ins.path, GITHUB_OUTPUT=str(output))
    assert ran.returncode == 0, ran.stderr
    assert stand_ins.calls() == [
        f"helm package {CHART.parent} --destination {build}/chart",
        f"helm push {build}/chart/headrace-1.2.3.tgz oci://ghcr.io/headrace/charts",
    ]
    assert output.read_text(encoding="utf-8") == f"digest={DIGEST}\n"


def test_the_release_on_github_has_the_section_of_the_changelog(stand_ins: StandIns, tmp_path: Path) -> None:
    stand_ins.add("gh")
    version = str(project(ROOT)["version"])
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "SHA256SUMS").touch()
    ran = make(*("release-github", f"BUILD={tmp_path}", f"DIST={dist}"), PATH=stand_ins.path, VERSION=f"v{version}")
    assert ran.returncode == 0, ran.stderr
    notes = tmp_path / "notes.md"
    text = release_text((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    assert notes.read_text(encoding="utf-8") == f"{text}\n"
    assert stand_ins.calls() == [
        f"gh release create v{version} --verify-tag --title headrace {version} --notes-file {notes} {dist}/SHA256SUMS"
    ]
