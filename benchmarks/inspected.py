"""headrace that says what it holds. Not a mode of the product: `soak` runs it.

Run ``python -m benchmarks.inspected serve ...`` instead of ``headrace serve ...``. On SIGUSR2 a worker writes how many
tasks, requests and connections to upstreams it has, to the file ``held-PID`` in the folder that $HEADRACE_HELD names.
It only counts, which takes some ms: a collection of garbage would hold 5 000 streams for a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import trio

_kept: dict[type, list[Any]] = {}
"""All bridges, healths and pools: the collector does not list them, because they are frozen after the start."""


def _keep(kind: type[Any]) -> None:
    """Keep each object of a class that is made from now on; there are few, and they live as long as the process."""
    original = kind.__init__
    made = _kept[kind] = []

    def init(self: Any, *given: Any, **named: Any) -> None:
        original(self, *given, **named)
        made.append(self)

    kind.__init__ = init


def held() -> dict[str, Any]:
    """Return what this process holds."""
    bridges, healths, pools = _kept.values()
    return {
        "tasks": _tasks(),
        "requests": sum(len(bridge.active) for bridge in bridges),
        "in_flight": sum(health.in_flight for health in healths),
        "upstream_active": sum(pool.active_connections for pool in pools),
    }


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
    from pipeline.gateway.bridge import Bridge
    from pipeline.gateway.cli import main as headrace
    from stages.routing.health import Health
    from stages.upstreams.transport.pool import Pool

    for kind in (Bridge, Health, Pool):
        _keep(kind)

    def write(*_: object) -> None:
        file = os.path.join(os.environ["HEADRACE_HELD"], f"held-{os.getpid()}")
        with open(f"{file}.part", "w") as part:
            json.dump(held(), part)
        os.replace(f"{file}.part", file)  # so that it is complete as soon as it exists

    signal.signal(signal.SIGUSR2, write)
    return headrace()


if __name__ == "__main__":
    sys.exit(main())
