"""Real proxies of Debian in front of a real ``headrace serve``, with the configurations of ``deploy/``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from kit.service.certificates import Certificate
from kit.service.command import configured
from kit.time.patience import patiently_with_processes

ROOT = Path(__file__).parents[3]
START_LIMIT_S = 30

Edits = Mapping[str, str]
"""What is replaced in a configuration of ``deploy/``, and by what; each must be there once."""


@dataclass(frozen=True)
class Ports:
    """Where a proxy listens, and where each headrace behind it does."""

    proxy: int
    headrace: Sequence[int]


@dataclass(frozen=True)
class Proxy:
    """A kind of proxy.

    Attributes:
        name: as `headrace doctor` calls it.
        file: its configuration in ``deploy/``.
        local: returns the edits that every test needs: ports and certificates.
        command: returns the command line for a folder that has ``config``.
        wrap: returns the configuration around the file's text.
    """

    name: str
    file: str
    local: Callable[[Ports, Certificate], Edits]
    command: Callable[[Path], list[str]]
    wrap: Callable[[str, Path], str] = lambda text, folder: text

    def text(self, ports: Ports, certificate: Certificate, edits: Edits) -> str:
        """Return its configuration with local ports and certificates, and the edits of a test."""
        text = (ROOT / "deploy" / self.file).read_text(encoding="utf-8")
        return edited(edited(text, self.local(ports, certificate)), edits)


def edited(text: str, edits: Edits) -> str:
    """Return a text with its edits."""
    for old, new in edits.items():
        assert text.count(old) >= 1, f"{old!r} is not there"
        text = text.replace(old, new)
    return text


def _nginx_edits(ports: Ports, certificate: Certificate) -> Edits:
    live = "/etc/letsencrypt/live/gateway.example.com"
    server = "    server 127.0.0.1:4000 max_fails=1 fail_timeout=1s;\n"
    return {
        server: "".join(server.replace("4000", str(port)) for port in ports.headrace),
        "listen 443": f"listen 127.0.0.1:{ports.proxy}",
        f"{live}/fullchain.pem": certificate.certfile,
        f"{live}/privkey.pem": certificate.keyfile,
    }


def _nginx_wrap(text: str, folder: Path) -> str:
    paths = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"user root; daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{text}\n}}\n"
    )


def _haproxy_edits(ports: Ports, certificate: Certificate) -> Edits:
    both = Path(certificate.certfile).parent / "both.pem"
    both.write_text(Path(certificate.certfile).read_text() + Path(certificate.keyfile).read_text())
    server = "    server headrace1 127.0.0.1:4000 check\n"
    user = {} if os.geteuid() == 0 else {"    user haproxy\n    group haproxy\n": ""}  # only root can become another
    return {
        **user,
        server: "".join(
            server.replace("1 127", f"{number} 127").replace("4000", str(port))
            for number, port in enumerate(ports.headrace, 1)
        ),
        "bind :443": f"bind 127.0.0.1:{ports.proxy}",
        "/etc/haproxy/certs/gateway.example.com.pem": str(both),
        "maxconn 4000": "maxconn 100",  # else it warns where fewer descriptors are allowed
    }


def _caddy_edits(ports: Ports, certificate: Certificate) -> Edits:
    tls = f"tls {certificate.certfile} {certificate.keyfile}"
    return {
        "127.0.0.1:4000": " ".join(f"127.0.0.1:{port}" for port in ports.headrace),
        "gateway.example.com {": f"https://127.0.0.1:{ports.proxy} {{\n\t{tls}",
    }


def _caddy_wrap(text: str, folder: Path) -> str:
    return f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}"


NGINX = Proxy(
    "nginx",
    "nginx/headrace.conf",
    _nginx_edits,
    lambda folder: ["nginx", "-e", str(folder / "error.log"), "-c", str(folder / "config")],
    _nginx_wrap,
)
HAPROXY = Proxy(
    "HAProxy",
    "haproxy/haproxy.cfg",
    _haproxy_edits,
    lambda folder: ["haproxy", "-q", "-db", "-f", str(folder / "config")],
)
CADDY = Proxy(
    "Caddy",
    "caddy/Caddyfile",
    _caddy_edits,
    lambda folder: ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "config")],
    _caddy_wrap,
)


@asynccontextmanager
async def proxied(
    proxy: Proxy, folder: Path, certificate: Certificate, headrace: Sequence[int], edits: Edits
) -> AsyncIterator[int]:
    """Run a proxy in front of the headraces at these ports; return its port once it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    text = proxy.text(Ports(port, headrace), certificate, edits)
    (folder / "config").write_text(proxy.wrap(text, folder))
    with (folder / "proxy.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            proxy.command(folder), stdout=log, stderr=subprocess.STDOUT, env=_environ(folder), start_new_session=True
        )
        try:
            with patiently_with_processes():
                while not await _listens(port):
                    assert process.poll() is None, (folder / "proxy.log").read_text()
                    await trio.sleep(0.02)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            with trio.CancelScope(shield=True):
                await process.wait()


def _environ(folder: Path) -> Mapping[str, str]:
    return {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "GOMAXPROCS": "1",
    }


async def _listens(port: int) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port):
            return True
    except OSError:
        return False


@contextmanager
def headrace_for_tests(folder: Path, models: str, settings: str) -> Iterator[int]:
    """Run ``headrace serve`` for several tests; return its port once it serves."""
    config, log = folder / "config.yaml", folder / "log"
    config.write_text(configured(models, settings))
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stderr=written, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            until_s = time.monotonic() + START_LIMIT_S
            while b"is up after" not in (text := log.read_bytes()):
                assert process.poll() is None, text.decode()
                assert time.monotonic() < until_s, text.decode()
                time.sleep(0.02)
            yield int(text.partition(b"on 127.0.0.1 port ")[2].partition(b'"')[0])
        finally:
            process.kill()
            process.wait()
