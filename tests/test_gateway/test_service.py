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
    StallLog(written.append).note(HELD)
    assert written == [{"stage": "shout", "request_id": "r1", "ms": 101.3, "streams": 40, "unlogged": 0}]


async def test_at_most_one_stall_a_second_is_written_and_the_others_are_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[Record] = []
    log = StallLog(written.append)
    for _ in range(5):
        for _ in range(20):
            log.note(HELD)
            await trio.sleep(STALL_LOG_PAUSE_S / 8)
        await trio.sleep(10)
    # Of each twenty the 1st, the 9th and the 17th; the three after that are in the next line, however late it is.
    assert [record["unlogged"] for record in written] == [0, 7, 7] + 4 * [3, 7, 7]


async def test_what_holds_a_loop_is_written_by_its_log(autojump_clock: trio.testing.MockClock) -> None:
    worked_ns = 0

    def clock() -> int:
        return virtual_ns() + worked_ns

    async def burn(inlet: Inlet[int], outlet: Outlet[int], ctx: RequestContext) -> None:
        nonlocal worked_ns
        async for _ in inlet:
            worked_ns += 2 * STAGE_TURN_NS

    written: list[Record] = []
    with watch_loop(StallLog(written.append).note, clock):
        await Pipeline(Acting(burn)).run([[1]], RequestContext("r7", clock=clock))
    assert written == [{"stage": "burn", "request_id": "r7", "ms": 40.0, "streams": 1, "unlogged": 0}]


async def test_of_several_stalls_the_longest_is_written(autojump_clock: trio.testing.MockClock) -> None:
    written: list[Record] = []
    log = StallLog(written.append)
    for ms in (30, 90, 60):
        log.note(Stall("shout", f"r{ms}", ms * 1_000_000, 1))
    await trio.sleep(STALL_LOG_PAUSE_S)
    log.note(Stall("shout", "r20", 20_000_000, 1))
    assert [(record["request_id"], record["unlogged"]) for record in written] == [("r30", 0), ("r90", 2)]
