"""Names are looked up once for everyone who waits, in a thread of their own, and their answers are kept for a while."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing
from kit.service.descriptors import no_descriptors
from kit.time.patience import patiently
from kit.upstreams.names import HERE, Names

from stages.upstreams.transport import resolve
from stages.upstreams.transport.resolve import FRESH_S, PATIENCE_S, RECHECK_S, STALE_S, Resolver

HOST = "up.example"
OTHER = (socket.AF_INET, "127.0.0.9")
TRY_AGAIN = socket.gaierror(socket.EAI_AGAIN, "the resolver is down")


async def found(resolver: Resolver, host: str = HOST) -> list[str]:
    with patiently():
        return [info[4][0] for info in await resolver.addresses(host, 443)]


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Return a clock that a test moves itself: threads are in real time."""
    return trio.testing.MockClock()


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", ("127.0.0.1", 443)), ("::1", ("::1", 443, 0, 0))])
async def test_an_address_needs_no_lookup(host: str, address: tuple[object, ...]) -> None:
    names = Names()
    [info] = await Resolver(names).addresses(host, 443)
    assert (info[4], names.asked) == (address, [])


async def test_each_address_has_the_port_that_is_asked_for() -> None:
    resolver = Resolver(Names((socket.AF_INET6, "::1"), HERE))
    for port in (443, 8443):
        assert [info[4] for info in await resolver.addresses(HOST, port)] == [("::1", port, 0, 0), ("127.0.0.1", port)]


async def test_calls_for_one_name_wait_for_one_lookup_and_a_cancelled_one_only_stops_waiting() -> None:
    names = Names(HERE, is_dead=True)
    resolver = Resolver(names)
    answers: list[list[str]] = []

    async def ask() -> None:
        answers.append(await found(resolver))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as impatient:
            impatient.start_soon(ask)  # the one that starts the lookup
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(50):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        assert answers == []
        names.answers.set()
    assert (answers, names.asked) == ([["127.0.0.1"]] * 50, [HOST])


async def test_row_85_a_dead_resolver_of_many_names_delays_no_other_name_and_takes_no_thread_of_trio() -> None:
    """The resolver does not answer for 60 names: another name resolves, and trio has all of its threads."""
    dead = Names(is_dead=True)
    good = Names(HERE)
    resolver = Resolver(lambda host: (good if host == HOST else dead)(host))
    async with trio.open_nursery() as nursery:
        for n in range(60):
            nursery.start_soon(found, resolver, f"dead{n}.example")
            nursery.start_soon(found, resolver, f"dead{n}.example")
        await trio.testing.wait_all_tasks_blocked()
        assert await found(resolver) == ["127.0.0.1"]
        with patiently():
            assert await trio.to_thread.run_sync(lambda: 1) == 1
        nursery.cancel_scope.cancel()
    assert len(dead.asked) <= 60
    dead.answers.set()


async def test_an_answer_is_kept_for_a_while(clock: trio.testing.MockClock) -> None:
    names = Names(HERE)
    resolver = Resolver(names)
    for _ in range(3):
        assert await found(resolver) == ["127.0.0.1"]
    assert names.asked == [HOST]
    names.addresses = (OTHER,)
    clock.jump(FRESH_S - 1)
    assert await found(resolver) == ["127.0.0.1"]
    clock.jump(1)
    assert await found(resolver) == ["127.0.0.9"]
    assert names.asked == [HOST, HOST]


async def test_after_a_failed_connection_a_name_is_looked_up_anew() -> None:
    names = Names(HERE)
    resolver = Resolver(names)
    resolver.doubt(HOST)  # nothing is known yet
    await found(resolver)
    names.addresses = (OTHER,)
    resolver.doubt(HOST)
    assert await found(resolver) == ["127.0.0.9"]


async def test_if_a_new_lookup_is_slow_the_older_answer_is_used(clock: trio.testing.MockClock) -> None:
    names = Names(HERE)
    resolver = Resolver(names)
    await found(resolver)
    names.answers.clear()
    names.addresses = (OTHER,)
    clock.jump(FRESH_S)
    answers: list[list[str]] = []

    async def ask() -> None:
        answers.append(await found(resolver))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(PATIENCE_S)
    await ask()  # nobody waits again for the same lookup
    assert answers == [["127.0.0.1"]] * 2
    names.answers.set()
    with patiently():
        while await found(resolver) != ["127.0.0.9"]:
            await trio.testing.wait_all_tasks_blocked()
    assert names.asked == [HOST, HOST]


async def test_if_a_new_lookup_fails_the_older_answer_is_used_for_a_day(clock: trio.testing.MockClock) -> None:
    names = Names(HERE)
    resolver = Resolver(names)
    await found(resolver)
    names.failure = TRY_AGAIN
    clock.jump(FRESH_S)
    assert await found(resolver) == ["127.0.0.1"]
    assert await found(resolver) == ["127.0.0.1"]
    assert len(names.asked) == 2
    clock.jump(RECHECK_S)
    assert await found(resolver) == ["127.0.0.1"]
    assert len(names.asked) == 3
    clock.jump(STALE_S)
    with pytest.raises(socket.gaierror, match="the resolver is down"):
        await found(resolver)


async def test_a_name_that_no_longer_exists_has_no_older_answer(clock: trio.testing.MockClock) -> None:
    names = Names(HERE)
    resolver = Resolver(names)
    await found(resolver)
    names.addresses = ()
    clock.jump(FRESH_S)
    with pytest.raises(socket.gaierror, match="no such name"):
        await found(resolver)


@pytest.mark.parametrize("failure", [TRY_AGAIN, OSError(errno.EMFILE, "none left"), UnicodeError("label too long")])
async def test_a_failure_is_everyones_and_is_not_kept(failure: Exception) -> None:
    names = Names(HERE, is_dead=True)
    names.failure = failure
    resolver = Resolver(names)
    failures: list[Exception] = []

    async def ask() -> None:
        try:
            await found(resolver)
        except (OSError, UnicodeError) as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        names.answers.set()
    assert [(type(error), error.args) for error in failures] == [(type(failure), failure.args)] * 3
    names.failure = None
    assert await found(resolver) == ["127.0.0.1"]
    assert len(names.asked) == 2


async def test_a_thread_that_cannot_be_started_is_a_shortage_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.lowlevel, "start_thread_soon", refuse)
    resolver = Resolver(Names(HERE))
    with pytest.raises(OSError, match="no thread") as shortage:
        await found(resolver)
    assert shortage.value.errno == errno.ENOMEM
    monkeypatch.undo()
    assert await found(resolver) == ["127.0.0.1"]


def test_a_lookup_that_outlives_the_loop_does_not_hold_it() -> None:
    names = Names(HERE, is_dead=True)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found, Resolver(names))
            with patiently():
                while not names.asked:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert names.asked == [HOST]
    names.answers.set()  # its thread finds that nobody waits any more


def unknown(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


def test_a_name_that_was_not_found_for_want_of_descriptors_is_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown)  # a real resolver may take a minute
    with pytest.raises(socket.gaierror, match="no such name"):
        resolve.look_up(HOST)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files") as shortage:
        resolve.look_up(HOST)
    assert shortage.value.errno == errno.EMFILE
