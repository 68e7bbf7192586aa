"""Which address a request comes from: that of the connection, or what a proxy in front of us reports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MAX_HOPS: Final = 32
"""So many proxies in a row are looked at, from the nearest on."""
MAX_ADDRESS_BYTES: Final = 64
"""The longest IPv6 address with a port has 47 characters."""

_FOR: Final = re.compile(rb'(?:\A|;)[ \t]*for="?([^";]*)', re.IGNORECASE)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proxies:
    """The proxies that are trusted to report the address of their client.

    What they report is read in ``X-Forwarded-For`` or, without that, in ``Forwarded`` (RFC 7239). Each proxy adds the
    address that it was called from at the right, so the client's is the rightmost that is not a proxy's: what is
    further left may be invented by the client. If an entry is not an address, the proxy right of it is the client.

    Args:
        allowed: addresses, networks such as ``10.0.0.0/8``, or ``*`` for everything: then the leftmost entry counts.

    Raises:
        ValueError: if an entry is neither.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        names = list(allowed)
        self._trusts_all = "*" in names
        self._networks: list[Network] = [_network(name) for name in names if name != "*"]
        self._has_any = bool(names)

    def client_of(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the address of the client of a request; None on a Unix socket.

        Args:
            peer: the address of its connection.
            headers: names in lower case, in the order in which they came.
        """
        if peer is not None and ":" in peer:
            peer = str(_read(peer) or peer)
        if not self._has_any or not self.trusts(peer):
            return peer
        for entry in _hops(headers):
            address = _address(entry)
            if address is None:
                break
            peer = address
            if not self.trusts(peer):
                break
        return peer

    def trusts(self, address: str | None) -> bool:
        """Return whether an address is that of such a proxy; None is a Unix socket."""
        if self._trusts_all:
            return True
        known = None if address is None else _read(address)
        return known is not None and any(known in network for network in self._networks)


def _network(name: str) -> Network:
    """Return a network; that of an IPv4 address within IPv6 is the address's, as those of connections are."""
    network = ipaddress.ip_network(name, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96), strict=False)


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Return what proxies say of whom they were called by, the nearest first."""
    plain = [value for name, value in headers if name == b"x-forwarded-for"]
    if plain:
        return b",".join(plain).split(b",")[: -MAX_HOPS - 1 : -1]
    elements = b",".join(value for name, value in headers if name == b"forwarded").split(b",")[: -MAX_HOPS - 1 : -1]
    return [found[1] if (found := _FOR.search(element)) else b"" for element in elements]


@lru_cache(1024)
def _address(entry: bytes) -> str | None:
    """Return the address in an entry, without a port; None if it is hidden, unknown or not an address."""
    if len(entry) > MAX_ADDRESS_BYTES:
        return None
    text = entry.strip(b' \t"').decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = _read(text)
    return None if address is None else str(address)


@lru_cache(1024)
def _read(text: str) -> Address | None:
    """Return an address; IPv4 that came over an IPv6 socket as IPv4, without a zone."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


NO_PROXIES: Final = Proxies()


def is_proxy(text: str) -> bool:
    """Return whether ``text`` can be an entry of ``allowed``."""
    try:
        Proxies([text])
    except ValueError:
        return False
    return True
