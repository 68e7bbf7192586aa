"""Rings in shared memory: what was written is read whole or not at all, and they never use more than their memory."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys

from kit.service.command import ROOT

from pipeline.gateway.rings import Place, RingReader, RingWriter

KIB = 1024
NOTHING_READ = Place()


def ring(size: int = 64 * KIB) -> memoryview:
    return memoryview(bytearray(size))


def texts(reader: RingReader, place: Place = NOTHING_READ) -> list[bytes]:
    return [text for _, text in reader.after(place)]


def test_what_was_written_is_read_in_order_and_back() -> None:
    memory = ring()
    writer, reader = RingWriter(memory), RingReader(memory)
    for number in range(5):
        assert writer.put(b"entry %d" % number, 10.0 + number, marks=number, id_sum=100 + number)
    assert texts(reader) == [b"entry 0", b"entry 1", b"entry 2", b"entry 3", b"entry 4"]
    back = list(reader.newest_first())
    assert [(entry.place.number, entry.at_s, entry.marks, entry.id_sum) for entry in back] == [
        (number + 1, 10.0 + number, number, 100 + number) for number in (4, 3, 2, 1, 0)
    ]
    assert texts(reader, back[2].place) == [b"entry 3", b"entry 4"]
    assert texts(reader, reader.newest) == []


def test_an_empty_ring_and_one_without_memory_have_nothing() -> None:
    for memory in (ring(), ring(0)):
        writer, reader = RingWriter(memory), RingReader(memory)
        assert (texts(reader), list(reader.newest_first()), reader.newest) == ([], [], Place())
        assert reader.used_bytes == 0
        assert writer.put(b"x" * 20_000, 1.0) is False
        assert writer.dropped == 1


def test_around_its_end_the_newest_entries_are_kept_whole_and_the_place_of_a_lost_one_means_the_oldest() -> None:
    chance = random.Random(7)
    memory = ring()
    writer, reader = RingWriter(memory), RingReader(memory)
    place, read = Place(), 0
    for number in range(1, 5001):
        assert writer.put(b"%d:" % number + b"x" * chance.randrange(9000), float(number))
        if chance.random() < 0.2:
            found = list(reader.after(place))
            numbers = [entry.place.number for entry, _ in found]
            assert numbers == list(range(numbers[0], number + 1))
            assert numbers[0] >= place.number + 1
            assert all(int(text.partition(b":")[0]) == entry.place.number for entry, text in found)
            place = found[-1][0].place
            read += len(found)
            back = [entry.place.number for entry in reader.newest_first()]
            assert back == list(range(number, number - len(back), -1))
            assert len(back) >= min(4, number)
            assert 0 < reader.used_bytes <= len(memory)
        if chance.random() < 0.02:
            writer = RingWriter(memory)  # a successor of a process that has died
    assert read > 2000


def test_a_successor_goes_on_after_the_newest_entry_even_if_its_predecessor_was_killed_while_it_wrote() -> None:
    memory = ring()
    RingWriter(memory).put(b"first", 1.0)
    newest_word = memory[:8].tobytes()
    RingWriter(memory).put(b"half-written", 2.0)
    memory[:8] = newest_word  # it had not come to say that this is the newest one
    successor, reader = RingWriter(memory), RingReader(memory)
    assert texts(reader) == [b"first"]
    successor.put(b"second", 3.0)
    assert texts(reader) == [b"first", b"second"]


def test_nothing_outside_its_memory_is_touched() -> None:
    whole = bytearray(b"\xaa" * 40_000)
    writer = RingWriter(memory := memoryview(whole)[8000:32_000])
    memory[:] = bytes(len(memory))
    writer = RingWriter(memory)
    for number in range(1000):
        writer.put(bytes([number % 256]) * (number * 37 % 5000 + 1), 1.0)
    assert set(whole[:8000]) == set(whole[32_000:]) == {0xAA}


def test_a_damaged_entry_is_skipped() -> None:
    memory = ring()
    writer, reader = RingWriter(memory), RingReader(memory)
    for text in (b"aaaa", b"bbbb", b"cccc"):
        writer.put(text, 1.0)
    at = memory.tobytes().index(b"bbbb")
    memory[at] = 0
    assert texts(reader) == [b"aaaa", b"cccc"]
    assert [reader.text(entry) for entry in reader.newest_first()] == [b"cccc", None, b"aaaa"]


def test_a_place_that_makes_no_sense_means_the_oldest_entry() -> None:
    memory = ring()
    writer, reader = RingWriter(memory), RingReader(memory)
    for number in range(3):
        writer.put(b"entry %d" % number, 1.0)
    newest = reader.newest
    for place in (Place(1, 1), Place(newest.position + 8, 4), Place(newest.position, 99), Place(2**63, 1)):
        assert len(texts(reader, place)) == 3


WRITER = """
import mmap, sys
from pipeline.gateway.rings import RingWriter
memory = memoryview(mmap.mmap(int(sys.argv[1]), int(sys.argv[2])))
writer = RingWriter(memory)
for number in range(1, int(sys.argv[3]) + 1):
    writer.put(b"%d " % number * (number * 7919 % 700 + 1), float(number), marks=number % 3)
"""


def test_a_reader_in_another_process_sees_each_entry_whole_once_or_counts_it_as_lost() -> None:
    size, count = 128 * KIB, 40_000
    fd = os.memfd_create("ring")
    os.ftruncate(fd, size)
    memory = memoryview(mmap.mmap(fd, size))
    reader = RingReader(memory)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(fd), str(size), str(count)],
        pass_fds=[fd],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        place, read, lost, is_over = Place(), 0, 0, False
        while not is_over:
            is_over = process.poll() is not None
            for entry, text in reader.after(place):
                number = entry.place.number
                assert text == b"%d " % number * (number * 7919 % 700 + 1)
                assert (entry.at_s, entry.marks) == (number, number % 3)
                lost += number - place.number - 1
                place = entry.place
                read += 1
            for entry in reader.newest_first():
                assert entry.marks == int(entry.at_s) % 3
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(fd)
    assert place.number == read + lost == count
    assert read > 100
