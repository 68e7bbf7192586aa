"""A service under load for the screenshots of docs/latency-page.md: ``headrace serve`` and 2,000 streams.

One of the two deployments of its model is slow, one model breaks off, some clients read slowly or leave, and now and
then a stage holds the loop. It serves until it is interrupted.

Usage::

    PYTHONPATH=.:tests python benchmarks/page_load.py --streams 2000
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import trio

KEY = "sk-bench"
PORT = 4000
CONFIG = """
model_list:
  - {model_name: story, litellm_params: {model: "canned/timed:head=350ms;tokens=40;gap=800ms"}, model_info: {id: fast}}
  - {model_name: story, litellm_params: {model: "canned/timed:head=2s;tokens=25;gap=1300ms"}, model_info: {id: slow}}
  - {model_name: fragile, litellm_params: {model: "canned/timed:head=200ms;tokens=40;gap=100ms;fail=30"}}
  - {model_name: large, litellm_params: {model: "canned/timed:head=100ms;tokens=300;gap=5ms;bytes=16000"}}
  - {model_name: rude, litellm_params: {model: "canned/timed:head=100ms;tokens=60;gap=250ms"}}
general_settings: {master_key: %s}
router_settings: {num_retries: 0}
pipeline_settings:
  host: 127.0.0.1
  port: %d
  stages: [{use: chaos_busy, when: {models: [rude]}, options: {ms: 45, every: 50}}]
"""
STREAMS_EACH = 1000
"""Of one process that sends requests."""
SMALL_BUFFER_BYTES = 16 * 1024
READ_BYTES = 64 * 1024


async def ask(model: str, *, pause_s: float = 0.0, leaves_after_s: float = float("inf")) -> None:
    """Send a request, and read its response with pauses, or only for some time."""
    body = msgspec.json.encode({"model": model, "input": f"{random.random()}", "stream": True})
    head = (
        "POST /cursor/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with trio.socket.socket() as opened, trio.move_on_after(leaves_after_s):
        if pause_s:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        await opened.connect(("127.0.0.1", PORT))
        await trio.SocketStream(opened).send_all(head.encode() + body)
        while await opened.recv(READ_BYTES):  # noqa: ASYNC110 - its pauses are what this client is for
            await trio.sleep(pause_s)


async def odd_clients() -> None:
    """Send a request of each odd kind again and again."""

    async def again(model: str, every_s: float, *, pause_s: float = 0.0, leaves_after_s: float = float("inf")) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: ask(model, pause_s=pause_s, leaves_after_s=leaves_after_s))
                await trio.sleep(every_s * random.uniform(0.7, 1.3))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(lambda: again("fragile", 4))
            nursery.start_soon(lambda: again("large", 12, pause_s=0.05))
            nursery.start_soon(lambda: again("story", 5, leaves_after_s=random.uniform(1, 9)))
        nursery.start_soon(again, "rude", 15)


def main() -> None:
    """Serve, and send requests until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts what runs beside it deaf to SIGINT
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG % (KEY, PORT))
        command = [sys.executable, "-m", "pipeline.gateway", "serve", "-c", str(config), "--workers", "2"]
        with (Path(folder) / "log").open("wb") as log, subprocess.Popen(command, stderr=log, stdout=log) as service:
            trio.run(until_listening)
            senders = [
                start_sender(min(STREAMS_EACH, options.streams - at)) for at in range(0, options.streams, STREAMS_EACH)
            ]
            print(f"http://127.0.0.1:{PORT}/latency#key={KEY}", flush=True)
            try:
                trio.run(odd_clients)
            except KeyboardInterrupt:
                pass
            finally:
                for sender in senders:
                    sender.kill()
                service.terminate()


def start_sender(streams: int) -> subprocess.Popen[bytes]:
    """Start a process that keeps so many streams running."""
    load = {"port": PORT, "model": "story", "connections": streams, "seconds": 36_000, "open_per_s": 40, "token": KEY}
    sender = subprocess.Popen([sys.executable, "-m", "benchmarks.load"], stdin=subprocess.PIPE)
    assert sender.stdin is not None
    sender.stdin.write(msgspec.json.encode(load) + b"\n")
    sender.stdin.flush()
    return sender


async def until_listening() -> None:
    """Wait until the service accepts connections."""
    while True:
        try:
            await (await trio.open_tcp_stream("127.0.0.1", PORT)).aclose()
        except OSError:
            await trio.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
