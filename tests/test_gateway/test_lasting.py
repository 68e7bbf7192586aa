"""A resource with several users is open from the first to the last of them."""

from __future__ import annotations

import logging
from types import TracebackType

import pytest
import trio
import trio.testing

from pipeline.gateway.lasting import Lasting


class Resource:
    """Notes what happens to it; it lives in a nursery, as a store does."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.events: list[str] = []
        self.breaks = trio.Event()
        self._fails, self._hangs = fails, hangs
        self._living = trio.open_nursery()

    async def __aenter__(self) -> Resource:
        self.events.append("opens")
        if self._fails:
            raise OSError("no such disk")
        if self._hangs:
            try:
                await trio.sleep_forever()
            finally:
                self.events.append("given up")
        nursery = await self._living.__aenter__()
        nursery.start_soon(self._break)
        return self

    async def _break(self) -> None:
        await self.breaks.wait()
        raise ValueError("secret")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.events.append("closes")
        self._living._nursery.cancel_scope.cancel()  # type: ignore[attr-defined]
        if not await self._living.__aexit__(kind, error, traceback) and error is not None:
            raise error


async def test_it_is_opened_by_the_first_user_and_closed_after_the_last_in_whatever_task() -> None:
    resource = Resource()
    lasting = Lasting(resource, "made of this", "the resource")
    first, second = trio.Event(), trio.Event()

    async def use(until: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        async with lasting as got:
            assert got is resource
            task_status.started()
            await until.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(use, first)
        await nursery.start(use, second)
        assert resource.events == ["opens"]
        first.set()
        await trio.testing.wait_all_tasks_blocked()
        assert resource.events == ["opens"]
        second.set()
    assert resource.events == ["opens", "closes"]


async def test_what_cannot_be_opened_says_why_and_has_no_user() -> None:
    resource = Resource(fails=True)
    lasting = Lasting(resource, None, "the resource")
    for _ in range(2):
        with pytest.raises(OSError, match="no such disk"):
            await lasting.__aenter__()
    assert resource.events == ["opens", "opens"]


async def test_opening_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    resource = Resource(hangs=True)
    with trio.move_on_after(1) as scope:
        await Lasting(resource, None, "the resource").__aenter__()
    assert scope.cancelled_caught
    assert resource.events == ["opens", "given up"]


async def test_one_that_fails_while_it_is_open_is_logged_without_the_text_of_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    resource = Resource()
    lasting = Lasting(resource, None, "the resource")
    with caplog.at_level(logging.ERROR):
        async with lasting:
            resource.breaks.set()
            await trio.testing.wait_all_tasks_blocked()
    [said] = caplog.messages
    assert lasting.has_failed
    assert said.startswith("the resource has failed and is closed: reload (SIGHUP) or restart to open it again: ")
    assert "secret" not in said
