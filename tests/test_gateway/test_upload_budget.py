"""Large uploads share their memory: what does not fit waits, or is refused, and small requests do neither."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from kit.clients.chat_posts import CREATED, ask, completed, delta
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.upstreams.scripted import sse

from pipeline import Overloaded
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.upload_budget import (
    HANDLED_TIMES,
    HELD_TIMES,
    MAX_DEFAULT_BYTES,
    MAX_WAITING,
    MIN_DEFAULT_BYTES,
    SMALL_BYTES,
    STEP_BYTES,
    WAIT_S,
    Upload,
    UploadBudget,
    default_total_bytes,
)
from stages import large_bodies

pytestmark = pytest.mark.usefixtures("no_threads")

MIB = 1024 * 1024
LARGE = ask(input="x" * (2 * MIB))
HELLO = sse(CREATED) + sse(delta("Hello"))
END = sse(completed("Hello"))


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on large bodies in the task itself: virtual time does not wait for threads."""
    monkeypatch.setattr(large_bodies, "LARGE_BYTES", 1 << 40)


def budget_of(mib: int) -> UploadBudget:
    return UploadBudget(mib * MIB, max_body_bytes=4 * MIB)


class Client(Browser):
    """One that declares the length of its body."""

    def __init__(self, bridge: Bridge, body: object, **more: float) -> None:
        super().__init__(bridge, body, **more)  # type: ignore[arg-type]  # the numbers of its pieces
        self._headers["content-length"] = str(sum(map(len, self._parts)))


async def test_row_65_uploads_beyond_the_budget_wait_and_then_get_a_503(autojump_clock: trio.testing.MockClock) -> None:
    """More large requests come than fit: some wait, the last gets a 503 with Retry-After, small ones run."""
    upstream = FakeUpstream(HELLO, END, before_head=(WAIT_S * 0.6,))
    budget = budget_of(7)  # one of them
    bridge, records = bridge_to(upstream, uploads=budget)
    first, second, third = (Client(bridge, LARGE) for _ in range(3))
    small = Client(bridge, ask())
    async with trio.open_nursery() as nursery:
        for large in (first, second, third):
            nursery.start_soon(large.ask)
            await trio.testing.wait_all_tasks_blocked()
        assert budget.waiting == 2
        assert len(upstream.calls) == 1
        nursery.start_soon(small.ask)
        await trio.testing.wait_all_tasks_blocked()
        assert len(upstream.calls) == 2  # it has not waited
        assert budget.waiting == 2
    assert [one.status for one in (first, second, small, third)] == [200, 200, 200, 503]
    assert (third.error["code"], third.headers[b"retry-after"]) == ("overloaded", b"5")
    assert [record["end"] for record in records] == ["OK", "OK", "OV", "OK"]
    assert (budget.reserved_bytes, budget.waiting) == (0, 0)


async def test_an_upload_keeps_less_when_the_upstream_has_begun_to_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = budget_of(100)
    bridge, _ = bridge_to(FakeUpstream(5, HELLO, 5, END), uploads=budget)
    client = Client(bridge, LARGE)
    size = int(client._headers["content-length"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.ask)
        await trio.sleep(4)
        assert budget.reserved_bytes == size * HANDLED_TIMES
        await trio.sleep(4)
        assert budget.reserved_bytes == size * HELD_TIMES
    assert budget.reserved_bytes == 0


async def test_a_client_that_leaves_gives_back_what_it_has_and_its_place_in_the_queue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    budget = budget_of(7)
    bridge, records = bridge_to(FakeUpstream(HELLO, END, before_head=(5,)), uploads=budget)
    first, second = Client(bridge, LARGE), Client(bridge, LARGE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.ask)
        await trio.sleep(1)
        nursery.start_soon(second.ask)
        await trio.sleep(1)
        first.disconnected.set()
        await trio.sleep(1)
        assert (budget.waiting, [record["end"] for record in records]) == (0, ["DC"])
    assert second.status == 200
    assert budget.reserved_bytes == 0


async def test_the_time_in_the_queue_is_not_the_uploads(autojump_clock: trio.testing.MockClock) -> None:
    budget = budget_of(7)
    bridge, _ = bridge_to(FakeUpstream(HELLO, END, before_head=(8,)), uploads=budget, body_timeout_s=6)
    first, second = Client(bridge, LARGE), Client(bridge, LARGE, pieces=2, gap_s=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second.ask)
    assert (first.status, second.status) == (200, 200)


async def test_a_body_of_unknown_length_reserves_as_it_grows(autojump_clock: trio.testing.MockClock) -> None:
    upstream = FakeUpstream(HELLO, END)
    budget = budget_of(100)
    bridge, _ = bridge_to(upstream, uploads=budget)
    browser = Browser(bridge, LARGE, pieces=4, gap_s=1)  # of 0.5 MiB
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(1.5)
        assert budget.reserved_bytes == 0
        await trio.sleep(2)
        assert budget.reserved_bytes > STEP_BYTES * HANDLED_TIMES
    assert (browser.status, budget.reserved_bytes) == (200, 0)


async def test_a_growing_body_does_not_wait_while_it_has_something() -> None:
    budget = UploadBudget(10 * STEP_BYTES * HANDLED_TIMES, max_body_bytes=0)
    upload = Upload(budget, None)
    for _ in range(2):
        upload.size_bytes = upload.room_bytes + 1
        await upload.make_room()
    assert budget.reserved_bytes == (SMALL_BYTES + 1 + 2 * STEP_BYTES + 1) * HANDLED_TIMES
    await budget.reserve(7 * STEP_BYTES * HANDLED_TIMES)
    upload.size_bytes = upload.room_bytes + 1
    with pytest.raises(Overloaded):
        await upload.make_room()
    upload.end()
    upload.end()
    assert budget.reserved_bytes == 7 * STEP_BYTES * HANDLED_TIMES


async def test_one_request_alone_may_be_larger_than_the_budget() -> None:
    budget = budget_of(1)
    await budget.reserve(50 * MIB)
    assert not budget.fits(1)
    budget.release(50 * MIB)
    assert budget.fits(50 * MIB)


async def test_the_queue_is_in_order_and_bounded(autojump_clock: trio.testing.MockClock) -> None:
    budget = budget_of(10)
    await budget.reserve(8 * MIB)
    got: list[int] = []

    async def wait(mib: int) -> None:
        await budget.reserve(mib * MIB)
        got.append(mib)

    async with trio.open_nursery() as nursery:
        for mib in (9, 1, 2):
            nursery.start_soon(wait, mib)
            await trio.testing.wait_all_tasks_blocked()
        assert got == []  # the small one does not overtake
        budget.release(8 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == [1, 9]
        budget.release(9 * MIB)
    assert got[-1] == 2
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_WAITING):
            nursery.start_soon(wait, 10)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await budget.reserve(10 * MIB)
        nursery.cancel_scope.cancel()
    assert (budget.reserved_bytes, budget.waiting) == (3 * MIB, 0)


async def test_room_that_comes_with_the_cancellation_is_given_back() -> None:
    budget = budget_of(10)
    await budget.reserve(10 * MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 10 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        budget.release(10 * MIB)
    assert budget.reserved_bytes in (0, 10 * MIB)


async def test_who_gives_up_lets_the_next_one_in(autojump_clock: trio.testing.MockClock) -> None:
    budget = budget_of(10)
    await budget.reserve(8 * MIB)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(budget.reserve, 9 * MIB)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    await budget.reserve(2 * MIB)
    assert budget.reserved_bytes == 10 * MIB


def test_the_default_is_a_fourth_of_the_memory_within_bounds() -> None:
    gib = 1024 * MIB
    assert default_total_bytes(2 * gib, 1) == 512 * MIB
    assert default_total_bytes(2 * gib, 4) == 128 * MIB
    assert default_total_bytes(64 * gib, 4) == MAX_DEFAULT_BYTES
    assert default_total_bytes(128 * MIB, 8) == MIN_DEFAULT_BYTES
    assert default_total_bytes(None, 3) == MAX_DEFAULT_BYTES


async def test_it_may_become_as_large_as_another_one_while_some_wait() -> None:
    budget = budget_of(10)
    await budget.reserve(10 * MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 5 * MIB)
        await trio.testing.wait_all_tasks_blocked()
        budget.resize_as(UploadBudget(12 * MIB, max_body_bytes=2 * MIB))
        assert (budget.waiting, budget.reserved_bytes) == (1, 10 * MIB)
        budget.resize_as(UploadBudget(15 * MIB, max_body_bytes=2 * MIB))
        assert (budget.waiting, budget.reserved_bytes) == (0, 15 * MIB)
    assert budget.begin(b"%d" % (3 * MIB)) is None  # it will be refused
