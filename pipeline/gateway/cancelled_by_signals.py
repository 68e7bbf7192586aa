"""A command that signals end: they cancel what runs, instead of breaking in.

KeyboardInterrupt, raised wherever a task happens to be, may leave work of trio's or of a library's unfinished.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


async def cancelled_by_signals(run: Callable[[], Awaitable[object]], *signals: signal.Signals) -> bool:
    """Run until it ends or a signal comes; return whether a signal has cancelled it.

    Further signals are taken until it has ended: one that nobody took would be raised again. What ``run`` raises is
    raised as it is, not in a group.
    """
    failure: Exception | None = None
    running = trio.CancelScope()
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                async for _ in received:
                    running.cancel()

            nursery.start_soon(cancel)
            try:
                with running:
                    await run()
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return running.cancelled_caught
