"""A silence is broken by a comment, and nothing is lost when the interval ends."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from kit.service.contexts import context

from pipeline import Inlet, Outlet, Pipeline, RequestContext, per_event
from pipeline.testing import check_stage
from stages.keep_alive import COMMENT, keep_alive


@per_event
def pass_on(chunk: bytes) -> list[bytes]:
    return [chunk]


async def paced(*script: bytes | float) -> AsyncIterator[list[bytes]]:
    for item in script:
        if isinstance(item, bytes):
            yield [item]
        else:
            await trio.sleep(item)


def test_it_passes_every_check() -> None:
    assert check_stage(keep_alive(15), b"a", b"b", b"c", context=context) == [b"a", b"b", b"c"]


async def test_a_silence_is_broken_every_interval_even_before_the_first_byte(autojump_clock: trio.abc.Clock) -> None:
    given = await Pipeline(pass_on).then(keep_alive(15)).run(paced(31.0, b"a", 16.0, b"b"), context())
    assert given == [COMMENT, COMMENT, b"a", COMMENT, b"b"]


async def test_output_postpones_the_comment(autojump_clock: trio.abc.Clock) -> None:
    given = await Pipeline(pass_on).then(keep_alive(15)).run(paced(10.0, b"a", 10.0, b"b", 10.0, b"c", 14.0), context())
    assert given == [b"a", b"b", b"c"]


async def test_a_slow_client_gets_everything_and_no_comments(autojump_clock: trio.abc.Clock) -> None:
    taken: list[bytes] = []

    class TakeSlowly:
        name = "take_slowly"

        async def run(self, inlet: Inlet[bytes], outlet: Outlet[bytes], ctx: RequestContext) -> None:
            async for batch in inlet:
                with outlet.outside():
                    await trio.sleep(100)
                taken.extend(batch)

    script = [b"%d" % n for n in range(6)]
    await Pipeline(pass_on).then(keep_alive(15)).then(TakeSlowly()).run(paced(*script), context())
    assert taken == script


async def test_a_cancel_from_outside_ends_it(autojump_clock: trio.abc.Clock) -> None:
    with trio.move_on_after(40) as scope:
        await Pipeline(pass_on).then(keep_alive(15)).run(paced(1000.0), context())
    assert scope.cancelled_caught
    assert trio.current_time() == 40
