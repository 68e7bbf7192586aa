"""Alarms alone, in virtual time: they ring exactly on time, and no task is left when no alarm is set."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from pipeline import alarm
from pipeline.alarm import Alarm


class Bell:
    """Records when it was rung."""

    def __init__(self) -> None:
        self.rung_s: list[float] = []

    def __call__(self) -> None:
        self.rung_s.append(trio.current_time())


async def test_an_alarm_rings_after_each_silence_and_putting_it_off_starts_a_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bell = Bell()
    waker = Alarm(10, bell)
    await trio.sleep(25)
    assert (bell.rung_s, waker.is_due()) == ([10, 20], True)  # it has not been put off yet
    waker.put_off()
    assert not waker.is_due()
    await trio.sleep(9)
    waker.put_off()
    await trio.sleep(11)
    waker.stop()
    assert bell.rung_s == [10, 20, 44]


async def test_each_alarm_rings_at_its_own_time_whichever_others_are_put_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bells = [Bell() for _ in range(4)]
    alarms: list[Alarm] = []
    for bell, interval_s in zip(bells, (10, 10, 10, 3), strict=True):
        alarms.append(Alarm(interval_s, bell))
        await trio.sleep(1)
    await trio.sleep(4)  # now at 8 s
    alarms[0].put_off()
    await trio.sleep(3.5)  # now at 11.5 s
    alarms[2].put_off()
    alarms[3].stop()
    await trio.sleep(11)  # now at 22.5 s
    for one in alarms[:3]:
        one.stop()
    assert [bell.rung_s for bell in bells] == [[18], [11, 21], [21.5], [6, 9]]


async def test_a_stopped_alarm_does_not_ring_and_no_task_outlives_the_last_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    assert alarm.tasks_living() == 0
    bell = Bell()
    for _ in range(2):  # the ringing task ended after the first round and is started again
        one, two = Alarm(10, bell), Alarm(10, bell)
        assert alarm.tasks_living() == 1
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
        one.stop()
        two.stop()
        await trio.sleep(100)
        assert alarm.tasks_living() == 0
        assert trio.lowlevel.current_statistics().tasks_living == before
    assert bell.rung_s == []


@pytest.mark.parametrize("run", [1, 2])
def test_each_trio_run_has_a_ringing_task_of_its_own(run: int) -> None:
    bell = Bell()

    async def main() -> None:
        Alarm(10, bell)
        await trio.sleep(15)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(bell.rung_s) == 1


async def test_an_alarm_that_nobody_hears_rings_again_soon(autojump_clock: trio.testing.MockClock) -> None:
    rung_s: list[float] = []

    def ring() -> bool:
        rung_s.append(trio.current_time())
        return len(rung_s) > 2

    alarm = Alarm(8, ring)
    await trio.sleep(20)
    alarm.stop()
    assert rung_s == [8, 9, 10, 18]
