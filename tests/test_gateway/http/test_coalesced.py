"""However often something is asked for while it runs, it runs once more."""

from __future__ import annotations

import trio
import trio.testing

from pipeline.gateway.http.coalesced import Coalesced


async def test_it_runs_one_at_a_time_and_once_more_if_asked_meanwhile(autojump_clock: trio.testing.MockClock) -> None:
    began: list[float] = []

    async def action() -> None:
        began.append(trio.current_time() - start)
        await trio.sleep(10)

    coalesced = Coalesced(action)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coalesced.run)
        coalesced.ask()
        await trio.sleep(1)
        for _ in range(3):
            coalesced.ask()
        await trio.sleep(99)
        coalesced.ask()
        await trio.sleep(99)
        nursery.cancel_scope.cancel()
    assert began == [0, 10, 100]
