"""headrace under a profiler. Not a mode of the product: `profile_service` runs it.

Run ``python -m benchmarks.profiled serve ...`` instead of ``headrace serve ...``. In a worker SIGUSR2 starts the
profiler; the next one stops it and writes the statistics to the file that $HEADRACE_PROFILE names.
"""

from __future__ import annotations

import cProfile
import os
import signal
import sys


def main() -> int:
    """Run the ``headrace`` command, ready to be profiled."""
    from pipeline.gateway.cli import main as headrace

    profile = cProfile.Profile()
    is_enabled = False

    def start_or_write(*_: object) -> None:
        nonlocal is_enabled
        is_enabled = not is_enabled
        if is_enabled:
            profile.enable()
            return
        profile.disable()
        file = os.environ["HEADRACE_PROFILE"]
        profile.dump_stats(f"{file}.part")
        os.replace(f"{file}.part", file)  # so that it is complete as soon as it exists

    signal.signal(signal.SIGUSR2, start_or_write)
    return headrace()


if __name__ == "__main__":
    sys.exit(main())
