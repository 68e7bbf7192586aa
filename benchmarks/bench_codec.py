"""Measure the wire code alone: Responses events in, Chat Completions chunks out, on one core.

Run: ``python -m benchmarks.bench_codec``. Figures are events per second and nanoseconds per event, medians of several
rounds, for batches of 1, 8 and 64 events (a slow upstream, a busy one, and one that sends as fast as it can).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from benchmarks.recording import Recording, Stopwatch, begin, number, table
from stages.events import StreamEvent
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.responses.decoder import ResponsesDecoder

EVENTS = 20_000
ROUNDS = 7
_ID = "msg_0850765c843cca5300699cc47e3a3881908b1bcd2f4fb5c0f3"


def _frame(event: Mapping[str, object]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), msgspec.json.encode(event))


def _created() -> bytes:
    response = {"id": "resp_1", "model": "gpt-5", "created_at": 1, "status": "in_progress"}
    return _frame({"type": "response.created", "sequence_number": 0, "response": response})


def text_deltas() -> list[bytes]:
    """Make text deltas as OpenAI sends them, with the fields that we skip."""
    return [
        _frame(
            {
                "type": "response.output_text.delta",
                "sequence_number": number,
                "item_id": _ID,
                "output_index": 0,
                "content_index": 0,
                "delta": f" word{number % 100}",
                "logprobs": [],
                "obfuscation": "qh3bmFx1yT",
            }
        )
        for number in range(EVENTS)
    ]


def argument_deltas() -> list[bytes]:
    """Make the input of a custom tool, such as a long patch."""
    call = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_x", "name": "ApplyPatch", "input": ""}
    return [
        _frame({"type": "response.output_item.added", "output_index": 0, "item": call}),
        *(
            _frame(
                {
                    "type": "response.custom_tool_call_input.delta",
                    "sequence_number": number,
                    "item_id": _ID,
                    "output_index": 0,
                    "delta": '+    print("hello")\n',
                    "obfuscation": "qh3bmFx1yT",
                }
            )
            for number in range(EVENTS - 1)
        ),
    ]


def reasoning_deltas() -> list[bytes]:
    """Make a reasoning summary."""
    return [
        _frame(
            {
                "type": "response.reasoning_summary_text.delta",
                "sequence_number": number,
                "item_id": _ID,
                "output_index": 0,
                "summary_index": 0,
                "delta": " thinking",
                "obfuscation": "qh3bmFx1yT",
            }
        )
        for number in range(EVENTS)
    ]


def ignored_events() -> list[bytes]:
    """Make events that a chat client does not see."""
    event = {"type": "response.code_interpreter_call_code.delta", "output_index": 0, "item_id": _ID, "delta": "x = 1"}
    return [_frame(event)] * EVENTS


def _encoder() -> ChunkEncoder:
    return ChunkEncoder(model="gpt-5", chunk_id="chatcmpl-0123456789", created=1, include_usage=True)


def timed(run: Callable[[], object], events: int) -> float:
    """Return the time of one run, in ns per event."""
    with Stopwatch() as watch:
        run()
    return watch.ns / events


def measure(recording: Recording, name: str, frames: list[bytes], batch_events: int, rounds: int) -> None:
    """Record the rates of one kind of stream."""
    created = _created()
    reads = [b"".join(frames[i : i + batch_events]) for i in range(0, len(frames), batch_events)]
    decoder = ResponsesDecoder()
    decoder.feed([created])
    batches: list[list[StreamEvent]] = [decoder.feed([read]) for read in reads]

    def decode() -> None:
        feed = ResponsesDecoder().feed
        feed([created])
        for read in reads:
            feed([read])

    def encode() -> None:
        feed = _encoder().feed
        for batch in batches:
            feed(batch)

    def both() -> None:
        decode, encode = ResponsesDecoder().feed, _encoder().feed
        encode(decode([created]))
        for read in reads:
            encode(decode([read]))

    steps = {"decode": decode, "encode": encode, "both": both}
    for _ in range(rounds):
        figures = {f"{step}_ns_per_event": round(timed(run, len(frames)), 1) for step, run in steps.items()}
        recording.add(name, f"batch of {batch_events}", figures)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format the medians as a table."""
    rows = [
        ["stream", "batch", *(f"{step} {unit}" for step in ("decode", "encode", "both") for unit in ("events/s", "ns"))]
    ]
    for row in recording.rows:
        cells: list[str] = []
        for step in ("decode", "encode", "both"):
            ns = row.median(f"{step}_ns_per_event")
            cells += [number(1e9 / ns if ns else None, 0), number(ns, 0)]
        rows.append([row.subject, row.measure.removeprefix("batch of "), *cells])
    return table(rows, markdown=markdown)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Measure what the wire code costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--rounds", type=int, help="number of rounds")
    parser.add_argument("--events", type=int, default=EVENTS, help="events per run (%(default)s)")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-codec.json)")
    options = parser.parse_args(arguments)
    recording = begin("codec", is_quick=options.quick)
    rounds = options.rounds or (3 if options.quick else ROUNDS)
    for make in (text_deltas, argument_deltas, reasoning_deltas, ignored_events):
        frames = make()[: options.events]
        name = make.__name__.removesuffix("_deltas").removesuffix("_events")
        for batch_events in (1, 8, 64):
            measure(recording, name, frames, batch_events, rounds)
    print(summary(recording))
    recording.save(options.output)


if __name__ == "__main__":
    main()
