"""Put the same loads on headrace and on every other gateway that is installed, in turn, on the same core.

Run: ``python -m benchmarks.bench_peers``. It installs nothing: it lists what it found and how to install the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gateways import SILENT, serving
from benchmarks.loads import LOADS, Subject, Tools, compare, measure, medians, open_tools, shape
from benchmarks.peers import PEERS, Peer
from benchmarks.processes import NotReady, raise_descriptor_limit
from benchmarks.recording import Recording, begin, number, table

COMPARED = ("byte splice", "LiteLLM")
DEFAULT_LOADS = ("requests", "short", "long", "paced-100", "paced-1000", "first-1", "burst-100")


def found(names: list[str] | None) -> list[Peer]:
    """Print which peers are installed and how to install the others; return the installed ones that are selected."""
    peers = []
    print("peers (nothing is installed from here):")
    for peer in PEERS:
        program = peer.find()
        wanted = names is None or peer.name.lower() in names
        state = (
            "not selected" if not wanted else f"found: {program}" if program else f"not found; to install: {peer.how}"
        )
        print(f"  {peer.name:<12} {peer.work:<30} {state}")
        if wanted and program:
            peers.append(peer)
    return peers


def probe(recording: Recording, tools: Tools, subject: Subject) -> bool:
    """Try a stream and a plain request, and report what fails.

    A peer for which one of them works is measured, with its errors.
    """
    works = {}
    for kind, name in (("streams", "short"), ("requests", "requests")):
        load = shape(name, subject, mode="once", connections=1, limit_s=20.0, events=20 if name == "short" else 0)
        figures, _ = measure(tools, subject, load)
        works[kind] = figures["complete"] == 1
        if not works[kind]:
            recording.notes.append(
                f"{subject.name}: {kind} do not work here: {figures['errors'] or 'no answer in 20 s'}"
            )
            print(f"  ! {recording.notes[-1]}")
    return any(works.values())


def measure_peers(
    recording: Recording,
    tools: Tools,
    subjects: Sequence[Subject],
    peers: Sequence[Peer],
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
) -> None:
    """Put the loads on the running ``subjects`` and on all peers that start, in turn."""
    recording.notes += [f"{peer.name}: not measured" for peer in PEERS if peer not in peers]
    with contextlib.ExitStack() as stack:
        present = list(subjects)
        for peer in peers:
            began = time.perf_counter()
            try:
                subject = stack.enter_context(peer.serving(tools))
            except NotReady as error:
                recording.notes.append(f"{peer.name} did not start")
                print(f"  ! {peer.name} did not start: {error}")
                continue
            recording.add(peer.name, "start-up", {"ready_s": round(time.perf_counter() - began, 4)})
            if probe(recording, tools, subject):
                present.append(subject)
        compare(recording, tools, [tools.direct()], names, rounds=1, seconds=min(seconds, 2.0))
        compare(recording, tools, present, names, rounds=rounds, seconds=seconds)


def summary(recording: Recording, *, markdown: bool = False) -> str:
    """Format the medians, with ratios to the byte splice, and to LiteLLM, which does the same work as headrace."""
    names = [name for name in LOADS if any(row.measure == name for row in recording.rows)]
    work = {peer.name: peer.work for peer in PEERS}
    against = [name for name in COMPARED if name in recording.subjects()]
    parts = [medians(recording, names, markdown=markdown, against=against)]
    starts = [["service", "what it does", "start-up s", "memory after the loads MB"]]
    for subject in recording.subjects():
        if subject != "tools alone":
            ready = number(recording.median(subject, "start-up", "ready_s"))
            kb = [kb for name in names if (kb := recording.median(subject, name, "rss_kb"))]
            starts.append([subject, work.get(subject, "translates"), ready, number(max(kb, default=0) / 1024, 0)])
    return "\n\n".join([*parts, table(starts, markdown=markdown)])


def main(arguments: list[str] | None = None) -> int:
    """Find the peers, measure, print and save."""
    parser = argparse.ArgumentParser(description="headrace and its peers, side by side.")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--peers", help="only these, separated by commas, such as 'litellm,byte splice'")
    parser.add_argument("--loads", help=f"loads, separated by commas: {','.join(LOADS)}")
    parser.add_argument("--rounds", type=int, help="rounds (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="measured seconds of each round (5; quick: 1.5)")
    parser.add_argument(
        "--tools", choices=("python", "c"), default="python", help="c: those in C, if they are installed (%(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="only list the peers")
    parser.add_argument("--output", type=Path, help="where to write the JSON (benchmarks/results/<date>-peers.json)")
    options = parser.parse_args(arguments)
    peers = found([name.strip().lower() for name in options.peers.split(",")] if options.peers is not None else None)
    if options.list:
        return 0
    names = options.loads.split(",") if options.loads else list(DEFAULT_LOADS)
    if unknown := set(names) - set(LOADS):
        parser.error(f"there is no load {unknown.pop()!r}: {', '.join(LOADS)}")
    rounds = options.rounds or (1 if options.quick else 3)
    seconds = options.seconds or (1.5 if options.quick else 5.0)
    raise_descriptor_limit()
    recording = begin("peers", is_quick=options.quick, tools=options.tools)
    with contextlib.ExitStack() as stack:
        tools = stack.enter_context(open_tools(options.tools))
        try:
            began = time.perf_counter()
            subjects = [stack.enter_context(serving(tools))]
            recording.add("headrace", "start-up", {"ready_s": round(time.perf_counter() - began, 4)})
            subjects.append(stack.enter_context(serving(tools, name=SILENT, log_level="warning")))
        except NotReady as error:
            print(f"headrace did not start: {error}")
            return 1
        measure_peers(recording, tools, subjects, peers, names, rounds=rounds, seconds=seconds)
    print(f"\n{summary(recording)}")
    recording.save(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
