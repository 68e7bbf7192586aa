"""The garbage collector rests while many streams run, and never for good."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from pipeline.gateway import collector
from pipeline.gateway.collector import LOOK_EVERY_S, MANY_STREAMS, let_it_rest, watch_streams
from pipeline.loop import Loop


@pytest.fixture(autouse=True)
def _own_collector() -> Iterator[None]:
    """Leave the collector as it was."""
    was_enabled, thresholds = gc.isenabled(), gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    (gc.enable if was_enabled else gc.disable)()


class Cyclic:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def test_it_rests_while_many_streams_run_and_works_again_afterwards() -> None:
    """Many streams run, then few."""
    gc.collect()
    let_it_rest(MANY_STREAMS)
    assert not gc.isenabled()
    let_it_rest(MANY_STREAMS - 1)
    assert gc.isenabled()


def test_what_a_plugin_leaves_in_cycles_goes_although_many_streams_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin makes more garbage than streams have objects: it is collected, then the collector rests again."""
    monkeypatch.setattr(collector, "SPARE_OBJECTS", 0)
    monkeypatch.setattr(collector, "OBJECTS_OF_A_STREAM", 100)
    gc.set_threshold(1_000, 2, 500)
    gc.collect()
    let_it_rest(MANY_STREAMS)
    first = Cyclic()
    watched = weakref.ref(first)
    del first
    for _ in range(MANY_STREAMS * 100):
        Cyclic()
    assert watched() is not None
    let_it_rest(MANY_STREAMS)
    assert gc.isenabled()
    kept = [[number] for number in range(2_000)]  # what is made next begins the collection
    assert watched() is None
    assert len(kept) == 2_000
    let_it_rest(MANY_STREAMS)
    assert not gc.isenabled()


async def test_it_follows_the_streams_of_the_loop(autojump_clock: MockClock) -> None:
    """The streams begin, end, and the service ends while some run."""
    loop = Loop()
    seen: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_streams, loop)
        for streams in (0, MANY_STREAMS, 0, MANY_STREAMS):
            loop.streams = streams
            await trio.sleep(LOOK_EVERY_S * 1.5)
            seen.append(gc.isenabled())
        nursery.cancel_scope.cancel()
    assert seen == [True, False, True, False]
    assert gc.isenabled()
