"""``make bench``: everything that can be measured in under three minutes. For the full runs see README.md."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from benchmarks import bench_codec, bench_engine, bench_gateway, bench_records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quick form of the benchmarks that need only this repository."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run the quick forms of bench_engine, bench_codec, bench_records and bench_gateway, in 3 minutes.",
        epilog="Each has options of its own: python -m benchmarks.bench_gateway --help; see benchmarks/README.md.",
    )
    parser.parse_args(arguments)
    began = time.monotonic()
    quick = ["--quick"]
    for title, run in (
        ("engine", bench_engine.main),
        ("wire code", bench_codec.main),
        ("records in the log", bench_records.main),
        ("whole service", bench_gateway.main),
    ):
        print(f"\n== {title} ({time.monotonic() - began:.0f} s so far)\n", flush=True)
        if run(quick):
            return 1
    print(f"\n{time.monotonic() - began:.0f} s. One short round each: only hints. For reliable figures and for other")
    print(
        "gateways, see benchmarks/README.md: the benchmarks without --quick, bench_meters and bench_peers among them,"
    )
    print("then benchmarks.report.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
