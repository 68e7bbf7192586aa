"""What signals do to a process that serves, with a supervisor and without."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.raw import RESET, RawClient, get, limits
from kit.time.patience import patiently

from pipeline.gateway.failures import refusal
from pipeline.gateway.http.lifeline import READY, Lifeline
from pipeline.gateway.http.server import hypercorn_config
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.http.until_signalled import serve_until_signalled
from pipeline.gateway.http.worker_process import RETIRE, STOP_NOW


@dataclass
class Signalled:
    """A server in this process that obeys this process's signals."""

    address: tuple[str, int]
    caplog: pytest.LogCaptureFixture
    ended: trio.Event = field(default_factory=trio.Event)

    async def has_ended(self) -> None:
        with patiently():
            await self.ended.wait()

    async def logged(self, words: str, times: int = 1) -> None:
        with patiently():
            while self.caplog.text.count(words) < times:
                await trio.sleep(0.01)

    async def stream(self) -> RawClient:
        client = await RawClient.open(self.address)
        await client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\n")
        await client.read_until(b"begun\r\n")
        return client


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Begin to answer, and end with the body of the request."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["method"] == "POST":
            await receive()
        await send({"type": "http.response.body", "body": b"ended"})


Hangup = Callable[[], Awaitable[None]]


@asynccontextmanager
async def signalled(
    caplog: pytest.LogCaptureFixture, lifeline: Lifeline | None = None, on_hangup: Hangup | None = None, **changed: Any
) -> AsyncIterator[Signalled]:
    caplog.set_level(logging.INFO)
    settings = limits(**changed)
    listener = bind_socket("127.0.0.1", 0)
    running = Signalled(listener.getsockname(), caplog)
    serve = partial(serve_until_signalled, make_refusal=refusal, lifeline=lifeline, on_hangup=on_hangup)

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(app, hypercorn_config(settings), [listener], settings, task_status=task_status)
        running.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield running
        nursery.cancel_scope.cancel()


async def test_the_second_signal_stops_a_process_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async with signalled(caplog) as running, await running.stream() as stream:
        os.kill(os.getpid(), signal.SIGTERM)
        await running.logged("SIGTERM: draining, 1 request open; again to stop now")
        os.kill(os.getpid(), signal.SIGINT)
        assert (await stream.read_to_end())[1] == RESET
        await running.has_ended()


async def test_a_worker_is_stopped_only_by_its_own_signal(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        async with signalled(caplog, Lifeline(theirs)) as running, await running.stream() as stream:
            assert READY in ours.recv(100)
            os.kill(os.getpid(), signal.SIGTERM)
            await running.logged("SIGTERM: draining, 1 request open")
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), RETIRE)
            await running.logged("ignored, since this worker is draining; SIGQUIT stops it now", times=2)
            os.kill(os.getpid(), STOP_NOW)
            assert (await stream.read_to_end())[1] == RESET
            await running.has_ended()


async def test_a_worker_whose_supervisor_dies_drains(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = socket.socketpair()
    async with signalled(caplog, Lifeline(theirs)) as running, await running.stream() as stream:
        ours.close()
        await running.logged("the supervisor has died: draining, 1 request open")
        await stream.send(b"x")
        assert (await stream.read_to_end())[0] == b"5\r\nended\r\n0\r\n\r\n"
        stream.close()
        await running.has_ended()


async def test_several_hangups_while_it_reloads_are_one_more_reload(caplog: pytest.LogCaptureFixture) -> None:
    began = 0
    go = trio.Event()

    async def reload() -> None:
        nonlocal began
        began += 1
        await go.wait()

    async with signalled(caplog, on_hangup=reload) as running:
        for _ in range(4):
            os.kill(os.getpid(), signal.SIGHUP)
            await trio.sleep(0.01)
        assert began == 1
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert began == 2
        assert (await get(running.address)).body == b"begunended"
        assert not running.ended.is_set()


async def test_a_reload_that_fails_is_logged_without_its_text_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reload() -> None:
        raise ValueError("sk-secret")

    async with signalled(caplog, on_hangup=reload) as running:
        for times in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            await running.logged("the reload failed, so nothing changes", times=times)
        assert "sk-secret" not in caplog.text
        assert (await get(running.address)).status == 200


async def test_a_hangup_is_ignored_by_what_cannot_reload_and_in_a_drain(caplog: pytest.LogCaptureFixture) -> None:
    async def reload() -> None:
        raise AssertionError

    async with signalled(caplog) as running:
        os.kill(os.getpid(), signal.SIGHUP)
        await running.logged("SIGHUP: ignored, since this process cannot reload its configuration: restart it")
        assert (await get(running.address)).status == 200
    async with signalled(caplog, on_hangup=reload) as running, await running.stream():
        os.kill(os.getpid(), signal.SIGTERM)
        await running.logged("SIGTERM: draining, 1 request open")
        os.kill(os.getpid(), signal.SIGHUP)
        await running.logged("SIGHUP: ignored, since this process is draining")
