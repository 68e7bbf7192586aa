"""The program of the supervisor's tests: ``supervise WORKERS STOP_TIMEOUT_S KIND`` or ``worker KIND FD LIFELINE``."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from functools import partial
from typing import Any

import trio


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the process id; a stream ends when the client sends its request's body, at whatever time."""
    if scope["type"] == "lifespan":
        os.write(2, b"a worker has started\n")
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid(), "more_body": scope["path"] == "/stream"})
    if scope["path"] == "/stream":
        await receive()
        await send({"type": "http.response.body", "body": b"end"})


def work(kind: str, fd: int, lifeline_fd: int) -> None:
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with socket.socket(fileno=lifeline_fd) as lifeline:
            os.write(2, b"ignoring SIGTERM\n")
            lifeline.recv(1)
        return
    # Imported here because it takes a while, and not every process needs it.
    from pipeline.gateway.http.connection import ServerSettings
    from pipeline.gateway.http.refusals import RefusalResponse
    from pipeline.gateway.http.server import hypercorn_config, serve_until_signalled
    from pipeline.gateway.http.sockets import prepare_listener

    listener = socket.socket(fileno=fd)
    prepare_listener(listener)
    settings = ServerSettings(
        max_connections=100, keep_alive_timeout_s=60, header_timeout_s=60, write_timeout_s=60, graceful_timeout_s=60
    )
    serve = partial(
        serve_until_signalled,
        make_refusal=lambda code, message: RefusalResponse(500, b"text/plain", message.encode()),
        lifeline=socket.socket(fileno=lifeline_fd),
    )
    trio.run(serve, app, hypercorn_config(settings), [listener], settings)


def supervise(workers: int, stop_timeout_s: float, kind: str) -> int:
    from pipeline.gateway.http.sockets import bind_socket
    from pipeline.gateway.http.supervisor import run_workers

    listener = bind_socket("127.0.0.1", 0)
    os.write(1, b"%d\n" % listener.getsockname()[1])

    def worker_command(fds: Any, lifeline_fd: int) -> list[str]:
        if kind == "broken":  # not Python, which on a slow machine starts too slowly to count as an early death
            return ["sh", "-c", "echo this worker cannot start >&2; exit 1"]
        return [sys.executable, __file__, "worker", kind, str(fds[0]), str(lifeline_fd)]

    return run_workers(workers, [listener], worker_command, stop_timeout_s=stop_timeout_s)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if sys.argv[1] == "worker":
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(supervise(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
