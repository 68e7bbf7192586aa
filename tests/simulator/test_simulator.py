"""Simulated worlds hold all invariants, repeat exactly, and find the defects that are put into our code.

``HEADRACE_WORLDS`` is how many worlds are run; ``make nightly`` runs 20,000.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from simulator.invariants import violations
from simulator.mutants import MUTANTS, mutated
from simulator.plans import WorldPlan
from simulator.world import run_world

WORLDS: Final = int(os.environ.get("HEADRACE_WORLDS", "60"))
MOST_SEEDS: Final = 300
"""Within so many worlds each mutant must be found."""
WORLDS_TO_REPEAT: Final = 12
ROOT: Final = Path(__file__).parent.parent.parent

CAUGHT_BY: Final = {
    "disconnect_without_cancel": 6,
    "half_close_ignored": 0,
    "half_read_connection_kept": 23,
    "slot_kept_after_failed_dial": 1,
    "connection_left_open": 0,
    "done_without_terminal_event": 2,
    "retried_after_first_event": 0,
    "error_told_twice": 0,
    "probe_never_ended": 38,
    "in_flight_not_decremented": 0,
    "route_not_ended": 0,
    "cut_off_forgets_a_request": 53,
    "active_request_forgotten": 0,
    "write_without_waiting": 18,
    "partial_write_lost": 6,
    "pipelined_bodies_mixed": 1,
    "body_timeout_removed": 8,
    "write_timeout_removed": 30,
    "silent_upstream_never_expires": 12,
    "stale_connection_not_replaced": 12,
    "record_lost_on_disconnect": 6,
    "reader_never_resumed": 6,
    "early_response_keeps_connection": 1,
    "old_generation_closed_at_once": 1,
    "old_generation_never_ends": 1,
    "new_requests_join_the_old_generation": 1,
    "requests_move_to_the_new_generation": 38,
    "generation_serves_before_it_is_open": 1,
    "generation_serves_although_it_is_not_open": 3,
    "connections_closed_with_the_old_generation": 1,
    "reload_cuts_what_runs": 1,
    "old_generations_forgotten_at_the_end": 207,
    "last_in_first_out": 20,
    "waiting_client_keeps_its_place": 27,
    "turn_kept_without_an_answer": 8,
    "one_more_than_allowed": 20,
    "queue_is_too_short": 8,
    "full_deployment_is_asked": 1,
    "place_kept_by_an_attempt": 0,
    "requests_are_not_counted": 1,
    "refusal_without_retry_after": 1,
    "replaced_server_cuts_what_runs": 0,
    "replaced_server_does_not_wait": 0,
    "request_on_its_way_is_dropped": 81,
    "connection_ends_without_notice": 25,
    "replaced_server_keeps_idle_connections": 37,
}
"""For each mutant, a seed whose world finds it, so that the test need not search. If the plans change, so do they:
the test then searches, and `python -m tests.simulator --worlds 300 --mutant NAME` shows new ones."""


def wrong_in(seed: int) -> list[str]:
    """Run a world, and return what was wrong, with the command that repeats it."""
    found = violations(run_world(WorldPlan(seed), seed))
    return [*found, f"repeat it: python -m tests.simulator --worlds 1 --seed {seed}"] if found else []


@pytest.mark.timeout(0 if WORLDS > 1000 else 60)
def test_every_world_holds_the_invariants() -> None:
    failed = [line for seed in range(WORLDS) for line in wrong_in(seed)]
    assert not failed, "\n".join(failed)


def test_a_seed_repeats_its_world_in_another_process_with_other_hashes() -> None:
    command = [sys.executable, "-m", "tests.simulator", "--worlds", str(WORLDS_TO_REPEAT)]
    digests = {
        subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_found(name: str) -> None:
    known = [CAUGHT_BY[name]] if name in CAUGHT_BY else []
    with mutated(name):
        assert any(wrong_in(seed) for seed in [*known, *range(MOST_SEEDS)])


def test_a_mutant_leaves_nothing_behind() -> None:
    for name in MUTANTS:
        with mutated(name):
            pass
    assert wrong_in(0) == []
