import os
from pathlib import Path
from typing import Any

import msgspec
import trio
from mirror import Mirror, Options, mirror

from pipeline import Host, Outcome, Stage, UpstreamFault, codec_stage
from pipeline.testing import check_stage, collect
from stages.events import Failed, Finished, Heartbeat, StreamEvent, TextDelta

EVENTS: list[StreamEvent] = [TextDelta("Hello, "), TextDelta("you"), Finished("stop")]
WRITTEN = [
    {"request": "test", "event": {"type": "TextDelta", "text": "Hello, "}},
    {"request": "test", "event": {"type": "TextDelta", "text": "you"}},
    {"request": "test", "event": {"type": "Finished", "reason": "stop"}},
    {"request": "test", "end": "complete"},
]


def lines_of(file: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]


def test_the_stream_is_not_changed() -> None:
    lines: list[object] = []
    stage: Stage[StreamEvent, StreamEvent] = codec_stage(
        "mirror", lambda ctx: Mirror(ctx.request_id, lines.extend), codec=Mirror
    )
    assert check_stage(stage, *EVENTS) == EVENTS
    assert {"request": "test", "end": "cancelled"} in lines  # one of the checks cancels it


def test_every_event_and_the_end_are_in_the_file_once_it_is_closed(tmp_path: Path) -> None:
    async def run() -> None:
        async with mirror(Options(str(tmp_path / "mirror.jsonl")), Host("mirror")) as stage:
            await collect(stage, *EVENTS)
            await collect(stage, *EVENTS, batches_of=3)

    trio.run(run)
    trio.run(run)  # the next process goes on in the same file
    assert lines_of(tmp_path / "mirror.jsonl") == 4 * WRITTEN


def test_the_end_is_complete_or_cancelled_or_the_code_of_the_failure() -> None:
    ends: list[Any] = []
    for outcome in (
        Outcome(is_complete=True),
        Outcome(),
        Outcome(error=UpstreamFault("too slow", code="upstream_timeout")),
    ):
        Mirror("test", ends.extend).close(outcome)
    assert [line["end"] for line in ends] == ["complete", "cancelled", "upstream_timeout"]


def test_an_answer_that_broke_off_ends_with_the_code_of_what_failed() -> None:
    lines: list[Any] = []
    mirror = Mirror("test", lines.extend)
    mirror.feed([TextDelta("Hel"), Failed("upstream_error", "it broke off")])
    mirror.feed([Heartbeat()])
    mirror.close(Outcome(is_complete=True))
    assert lines[-1] == {"request": "test", "end": "upstream_error"}


def test_lines_that_could_not_be_written_are_counted() -> None:
    host = Host("mirror")

    async def run() -> None:
        async with mirror(Options("/dev/full"), host) as stage:
            await collect(stage, *EVENTS)

    trio.run(run)
    assert host.gauge("missing_lines").value() == 4


def test_a_file_that_is_too_slow_costs_lines_and_no_time(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"  # it takes 64 KiB, and then nothing until it is read
    os.mkfifo(pipe)
    host = Host("mirror")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def read() -> bytes:
        os.set_blocking(reader, True)
        with open(reader, "rb") as opened:
            return opened.read()

    async def run() -> bytes:
        read_lines: list[bytes] = []

        async def read_later() -> None:
            read_lines.append(await trio.to_thread.run_sync(read))

        async with trio.open_nursery() as nursery, mirror(Options(str(pipe), max_waiting=2), host) as stage:
            assert len(await collect(stage, *[TextDelta("x" * 100_000)] * 10)) == 10
            nursery.start_soon(read_later)
        return read_lines[0]

    lines = trio.run(run).splitlines()
    dropped = host.gauge("missing_lines").value()
    assert dropped >= 11 - 3 - 2  # the writer has at most three, and two wait
    assert len(lines) + dropped == 11
    assert all(msgspec.json.decode(line)["request"] == "test" for line in lines)
