"""Does memory come back? The service as a process, what its clients do to it, and its resident memory.

Run: ``python -m benchmarks.bench_memory failures`` (several minutes), ``uploads`` or ``collector``; see ``--help``.

- ``failures``: requests with large bodies fail in six ways, one after the other. After the first few, memory must not
  grow any more (row 64 of the fault matrix).
- ``uploads``: many large uploads at once, beside small streams. All are answered, or refused with ``Retry-After``, and
  memory stays within its bound (row 65).
- ``collector``: what the thresholds of the garbage collector cost: CPU per event and per request, and memory with
  2 000 streams.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from benchmarks.collected import MARK
from benchmarks.gateways import KEY, serving
from benchmarks.loads import LOADS, Subject, measure, open_tools, shape
from benchmarks.processes import (
    ROOT,
    SERVER_CORES,
    Server,
    free_port,
    python,
    raise_descriptor_limit,
    rss_kb,
    running,
    worker_of,
)

MIB: Final = 1024 * 1024
ALLOWED_GROWTH_MIB: Final = 32
"""How much more may be resident after the last request than after the first ones."""
ALLOWED_UPLOADS_MIB: Final = 1024
"""How much may be resident while many upload at once."""

_CONFIG = """\
model_list:
  - {{model_name: canned, litellm_params: {{model: canned/echo}}}}
  - {{model_name: story, litellm_params: {{model: canned/story}}}}
  - model_name: "upstream-*"
    litellm_params: {{model: "openai/upstream-*", api_base: "http://127.0.0.1:{port}/v1", api_key: k, timeout: 60}}
  - model_name: late
    litellm_params: {{model: "openai/upstream-late", api_base: "http://127.0.0.1:{port}/v1", api_key: k, timeout: 0.3}}
general_settings: {{master_key: {key}}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
pipeline_settings: {{{settings}}}
"""


def large_body(size_bytes: int, model: str, *, stream: bool = True) -> bytes:
    """Return a chat of a coding agent: half of it is text in 2 500 messages, and half one image."""
    source = random.Random(64)
    image = base64.b64encode(source.randbytes(size_bytes * 3 // 8)).decode()
    text = "".join(source.choices("abcdefgh (){}=_", k=max(1, size_bytes // 5000 - 50)))
    messages: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[at % 2], "content": f"{at} {text}"} for at in range(2500)
    ]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}
    messages.append({"role": "user", "content": [{"type": "text", "text": "what is this?"}, picture]})
    return msgspec.json.encode({"model": model, "stream": stream, "messages": messages})


def small_body(model: str) -> bytes:
    """Return a short request for a stream."""
    return msgspec.json.encode({"model": model, "stream": True, "messages": [{"role": "user", "content": "hello"}]})


# --- the upstream ----------------------------------------------------------------------------------------------------


async def _answer(stream: trio.SocketStream) -> None:
    """Read requests, and answer as the name of the model says."""
    received = bytearray()
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            while chunk := await stream.receive_some(256 * 1024):
                received += chunk
                if (end_at := received.find(b"\r\n\r\n", 0, 8192)) < 0:
                    continue
                head = bytes(received[:end_at])
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                if len(received) < len(head) + 4 + length:
                    continue
                start, end = received[len(head) : len(head) + 65536], received[-65536:]
                received.clear()
                if not await _answer_one(stream, bytes(start + end)):
                    return


async def _answer_one(stream: trio.SocketStream, body: bytes) -> bool:
    if b"upstream-rejects" in body:
        answer = b'{"error": {"message": "no", "type": "invalid_request_error"}}'
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        await stream.send_all(head % len(answer) + answer)
        return True
    if b"upstream-cuts" in body:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        created = b'data: {"type": "response.created", "response": {"id": "r"}}\n\n'
        await stream.send_all(head + b"%x\r\n%b\r\n" % (len(created), created))
        return False
    if b"upstream-answers" in body:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        delta = b'data: {"type": "response.output_text.delta", "output_index": 0, "delta": "good"}\n\n'
        await stream.send_all(head + delta)
        await trio.sleep(0.5)
        await stream.send_all(
            b'data: {"type": "response.completed", "response": {"id": "r", "status": "completed"}}\n\n'
        )
        return False
    await stream.receive_some(1)  # silent, until the service leaves
    return False


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    """Serve an upstream for the length of a block; give its port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, _answer, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


# --- the client ------------------------------------------------------------------------------------------------------


async def post(
    port: int, body: bytes, *, length: int | None = None, leaves_after: Callable[[], Awaitable[object]] | None = None
) -> tuple[int, bytes]:
    """Post a chat, and return the status and the answer with its head; (0, b"") if we leave, or the service does.

    Args:
        port: the service's.
        body: what is sent.
        length: the declared length, if it is not that of the body.
        leaves_after: after what we leave, instead of reading the answer.
    """
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {length or len(body)}\r\nconnection: close\r\n\r\n"
    )
    answer = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    with contextlib.suppress(trio.BrokenResourceError):
        async with stream, trio.open_nursery() as nursery:

            async def send() -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.send_all(head.encode())
                    await stream.send_all(body)
                if leaves_after is not None:
                    await leaves_after()
                    nursery.cancel_scope.cancel()

            nursery.start_soon(send)
            while chunk := await stream.receive_some(65536):
                answer += chunk
            nursery.cancel_scope.cancel()
    if not answer.startswith(b"HTTP/1.1 "):
        return 0, b""
    return int(answer[9:12]), answer


@contextlib.contextmanager
def service(upstream_port: int, settings: str, source: Path = ROOT) -> Generator[tuple[Server, int]]:
    """Run the service for the length of a block; give it and its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-memory-") as folder:
        config = Path(folder, "config.yaml")
        config.write_text(_CONFIG.format(port=upstream_port, key=KEY, settings=settings))
        address = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        command = python("-m", "pipeline.gateway", "serve", *address)
        with running(command, cores=SERVER_CORES, cwd=source, environ={"PYTHONPATH": str(source)}) as server:
            server.wait_ready(port)
            yield server, port


# --- failures --------------------------------------------------------------------------------------------------------

KINDS: Final[dict[str, tuple[str, int]]] = {
    "upstream answers 400": ("upstream-rejects", 400),
    "cut before text": ("upstream-cuts", 502),
    "unknown model": ("nobody", 404),
    "client leaves": ("upstream-silent", 0),
    "deadline exceeded": ("late", 504),
    "over the limit": ("canned", 413),
}
"""Each kind of failure with the model that is asked for, and the status of the answer."""


async def fail(kind: str, at: int, port: int, body: bytes) -> None:
    """Post one request that fails.

    Raises:
        AssertionError: if it is answered otherwise.
    """
    _, expected = KINDS[kind]
    if kind != "client leaves":
        status, _ = await post(port, body)
    elif at % 2:  # in the middle of the upload
        status, _ = await post(port, body[: len(body) * 3 // 4], length=len(body), leaves_after=_soon)
    else:  # while it waits for the upstream
        status, _ = await post(port, body, leaves_after=_soon)
    assert status == expected, f"{kind}: status {status} instead of {expected}"


async def _soon() -> None:
    await trio.sleep(0.2)


async def growth_mib(kind: str, *, count: int, first: int, size_mib: float, source: Path = ROOT) -> tuple[float, float]:
    """Return the resident memory after the first requests, and after all."""
    model, status = KINDS[kind]
    settings = "max_body_mb: 16" if status == 413 else "max_body_mb: 100"
    body = large_body(int(size_mib * MIB), model)
    early_mib = 0.0
    async with upstream() as upstream_port:
        with service(upstream_port, settings, source) as (server, port):
            for at in range(count):
                await fail(kind, at, port, body)
                if at + 1 in (first, count):
                    now_mib = await _settled_mib(worker_of(server.pid))
                    early_mib = now_mib if at + 1 == first else early_mib
    return early_mib, now_mib


async def _settled_mib(pid: int) -> float:
    """Return the least resident memory of the next 2 s: on a busy machine the last body is given back late."""
    least = rss_kb([pid])
    for _ in range(8):
        await trio.sleep(0.25)
        least = min(least, rss_kb([pid]))
    return least / 1024


def failures(options: argparse.Namespace) -> int:
    """Measure all kinds; return 1 if one grows too much."""
    worst = 0.0
    print(f"RSS in MiB after {options.first} and after {options.count} failed requests of {options.size:g} MiB")
    for kind in options.only or KINDS:
        began = time.monotonic()
        measured = partial(growth_mib, count=options.count, first=options.first, size_mib=options.size)
        early_mib, late_mib = trio.run(partial(measured, kind, source=options.source))
        worst = max(worst, late_mib - early_mib)
        taken_s = time.monotonic() - began
        print(
            f"  {kind:<22} {early_mib:7.0f} {late_mib:7.0f} {late_mib - early_mib:+7.1f}   {taken_s:.0f} s", flush=True
        )
    is_good = worst <= ALLOWED_GROWTH_MIB
    print(f"{'good' if is_good else 'NOT GOOD'}: at most {ALLOWED_GROWTH_MIB} MiB more are allowed")
    return 0 if is_good else 1


# --- uploads ---------------------------------------------------------------------------------------------------------


async def upload_all(
    count: int, size_mib: float, settings: str = "", source: Path = ROOT
) -> tuple[float, list[tuple[int, bytes]], list[float]]:
    """Upload at once, beside small streams, one after the other.

    Returns:
        The most resident memory, the status and the head of each upload, and the time of each small stream in seconds.
    """
    body = large_body(int(size_mib * MIB), "upstream-answers")
    small_s: list[float] = []
    answers: list[tuple[int, bytes]] = []
    most_mib = 0.0
    async with upstream() as upstream_port:
        with service(upstream_port, f"max_body_mb: 101{settings and ', '}{settings}", source) as (server, port):

            async def upload() -> None:
                answers.append(await post(port, body))

            async def stream_on() -> None:
                while True:
                    began = trio.current_time()
                    status, _ = await post(port, small_body("canned"))
                    assert status == 200, f"a small stream got {status}"
                    small_s.append(trio.current_time() - began)
                    await trio.sleep(0.05)

            async def watch() -> None:
                nonlocal most_mib
                while True:
                    most_mib = max(most_mib, rss_kb([worker_of(server.pid)]) / 1024)
                    await trio.sleep(0.005)

            async with trio.open_nursery() as beside:
                beside.start_soon(stream_on)
                beside.start_soon(watch)
                async with trio.open_nursery() as nursery:
                    for _ in range(count):
                        nursery.start_soon(upload)
                beside.cancel_scope.cancel()
    return most_mib, answers, small_s


def uploads(options: argparse.Namespace) -> int:
    """Measure; return 1 if it takes too much, or an upload has neither an answer nor a refusal with ``Retry-After``."""
    most_mib, answers, small_s = trio.run(
        lambda: upload_all(options.count, options.size, options.settings, options.source)
    )
    served = sum(status == 200 for status, _ in answers)
    refused = sum(status == 503 and b"retry-after:" in head for status, head in answers)
    print(f"{options.count} uploads of {options.size:g} MiB at once: {served} answered, {refused} refused with 503")
    slowest_s = max(small_s, default=0.0)
    print(f"  RSS at most {most_mib:.0f} MiB; {len(small_s)} small streams beside them, the slowest {slowest_s:.2f} s")
    is_good = served + refused == options.count and served and most_mib <= ALLOWED_UPLOADS_MIB
    print("good" if is_good else f"NOT GOOD: at most {ALLOWED_UPLOADS_MIB} MiB are allowed, and each must be answered")
    return 0 if is_good else 1


# --- the collector ---------------------------------------------------------------------------------------------------

COLLECTOR_LOADS: Final[dict[str, dict[str, Any]]] = {
    "requests": LOADS["requests"],
    "paced-100": LOADS["paced-100"],
    "slow-2000": {**LOADS["slow-1000"], "connections": 2000, "open_per_s": 400.0},
}


def collector(options: argparse.Namespace) -> int:
    """Measure each set of thresholds in turn, and print the medians."""
    raise_descriptor_limit()
    found: dict[tuple[str, str], list[list[float]]] = {}
    with open_tools() as tools:
        for _ in range(options.rounds):
            for thresholds in options.thresholds:
                environ = {"HEADRACE_GC": thresholds}
                with serving(tools, name=thresholds, module="benchmarks.collected", environ=environ) as subject:
                    for name, shape_of in COLLECTOR_LOADS.items():
                        load = shape(name, subject, seconds=options.seconds, **shape_of)
                        _collected(subject)  # what came before
                        figures, _ = measure(tools, subject, load)
                        ns, longest_ns, count, freed = _collected(subject)
                        per = "cpu_us_per_request" if name == "requests" else "cpu_us_per_event"
                        done = figures["complete"] if name == "requests" else figures["events"]
                        found.setdefault((name, thresholds), []).append(
                            [
                                figures[per],
                                ns / 1000 / max(1, done),
                                longest_ns / 1e6,
                                count,
                                freed,
                                figures["rss_kb"] / 1024,
                            ]
                        )
    print("Medians. CPU in us per request, or per event; of it the collector; its longest collection in ms (CPU);")
    print("collections; objects freed; RSS in MiB")
    for (name, thresholds), rounds in sorted(found.items()):
        cost_us, collector_us, longest_ms, count, freed, rss_mib = (
            statistics.median(figure) for figure in zip(*rounds, strict=True)
        )
        figures_text = f"{cost_us:7.1f} {collector_us:8.3f} {longest_ms:7.2f} {count:6.0f} {freed:7.0f} {rss_mib:6.0f}"
        print(f"{name:<10} {thresholds:<14} {figures_text}")
    return 0


def _collected(subject: Subject) -> list[int]:
    """Return what the collector has done since the last call."""
    assert subject.server is not None
    seen = subject.server.printed().count(MARK)
    os.kill(worker_of(subject.server.pid), signal.SIGUSR2)
    limit = time.monotonic() + 10
    while (printed := subject.server.printed()).count(MARK) == seen and time.monotonic() < limit:
        time.sleep(0.01)
    numbers: list[int] = msgspec.json.decode(printed.rpartition(MARK)[2].partition("\n")[0])
    return numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_memory", description="Does memory come back?")
    parts = parser.add_subparsers(required=True, metavar="part")
    failing = parts.add_parser("failures", help="does memory grow with failed requests?")
    failing.add_argument("--count", type=int, default=200, help="requests of each kind (default 200)")
    failing.add_argument("--first", type=int, default=20, help="measure after so many for the first time (default 20)")
    failing.add_argument("--size", type=float, default=20, help="of each body, in MiB (default 20)")
    failing.add_argument("--only", action="append", choices=KINDS, help="only this kind; may be repeated")
    failing.add_argument("--source", type=Path, default=ROOT, help="the tree whose service is measured")
    failing.set_defaults(run=failures)
    uploading = parts.add_parser("uploads", help="do many large uploads at once stay within their memory?")
    uploading.add_argument("--count", type=int, default=50, help="uploads at once (default 50)")
    uploading.add_argument("--size", type=float, default=100, help="of each, in MiB (default 100)")
    uploading.add_argument("--settings", default="", help="pipeline_settings, as 'max_upload_mb_total: 300'")
    uploading.add_argument("--source", type=Path, default=ROOT, help="the tree whose service is measured")
    uploading.set_defaults(run=uploads)
    collecting = parts.add_parser("collector", help="which thresholds of the garbage collector are best?")
    known = ["0", "700,10,10", "5000,20,50", "20000,20,50", "100000,20,50"]
    collecting.add_argument("thresholds", nargs="*", default=known, help=f"such as 700,10,10 (default {known})")
    collecting.add_argument("--rounds", type=int, default=3, help="of each (default 3)")
    collecting.add_argument("--seconds", type=float, default=5, help="of each round (default 5)")
    collecting.set_defaults(run=collector)
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
