"""headrace that says what it holds. Not a mode of the product: `soak` runs it.

Run ``python -m benchmarks.inspected serve ...`` instead of ``headrace serve ...``. On SIGUSR2 it writes to the file
that $HEADRACE_HELD names how many tasks, requests, connections to upstreams and objects there are.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from typing import Any

import trio

OBJECTS = 15
"""So many types are listed, those with the most objects."""


def held() -> dict[str, Any]:
    """Return what this process holds, after a collection."""
    gc.collect()
    from pipeline.gateway.bridge import Bridge
    from stages.routing.health import Health
    from stages.upstreams.transport.pool import Pool

    counts: dict[str, int] = {}
    found = {"requests": 0, "in_flight": 0, "upstream_active": 0}
    for one in gc.get_objects():
        kind = type(one)
        counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
        if kind is Bridge:
            found["requests"] += len(one.active)
        elif kind is Health:
            found["in_flight"] += one.in_flight
        elif kind is Pool:
            found["upstream_active"] += one.active_connections
    most = sorted(counts.items(), key=lambda each: -each[1])[:OBJECTS]
    return {"tasks": _tasks(), **found, "objects": dict(most)}


def _tasks() -> int:
    root = trio.lowlevel.current_root_task()
    waiting, count = [root] if root else [], 0
    while waiting:
        task = waiting.pop()
        count += 1
        waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


def main() -> int:
    """Run the ``headrace`` command, ready to be inspected."""
    from pipeline.gateway.cli import main as headrace

    def write(*_: object) -> None:
        file = os.environ["HEADRACE_HELD"]
        with open(f"{file}.part", "w") as part:
            json.dump(held(), part)
        os.replace(f"{file}.part", file)  # so that it is complete as soon as it exists

    signal.signal(signal.SIGUSR2, write)
    return headrace()


if __name__ == "__main__":
    sys.exit(main())
