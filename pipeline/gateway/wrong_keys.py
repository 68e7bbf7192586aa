"""Clients that try keys: their wrong ones are counted and answered later and later.

A right key is recognized before anything is looked up here: it is never refused or delayed, whatever others behind the
same address do. What a delay costs us is a connection, which `max_connections` bounds; the body has not been read.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from typing import Final

import trio

from pipeline import PipelineError
from stages.authenticate import UnknownKey

FREE_TRIES: Final = 3
"""So many wrong keys in a row are answered at once: somebody has mistyped one, or has replaced it."""
FIRST_DELAY_S: Final = 0.25
LONGEST_DELAY_S: Final = 2.0
FORGET_S: Final = 60.0
"""An address that sends no wrong key for this long begins anew. Also the time between two log lines about it."""
MAX_ADDRESSES: Final = 4096
"""So many are remembered; the one that was silent for the longest is forgotten first."""

_IPV6_SITE_BITS: Final = 64
"""Whoever has one address of such a network usually has them all (RFC 6177)."""

log = logging.getLogger("headrace")


class _Tries:
    __slots__ = ("last_s", "log_again_s", "number", "unlogged")

    def __init__(self) -> None:
        self.number = self.unlogged = 0
        self.last_s = self.log_again_s = 0.0


class WrongKeys:
    """What one process knows of clients that have sent wrong keys.

    Attributes:
        total: how many wrong keys there were since the start.
    """

    def __init__(self) -> None:
        self.total = 0
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def delay_of(self, error: PipelineError, address: str | None) -> float:
        """Return by how many seconds the answer to a failed request is to be delayed: that to a wrong key may be."""
        return self.note(address, trio.current_time()) if isinstance(error, UnknownKey) else 0.0

    def note(self, address: str | None, now_s: float) -> float:
        """Count a wrong key from an address, and return by how many seconds its answer is to be delayed."""
        self.total += 1
        site = _site(address)
        tries = self._tries.pop(site, None)
        if tries is None or now_s - tries.last_s >= FORGET_S:
            tries = _Tries()
            tries.log_again_s = now_s
        self._tries[site] = tries
        if len(self._tries) > MAX_ADDRESSES:
            self._tries.popitem(last=False)
        tries.last_s = now_s
        tries.number += 1
        tries.unlogged += 1
        if tries.number <= FREE_TRIES:
            return 0.0
        if now_s >= tries.log_again_s:
            log.warning(
                "%d wrong API keys from %s within a minute: answers to wrong keys from there are delayed",
                tries.unlogged,
                site,
            )
            tries.unlogged = 0
            tries.log_again_s = now_s + FORGET_S
        doublings = min(tries.number - FREE_TRIES - 1, 10)
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings)


def _site(address: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or a network of IPv6 addresses."""
    if address is None:
        return "an unknown address"
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{_IPV6_SITE_BITS}", strict=False))
    except ValueError:
        return address
