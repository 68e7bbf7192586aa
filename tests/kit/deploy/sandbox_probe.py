"""What a process of the service can do: a token command that tries it. It needs only the standard library."""

from __future__ import annotations

import json
import mmap
import os
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def outcome(attempt: Callable[[], object]) -> str:
    """Return "ok", or the name of what it raises."""
    try:
        attempt()
    except Exception as error:
        return type(error).__name__ if not isinstance(error, OSError) else os.strerror(error.errno or 0)
    return "ok"


def written(path: str) -> str:
    """Try to create a file, and remove it."""

    def attempt() -> None:
        Path(path).touch()
        Path(path).unlink()

    return outcome(attempt)


def opened(family: int, kind: int) -> str:
    """Try to open a socket."""
    return outcome(lambda: socket.socket(family, kind).close())


def users_of_processes() -> list[int]:
    """Return the users of all processes that it sees."""
    return sorted({entry.stat().st_uid for entry in Path("/proc").iterdir() if entry.name.isdigit()})


def try_all() -> dict[str, object]:
    """Return what came of each attempt."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        **{f"write {folder}": written(f"{folder}/x") for folder in ("/etc", "/etc/headrace", "/usr", "/opt/headrace")},
        **{f"write {folder}": written(f"{folder}/x") for folder in ("/var/lib/headrace", "/tmp", "/var/lib", "/")},
        "list /home": outcome(lambda: os.listdir("/home")),
        "list /root": outcome(lambda: os.listdir("/root")),
        "files in /tmp": sorted(os.listdir("/tmp")),
        "devices": sorted(name for name in os.listdir("/dev") if name in ("kmsg", "mem", "kvm", "sda", "vda", "null")),
        "users of processes": users_of_processes(),
        "uid": os.getuid(),
        "home": os.environ.get("HOME"),
        "umask": oct(os.umask(0)),
        "no new privileges": status["NoNewPrivs"].strip(),
        "has capabilities": any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")),
        "core files": resource.getrlimit(resource.RLIMIT_CORE),
        "AF_INET": opened(socket.AF_INET, socket.SOCK_STREAM),
        "AF_INET6": opened(socket.AF_INET6, socket.SOCK_STREAM),
        "AF_PACKET": opened(socket.AF_PACKET, socket.SOCK_RAW),
        "AF_NETLINK": opened(socket.AF_NETLINK, socket.SOCK_RAW),
        "localhost": outcome(lambda: socket.getaddrinfo("localhost", 80)),
        "write and execute": outcome(
            lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        ),
        "chown": outcome(lambda: os.chown("/var/lib/headrace", os.getuid(), os.getgid())),
        "nice": outcome(lambda: os.nice(1)),
        "chroot": outcome(lambda: os.chroot("/")),
        "set-user-id file": outcome(lambda: set_user_id("/var/lib/headrace/suid")),
        "/proc/sys": Path("/proc/sys").exists(),
        "notify socket": os.environ.get("NOTIFY_SOCKET"),
    }


def set_user_id(path: str) -> None:
    """Create a file that runs as its owner."""
    file = Path(path)
    file.touch()
    try:
        file.chmod(0o4755)
    finally:
        file.unlink()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(try_all()))
    sys.stdout.write("a-token\n")
