"""Cut bytes into reads, and spoil bytes that have no structure."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from zlib import crc32

MOST_BYTE_READS = 3000
"""Longer input is not cut into single bytes: that would take most of the time."""


def seeded(data: bytes) -> Random:
    """Return the source of everything about an input that its bytes do not say, the same each time."""
    return Random(crc32(data))


def reads(data: bytes, rng: Random) -> list[bytes]:
    """Cut bytes into reads: single bytes, a few pieces, or pieces of one size."""
    match rng.randrange(4):
        case 0 if len(data) <= MOST_BYTE_READS:
            return [data[i : i + 1] for i in range(len(data))]
        case 1:
            size = rng.choice((2, 3, 7, 64, 1000)) + len(data) // 1000
            return [data[i : i + size] for i in range(0, len(data), size)]
        case _:
            edges = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 12)))})
            return [data[a:b] for a, b in pairwise(edges)]


def spoiled(data: bytes, words: tuple[bytes, ...], rng: Random) -> bytes:
    """Change bytes in one place: remove, repeat, overwrite or insert some, or cut off the rest."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 5, 30)))
    match rng.randrange(6):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:at] + data[at:end] * rng.choice((2, 2, 3, 200)) + data[end:]
        case 2:
            return data[:at] + rng.randbytes(end - at) + data[end:]
        case 3:
            return data[:at]
        case _:
            return data[:at] + rng.choice(words) + data[at:]
