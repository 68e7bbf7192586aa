"""Does a client notice a restart? Streams and short requests while the service is told to change.

Run: ``python -m benchmarks.bench_restart``. Half of the short requests come on kept connections, half on connections of
their own. Each must be answered with 200 and completely, each stream with all its events and its end. A request is
never sent twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import trio

from benchmarks.gateways import KEY, configuration
from benchmarks.processes import Server, free_port, python, running

EVENTS: Final[dict[str, tuple[signal.Signals, str]]] = {
    "restart": (signal.SIGUSR1, "restarted: "),
    "reload": (signal.SIGHUP, "reloaded"),
}
"""What happens to the service: the signal, and the words in its log when it is done."""
STREAM_MODEL: Final = "mock-n100-d100000-t0-r1"
"""100 events in 10 s."""
SHORT_MODEL: Final = "mock-n5-t0"
KEPT_CONNECTIONS: Final = 50
PATIENCE_S: Final = 60.0


@dataclass
class Outcome:
    """What the clients have seen.

    Attributes:
        answered: complete answers, by kind.
        failed: everything else, by kind and what it was.
        closing: answers on kept connections that said that the connection ends.
        slowest_s: the longest short request.
    """

    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    closing: int = 0
    slowest_s: float = 0.0


class Failed(Exception):
    """An answer is not what it must be."""


class Client:
    """A connection that may be used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._buffer = b""

    async def post(self, model: str, *, streams: bool, events: int) -> bool:
        """Post one request and check the answer; return whether the connection goes on.

        Raises:
            Failed: if it is not complete.
        """
        if self._stream is None:
            self._stream, self._buffer = await trio.open_tcp_stream("127.0.0.1", self._port), b""
        body = b'{"model":"%b","input":"hi","stream":%b}' % (model.encode(), b"true" if streams else b"false")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {KEY}\r\n"
        length = f"Content-Length: {len(body)}\r\n\r\n"
        await self._stream.send_all(head.encode() + length.encode() + body)
        head_lines = (await self._until(b"\r\n\r\n")).lower()
        status = int(head_lines.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head_lines:
            answer = await self._until(b"0\r\n\r\n")
        else:
            answer = await self._exactly(int(head_lines.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if status != 200:
            raise Failed(f"status {status}: {answer[:120]!r}")
        if streams and (answer.count(b'"content":"') < events or b"data: [DONE]" not in answer):
            raise Failed(f"a stream of {answer.count(b'content')} events, or without its end")
        ends = b"connection: close" in head_lines
        if ends:
            self.close()
        return not ends

    async def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            await self._read()
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._read()
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    async def _read(self) -> None:
        assert self._stream is not None
        if not (data := await self._stream.receive_some(65536)):
            raise Failed(f"cut after {len(self._buffer)} bytes")
        self._buffer += data

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None


class Load:
    """All clients of one run."""

    def __init__(self, port: int, streams: int, rate: float) -> None:
        self._port = port
        self._streams = streams
        self._rate = rate
        self._is_over = trio.Event()
        self.outcome = Outcome()
        self.all_stream = trio.Event()

    async def run(self) -> None:
        """Run until `stop`, and then until what has begun is complete."""
        async with trio.open_nursery() as nursery:
            for number in range(self._streams):
                nursery.start_soon(self._stream, number)
            for number in range(KEPT_CONNECTIONS):
                nursery.start_soon(self._ask_on, number, KEPT_CONNECTIONS / (self._rate / 2))
            nursery.start_soon(self._ask_anew, nursery)

    def stop(self) -> None:
        """Begin nothing anymore."""
        self._is_over.set()

    async def _stream(self, number: int) -> None:
        await trio.sleep(2 * number / self._streams)
        client = Client(self._port)
        while not self._is_over.is_set():
            await self._post("stream", client, STREAM_MODEL, events=100)
        client.close()

    async def _ask_on(self, number: int, pause_s: float) -> None:
        client = Client(self._port)
        await trio.sleep(pause_s * number / KEPT_CONNECTIONS)
        while not self._is_over.is_set():
            began = trio.current_time()
            await self._post("kept", client, SHORT_MODEL)
            await trio.sleep_until(began + pause_s * random.uniform(0.9, 1.1))
        client.close()

    async def _ask_anew(self, nursery: trio.Nursery) -> None:
        async def ask() -> None:
            client = Client(self._port)
            await self._post("new", client, SHORT_MODEL)
            client.close()

        at = trio.current_time()
        while not self._is_over.is_set():
            nursery.start_soon(ask)
            at += 2 / self._rate
            await trio.sleep_until(at)

    async def _post(self, kind: str, client: Client, model: str, events: int = 0) -> None:
        began = trio.current_time()
        try:
            goes_on = await client.post(model, streams=bool(events), events=events)
        except (Failed, OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.outcome.failed[f"{kind}: {error or type(error).__name__}"] += 1
            client.close()
            await trio.sleep(0.1)  # else it would be in a loop
            return
        self.outcome.answered[kind] += 1
        self.outcome.closing += kind != "new" and not goes_on
        if not events:
            self.outcome.slowest_s = max(self.outcome.slowest_s, trio.current_time() - began)


@contextlib.contextmanager
def service(workers: int, settings: str = "") -> Generator[tuple[Server, int]]:
    """Run the service and its upstream for the length of a block."""
    port, upstream_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-restart-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(configuration(upstream_port, "info", settings))
        command = python("-m", "pipeline.gateway", "serve", "--config", str(config), "--host", "127.0.0.1")
        upstream = python("-m", "benchmarks.upstream", "--port", str(upstream_port))
        with (
            running(upstream) as mock,
            running([*command, "--port", str(port), "--workers", str(workers)]) as server,
        ):
            mock.wait_ready(upstream_port, "/stats")
            server.wait_ready(port)
            while server.printed().count("is up after") < workers:
                time.sleep(0.01)
            yield server, port


async def watch(
    server: Server, port: int, event: str, *, times: int, streams: int, rate: float, pause_s: float
) -> Outcome:
    """Put the load on a service, have the event happen so often, and return what the clients have seen."""
    number, words = EVENTS[event]
    load = Load(port, streams, rate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        await trio.sleep(2 + pause_s)
        for _ in range(times):
            seen = server.printed().count(words)
            os.kill(server.pid, number)
            with trio.fail_after(PATIENCE_S):
                while server.printed().count(words) == seen:  # noqa: ASYNC110 - another process says it
                    await trio.sleep(0.05)
            await trio.sleep(pause_s)
        load.stop()
    return load.outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a client has noticed anything."""
    parser = argparse.ArgumentParser(description="Does a client notice a restart?")
    parser.add_argument("--event", choices=list(EVENTS), default="restart", help="what happens (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="(%(default)s)")
    parser.add_argument("--streams", type=int, default=200, help="at a time (%(default)s)")
    parser.add_argument("--rate", type=float, default=500, help="short requests per second (%(default)s)")
    parser.add_argument("--times", type=int, default=2, help="how often it happens (%(default)s)")
    parser.add_argument("--pause", type=float, default=4, help="seconds before, between and after (%(default)s)")
    options = parser.parse_args(arguments)
    failures = 0
    for workers in options.workers:
        with service(workers) as (server, port):
            outcome = trio.run(
                partial(
                    watch,
                    server,
                    port,
                    options.event,
                    times=options.times,
                    streams=options.streams,
                    rate=options.rate,
                    pause_s=options.pause,
                )
            )
            printed = server.printed()
        print(f"{workers} workers, {options.times} x {options.event}: {dict(outcome.answered)} answered")
        print(f"  {outcome.closing} kept connections ended with an answer that says so")
        print(f"  the slowest short request took {outcome.slowest_s:.2f} s")
        print(f"  {outcome.failed.total()} failed: {dict(outcome.failed)}")
        print("  " + "\n  ".join(line[:200] for line in printed.splitlines() if "supervisor" in line))
        failures += outcome.failed.total()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
