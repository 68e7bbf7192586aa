"""Images that are built from ``deploy/docker``, on a Debian that is made here, and containers that run them.

There is no engine: an image is built by buildah with chroot isolation, which works inside of containers and virtual
machines. A container is made here of what engines make it of: namespaces of its own for processes and mounts, the
image's files without write access, a ``/tmp`` in memory, and no more rights than the image's user has. What is run in
it, as whom, where and with which variables comes from the image's own configuration. Only the network is the host's.

    with opened_storage(folder) as storage:
        image = storage.build("headrace", DOCKERFILE, base=storage.debian())
    async with image.running(folder, volumes={"/etc/headrace": folder}, HEADRACE_PORT="4321") as container:
        await container.logged(b"is up after")
        container.signal(signal.SIGTERM)
        assert await container.exit() == 0
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import trio
from kit.service.command import Command, started

ROOT: Final = Path(__file__).parents[3]
DOCKERFILE: Final = ROOT / "deploy" / "docker" / "Dockerfile"
PLUGIN_DOCKERFILE: Final = ROOT / "deploy" / "docker" / "plugins.Dockerfile"

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv", "ca-certificates", "passwd", "usr-is-merged")
"""What an image of Debian must have so that ours can be built on it. The last one spares usrmerge, which needs Perl."""
UNUSED: Final = ("share/doc", "share/man", "share/locale", "share/info", "lib/*/gconv")
"""What is removed from it, below /usr. The official images of Python have no byte code either."""
BUILD_LIMIT_S: Final = 500.0
MEMORY_KB: Final = 4 * 1024 * 1024
"""Much more than what the images and containers of a test take."""

_PIP_SETTINGS: Final = ("index-url", "extra-index-url", "find-links", "cert", "client-cert", "proxy", "trusted-host")
_AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
_NO_INDEX: Final = ("No matching distribution", "ConnectionError", "Could not fetch", "Max retries", "HTTP error")
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")


def _output(command: Sequence[str], what: str, **environ: str) -> str:
    """Return what a command prints on stdout; the test fails with both of its outputs if it fails."""
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_LIMIT_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )
    if ran.returncode:
        said = (ran.stdout + ran.stderr)[-6000:]
        if "pip" in said and any(words in said for words in _NO_INDEX):
            what += ", because pip found no package index in it (`pip config list` says where it looks on this machine)"
        raise AssertionError(f"{what}: {shlex.join(command[:3])} ... ended with {ran.returncode}\n{said}")
    return ran.stdout


@contextmanager
def opened_storage(folder: Path) -> Generator[Storage]:
    """Have a storage in an empty folder until the end of the block. It is in memory, if there is enough.

    Images are copied whole, some of them several times: more than a minute on a disk that others use too.
    """
    available_kb = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0])
    is_in_memory = available_kb > MEMORY_KB
    if is_in_memory:
        _output(["mount", "-t", "tmpfs", "-o", f"mode=700,size={MEMORY_KB}k", "tmpfs", str(folder)], "no tmpfs")
    try:
        yield Storage(folder)
    finally:
        if is_in_memory:
            _output(["umount", "--lazy", str(folder)], "the tmpfs stays")
        else:
            shutil.rmtree(folder)


class Storage:
    """Where images are kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]

    def buildah(self, *arguments: str, what: str = "an image cannot be handled") -> str:
        """Run buildah; return what it prints."""
        return _output(["buildah", *self._options, *arguments], what, TMPDIR=str(self._folder)).strip()

    def debian(self) -> str:
        """Return the name of an image of Debian with Python, as small as it may be. Takes half a minute."""
        archive = self._folder / "debian.tar"
        remove = f'cd "$1/usr" && rm -r {" ".join(UNUSED)} && find lib/python3* -name "*.pyc" -delete'
        make = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--include={','.join(PACKAGES)}"]
        make += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"', f"--customize-hook={remove}"]
        make += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", SUITE, str(archive)]
        _output(make, "Debian's packages cannot be installed", TMPDIR=str(self._folder))
        return self.load("debian", archive)

    def load(self, name: str, archive: Path) -> str:
        """Return the name of an image of the files of an archive, which is removed."""
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(archive), "/")
        self.buildah("commit", "--quiet", "--rm", container, f"localhost/{name}")
        archive.unlink()
        return f"localhost/{name}"

    def build(self, name: str, dockerfile: Path, context: Path = ROOT, **arguments: str) -> Image:
        """Build a Dockerfile with these build arguments."""
        command = ["build", "--quiet", "--isolation", "chroot", "--layers=false", "--format", "docker"]
        command += ["--tag", f"localhost/{name}"]
        for argument, value in arguments.items():
            command += ["--build-arg", f"{argument.upper()}={value}"]
        for source, target in self._pip().items():
            command += ["--volume", f"{source}:{target}:ro"]
        self.buildah(*command, "--file", str(dockerfile), str(context), what=f"{dockerfile} cannot be built")
        return Image(self, f"localhost/{name}")

    def _pip(self) -> dict[str, str]:
        """Return the files with which pip finds, within a build, the package indexes that it uses on this machine."""
        listed = _output([sys.executable, "-m", "pip", "config", "list"], "pip has no configuration")
        lines, mounted = ["[global]"], dict[str, str]()
        for setting in listed.splitlines():
            name, _, quoted = setting.partition("=")
            option = name.rpartition(".")[2]
            if option in _PIP_SETTINGS:
                value = quoted.strip("'\"").replace("\\n", " ")
                lines.append(f"{option} = {value}")
                for word in value.split():
                    path = word.removeprefix("file://")
                    if path.startswith("/") and os.path.exists(path):
                        place = path if path == word else str(Path(path).parent)  # an index links to its siblings
                        mounted[place] = place
        configuration = self._folder / "pip.conf"
        configuration.write_text("\n".join(dict.fromkeys(lines)) + "\n")
        return {**mounted, str(configuration): "/etc/pip.conf"}

    @property
    def build_mounts(self) -> list[str]:
        """The places in an image that a build has mounted something on, and that it leaves empty there."""
        return list(self._pip().values())


class Image:
    """An image that has been built."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self.name = name

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What an engine reads from it: ``User``, ``Env``, ``Entrypoint``, ``Cmd``, ``Healthcheck`` and so on."""
        found: dict[str, Any] = json.loads(self._storage.buildah("inspect", "--type", "image", self.name))
        configuration: dict[str, Any] = found["Docker"]["config"]
        return configuration

    @cached_property
    def files(self) -> Path:
        """Its files, as those of a container that nobody may write to."""
        return Path(self._storage.buildah("mount", self._storage.buildah("from", self.name)))

    def environ(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a container, with those that are given when it is started."""
        own = dict(variable.split("=", 1) for variable in self.configuration["Env"] or ())
        return {**own, **given}

    def in_container(self, command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
        """Return the command that runs a command in the image's folder, with exactly these variables."""
        variables = [f"{name}={value}" for name, value in self.environ(environ).items()]
        return ["/usr/bin/env", "-i", "-C", self.configuration["WorkingDir"] or "/", *variables, *command]

    def command(
        self,
        arguments: Sequence[str] = (),
        volumes: Mapping[str, Path] | None = None,
        entrypoint: Sequence[str] | None = None,
        **environ: str,
    ) -> list[str]:
        """Return the command that does what ``docker run --read-only`` does: it runs the image's, as process 1.

        Args:
            arguments: those of the image's entry point, instead of the image's own.
            volumes: folders of this machine by the container's; no container may write to ``/etc``.
            entrypoint: what is run instead of the image's entry point and command.
            environ: variables, as by ``docker run --env``.
        """
        root = shlex.quote(str(self.files))
        script = ["set -e", f"mount --bind {root} {root}", f"mount -o remount,bind,ro {root}", f"cd {root}"]
        script += ["mount -t proc proc proc", "mount -t sysfs -o ro sysfs sys", "mount -t tmpfs -o mode=755 dev dev"]
        script += ["mount -t tmpfs -o mode=1777 tmp tmp", "mkdir -m 1777 dev/shm", "ln -s /proc/self/fd dev/fd"]
        script += [f"touch dev/{name}; mount --bind /dev/{name} dev/{name}" for name in _DEVICES]
        for target, source in (volumes or {}).items():
            script.append(f"mount --bind {shlex.quote(str(source))} .{shlex.quote(target)}")
            if target.startswith("/etc/"):
                script.append(f"mount -o remount,bind,ro .{shlex.quote(target)}")
        own = self.configuration
        words = list(entrypoint or [*(own["Entrypoint"] or ()), *(arguments or own["Cmd"] or ())])
        as_user = ["setpriv", "--no-new-privs", "chroot", f"--userspec={own['User']}", "--groups=", str(self.files)]
        script.append(f"exec {shlex.join([*as_user, *self.in_container(words, environ)])}")
        return [*_IN_NAMESPACES, "sh", "-c", "\n".join(script)]

    def exec_command(self, process_one: int, command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
        """Return the command that runs another one in the container of a process, as ``docker exec`` does."""
        user, _, group = self.configuration["User"].partition(":")
        enter = ["nsenter", f"--target={process_one}", "--mount", "--pid", "--ipc", "--uts", "--root"]
        return [*enter, f"--setuid={user}", f"--setgid={group}", *self.in_container(command, environ)]

    @property
    def health_check(self) -> list[str]:
        """The command with which an engine looks whether a container is healthy."""
        kind, *command = self.configuration["Healthcheck"]["Test"]
        assert kind == "CMD", "a shell would be one more process each time"
        return list(command)

    def run(
        self, *arguments: str, volumes: Mapping[str, Path] | None = None, entrypoint: Sequence[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        command = self.command(arguments, volumes, entrypoint)
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)

    @asynccontextmanager
    async def running(
        self, folder: Path, arguments: Sequence[str] = (), *, volumes: Mapping[str, Path] | None = None, **environ: str
    ) -> AsyncIterator[Container]:
        """Run a container until the end of the block; its log is written into ``folder``."""
        words = self.command(arguments, volumes, **environ)
        async with started(Container, words, folder, folder / "config.yaml") as container:
            container.image, container.environ = self, environ
            yield container


_IN_NAMESPACES: Final = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")


class Container(Command):
    """A running container; its process is that of ``unshare``.

    Attributes:
        image: what it runs.
        environ: the variables that it was started with, besides the image's.
    """

    image: Image
    environ: Mapping[str, str]

    @property
    def process_one(self) -> int:
        """Its first process, as this machine numbers it."""
        [first] = self._children()
        return first

    def _children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def kill(self) -> None:
        """End all processes in it; that of ``unshare`` ends after them.

        ``unshare --kill-child`` does it no more once its child has become another user (Linux, PR_SET_PDEATHSIG).
        """
        if children := self._children():
            os.kill(children[0], signal.SIGKILL)
        else:
            self.process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send its first process a signal, as ``docker stop`` and ``docker kill`` do."""
        os.kill(self.process_one, number)

    async def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        """Run another command in it, as ``docker exec`` does."""
        words = self.image.exec_command(self.process_one, command, {**self.environ, **environ})
        return await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)

    async def is_healthy(self, **environ: str) -> bool:
        """Return what the image's health check says."""
        return (await self.run(*self.image.health_check, **environ)).returncode == 0
