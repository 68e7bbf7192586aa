"""The program of the supervisor's tests: ``supervise OPTIONS``, or ``worker OPTIONS FD LIFELINE``; see `Options`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio
from msgspec import Struct

REPLACE = "/replace"
"""The path of a request that has its worker ask for a successor."""
SPIN = "/spin"
"""The path of a request that never gives the loop back."""
ORPHAN = "/orphan"
"""The path of a request that starts a process, which leaves another one running for a moment; answered with its id."""
PROCESSES = "/processes"
"""The path of a request for the ids of all processes."""


class Options(Struct, frozen=True, kw_only=True):
    """What is supervised.

    Attributes:
        workers: how many.
        kind: what they are: a server, what ignores signals, or what cannot start.
        stop_timeout_s, max_age_s: as in `run_workers`.
        shutdown_delay_s: as in `ServerSettings`.
        broken: while this file exists, workers that are started end with its text and status 3, and the configuration
            is invalid.
    """

    workers: int = 2
    kind: Literal["good", "stubborn", "broken"] = "good"
    stop_timeout_s: float = 120
    max_age_s: float | None = None
    shutdown_delay_s: float = 0
    broken: str = "/no/such/file"


def problem(options: Options) -> str | None:
    file = Path(options.broken)
    return file.read_text() if file.exists() else None


def work(options: Options, fd: int, lifeline_fd: int) -> None:
    if options.kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with socket.socket(fileno=lifeline_fd) as plain:
            plain.send(b"R")
            os.write(2, b"ignoring SIGTERM\n")
            while True:
                plain.settimeout(1)
                try:
                    plain.recv(1)
                    return
                except TimeoutError:
                    plain.send(b".")
    # Imported here because it takes a while, and not every process needs it.
    from pipeline.gateway.http.connection import ServerSettings
    from pipeline.gateway.http.lifeline import REPLACE_ME, Lifeline
    from pipeline.gateway.http.refusals import RefusalResponse
    from pipeline.gateway.http.server import hypercorn_config
    from pipeline.gateway.http.sockets import prepare_listener
    from pipeline.gateway.http.until_signalled import serve_until_signalled

    if (why := problem(options)) is not None:
        os.write(2, f"{why}\n".encode())
        sys.exit(3)
    lifeline = Lifeline(socket.socket(fileno=lifeline_fd))
    is_ready = True

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer with the process id; a stream ends when the client sends its request's body, at whatever time."""
        path = scope.get("path")
        if scope["type"] == "lifespan":
            os.write(2, b"a worker has started\n")
            return
        if path == REPLACE:
            lifeline.report(REPLACE_ME)
        while path == SPIN:
            pass
        body = b"%d" % os.getpid()
        if path == ORPHAN:
            body = subprocess.check_output(["sh", "-c", "sleep 0.2 >/dev/null & echo $!"])
        elif path == PROCESSES:
            body = " ".join(name for name in os.listdir("/proc") if name.isdigit()).encode()
        status = 503 if path == "/readyz" and not is_ready else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": path == "/stream"})
        if path == "/stream":
            await receive()
            await send({"type": "http.response.body", "body": b"end"})

    def stop_being_ready() -> None:
        nonlocal is_ready
        is_ready = False

    async def reload() -> None:
        os.write(2, b"%d has reloaded\n" % os.getpid())

    listener = socket.socket(fileno=fd)
    prepare_listener(listener)
    settings = ServerSettings(
        max_connections=100,
        keep_alive_timeout_s=60,
        header_timeout_s=60,
        write_timeout_s=60,
        shutdown_delay_s=options.shutdown_delay_s,
        graceful_timeout_s=60,
    )
    serve = partial(
        serve_until_signalled,
        make_refusal=lambda code, message: RefusalResponse(500, b"text/plain", message.encode()),
        lifeline=lifeline,
        on_hangup=reload,
        on_shutdown=stop_being_ready,
    )
    trio.run(serve, app, hypercorn_config(settings), [listener], settings)


def supervise(options: Options) -> int:
    from pipeline.gateway.http.sockets import bind_socket
    from pipeline.gateway.http.supervisor import run_workers

    listener = bind_socket("127.0.0.1", 0)
    os.write(1, b"%d\n" % listener.getsockname()[1])
    given = msgspec.json.encode(options).decode()

    def worker_command(fds: Any, lifeline_fd: int, number: int) -> list[str]:
        if options.kind == "broken":
            return ["sh", "-c", "echo this worker cannot start >&2; exit 4"]
        return [sys.executable, __file__, "worker", given, str(fds[0]), str(lifeline_fd)]

    async def check() -> str | None:
        return problem(options)

    serve = partial(
        run_workers,
        stop_timeout_s=options.stop_timeout_s,
        max_age_s=options.max_age_s,
        check=check,
    )
    return trio.run(serve, options.workers, [listener], worker_command)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    parsed = msgspec.json.decode(sys.argv[2], type=Options)
    if sys.argv[1] == "worker":
        work(parsed, int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(supervise(parsed))
