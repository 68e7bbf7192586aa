"""How long other streams wait beside one large body.

    python -m benchmarks.bench_large_bodies [--bodies images-32,messages] [--kinds chat]

A paced stream of another connection runs through the service, 200 events a second, while a large body is posted again
and again. Printed are the largest gaps between two reads of the paced stream's client, beyond the pace, and the
service's CPU and peak memory; first without a large body, which is what the machine itself does.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import SERVER_CORES, TOOL_CORES, cpu_ns, free_port, python, running, worker_of

KEY = "sk-benchmark-0123456789"
PACE_S = 0.005
ENDLESS = 10**9


def _chat(messages: list[Any]) -> bytes:
    return json.dumps({"model": "large", "stream": True, "messages": messages}, separators=(",", ":")).encode()


def _images(mib: int) -> bytes:
    image = base64.b64encode(random.Random(1).randbytes(384 * 1024)).decode()
    url = {"url": f"data:image/png;base64,{image}"}
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": url}]
    return _chat([{"role": "user", "content": parts}] * (2 * mib))


def _messages() -> bytes:
    roles = ("user", "assistant")
    return _chat([{"role": roles[n % 2], "content": f"word {n} and others"} for n in range(150_000)])


def _pairs() -> bytes:
    items: list[Any] = [{"role": "user", "content": "go"}]
    for n in range(40_000):
        items.append({"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"})
        items.append({"type": "function_call_output", "call_id": f"c{n}", "output": "ok"})
    return json.dumps({"model": "large", "stream": True, "input": items}, separators=(",", ":")).encode()


BODIES: dict[str, Callable[[], bytes]] = {
    "images-32": lambda: _images(32),
    "messages": _messages,
    "pairs": _pairs,
    "images-93": lambda: _images(93),
    "one-string-32": lambda: _chat([{"role": "user", "content": "x" * (32 << 20)}]),
    "escapes-32": lambda: _chat([{"role": "user", "content": '"\n' * (8 << 20)}]),
    "keys-1M": lambda: _chat([{"role": "user", "content": "hi", "more": {f"k{n}": n for n in range(1_000_000)}}]),
    "parts-500k": lambda: _chat([{"role": "user", "content": [{"type": "text", "text": "a"}] * 500_000}]),
    "deep": lambda: _chat([{"role": "user", "content": "hi", "more": json.loads("[" * 190 + "]" * 190)}] * 5000),
}
ANSWERS = {
    "chat": b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
    "responses": b'data: {"type":"response.output_text.delta","delta":"hi","output_index":0,"content_index":0}\n\n',
    "anthropic": b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}\n\n',
}
ENDS = {
    "chat": b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "responses": b'data: {"type":"response.completed","response":{"status":"completed","output":[]}}\n\n',
    "anthropic": (
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\ndata: {"type":"message_stop"}\n\n'
    ),
}
UPSTREAMS = {"responses": "openai/gpt-5", "chat": "deepseek/deepseek-chat", "anthropic": "anthropic/claude-sonnet-4-5"}


def _serve_upstream(listener: socket.socket, kind: str) -> None:
    """Answer each request: one with a small body at the pace, any other one at once."""

    def answer(connection: socket.socket) -> None:
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := connection.recv(65536)):
                    return
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            left = length - len(body)
            while left:
                left -= len(connection.recv(min(left, 1 << 20)))
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            is_paced = length < 10_000
            at = time.perf_counter()
            try:
                for _ in range(ENDLESS if is_paced else 1):
                    connection.sendall(b"%x\r\n%b\r\n" % (len(ANSWERS[kind]), ANSWERS[kind]))
                    at += PACE_S
                    if is_paced and (rest := at - time.perf_counter()) > 0:
                        time.sleep(rest)
                connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ENDS[kind]), ENDS[kind]))
            except OSError:
                return

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def _read_paced(port: int, gaps: Any) -> None:
    """Read the paced stream, and put the largest gap since it was last asked for."""
    body = json.dumps({"model": "large", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head % (KEY.encode(), len(body)) + body)
    last, largest = 0.0, 0.0
    while connection.recv(65536):
        now = time.perf_counter()
        if last:
            largest = max(largest, now - last - PACE_S)
        last = now
        if gaps.poll():
            gaps.recv()
            gaps.send(largest)
            largest = 0.0


def _post(port: int, body: bytes) -> float:
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200 or b"hi" not in answer:
        raise SystemExit(f"the service answered {response.status}: {answer[:300]!r}")
    connection.close()
    return time.perf_counter() - began


def _measure(kind: str, names: list[str], rounds: int) -> None:
    fork = multiprocessing.get_context("fork")
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = fork.Process(target=_serve_upstream, args=(listener, kind), daemon=True)
    upstream.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    params = {"model": UPSTREAMS[kind], "api_base": url, "api_key": "sk-upstream"}
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        settings = {
            "model_list": [{"model_name": "large", "litellm_params": params}],
            "general_settings": {"master_key": KEY},
            "pipeline_settings": {"port": port, "log_level": "warning", "max_body_mb": 110},
        }
        config.write_text(json.dumps(settings))
        for name in ["", *names]:
            body = BODIES[name]() if name else b""
            command = python("-m", "pipeline.gateway", "serve", "--config", str(config))
            with running(command, cores=SERVER_CORES) as server:
                server.wait_ready(port)
                worker = worker_of(server.pid)
                ours, theirs = fork.Pipe()
                reader = fork.Process(target=_read_paced, args=(port, theirs), daemon=True)
                reader.start()
                time.sleep(1.0)
                largest, seconds, cpus = [], [], []
                for _ in range(rounds):
                    ours.send(None)
                    ours.recv()
                    before = cpu_ns([worker])
                    if name:
                        seconds.append(_post(port, body))
                    else:
                        time.sleep(1.0)
                    cpus.append(cpu_ns([worker]) - before)
                    time.sleep(0.2)
                    ours.send(None)
                    largest.append(ours.recv())
                status = Path(f"/proc/{worker}/status").read_text()
                [peak] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
                reader.terminate()
                shown = " ".join(f"{1000 * gap:5.0f}" for gap in largest)
                print(
                    f"{kind:10} {name or 'no large body':14} {len(body) / 2**20:6.1f} MiB  gaps {shown} ms  "
                    f"request {1000 * min(seconds, default=0):6.0f} ms  CPU {min(cpus) / 1e6:6.0f} ms  "
                    f"peak {peak / 1024:5.0f} MiB",
                    flush=True,
                )
    upstream.terminate()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", default=",".join(BODIES))
    parser.add_argument("--kinds", default=",".join(UPSTREAMS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if TOOL_CORES:
        os.sched_setaffinity(0, TOOL_CORES)
    for kind in options.kinds.split(","):
        _measure(kind, options.bodies.split(","), options.rounds)
    os._exit(0)  # not to wait for the daemons


if __name__ == "__main__":
    main()
