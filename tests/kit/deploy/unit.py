"""A machine of its own for the systemd unit: systemd as process 1, on a copy of this machine's files that is dropped.

It has its own processes, mounts and control groups, and this machine's network, so that a test's client and upstream
reach the service on 127.0.0.1. headrace is installed where docs/deploying.md says, with this environment's packages.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import trio
from kit.service.notified import Notified, notified
from kit.service.running import KEY
from kit.time.patience import patiently_with_processes

ROOT: Final = Path(__file__).parents[3]
UNIT: Final = ROOT / "deploy/systemd/headrace.service"
BOOT: Final = Path(__file__).with_name("boot_systemd.sh")
PAUSE_S: Final = 0.05
"""Between two looks at what systemd says."""

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_INSTALL: Final = f"""
set -e
/opt/python/bin/python3 -m venv --without-pip /opt/headrace
# What headrace needs is here already, so that nothing is downloaded.
echo /opt/packages > /opt/headrace/lib/python{sysconfig.get_python_version()}/site-packages/packages.pth
PYTHONPATH=/opt/packages /opt/python/bin/python3 -m pip --python /opt/headrace/bin/python --disable-pip-version-check \\
    install --quiet --no-cache-dir --no-deps --no-index --no-build-isolation /opt/source

useradd --system --home-dir /var/lib/headrace --shell /usr/sbin/nologin headrace
install -d /etc/headrace
install -m 0644 /opt/source/deploy/systemd/headrace.service /etc/systemd/system/
mkdir /etc/systemd/system/headrace.service.d
# This Python may find its library in a home only, which the unit hides.
printf '[Service]\\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib\\n' > /etc/systemd/system/headrace.service.d/python.conf
systemctl daemon-reload
"""


class Machine:
    """A booted machine.

    Attributes:
        root: its files, as this machine sees them.
    """

    def __init__(self, pid: int) -> None:
        self.root = Path(f"/proc/{pid}/root")
        self._enter = [
            *("nsenter", "--target", str(pid), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd"),
            *("env", "-i", f"PATH={_PATH}", "LC_ALL=C.UTF-8"),
        ]

    async def run(self, *command: str) -> str:
        """Run a command in it, and return what it prints.

        Raises:
            AssertionError: if it fails.
        """
        status, printed = await self.attempt(*command)
        assert status == 0, (command, printed)
        return printed

    async def attempt(self, *command: str) -> tuple[int, str]:
        """Run a command in it; return its status and what it prints."""
        with patiently_with_processes():
            ran = await trio.run_process(
                [*self._enter, *command], check=False, capture_stdout=True, stderr=subprocess.STDOUT
            )
        return ran.returncode, ran.stdout.decode()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file."""
        file = self.root / path.lstrip("/")
        file.write_text(text)
        file.chmod(mode)


@contextmanager
def booted(folder: Path) -> Generator[Machine]:
    """Boot a machine, in which headrace is installed and not started; at the end kill it.

    Args:
        folder: an empty one.
    """
    name = f"headrace-test-{uuid.uuid4()}"
    with (folder / "boot.log").open("wb") as log:
        boot = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),  # nothing of it outlives the tests
                *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", BOOT),
                *(folder, name, sys.base_prefix, sysconfig.get_path("purelib"), ROOT),
            ],
            env={"PATH": _PATH, "NOTIFY_SOCKET": f"@{name}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    pid = 0
    try:
        with notified(
            f"@{name}"
        ) as systemd:  # closed when it is up: systemd would wait for its later reports to be read
            trio.run(_wait_until_up, systemd, boot, folder / "boot.log")
        pid = int(Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text())
        machine = Machine(pid)
        trio.run(machine.run, "sh", "-c", _INSTALL)
        yield machine
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)  # process 1 ends after all others
        else:
            boot.kill()
        boot.wait()
        subprocess.run(["unshare", "--mount", BOOT, folder, name], check=True, stderr=subprocess.DEVNULL)


async def _wait_until_up(systemd: Notified, boot: subprocess.Popen[bytes], log: Path) -> None:
    with patiently_with_processes():
        while not any("READY" in report for report in systemd.reports()):
            assert boot.poll() is None, log.read_text()
            await trio.sleep(PAUSE_S)


class Service:
    """headrace.service in a machine, which runs as a user would run it, with ``systemctl``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def configure(self, text: str) -> None:
        """Write its configuration, whose master key is in headrace.env."""
        self.machine.write("/etc/headrace/config.yaml", text.replace(KEY, "os.environ/HEADRACE_MASTER_KEY"))
        self.machine.write("/etc/headrace/headrace.env", f"HEADRACE_MASTER_KEY={KEY}\n", mode=0o640)
        shutil.chown(self.machine.root / "etc/headrace/headrace.env", group=self.group)

    @property
    def group(self) -> int:
        """The group of its user."""
        named = re.search(r"^headrace:[^:]*:(\d+):", (self.machine.root / "etc/group").read_text(), re.MULTILINE)
        assert named is not None
        return int(named[1])

    async def systemctl(self, *arguments: str) -> str:
        """Run ``systemctl ARGUMENTS headrace``, which must succeed."""
        return await self.machine.run("systemctl", *arguments, "headrace")

    async def override(self, line: str) -> None:
        """Change a line of the section Service until the end of the test."""
        folder = self.machine.root / "run/systemd/system/headrace.service.d"
        folder.mkdir(parents=True)
        (folder / "test.conf").write_text(f"[Service]\n{line}\n")
        await self.machine.run("systemctl", "daemon-reload")

    async def state(self) -> dict[str, str]:
        """Return what systemd knows of it, by the names of its properties."""
        lines = (await self.systemctl("show")).splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    async def log(self) -> str:
        """Return what it, and systemd about it, have logged since its last start."""
        await self.machine.run("journalctl", "--sync")
        invocation = (await self.state())["InvocationID"]
        return await self.machine.run(
            *("journalctl", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}"), "+", f"INVOCATION_ID={invocation}"
        )

    async def logged(self, words: str) -> None:
        """Wait until it has logged something since its last start."""
        with patiently_with_processes():
            while words not in await self.log():
                await trio.sleep(PAUSE_S)

    async def reached(self, **properties: str) -> dict[str, str]:
        """Wait until some of its properties have these values, and return all."""
        with patiently_with_processes():
            while True:
                state = await self.state()
                if all(state[name] == value for name, value in properties.items()):
                    return state
                await trio.sleep(PAUSE_S)

    async def port(self) -> int:
        """Return the port that its log names."""
        named = re.search(r"workers? on 127\.0\.0\.1 port (\d+)", await self.log())
        assert named is not None
        return int(named[1])


@asynccontextmanager
async def fresh_service(machine: Machine) -> AsyncGenerator[Service]:
    """Return the service as after its installation; stop it at the end."""
    service = Service(machine)
    try:
        yield service
    finally:
        with trio.CancelScope(shield=True):
            await machine.attempt("systemctl", "kill", "--signal=KILL", "headrace")
            await machine.attempt("systemctl", "stop", "headrace")
            await machine.attempt("systemctl", "reset-failed", "headrace")
            await machine.run("sh", "-c", "rm -rf /var/lib/headrace /run/systemd/system/headrace.service.d")
            await machine.run("systemctl", "daemon-reload")
