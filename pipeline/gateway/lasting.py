"""What outlives a generation of the configuration: open from its first user to its last."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio

from pipeline.errors import places_of

# Any: what an async context manager returns does not matter here.
Resource = TypeVar("Resource", bound=AbstractAsyncContextManager[Any])

log = logging.getLogger("headrace")


class Lasting(Generic[Resource]):
    """Opens a resource for its first user, and closes it after its last.

    Users enter and leave in any order and from any task. The resource lives in a task of its own, because it may hold
    a nursery, which only the task that opened it may close. While somebody may enter, nobody else may be the last to
    leave: a generation enters only what the current one has entered.

    Args:
        resource: an async context manager.
        made_of: what it was made of. Another configuration that says the same can use it, too.
        name: of the resource, in the log.

    Attributes:
        has_failed: whether it has closed by itself because of an error; the next generation should not use it.
    """

    def __init__(self, resource: Resource, made_of: object, name: str) -> None:
        self.resource = resource
        self.made_of = made_of
        self.has_failed = False
        self._name = name
        self._users = 0
        self._failure: Exception | None = None
        self._living = trio.CancelScope()
        self._opened, self._closing, self._closed = trio.Event(), trio.Event(), trio.Event()

    async def __aenter__(self) -> Resource:
        """Open it, if that was not done yet.

        Raises:
            Exception: what the resource raises if it cannot be opened.
        """
        self._users += 1
        if self._users > 1:
            return self.resource
        self._living = trio.CancelScope()
        self._opened, self._closing, self._closed = trio.Event(), trio.Event(), trio.Event()
        trio.lowlevel.spawn_system_task(self._live, name=self._name)
        try:
            await self._opened.wait()
        except BaseException:  # nobody wants it any more
            self._living.cancel()
            await self._leave()
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            self._users -= 1
            try:
                raise failure
            finally:
                del failure  # else its traceback holds this frame, which holds it
        return self.resource

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, if nobody else uses it."""
        await self._leave()

    async def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._closing.set()
            with trio.CancelScope(shield=True):  # a resource has a time limit of its own
                await self._closed.wait()

    async def _live(self) -> None:
        try:
            with self._living:
                async with self.resource:
                    self._opened.set()
                    await self._closing.wait()
        except Exception as error:
            if self._opened.is_set():
                self.has_failed = True
                log.error(
                    "%s has failed and is closed: reload (SIGHUP) or restart to open it again: %s",
                    self._name,
                    places_of(error),
                )
            else:
                self._failure = error
        finally:
            self._opened.set()
            self._closed.set()
