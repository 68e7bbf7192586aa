"""Where connections come in, beside a loop that is held: over real sockets, with clients in threads of their own."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing
from kit.clients.held import Holding, ask_while_held
from kit.clients.raw import serving

from pipeline.gateway.http.door import MAX_ACCEPTS, MAX_WAITING, Door, OwnAnswer
from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.http.sockets import bind_socket
from pipeline.loop import Loop, watch_loop

ALIVE = OwnAnswer(200, [(b"content-type", b"text/plain"), (b"content-length", b"5")], b"alive")
FULL = OwnAnswer(503, [(b"retry-after", b"1"), (b"content-length", b"4")], b"full")
ANSWERS = {"/livez": lambda: ALIVE}
CHECK = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /chat HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"


def shed(head: RequestHead) -> OwnAnswer | None:
    return FULL if head.path == "/chat" else None


def overload(loop: Loop) -> None:
    """Have the loop be above its limit for as long as a test lasts: the lag decays by two thirds in half a second."""
    loop.max_lag_ns = 1
    loop._lag_ns, loop._lag_at_ns = 1e300, loop.clock()


# Beside a held loop.


async def test_row_67_beside_a_held_loop_clients_come_in_and_checks_are_answered_within_the_turn() -> None:
    """One turn of the loop is long: meanwhile health checks are answered, and new requests refused, many at a time."""
    app = Holding()
    with watch_loop(lambda _: None) as loop:
        async with serving(app, answers=ANSWERS, shed=shed) as served:
            overload(loop)
            replies = await ask_while_held(app, served, *[[CHECK]] * 40, *[[POST]] * 40)
            assert [reply.is_within for reply in replies] == [True] * 80
            assert [reply.status for reply in replies] == [200] * 40 + [503] * 40
            assert replies[0].data.endswith(b"\r\nconnection: close\r\n\r\nalive")
            assert replies[-1].data.endswith(b"\r\nconnection: close\r\n\r\nfull")


async def test_a_head_request_at_the_door_has_no_body() -> None:
    app = Holding()
    with watch_loop(lambda _: None):
        async with serving(app, answers=ANSWERS) as served:
            [reply] = await ask_while_held(app, served, [CHECK.replace(b"GET", b"HEAD")])
            assert reply.is_within
            assert b"\r\ncontent-length: 5\r\n" in reply.data
            assert reply.data.endswith(b"\r\n\r\n")


async def test_a_request_that_arrives_in_parts_is_answered_when_it_is_complete() -> None:
    app = Holding()
    with watch_loop(lambda _: None):
        async with serving(app, answers=ANSWERS) as served:
            [late, split] = await ask_while_held(app, served, [b"", CHECK], [CHECK[:10], CHECK[10:]])
            assert (late.is_within, late.status) == (True, 200)
            assert (split.is_within, split.status) == (True, 200)


async def test_what_is_not_answered_at_the_door_is_served_in_its_turn_with_all_its_bytes() -> None:
    app = Holding()
    with watch_loop(lambda _: None):
        async with serving(app, answers=ANSWERS, shed=shed) as served:
            replies = await ask_while_held(
                app,
                served,
                [POST],  # the loop is held, but not overloaded
                [CHECK + CHECK],  # two at once: a connection keeps their order
                [b"NOT HTTP\r\n\r\n"],
                [b"GET /other HTTP/1.1\r\nHost: t\r\n\r\n"],
            )
    assert [reply.is_within for reply in replies] == [False] * 4
    assert [reply.status for reply in replies] == [200, 200, 400, 200]
    assert replies[0].data.endswith(b"served hello\r\n0\r\n\r\n")


async def test_a_client_that_sends_nothing_for_long_becomes_a_connection_like_any_other() -> None:
    app = Holding()
    with watch_loop(lambda _: None):
        async with serving(app, answers=ANSWERS) as served:
            [reply] = await ask_while_held(app, served, [b"", b"", b"", b"", b"", b"", b"", CHECK])
    assert (reply.is_within, reply.status) == (False, 200)


async def test_a_refusal_reaches_a_client_whose_body_has_not_been_read() -> None:
    app = Holding()
    upload = b"POST /chat HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
    with watch_loop(lambda _: None) as loop:
        async with serving(app, shed=shed) as served:
            overload(loop)
            [reply] = await ask_while_held(app, served, [upload])
            assert (reply.is_within, reply.status) == (True, 503)
            assert reply.data.endswith(b"full")


async def test_a_failure_to_make_an_answer_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    def fail(head: RequestHead) -> OwnAnswer:
        raise OSError("secret")

    app = Holding()
    with watch_loop(lambda _: None) as loop:
        async with serving(app, shed=fail) as served:
            overload(loop)
            [reply] = await ask_while_held(app, served, [POST])
    assert reply.status == 200
    assert "no answer could be made at the door" in caplog.text
    assert "secret" not in caplog.text


# The door alone.


class Doorway:
    """A door whose loop is held or not, and what it does with those who come."""

    def __init__(self, *, is_held: bool, can_read: bool = True) -> None:
        self.listener = bind_socket("127.0.0.1", 0)
        self.loop = Loop()
        self.loop.is_late = is_held
        self.admitted: list[bool] = []
        self.spawned: list[object] = []
        self.sockets: list[socket.socket] = []
        self.clients: list[socket.socket] = []
        self.door = Door(
            [self.listener],
            self.loop,
            admit=self._admit,
            see_off=lambda sock, address: self.sockets.append(sock),
            spawn=self.spawned.append,
            answers=ANSWERS,
            shed=shed,
            date=lambda: b"today",
            max_header_bytes=10_000,
            can_read=can_read,
        )

    def _admit(self, sock: socket.socket, address: object, has_sent: bool) -> None:
        self.sockets.append(sock)
        self.admitted.append(has_sent)

    def come(self, count: int, sends: bytes = b"") -> None:
        for _ in range(count):
            client = socket.create_connection(self.listener.getsockname())
            client.sendall(sends)
            self.clients.append(client)

    def __enter__(self) -> Doorway:
        return self

    def __exit__(self, *_: object) -> None:
        self.door.close()
        for sock in (self.listener, *self.sockets, *self.clients):
            sock.close()


async def test_the_task_that_accepts_takes_one_client_a_turn_from_other_workers_and_many_if_it_is_late() -> None:
    for is_held, expected in ((False, 1), (True, MAX_ACCEPTS)):
        with Doorway(is_held=is_held) as doorway:
            doorway.come(MAX_ACCEPTS + 5, POST)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(doorway.door.accept_on, doorway.listener)
                await trio.lowlevel.checkpoint()
                assert len(doorway.admitted) in (0, expected)  # by the order in which trio runs the two tasks
                await trio.lowlevel.checkpoint()
                assert len(doorway.admitted) in (expected, 2 * expected, MAX_ACCEPTS + 5)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert doorway.admitted == [is_held] * (MAX_ACCEPTS + 5)


def test_while_the_loop_is_quick_a_look_does_nothing() -> None:
    with Doorway(is_held=False) as doorway:
        doorway.come(1, CHECK)
        doorway.door.look()
        assert (doorway.admitted, doorway.spawned) == ([], [])
        doorway.loop.is_late = True
        doorway.door.look()
        assert doorway.clients[0].recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_bytes_of_tls_are_not_looked_at() -> None:
    with Doorway(is_held=True, can_read=False) as doorway:
        doorway.come(2, CHECK)
        doorway.door.look()
        assert doorway.admitted == [False, False]


def test_only_so_many_clients_wait_at_the_door_and_when_it_closes_they_are_served() -> None:
    with Doorway(is_held=True) as doorway:
        doorway.come(MAX_WAITING + 3)
        for _ in range(-(-MAX_WAITING // MAX_ACCEPTS) + 1):
            doorway.door.look()
        assert (len(doorway.admitted), len(doorway.spawned)) == (3, 1)
        doorway.door.close()
        assert len(doorway.admitted) == MAX_WAITING + 3
        doorway.come(1)
        doorway.door.look()
        assert len(doorway.admitted) == MAX_WAITING + 3


def test_a_client_that_has_left_while_it_waited_is_forgotten() -> None:
    with Doorway(is_held=True) as doorway:
        doorway.come(2)
        doorway.door.look()
        doorway.clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        doorway.clients[0].close()
        doorway.clients[1].close()
        doorway.door.look()
        assert doorway.admitted == [True]  # the one that closed in order: a connection will see the end
