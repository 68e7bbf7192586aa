"""The file in which all processes keep their measurements, with processes that really die."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import segments
from pipeline.open_file_locks import is_locked, lock_nowait, own_description, unlock
from pipeline.segments import Segment, SegmentFile, SegmentsFullError

ROOT = Path(__file__).parents[2]

CLAIM = """\
import sys
from pipeline.segments import SegmentFile
segment = SegmentFile(int(sys.argv[1])).claim(int(sys.argv[2]))
segment.settle()
segment.board[:5] = b"hello"
print(segment.index, flush=True)
sys.stdin.read()
"""


def small() -> SegmentFile:
    return SegmentFile.create(ring_bytes=1)


def process(file: SegmentFile, worker: int) -> subprocess.Popen[str]:
    """Start a process that has a segment."""
    return subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(file.fd), str(worker)],
        pass_fds=[file.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_ring_has_whole_pages() -> None:
    file = small()
    segment = file.claim(1)
    assert file.ring_bytes == len(segment.ring) == 4096
    segment.ring[4095] = 1


def test_who_claims_gets_a_segment_of_its_own_and_its_bytes_are_its_own() -> None:
    file = small()
    first, second = file.claim(1), file.claim(2)
    first.settle()
    assert [view.is_alive for view in file.views()] == [True, False]
    assert [view.changes for view in file.views()] == [2, 1]
    second.settle()
    first.series[0], second.board[0] = 1, 2
    one, two = file.views()
    assert (one.index, one.worker, one.pid, one.is_alive) == (0, 1, os.getpid(), True)
    assert (two.index, two.worker, two.is_alive) == (1, 2, True)
    assert [view.series[0] for view in (one, two)] == [1, 0]
    assert [view.board[0] for view in (one, two)] == [0, 2]


def test_threads_that_look_at_the_same_time_see_each_segment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    file = small()
    kept = [file.claim(number) for number in (1, 2, 3)]
    seen: list[list[int]] = []
    make = segments.SegmentView

    def interrupted(*of: int) -> segments.SegmentView:
        if not seen:
            seen.append([])
            thread = threading.Thread(target=lambda: seen.append([view.index for view in file.views()]))
            thread.start()
            thread.join()
        return make(*of)

    monkeypatch.setattr(segments, "SegmentView", interrupted)
    expected = [segment.index for segment in kept]
    assert [view.index for view in file.views()] == expected
    assert [view.index for view in file.views()] == expected
    assert seen == [[], expected]


def test_a_killed_process_leaves_what_it_has_written_and_its_segment_to_the_next() -> None:
    file = small()
    with process(file, 3) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "0\n"
        [view] = file.views()
        assert (view.worker, view.pid, view.is_alive) == (3, child.pid, True)
        child.send_signal(signal.SIGKILL)
    assert not view.is_alive
    assert bytes(view.board[:5]) == b"hello"
    segment = file.claim(4)
    assert (segment.index, view.worker, view.is_alive) == (0, 4, False)
    segment.settle()
    assert view.is_alive
    assert bytes(segment.board[:5]) == b"hello"


def test_two_processes_have_two_segments() -> None:
    file = small()
    with process(file, 1) as one, process(file, 2) as two:
        assert one.stdout is not None
        assert two.stdout is not None
        assert {one.stdout.readline(), two.stdout.readline()} == {"0\n", "1\n"}
        assert [view.is_alive for view in file.views()] == [True, True]
        one.communicate()
        two.communicate()
    assert [view.is_alive for view in file.views()] == [False, False]


def test_a_segment_is_free_when_nobody_refers_to_it() -> None:
    file = small()
    segment: Segment | None = file.claim(1)
    assert segment is not None
    segment.settle()
    assert file.views()[0].is_alive
    segment = None
    gc.collect()
    assert not file.views()[0].is_alive
    assert file.claim(2).index == 0


def test_more_processes_than_segments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_SEGMENTS", 1)
    file = small()
    kept = file.claim(1)
    with pytest.raises(SegmentsFullError, match="start fewer workers"):
        file.claim(2)
    assert kept.index == 0


def test_a_claim_waits_for_another_process_that_claims_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    file = small()
    other = own_description(file.fd)
    assert lock_nowait(other, 0)
    monkeypatch.setattr(os, "sched_yield", lambda: unlock(other, 0))
    assert file.claim(1).index == 0
    os.close(other)


def test_readers_ask_for_what_happens_now_for_a_while() -> None:
    file = small()
    reader = SegmentFile(file.fd)
    assert not file.is_watched
    reader.note_watching(60)
    reader.note_watching(1)  # another one, for less
    assert file.is_watched


def test_a_lock_belongs_to_its_description() -> None:
    file = small()
    mine, theirs = own_description(file.fd), own_description(file.fd)
    assert lock_nowait(mine, 5)
    assert not lock_nowait(theirs, 5)
    assert lock_nowait(theirs, 6)
    assert is_locked(theirs, 5)
    assert not is_locked(mine, 5)
    unlock(mine, 5)
    assert not is_locked(theirs, 5)
    os.close(mine)
    os.close(theirs)
