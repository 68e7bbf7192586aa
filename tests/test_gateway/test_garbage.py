"""A request and its connection leave nothing in cycles: the collector rests while many streams run (`collector`)."""

from __future__ import annotations

import gc
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType, FunctionType, TracebackType
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import CREATED, ask, begun, good_answer, post_bytes
from kit.clients.raw import RawClient
from kit.service.running import Service, model, serving
from kit.time.patience import patiently
from kit.upstreams.scripted import Step, close, error, event, reset, scripted_upstream, sse_head, stall

ROOT = Path(__file__).parent.parent.parent
OURS = tuple(f"{ROOT}/{folder}/" for folder in ("pipeline", "stages"))

Act = Callable[[Service], Awaitable[object]]


def is_ours(thing: object) -> bool:
    """Return whether our code has made it, as far as that can be told."""
    match thing:
        case FrameType():
            return thing.f_code.co_filename.startswith(OURS)
        case TracebackType():
            return is_ours(thing.tb_frame)
        case FunctionType():
            return thing.__code__.co_filename.startswith(OURS)
        case trio.Cancelled():
            return True
        case _:
            return type(thing).__module__.startswith(("pipeline.", "stages."))


def named(thing: object) -> str:
    """Return what it is, for the message of a failed test."""
    match thing:
        case FrameType():
            return f"frame of {thing.f_code.co_qualname} line {thing.f_lineno}"
        case TracebackType():
            return f"traceback at {thing.tb_frame.f_code.co_qualname} line {thing.tb_lineno}"
        case FunctionType():
            return f"function {thing.__qualname__}"
        case _:
            return type(thing).__qualname__


async def garbage_of(act: Act, service: Service) -> Counter[str]:
    """Return what of ours is left in cycles by what ``act`` does with a service."""

    async def acted() -> None:
        await act(service)
        with patiently():
            while service.app.bridge.active:
                await trio.sleep(0.005)
        await trio.testing.wait_all_tasks_blocked(0.02)  # those of the connection have little left to do

    await acted()  # for what happens once
    gc.collect()
    gc.disable()
    try:
        await acted()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(named(thing) for thing in gc.garbage if is_ours(thing))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def post(*, mark: bytes = b"", body: Any = None, again: bool = False, **fields: Any) -> Act:
    """Return what posts on a connection of its own, and leaves after ``mark``, or else after the answer."""

    async def act(service: Service) -> None:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            for _ in range(2 if again else 1):
                await client.send(post_bytes(body or ask(**fields)))
                if mark:
                    await client.read_until(mark)
                else:
                    await client.read_answer()
            await leave(client)

    return act


async def leave_at_once(service: Service) -> None:
    """Post, and leave when the upstream has been asked, before there is any answer."""
    async with await RawClient.open(("127.0.0.1", service.port)) as client:
        await client.send(post_bytes(ask()))
        with patiently():
            while not service.app.bridge.active:
                await trio.sleep(0.005)
        await leave(client)


async def leave(client: RawClient) -> None:
    """End the connection, and wait until the server has ended it, too."""
    client.sock.shutdown(socket.SHUT_WR)
    await client.read_to_end()


GOOD = good_answer()
CASES: dict[str, tuple[tuple[Step, ...], dict[str, Any], Act]] = {
    "a stream": (GOOD, {}, post()),
    "two streams on a connection": (GOOD, {}, post(again=True)),
    "a document": (GOOD, {}, post(stream=False)),
    "refused by the upstream": ((error(400, b'{"error": {"message": "no"}}'),), {}, post()),
    "a failing upstream": ((error(500, b"down"),), {}, post()),
    "a limited upstream": ((error(429, b"slow down"),), {}, post()),
    "cut before the head": ((close(),), {}, post()),
    "reset before the head": ((reset(),), {}, post()),
    "garbage for a head": ((b"nonsense\r\n\r\n", close()), {}, post()),
    "cut before the first text": ((sse_head(), event(CREATED), close()), {}, post()),
    "cut in the text": ((*begun("Hel"), close()), {}, post()),
    "reset in the text": ((*begun("Hel"), reset()), {}, post()),
    "garbage in the text": ((*begun("Hel"), event(b"data: {nonsense\n\n"), stall()), {}, post()),
    "a silent upstream": ((stall(),), {"timeout": 0.1}, post()),
    "silent in the text": ((*begun("Hel"), stall()), {"timeout": 0.1, "stream_timeout": 0.1}, post()),
    "a client that leaves at once": ((stall(),), {}, leave_at_once),
    "a client that leaves in the text": ((*begun("Hel"), stall()), {}, post(mark=b"Hel")),
    "an unknown model": ((), {}, post(model="nobody")),
    "no Responses body": ((), {}, post(body={"model": "up"})),
}


@pytest.mark.parametrize("transport", ["", "  http2: true"], ids=["our transport", "httpx"])
@pytest.mark.parametrize("case", CASES)
async def test_row_64_nothing_is_left_for_the_collector(case: str, transport: str) -> None:
    """A request ends in any way: neither it nor its connection leaves anything in cycles."""
    script, limits, act = CASES[case]
    async with scripted_upstream(*script) as up, serving(model("up", up.url, **limits), transport) as service:
        assert await garbage_of(act, service) == Counter()
