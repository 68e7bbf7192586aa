"""headrace under a profiler. Not a mode of the product: `profile_service` runs it.

Run ``python -m benchmarks.profiled serve ...`` instead of ``headrace serve ...``. SIGUSR1 starts the profiler; SIGUSR2
stops it and writes the statistics to the file that $HEADRACE_PROFILE names.
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

    def write(*_: object) -> None:
        profile.disable()
        file = os.environ["HEADRACE_PROFILE"]
        profile.dump_stats(f"{file}.part")
        os.replace(f"{file}.part", file)  # so that it is complete as soon as it exists

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, write)
    return headrace()


if __name__ == "__main__":
    sys.exit(main())
