"""headrace with other thresholds of the garbage collector. Not a mode of the product: `bench_memory` runs it.

Run ``python -m benchmarks.collected serve ...`` instead of ``headrace serve ...``. $HEADRACE_GC holds the three
thresholds, such as ``700,10,10``; ``0`` for no collections. In a worker SIGUSR2 prints what the collector has done
since the last one: the CPU time of all collections and of the longest in ns, their number, and how many objects they
have freed.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time

MARK = "collector: "


def main() -> int:
    """Run the ``headrace`` command."""
    from pipeline.gateway import collector
    from pipeline.gateway.cli import main as headrace

    collector.THRESHOLDS = tuple(int(number) for number in os.environ["HEADRACE_GC"].split(","))  # type: ignore[assignment, misc]
    collector.MANY_STREAMS = sys.maxsize  # type: ignore[misc]  # it does not rest
    done = [0, 0, 0, 0]
    began_ns = 0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = time.thread_time_ns()
            return
        ns = time.thread_time_ns() - began_ns
        done[:] = done[0] + ns, max(done[1], ns), done[2] + 1, done[3] + info["collected"]

    def show(*_: object) -> None:
        sys.stdout.write(f"{MARK}{done}\n")
        sys.stdout.flush()
        done[:] = 0, 0, 0, 0

    gc.callbacks.append(note)
    signal.signal(signal.SIGUSR2, show)
    return headrace()


if __name__ == "__main__":
    sys.exit(main())
