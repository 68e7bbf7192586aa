"""``python -m tests.fuzz TARGET --count N``: try inputs, report what became of them, and write down each finding."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final, Never

import trio
from fuzz.target import Target

HANG_S: Final = 20
"""After so long an input is called a hang; on a busy machine the slowest takes a second."""
MOST_FINDINGS: Final = 20
"""Of one target in one run: after that the same fault is found again and again."""
KEPT: Final = 400
"""So many of the newest inputs are mutated further, besides the seeds."""
MOST_KEPT_BYTES: Final = 20_000
"""What is larger is not mutated further: it would only grow."""
STREAMS: Final = ("responses", "chat", "anthropic")
GROUPS: Final = {"streams": STREAMS, "http": ("requests", "replies")}


class Hang(BaseException):
    """An input that takes too long; nothing that handles an `Exception` stops it."""


def target(name: str) -> Target:
    """Return the target of a name; importing them all would take most of the time of a small run."""
    if name == "bodies":
        from fuzz.bodies import Bodies

        return Bodies()
    if name in STREAMS:
        from fuzz.streams import AnthropicStreams, ChatStreams, ResponsesStreams

        return {"responses": ResponsesStreams, "chat": ChatStreams, "anthropic": AnthropicStreams}[name]()
    from fuzz.http_bytes import Replies, Requests

    return {"requests": Requests, "replies": Replies}[name]()


class Findings:
    """The inputs that failed, one for each place in the code at which they did."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.found: dict[str, str] = {}

    def note(self, name: str, data: bytes, error: BaseException) -> None:
        """Keep an input, unless one that failed in the same place is known."""
        frames = list(traceback.extract_tb(error.__traceback__))
        cause = error.__cause__
        while cause is not None:
            frames, cause = [*frames, *traceback.extract_tb(cause.__traceback__)], cause.__cause__
        place = next(
            (f"{it.filename}:{it.lineno}" for it in reversed(frames) if "/fuzz/runner" not in it.filename), "?"
        )
        key = f"{name} {type(error).__name__} at {place}"
        if key in self.found:
            return
        text = "".join(traceback.format_exception(error))[-3000:]
        at = ""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{name}-{sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            at = f" in {path}"
        self.found[key] = f"{key}: {len(data)} bytes{at}\n{text}"
        print(self.found[key], file=sys.stderr, flush=True)  # noqa: T201 - a tool


async def try_out(it: Target, count: int, seed: int, findings: Findings, hang_s: float = 0) -> float:
    """Try ``count`` mutated inputs of a target, and return how long the slowest took, in s.

    What takes ``hang_s`` is a finding, if that is not 0 and `Hang` is raised by an alarm.
    """
    rng = Random(f"{it.name} {seed}")
    pool: list[bytes] = []
    slowest = 0.0
    before = len(findings.found)
    for _ in range(count):
        if len(findings.found) - before >= MOST_FINDINGS:
            break
        base = rng.choice(pool) if pool and rng.random() < 0.5 else rng.choice(it.seeds)
        data = it.mutated(base, rng)
        word, seconds = await _try_one(it, data, findings, hang_s)
        slowest = max(slowest, seconds)
        if word.startswith("refused") or len(data) > MOST_KEPT_BYTES:
            continue  # what is made of a refused input is refused as well, mostly
        if len(pool) < KEPT:
            pool.append(data)
        elif rng.random() < 0.2:
            pool[rng.randrange(KEPT)] = data
    return slowest


async def _try_one(it: Target, data: bytes, findings: Findings, hang_s: float) -> tuple[str, float]:
    """Try one input, and return what became of it, and how long it took, in s of CPU."""
    word = "refused: a finding"
    began = time.thread_time()
    if hang_s:
        signal.setitimer(signal.ITIMER_REAL, hang_s)
    try:
        word = await it.check(data)
    except (Exception, Hang) as error:
        findings.note(it.name, data, error)
    finally:
        if hang_s:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return word, time.thread_time() - began


def _on_alarm(number: int, frame: FrameType | None) -> Never:
    raise Hang(f"more than {HANG_S} s")


def run(names: Sequence[str], count: int, seed: int, folder: Path | None) -> Findings:
    """Try ``count`` inputs in all of the targets of these names, and print what became of them."""
    findings = Findings(folder)
    previous = signal.signal(signal.SIGALRM, _on_alarm)
    try:
        for name in names:
            it = target(name)
            share = -(-count // len(names))
            began = time.monotonic()
            slowest = trio.run(try_out, it, share, seed, findings, HANG_S)
            seconds = time.monotonic() - began
            tried = sum(it.counts.values())
            print(f"{name}: {tried:,} of {share:,} passed in {seconds:.0f} s, the slowest took {slowest * 1e3:.0f} ms")  # noqa: T201
            for word, times in sorted(it.counts.items(), key=lambda each: -each[1])[:12]:
                print(f"  {times:9,}  {word}")  # noqa: T201
    finally:
        signal.signal(signal.SIGALRM, previous)
    return findings


def main() -> None:
    """Parse the command line, and run."""
    choices = ["bodies", *GROUPS, *STREAMS, *GROUPS["http"], "all"]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=choices)
    parser.add_argument("--count", type=int, default=10_000, help="how many inputs (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed tries the same inputs (%(default)s)")
    parser.add_argument("--findings", type=Path, default=Path(".fuzz"), help="where inputs that fail go (%(default)s)")
    parser.add_argument("--guided", action="store_true", help="let atheris choose what to mutate, by coverage")
    parser.add_argument("--input", type=Path, help="try this file only")
    options = parser.parse_args()
    names = (
        ["bodies", *STREAMS, *GROUPS["http"]]
        if options.target == "all"
        else GROUPS.get(options.target, [options.target])
    )
    if options.guided:
        from fuzz.guided import fuzz

        if len(names) != 1:
            parser.error(f"--guided takes one target: {', '.join(names)}")
        fuzz(names[0], options.count, options.seed, options.findings)
        return
    if options.input is not None:
        trio.run(target(names[0]).check, options.input.read_bytes())
        return
    if findings := run(names, options.count, options.seed, options.findings).found:
        sys.exit(f"{len(findings)} findings; try one again with --input FILE")
