import pytest
import trio
import trio.testing
from chaos import Options, make_chaos, make_chaos_bytes, split_at

from pipeline import Pipeline, RequestContext, Stage
from pipeline.testing import check_stage, virtual_ns
from stages.events import Failed, Finished, ReasoningDelta, StreamEvent, TextDelta

EVENTS: list[StreamEvent] = [
    *(TextDelta(f"word {number} ") for number in range(8)),
    ReasoningDelta("hm"),
    Finished("stop"),
]
SOME = Options(seed=7, delay=0.5, delay_s=1, stall=0.2, stall_s=60, drop=0.3, split=0.5)


def seconds(stage: Stage[StreamEvent, StreamEvent], request_id: str = "test") -> float:
    """Return how long an answer takes, all of it in declared waits."""

    async def run() -> float:
        ctx = RequestContext(request_id, clock=virtual_ns)
        await Pipeline(stage).run([[event] for event in EVENTS], ctx)
        [lane] = ctx.lanes
        [times] = lane.stages
        assert times.outside_ns == virtual_ns() - began_ns
        return times.outside_ns / 1e9

    began_ns = 0

    async def start() -> float:
        nonlocal began_ns
        began_ns = virtual_ns()
        return await run()

    return trio.run(start, clock=trio.testing.MockClock(autojump_threshold=0))


def test_without_chances_nothing_happens() -> None:
    assert check_stage(make_chaos(Options()), *EVENTS) == EVENTS
    assert seconds(make_chaos(Options())) == 0


def test_the_same_seed_and_request_have_the_same_faults() -> None:
    given = check_stage(make_chaos(SOME), *EVENTS)
    assert given == check_stage(make_chaos(SOME), *EVENTS)
    assert given[-1] == Finished("stop")
    assert given != EVENTS
    taken = seconds(make_chaos(SOME))
    assert taken == seconds(make_chaos(SOME)) > 0
    assert len({seconds(make_chaos(SOME), f"request {number}") for number in range(10)}) > 1


def test_every_item_is_delayed_and_stalled() -> None:
    assert seconds(make_chaos(Options(delay=1, delay_s=2))) == 2 * len(EVENTS)
    assert seconds(make_chaos(Options(stall=1, stall_s=3600))) == 3600 * len(EVENTS)


def test_the_end_is_neither_dropped_nor_lost() -> None:
    assert check_stage(make_chaos(Options(drop=1)), *EVENTS) == [Finished("stop")]
    broken = Failed("upstream_connection", "it broke")
    assert check_stage(make_chaos_bytes(Options(drop=1, split=1)), b"data: 1", broken) == [broken]


def test_split_texts_and_bytes_are_whole_together() -> None:
    given = check_stage(make_chaos(Options(split=1)), TextDelta("Hello"), TextDelta("!"), Finished("stop"))
    texts = [event.text for event in given if isinstance(event, TextDelta)]
    assert (len(texts), "".join(texts)) == (3, "Hello!")
    parts = [part for part in check_stage(make_chaos_bytes(Options(split=1)), b"data: 1\n\n") if part != b""]
    assert (len(parts), b"".join(part for part in parts if isinstance(part, bytes))) == (2, b"data: 1\n\n")


@pytest.mark.parametrize("where", [0.0, 0.5, 0.999])
def test_no_part_is_empty(where: float) -> None:
    assert all(split_at(b"ab", where))
    assert len(split_at(b"abc", where)) == 2


def test_a_chance_is_a_probability() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Options(drop=1.5)
