"""What the running service logs of a loop that is held."""

from __future__ import annotations

import trio
import trio.testing
from kit.engine.stages import Acting

from pipeline import Inlet, Outlet, Pipeline, RequestContext
from pipeline.gateway.request_record import Record
from pipeline.gateway.service import STALL_LOG_PAUSE_S, StallLog
from pipeline.loop import STAGE_TURN_NS, Stall, watch_loop
from pipeline.testing import virtual_ns

HELD = Stall("shout", "r1", 101_300_400, 40)


async def test_a_stall_names_the_stage_the_request_and_how_many_waited() -> None:
    written: list[Record] = []
    log = StallLog(written.append)
    log.note(HELD)
    log.flush()
    log.flush()
    assert written == [{"stage": "shout", "request_id": "r1", "ms": 101.3, "streams": 40, "unlogged": 0}]


async def test_of_each_second_the_longest_stall_is_written_and_the_others_are_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[Record] = []
    log = StallLog(written.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for held_ms in ((30, 90, 60), (), (25,)):
            for ms in held_ms:
                log.note(Stall("shout", f"r{ms}", ms * 1_000_000, 1))
            await trio.sleep(STALL_LOG_PAUSE_S)
        await trio.sleep(STALL_LOG_PAUSE_S)
        nursery.cancel_scope.cancel()
    assert [(record["request_id"], record["unlogged"]) for record in written] == [("r90", 2), ("r25", 0)]


async def test_what_holds_a_loop_is_written_by_its_log(autojump_clock: trio.testing.MockClock) -> None:
    worked_ns = 0

    def clock() -> int:
        return virtual_ns() + worked_ns

    async def burn(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        nonlocal worked_ns
        async for _ in inlet:
            worked_ns += 2 * STAGE_TURN_NS

    written: list[Record] = []
    log = StallLog(written.append)
    with watch_loop(log.note, clock):
        await Pipeline(Acting(burn)).run([[1]], RequestContext("r7", clock=clock))
    log.flush()
    assert written == [{"stage": "burn", "request_id": "r7", "ms": 40.0, "streams": 1, "unlogged": 0}]
