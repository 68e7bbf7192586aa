"""Odd input of every kind: what was once a finding stays mended, and new input is tried in every run.

Each run tries a few hundred inputs of each target, ``HEADRACE_FUZZ=5000`` tries that many of bodies, streams and HTTP
bytes. ``make fuzz`` tries more, and says where it keeps what fails.
"""

from __future__ import annotations

import os

import pytest
import trio
from fuzz.runner import GROUPS, Findings, target, try_out
from fuzz.target import CORPUS

COUNT = int(os.environ.get("HEADRACE_FUZZ", "600"))
SHARES = {"bodies": 1, **{name: len(names) for names in GROUPS.values() for name in names}}
KEPT = [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(("name", "file"), KEPT, ids=lambda part: part)
def test_what_was_found_once_is_handled(name: str, file: str) -> None:
    it = target(name)
    trio.run(it.check, it.corpus[file])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHARES)
def test_mutated_input_is_handled_or_refused_and_nothing_else(name: str) -> None:
    it = target(name)
    findings = Findings(None)
    count = COUNT // SHARES[name]
    trio.run(try_out, it, count, 0, findings)
    assert findings.found == {}
    assert sum(it.counts.values()) == count
    assert len(it.counts) > 2, "the mutator reaches hardly anything"


def test_an_input_that_fails_is_reported_once() -> None:
    findings = Findings(None)
    for data in (b"a", b"b"):
        try:
            raise AssertionError("x" * len(data))
        except AssertionError as error:
            findings.note("bodies", data, error)
    assert len(findings.found) == 1
