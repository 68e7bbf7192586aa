"""What a release consists of: built twice, described, and installed and used with every Python of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kit.needs import DEPLOY_TOOLS, needs
from kit.release.dist import CHECKSUMS, SBOM, digest, make_dist
from kit.release.interpreters import find_interpreters
from kit.release.lock import Locked, contents
from kit.release.sbom import encoded
from kit.release.trial import check_packages, try_each
from kit.release.versions import project, python_versions

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WORKFLOWS = [str(file) for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
INTERPRETERS = find_interpreters()

pytestmark = [pytest.mark.deploy, needs(DEPLOY_TOOLS), pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dist"
    make_dist(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def bill(dist: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((dist / SBOM).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def trials(dist: Path) -> dict[str, str]:
    """What failed with each Python; nothing where nothing did."""
    return dict(try_each(INTERPRETERS, *check_packages(ROOT, dist), ROOT))


def references(packages: Iterable[Locked]) -> set[str]:
    return {package.reference for package in packages}


def names_of(references: Iterable[str]) -> set[str]:
    return {reference.partition("@")[0].removeprefix("pkg:pypi/") for reference in references}


def test_the_same_commit_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = tmp_path / "dist"
    make_dist(ROOT, again)
    assert len(list(again.iterdir())) == 4
    assert {file.name: digest(file) for file in again.iterdir()} == {file.name: digest(file) for file in dist.iterdir()}


def test_the_checksums_are_those_of_all_other_files(dist: Path) -> None:
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS], cwd=dist, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    others = {file.name for file in dist.iterdir()} - {CHECKSUMS}
    assert {line.split(": ")[0] for line in checked.stdout.splitlines()} == others


@pytest.mark.parametrize("version", INTERPRETERS)
def test_wheel_and_sdist_are_installed_and_answer(trials: dict[str, str], version: str) -> None:
    if trials[version]:
        pytest.fail(f"Python {version} ({INTERPRETERS[version]}): {trials[version]}", pytrace=False)


def test_the_classifiers_name_each_python_that_passes(trials: dict[str, str]) -> None:
    passed = {version.rpartition(".")[0] for version, problem in trials.items() if not problem}
    assert passed - set(python_versions(ROOT)) == set()


def test_a_bill_that_cyclonedx_does_not_allow_is_not_written(bill: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not what CycloneDX 1\.6 allows"):
        encoded({**bill, "components": [{"name": "of no type"}]})


def test_the_bill_has_exactly_what_is_locked(bill: dict[str, Any]) -> None:
    locked = contents(ROOT, project(ROOT))
    scopes = {scope: set[str]() for scope in ("required", "optional", "excluded")}
    for component in bill["components"]:
        scopes[component["scope"]].add(component["purl"])
    assert scopes == {
        "required": references(locked.needed),
        "optional": references(locked.optional),
        "excluded": references(locked.build),
    }
    lines = (ROOT / "requirements/run.txt").read_text(encoding="utf-8").splitlines()
    pins = {"pkg:pypi/" + line.split(" ")[0].replace("==", "@") for line in lines if line[0] not in " #"}
    assert scopes["required"] | scopes["excluded"] == pins
    assert names_of(scopes["excluded"]) >= {"hatchling", "editables"}
    assert names_of(scopes["optional"]) >= {"watchfiles", "zstandard", "perfetto", "opentelemetry-sdk"}
    assert not names_of(scopes["optional"]) & {"pytest", "mypy", "ruff"}


def test_each_component_has_hashes_a_licence_and_a_place_in_the_graph(bill: dict[str, Any]) -> None:
    for component in bill["components"]:
        assert component["licenses"], component["name"]
        assert component["externalReferences"][0]["hashes"], component["name"]
    everything = {component["bom-ref"] for component in bill["components"]}
    top = bill["metadata"]["component"]["bom-ref"]
    graph = {entry["ref"]: set(entry["dependsOn"]) for entry in bill["dependencies"]}
    assert set(graph) == everything | {top}
    reached, waiting = set[str](), {top}
    while waiting:
        reached |= waiting
        waiting = set[str]().union(*(graph[reference] for reference in waiting)) - reached
    built = {component["bom-ref"] for component in bill["components"] if component["scope"] == "excluded"}
    assert everything - reached == built


def test_another_tool_finds_the_same_packages_and_hashes_in_the_lock(bill: dict[str, Any]) -> None:
    command = [str(BIN / "cyclonedx-py"), "requirements", "--sv", "1.6", "--output-reproducible"]
    ran = subprocess.run([*command, str(ROOT / "requirements/run.txt")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr

    def hashes(components: Iterable[dict[str, Any]]) -> dict[str, set[str]]:
        return {
            component["purl"]: {it["content"] for it in component["externalReferences"][0]["hashes"]}
            for component in components
        }

    ours = hashes(component for component in bill["components"] if component["scope"] != "optional")
    assert ours == hashes(json.loads(ran.stdout)["components"])


def test_the_bill_names_the_files_that_were_built(dist: Path, bill: dict[str, Any]) -> None:
    described = bill["metadata"]["component"]
    files = {
        reference["url"].rpartition("/")[2]: reference["hashes"][0]["content"]
        for reference in described["externalReferences"]
        if reference["type"] == "distribution"
    }
    assert files == {file.name: digest(file) for file in dist.glob("headrace-*")}
    assert described["version"] == project(ROOT)["version"]


def test_the_workflows_are_what_githubs_schema_allows() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_zizmor_finds_nothing_in_the_workflows() -> None:
    command = [
        str(BIN / "zizmor"),
        "--offline",
        "--no-progress",
        "--strict-collection",
        "--persona=auditor",
        *WORKFLOWS,
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
