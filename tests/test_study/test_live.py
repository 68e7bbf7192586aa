"""Reading a running service: what it says, and what is said if it does not answer as it should."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import trio
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.raw import RawClient
from kit.service.command import Command, configured, headrace_serve
from kit.service.running import KEY

from pipeline.gateway.cli import main
from pipeline.study import live
from pipeline.study.live import LiveError, UnreachableError

CANNED = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_MASTER_KEY", raising=False)


@contextmanager
def answering(status: int, body: bytes, headers: dict[str, str] | None = None) -> Generator[tuple[str, list[str]]]:
    """Run a server that is not headrace; yield its URL, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "code": "x"}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, error("no"), r"refuses the key \(status 401\): it needs the master key"),
        (403, b"", r"refuses the key \(status 403\)"),
        (404, error("no master key is configured"), "no master key is configured"),
        (404, b"<html>", "does not answer as headrace does"),
        (200, b"<html>", "does not answer as headrace does"),
        (200, b"[1]", "does not answer as headrace does"),
        (302, b"", "does not answer as headrace does"),
        (503, error("try again"), "answers with status 503: try again"),
    ],
)
def test_what_a_server_refuses_or_another_server_says_is_a_sentence(status: int, body: bytes, said: str) -> None:
    with answering(status, body, {"location": "/latency/elsewhere"}) as (url, asked):
        with pytest.raises(LiveError, match=said) as failure:
            live.now(url, "k")
    assert asked == ["/latency/now"]  # no redirect is followed with the key
    assert isinstance(failure.value, UnreachableError) == (status == 503)


def test_lines_without_a_cursor_are_not_headrace_s() -> None:
    with answering(200, b"{}\n") as (url, _), pytest.raises(LiveError, match="does not answer as headrace does"):
        live.records(url, "k")


def test_nobody_there_is_told_from_somebody_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(live, "TIMEOUT_S", 0.1)
        with pytest.raises(UnreachableError, match=r"has not answered within 0\.1 s"):
            live.running(f"http://127.0.0.1:{port}", "k")
    with pytest.raises(UnreachableError, match=r"cannot be reached \(Connection refused\)"):
        live.running(f"http://127.0.0.1:{port}", "k")


@pytest.mark.parametrize(
    "url", ["x", "ftp://x", "http://", "http://a b", "http://u:p@x", "http://x?y", "http://x:99999", "http://x\n"]
)
def test_what_is_not_a_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(LiveError, match=r"^--url is not a URL such as http://127\.0\.0\.1:4000$"):
        live.now(url, "k")


def test_the_key_comes_from_the_option_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LiveError, match="HEADRACE_MASTER_KEY"):
        live.key_from(None)
    monkeypatch.setenv("HEADRACE_MASTER_KEY", " sk-1 ")
    assert (live.key_from(None), live.key_from("sk-2")) == ("sk-1", "sk-2")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Command]:
    async with headrace_serve(tmp_path, configured(CANNED, "recorder_mb: 1"), workers=2) as command:
        yield command


async def post(port: int, count: int) -> None:
    for _ in range(count):
        async with await RawClient.open(("127.0.0.1", port)) as client:
            await client.send(post_bytes(ask("echo", stream=False)))
            assert (await client.read_answer()).status == 200


async def in_thread(call: Callable[[], Any]) -> Any:
    return await trio.to_thread.run_sync(call)


async def recorded(url: str, count: int) -> list[bytes]:
    """Return all lines of requests, once there are ``count``."""
    while True:
        lines: list[bytes] = (await in_thread(lambda: live.records(url, KEY))).lines
        if sum(b'"event":"request"' in line for line in lines) >= count:
            return lines
        await trio.sleep(0.02)


@pytest.mark.timeout(300)  # processes
async def test_a_real_service_is_read_recorded_and_watched(
    running: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, file = f"http://127.0.0.1:{running.port}", tmp_path / "recording.jsonl"
    await post(running.port, 12)
    lines = await recorded(url, 12)
    first = next(json.loads(line) for line in lines if b'"event":"request"' in line)
    assert json.loads(await in_thread(lambda: live.request(url, KEY, first["request_id"]))) == first
    with pytest.raises(LiveError, match="the flight recorder has no finished request with this id"):
        await in_thread(lambda: live.request(url, KEY, "nope"))
    with pytest.raises(LiveError, match=r"refuses the key \(status 401\)"):
        await in_thread(lambda: live.now(url, "sk-wrong-key-0123456789"))
    few = await in_thread(lambda: live.records(url, KEY, limit=5))
    assert (few.lines, few.has_more, few.lost) == (lines[:5], True, 0)
    assert (await in_thread(lambda: live.records(url, KEY, few.cursor))).lines[:7] == lines[5:12]
    assert (await in_thread(lambda: live.now(url, KEY)))["ended"] == {"OK": 12}

    monkeypatch.setenv("HEADRACE_MASTER_KEY", KEY)
    command = ["record", "--url", url, "-o", str(file), "--seconds", "0"]
    assert await in_thread(lambda: main(command)) == 0
    header, *written = file.read_bytes().splitlines()
    assert written[:12] == lines[:12]
    found = json.loads(header)
    assert (found["event"], found["format"], found["source"], found["workers"]) == ("recording", 1, url, 2)
    assert capfd.readouterr().err == f"headrace: {len(written)} lines recorded\n"
    assert await in_thread(lambda: main(command)) == 2
    assert capfd.readouterr().err == f"headrace: {file} exists: name another file, or remove it\n"
    assert file.read_bytes().splitlines()[1:] == written
    file = tmp_path / "new.jsonl"
    command[4] = str(file)
    assert await in_thread(lambda: main([*command, "--new", "--json"])) == 0
    assert b'"event":"request"' not in file.read_bytes()
    counts = {"file": str(file), "lines": len(file.read_bytes().splitlines()) - 1, "lost": 0}
    assert json.loads(capfd.readouterr().out) == counts
    assert await in_thread(lambda: main(["record", "--url", url, "-o", "-", "--seconds", "0", "--json"])) == 2
    assert "give --output a file" in capfd.readouterr().err

    assert await in_thread(lambda: main(["top", "--url", url, "--once", "--interval", "0.1"])) == 0
    shown = capfd.readouterr().out
    assert f"headrace top  {url}" in shown
    assert "\x1b" not in shown
    assert await in_thread(lambda: main(["top", "--url", url, "--once", "--interval", "0.1", "--json"])) == 0
    [document] = capfd.readouterr().out.splitlines()
    assert json.loads(document)["in_flight"] == 0

    await interrupted(url, running.port, tmp_path / "interrupted.jsonl")


async def interrupted(url: str, port: int, file: Path) -> None:
    """Record while requests come, until Ctrl-C."""
    arguments = ["-m", "pipeline.gateway", "record", "--url", url, "--key", KEY, "-o", str(file), "--new"]
    process = await trio.lowlevel.open_process([sys.executable, *arguments], stderr=subprocess.PIPE)

    async def written(of: bytes, count: int) -> None:
        while not file.exists() or file.read_bytes().count(of) < count:
            await trio.sleep(0.02)

    try:
        await written(b'"event":"recording"', 1)
        await post(port, 3)
        await written(b'"event":"request"', 3)
    finally:
        process.send_signal(2)
    assert await process.wait() == 0
    assert process.stderr is not None
    lines = len(file.read_bytes().splitlines()) - 1
    assert await process.stderr.receive_some() == b"headrace: %d lines recorded\n" % lines


def test_a_command_says_what_is_wrong_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "http://127.0.0.1:1", "--once"]) == 2
    assert "HEADRACE_MASTER_KEY" in capsys.readouterr().err
    assert main(["record", "--url", "http://127.0.0.1:1", "--key", "k", "-o", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("headrace: http://127.0.0.1:1 cannot be reached")
    assert not (tmp_path / "x").exists()
