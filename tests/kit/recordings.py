"""Streams of upstreams and requests of Cursor, each with its expected result: the project's own, and those of others.

The project's own are in ``tests/data`` and always used. Recordings and payloads of others are not part of the
repository; where a folder ``shared`` lies beside it, the same tests also run over those. In a lone clone, each
of these tests has one skipped parameter instead, so that the report counts what was not tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kit.needs import RECORDINGS, ROOT, SHARED, needs

Json = dict[str, Any]

DATA = ROOT / "tests" / "data"

needs_shared = needs(RECORDINGS)

SNAPSHOT_DIFFERS = {
    "cursorazure-context_single_tool_calls",  # the two were redacted in the terminal event, but not in the deltas
    "cursorazure-default_recording",
    "redacted_snapshot",
    "shifted_snapshot",
    "agent",  # its snapshot has an empty output, as some gateways send it
}
"""Streams whose terminal event does not repeat what the deltas said."""


def own_recordings(kind: str) -> list[Path]:
    """Return the project's own streams of one kind of upstream: ``responses``, ``chat``, ``anthropic``."""
    return sorted((DATA / "streams" / kind).glob("*.sse"))


def shared_recordings(kind: str) -> list[Path]:
    """Return the recorded streams of one kind of upstream; none in a lone clone."""
    return sorted((SHARED / "recorded" / kind).glob("*.sse"))


def has_whole_snapshot(recording: Path) -> bool:
    """Return whether the terminal event repeats the whole answer."""
    return recording.stem not in SNAPSHOT_DIFFERS


def expected_of(recording: Path) -> Json:
    """Return what a client must end up with."""
    expected: Json = json.loads(
        recording.with_name(recording.name.removesuffix(".sse") + ".expected.json").read_text("utf-8")
    )
    return expected


def recordings(*kinds: str, only: Callable[[Path], bool] = lambda _: True) -> list[Any]:
    """Return parameters for a test: the paths of the streams of these kinds, if ``only`` is true of them."""
    own = [path for kind in kinds for path in own_recordings(kind)]
    shared = [path for kind in kinds for path in shared_recordings(kind)]
    return _parameters(list(filter(only, own)), list(filter(only, shared)), lambda path: path)


def load_payload(path: Path) -> Json:
    """Read a request of Cursor; ``name`` is that of the file, and ``folder`` where its siblings are."""
    payload: Json = json.loads(path.read_text("utf-8"))
    return {**payload, "name": path.stem, "folder": path.parent}


def sibling(payload: Json, number: str) -> Json:
    """Return the payload with this number from the same folder."""
    (path,) = payload["folder"].glob(f"{number}_*.json")
    return load_payload(path)


def payloads(*numbers: str, but: Sequence[str] = ()) -> list[Any]:
    """Return parameters for a test: the requests of Cursor with these numbers, or all ``but`` some."""

    def of(folder: Path) -> list[Path]:
        paths = sorted(folder.glob("*.json"))
        return [path for path in paths if path.stem[:2] not in but and (not numbers or path.stem[:2] in numbers)]

    return _parameters(of(DATA / "requests"), of(SHARED / "payloads"), load_payload)


def combined(found: Sequence[Any], values: Iterable[Any]) -> list[Any]:
    """Return each parameter with each value; the skipped parameter is not multiplied."""
    return once(
        pytest.param(*one.values, value, id=f"{one.id}-{value}", marks=one.marks) for value in values for one in found
    )


def once(parameters: Iterable[Any]) -> list[Any]:
    """Return the parameters with only the first of those that are skipped because ``../shared`` is missing."""
    is_first, kept = True, []
    for one in parameters:
        if is_first or not one.marks:
            kept.append(one)
        is_first = is_first and not one.marks
    return kept


def _parameters(own: list[Path], shared: list[Path], value_of: Callable[[Path], Any]) -> list[Any]:
    if RECORDINGS.is_met and not shared:
        raise ValueError(f"{SHARED} has no counterpart of {[path.name for path in own]}")
    return [
        *(pytest.param(value_of(path), id=f"own-{path.parent.name}-{path.stem}") for path in own),
        *(pytest.param(value_of(path), id=path.stem) for path in shared),
        *(() if RECORDINGS.is_met else (pytest.param(None, id="shared", marks=needs_shared),)),
    ]
