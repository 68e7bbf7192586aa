"""A conversation keeps its deployment, so that prompt caches and account-bound reasoning stay together.

Weighted rendezvous hashing: each deployment has a score for each conversation, and the highest one wins. It needs no
store, all workers agree, and if a deployment goes only its own conversations move.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; the weights: Schindelhauer and
Schomaker, "Weighted distributed hash tables", 2005.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Final

_SCALE: Final = float(1 << 64)


def score(conversation: str, deployment_id: str, weight: float) -> float:
    """Return the score of a deployment; the share of conversations that it wins is that of its weight.

    Args:
        conversation: its name.
        deployment_id: unique.
        weight: 0 or more; with 0 it wins only against others of weight 0.
    """
    key = f"{conversation}\0{deployment_id}".encode("utf-8", "surrogatepass")
    number = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
    part = (number + 0.5) / _SCALE  # in (0, 1)
    return -weight / math.log(part) if weight > 0 else part - 1.0
