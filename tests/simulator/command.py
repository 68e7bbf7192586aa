"""``python -m tests.simulator``: many worlds, one after the other.

Each violation is printed with the command that repeats its world.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Sequence

from simulator.invariants import violations
from simulator.mutants import MUTANTS, mutated
from simulator.plans import WorldPlan
from simulator.world import run_world


def main(arguments: Sequence[str]) -> int:
    """Run worlds, and return 1 if anything was wrong in any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description="Run simulated worlds.")
    parser.add_argument("--worlds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--mutant", default="none", choices=["none", *MUTANTS], help="a defect to put into our code")
    given = parser.parse_args(arguments)
    gc.freeze()  # what exists now is looked at in each collection otherwise
    began, failed = time.process_time(), 0
    ends: Counter[str] = Counter()
    digests: list[str] = []
    with mutated(given.mutant):
        for seed in range(given.seed, given.seed + given.worlds):
            world = run_world(WorldPlan(seed), seed)
            found = violations(world)
            digests.append(world.digest)
            for records in world.records.values():
                ends[records[0].record.end] += 1
            if found:
                failed += 1
                for violation in found:
                    print(f"seed {seed}: {violation}")
                print(f"    repeat it: python -m tests.simulator --worlds 1 --seed {seed}")
    took_s = time.process_time() - began
    print(f"{given.worlds} worlds, {failed} with violations, {given.worlds / took_s:.0f} a second of CPU time")
    print(f"ends of requests: {dict(ends.most_common())}")
    print(f"digest of all worlds: {hashlib.sha256(''.join(digests).encode()).hexdigest()}")
    return 1 if failed else 0
