"""Log-linear histograms: where a value is counted, and what can be said of the values that were.

Each octave (a value and its double) has `STEPS` slots of the same width, so that a value is known to within 3 % of
itself, whatever its size. Durations are counted in units of 10 ms / 2**14, about 0.6 us: then the limits of octaves
are 0.01 * 2**k seconds, which are the bucket limits that OpenTelemetry's GenAI metrics ask for (semantic conventions,
2026-08), and a histogram with these limits is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

STEPS: Final = 16
"""Slots of an octave."""
SLOTS: Final = 512
"""Slots of a histogram. The last one also has what is larger: from 5.7 hours on, or from 3.3e10."""
_LAST: Final = SLOTS - 1

# One unit is 78125/128 ns.
UNITS_SHIFT: Final = 7
UNITS_DIVISOR: Final = 78_125
_UNIT_S: Final = UNITS_DIVISOR / 2**UNITS_SHIFT / 1e9


def slot_of_size(size: int) -> int:
    """Return the slot of a whole number; what is below 0 is counted as 0."""
    shift = size.bit_length() - 5
    if shift <= 0:
        return size if size > 0 else 0
    slot = (shift << 4) + (size >> shift)
    return slot if slot < SLOTS else _LAST


def slot_of(ns: int) -> int:
    """Return the slot of a duration; a negative one is counted as 0."""
    # As `slot_of_size`, which would be a further call: this is once for each wait of a batch.
    size = (ns << UNITS_SHIFT) // UNITS_DIVISOR
    shift = size.bit_length() - 5
    if shift <= 0:
        return size if size > 0 else 0
    slot = (shift << 4) + (size >> shift)
    return slot if slot < SLOTS else _LAST


def size_limit(slot: int) -> int:
    """Return the first whole number that is beyond a slot."""
    shift = (slot >> 4) - 1
    return slot + 1 if shift <= 0 else (slot - (shift << 4) + 1) << shift


def limit_s(slot: int) -> float:
    """Return the first duration that is beyond a slot."""
    return size_limit(slot) * _UNIT_S


def middle_s(slot: int, step: int = 1) -> float:
    """Return the middle of the durations that are counted in a slot, or in ``step`` slots from it on."""
    return (limit_s(slot + step - 1) + (limit_s(slot - 1) if slot else 0)) / 2


def added_up(counts: Mapping[int, int], step: int) -> Counter[int]:
    """Return the counts with ``step`` neighbouring slots, 1, 2, 4 ... `STEPS`, added up to the first of them."""
    coarse = Counter[int]()
    for slot, count in counts.items():
        coarse[slot - slot % step] += count
    return coarse


def slots_at(counts: Mapping[int, int], shares: Iterable[float]) -> list[int]:
    """Return, for each share in ascending order, the slot up to which that part of the values lies.

    Args:
        counts: how many values each slot has, by the slot.
        shares: from 0 to 1.

    Returns:
        A slot for each share; nothing if there are no values.
    """
    total = sum(counts.values())
    slots = iter(sorted(counts.items()))
    seen = at = 0
    found: list[int] = []
    for share in shares if total else ():
        while seen < share * total:
            at, count = next(slots)
            seen += count
        found.append(at)
    return found


def quantiles_s(counts: Mapping[int, int], *shares: float, step: int = 1) -> list[float]:
    """Return the durations up to which these parts of the values lie, within 3 % times ``step``; see `slots_at`."""
    return [middle_s(slot, step) for slot in slots_at(counts, shares)]
