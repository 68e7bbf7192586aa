"""The image: built from deploy/docker, and run as process 1, as its user, with its files read-only.

Building it takes most of the time, so all tests share one. `kit.deploy.image` says what stands in for Docker.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, good_answer, post_bytes
from kit.clients.held_streams import Held, open_stream, read_body
from kit.clients.raw import RawClient, get
from kit.deploy.image import DOCKERFILE, PLUGIN_DOCKERFILE, ROOT, Container, Image, Storage, opened_storage
from kit.needs import DEPLOY_TOOLS, IMAGES, needs
from kit.service.running import KEY, model
from kit.upstreams.scripted import scripted_upstream
from packaging.requirements import Requirement

sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks.processes import free_port

pytestmark = [pytest.mark.deploy, needs(IMAGES), needs(DEPLOY_TOOLS), pytest.mark.timeout(600)]

UID = 10001
ECHO = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"
OTHER = "  - {model_name: other, litellm_params: {model: canned/echo}}\n"
PLUGIN = ROOT / "tests" / "data" / "plugin_example"


def configured(models: str, settings: str = "graceful_timeout_s: 600") -> str:
    """Return a configuration that keeps what it has to keep in the folder for state."""
    return (
        f"model_list:\n{models}"
        f"general_settings: {{master_key: {KEY}}}\n"
        "pipeline_settings: {max_lag_ms: 0, reasoning_store: sqlite, "
        f"reasoning_store_file: /var/lib/headrace/reasoning.sqlite, {settings}}}\n"
    )


class Images:
    """What is built once: a Debian, the image of this tree on it, and that image with a plugin."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        self.storage = storage
        self.version = version
        debian = storage.debian()
        self.base = Image(storage, debian)
        self.headrace = storage.build("headrace", DOCKERFILE, base=debian, version=version, revision="0123abcd")
        shutil.copytree(PLUGIN, folder / "plugins" / "shout")
        self.with_plugin = storage.build(
            "with-plugin", PLUGIN_DOCKERFILE, folder, base=debian, headrace=self.headrace.name
        )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Generator[Images]:
    with opened_storage(tmp_path_factory.mktemp("images")) as storage:
        yield Images(storage, tmp_path_factory.mktemp("context"))


@pytest.fixture
def image(images: Images) -> Image:
    return images.headrace


class Volumes:
    """The folders of this machine that a container has: its configuration, and its state, which only its user reads."""

    def __init__(self, folder: Path, text: str) -> None:
        self.configuration, self.state, self.log = (folder / name for name in ("configuration", "state", "log"))
        for made in (self.configuration, self.state, self.log):
            made.mkdir()
        os.chown(self.state, UID, UID)
        self.state.chmod(0o700)
        self.config.write_text(text)

    @property
    def config(self) -> Path:
        return self.configuration / "config.yaml"

    @property
    def mounted(self) -> dict[str, Path]:
        return {"/etc/headrace": self.configuration, "/var/lib/headrace": self.state}


@asynccontextmanager
async def serving(image: Image, volumes: Volumes) -> AsyncIterator[tuple[Container, int]]:
    """Run the image as it is, on a free port; return its port as well."""
    port = free_port()
    async with image.running(volumes.log, volumes=volumes.mounted, HEADRACE_PORT=str(port)) as container:
        await container.logged(b"is up after")
        process_one = container.process_one
        yield container, port
    assert not Path(f"/proc/{process_one}").exists(), "a container outlives its test"


async def status_of(port: int, model_name: str) -> int:
    """Return how a short request for a model is answered."""
    async with await RawClient.open(("127.0.0.1", port)) as client:
        await client.send(post_bytes(ask(model_name, stream=False)))
        return (await client.read_head()).status


async def text_of(port: int, model_name: str) -> str | None:
    """Return the text of a streamed answer."""
    async with await RawClient.open(("127.0.0.1", port)) as client:
        await client.send(post_bytes(ask(model_name)))
        assert (await client.read_head()).status == 200
        return fold_stream(await read_body(client)).content


# --- what is in it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [DOCKERFILE, PLUGIN_DOCKERFILE], ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    ran = subprocess.run([linter, "--no-color", str(file)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_engine_reads_from_it_how_it_is_run_stopped_and_checked(images: Images) -> None:
    found = images.headrace.configuration
    assert (found["User"], found["Entrypoint"]) == (f"{UID}:{UID}", ["headrace"])
    assert found["Cmd"] == ["serve", "--host", "0.0.0.0"]
    assert list(found["ExposedPorts"]) == ["4000/tcp"]
    assert found["StopSignal"] == "SIGTERM"
    assert images.headrace.environ({})["HEADRACE_CONFIG"] == "/etc/headrace/config.yaml"
    labels = {name.rpartition(".")[2]: value for name, value in found["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["licenses"]) == (images.version, "0123abcd", "MIT")


def test_the_versions_that_are_installed_are_those_of_the_lock(images: Images) -> None:
    script = (
        "import json, platform, importlib.metadata as m; found = {d.name: d.version for d in m.distributions()}; "
        "print(json.dumps([platform.python_version(), found]))"
    )
    ran = images.headrace.run(entrypoint=("python", "-c", script))
    python, found = json.loads(ran.stdout)
    installed = {name.lower().replace("_", "-"): version for name, version in found.items()}
    locked = {"headrace": images.version}
    for line in (ROOT / "requirements" / "image.txt").read_text().splitlines():
        if line[:1].isalpha():
            one = Requirement(line.rstrip(" \\"))
            if one.marker is None or one.marker.evaluate({"python_full_version": python, "extra": ""}):
                locked[one.name] = str(one.specifier).removeprefix("==")
    assert installed == locked


def test_it_adds_one_folder_a_user_and_a_folder_for_state_to_its_base(images: Images) -> None:
    def files(image: Image) -> set[str]:
        return {str(path.relative_to(image.files)) for path in image.files.rglob("*")}

    added = files(images.headrace) - files(images.base)
    mounts = [place.strip("/") for place in images.storage.build_mounts]
    kept = {path for path in added if not any(place.startswith(path) or path.startswith(place) for place in mounts)}
    outside = {path for path in kept if not path.startswith("opt/headrace") and "__pycache__" not in path}
    assert outside <= {"etc/headrace", "var/lib/headrace", "etc/hosts"}  # the last is buildah's, and empty


def test_nothing_in_it_may_be_written_by_its_user_or_raises_rights(images: Images) -> None:
    state = images.headrace.files / "var/lib/headrace"
    for path in (images.headrace.files / "opt/headrace").rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (0, 0), path
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), path
        assert not path.is_file() or "security.capability" not in os.listxattr(path, follow_symlinks=False), path
    assert (state.stat().st_uid, stat.S_IMODE(state.stat().st_mode)) == (UID, 0o750)


@pytest.mark.parametrize("missing", ["pip", "setuptools", "wheel", "hatchling"])
def test_what_only_a_build_needs_is_not_in_it(image: Image, missing: str) -> None:
    ran = image.run(entrypoint=("python", "-c", f"import {missing}"))
    assert ran.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named '{missing}'"


def test_each_module_that_it_loads_is_byte_compiled_even_on_a_base_without_byte_code(image: Image) -> None:
    script = (
        "import json, os, sys, watchfiles\n"
        "import pipeline.gateway.cli, pipeline.gateway.service, pipeline.gateway.supervision\n"
        "specs = [m.__spec__ for m in sys.modules.values() if getattr(m, '__spec__', None)]\n"
        "print(json.dumps([s.name for s in specs if s.cached and not os.path.exists(s.cached)]))\n"
        "print(len(specs))"
    )
    missing, count = image.run(entrypoint=("python", "-c", script)).stdout.splitlines()
    assert json.loads(missing) == []
    assert int(count) > 500


# --- how it runs -----------------------------------------------------------------------------------------------------


async def test_a_stream_comes_through_a_container_that_may_write_only_its_state(image: Image, tmp_path: Path) -> None:
    async with scripted_upstream(*good_answer("Hello, you")) as upstream:
        volumes = Volumes(tmp_path, configured(model("up", upstream.url)))
        async with serving(image, volumes) as (container, port):
            assert await text_of(port, "up") == "Hello, you"
            status = Path(f"/proc/{container.process_one}/status").read_text()
            facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            assert facts["NSpid"].split()[-1] == "1"
            assert set(facts["Uid"].split()) == set(facts["Gid"].split()) == {str(UID)}
            assert (int(facts["CapEff"], 16), facts["NoNewPrivs"]) == (0, "1")
            refused = await container.run("touch", "/opt/headrace/x")
            assert b"Read-only file system" in refused.stderr
            assert (volumes.state / "reasoning.sqlite").stat().st_uid == UID
            assert await container.is_healthy()
            assert not await container.is_healthy(HEADRACE_PORT=str(free_port()))
            container.signal(signal.SIGTERM)
            assert await container.exit() == 0


async def test_sigterm_to_process_one_lets_a_running_stream_end_whole(image: Image, tmp_path: Path) -> None:
    held = Held()
    async with scripted_upstream(held) as upstream:
        volumes = Volumes(
            tmp_path, configured(model("up", upstream.url), "graceful_timeout_s: 600, shutdown_delay_s: 2")
        )
        async with serving(image, volumes) as (container, port):
            client = await open_stream(port)
            container.signal(signal.SIGTERM)
            await container.logged(b"draining 1 worker")
            assert await container.is_healthy()  # it is alive: only its readiness has ended
            assert (await get(("127.0.0.1", port), "/readyz")).status == 503
            held.go.set()
            assert fold_stream(await read_body(client)).content == "Hello, you"
            client.close()
            assert await container.exit() == 0


async def test_sighup_to_process_one_reloads(image: Image, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, configured(ECHO))
    async with serving(image, volumes) as (container, port):
        assert await status_of(port, "other") == 404
        volumes.config.write_text(configured(ECHO + OTHER))
        container.signal(signal.SIGHUP)
        await container.logged(b"configuration reloaded: 2 models")
        assert await status_of(port, "other") == 200


async def test_the_swap_of_a_mounted_config_map_reloads(image: Image, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, "")
    volumes.config.unlink()
    for version, models in (("..1", ECHO), ("..2", ECHO + OTHER)):
        (volumes.configuration / version).mkdir()
        (volumes.configuration / version / "config.yaml").write_text(configured(models, "watch_config: true"))
    (volumes.configuration / "..data").symlink_to("..1")
    volumes.config.symlink_to("..data/config.yaml")
    async with serving(image, volumes) as (container, port):
        (volumes.configuration / "..data_tmp").symlink_to("..2")
        os.replace(volumes.configuration / "..data_tmp", volumes.configuration / "..data")
        await container.logged(b"configuration reloaded: 2 models")
        assert await status_of(port, "other") == 200


def test_the_other_commands_run_in_it(image: Image, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, configured(ECHO))
    checked = image.run("check-config", volumes=volumes.mounted)
    assert checked.returncode == 0, checked.stderr
    assert "echo" in checked.stdout
    assert image.run("new-key").stdout.startswith("sk-")
    volumes.config.write_text("model_list: 1")
    assert image.run("check-config", volumes=volumes.mounted).returncode == 2
    assert image.run().returncode == 2  # without a configuration, it says so
    assert "/etc/headrace/config.yaml" in image.run().stderr


async def test_the_demo_needs_nothing(image: Image, tmp_path: Path) -> None:
    port = free_port()
    arguments = ("demo", "--host", "0.0.0.0", "--port", str(port))
    async with image.running(tmp_path, arguments, HEADRACE_PORT=str(port)) as container:
        await container.logged(b"headrace init")
        assert await container.is_healthy()
        container.signal(signal.SIGTERM)
        assert await container.exit() == 0


async def test_an_image_of_ones_own_adds_a_plugin(images: Images, tmp_path: Path) -> None:
    volumes = Volumes(tmp_path, configured(ECHO, "stages: [{use: shout}]"))
    async with serving(images.with_plugin, volumes) as (_, port):
        assert await text_of(port, "echo") == "HI"
