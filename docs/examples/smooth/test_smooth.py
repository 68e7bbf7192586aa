from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio.testing
from smooth import Options, Smooth, serve

from pipeline import Host, Inlet, Outlet, Pipeline, RequestContext
from pipeline.testing import check_stage, virtual_ns
from stages.events import Finished, Heartbeat, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, Usage
from stages.principal import Principal
from stages.slots import PRINCIPAL

Result = TypeVar("Result")
STOP = Finished("stop")


class Note:
    """Notes when each event comes."""

    name = "note"

    def __init__(self) -> None:
        self.came: list[tuple[float, StreamEvent]] = []

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        async for batch in inlet:
            self.came += [(round(trio.current_time(), 6), event) for event in batch]


def context_of(key: str = "anna") -> RequestContext:
    ctx = RequestContext("test", clock=virtual_ns)
    ctx[PRINCIPAL] = Principal(key)
    return ctx


def on_virtual_time(check: Callable[[], Awaitable[Result]]) -> Result:
    return trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))


async def opened(options: Options, host: Host | None = None) -> Smooth:
    async with serve(options, host or Host("smooth")) as stage:
        return stage


async def came(stage: Smooth, *events: StreamEvent, key: str = "anna") -> list[tuple[float, StreamEvent]]:
    """Send all events as one batch, and return when each one came."""
    note = Note()
    await Pipeline(stage).then(note).run([list(events)], context_of(key))
    return note.came


def test_it_keeps_the_contract_and_the_order() -> None:
    stage = trio.run(opened, Options(characters_per_s=10, burst=0))
    events: list[StreamEvent] = [ReasoningDelta("hm"), Heartbeat(), TextDelta("abc"), ToolCallDelta(0, "{}")]
    assert check_stage(stage, *events, Usage(1, 2, 3), STOP, context=context_of) == [
        *(ReasoningDelta("h"), ReasoningDelta("m"), Heartbeat(), TextDelta("a"), TextDelta("b"), TextDelta("c")),
        *(ToolCallDelta(0, "{"), ToolCallDelta(0, "}"), Usage(1, 2, 3), STOP),
    ]


def test_after_the_burst_each_piece_waits_for_its_pace_and_the_end_comes_with_the_last_one() -> None:
    async def check() -> None:
        stage = await opened(Options(characters_per_s=40, burst=4))
        assert await came(stage, Heartbeat(), TextDelta("abcdefg"), Heartbeat(), STOP) == [
            *((0, Heartbeat()), (0, TextDelta("ab")), (0, TextDelta("cd")), (0.05, TextDelta("ef"))),
            *((0.075, TextDelta("g")), (0.075, Heartbeat()), (0.075, STOP)),
        ]

    on_virtual_time(check)


def test_all_requests_of_a_key_share_its_pace_and_other_keys_have_their_own() -> None:
    async def check() -> None:
        host = Host("smooth")
        stage = await opened(Options(characters_per_s=10, burst=10), host)
        times: dict[str, list[float]] = {}

        async def ask(name: str, key: str) -> None:
            times[name] = [when for when, _ in await came(stage, TextDelta("x" * 10), STOP, key=key)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "anna 1", "anna")
            nursery.start_soon(ask, "anna 2", "anna")
            nursery.start_soon(ask, "ben", "ben")
        assert times["ben"] == [0] * 11
        assert max(times["anna 1"] + times["anna 2"]) == 1  # 20 characters, 10 of them at once
        assert host.counter("waited_seconds_total").value(key="anna") > 1
        await trio.sleep(0.5)
        assert [when for when, _ in await came(stage, TextDelta("x" * 7), STOP)] == [1.5] * 5 + [1.6, 1.7, 1.7]

    on_virtual_time(check)


def test_only_so_many_keys_are_known() -> None:
    async def check() -> None:
        stage = await opened(Options(characters_per_s=1, burst=1, max_keys=2))
        for key in ("anna", "ben", "anna", "carl"):  # ben's is the one that was used longest ago
            await came(stage, TextDelta("x"), key=key)
        since = trio.current_time()
        await came(stage, TextDelta("x"), key="ben")
        assert trio.current_time() == since
        await came(stage, TextDelta("x"), key="carl")
        assert trio.current_time() == since + 1

    on_virtual_time(check)


def test_a_request_that_is_cancelled_ends_at_once() -> None:
    async def check() -> None:
        stage = await opened(Options(characters_per_s=1, burst=0))
        with trio.move_on_after(2.5):
            await came(stage, TextDelta("x" * 1000), STOP)
        assert trio.current_time() == 2.5

    on_virtual_time(check)
