"""The key store: which presented key belongs to whom, without keeping any key and without telling by timing."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

from msgspec import Struct

from stages.principal import Principal

MASTER_NAME = "master"
"""What the master key is called in logs; no static key may have this name."""

HASH_PREFIX = "sha256:"
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})\Z")


class KeySettings(Struct, frozen=True):
    """One static key of the configuration; the key itself is not kept, only its digest.

    Attributes:
        name: what logs call it.
        digest: the SHA-256 of the key, 32 bytes.
        models: the names it may use, as `Principal.models`.
    """

    name: str
    digest: bytes
    models: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        """Name the key without its digest, which would let a guess be checked offline."""
        return f"<KeySettings {self.name}>"


def key_digest(text: str) -> bytes:
    """Return the SHA-256 of a key as it is written in the configuration: plain, or ``sha256:`` and 64 hex digits.

    Raises:
        ValueError: if it is neither; the message does not hold the key.
    """
    hashed = _HASHED.match(text)
    if hashed:
        return bytes.fromhex(hashed[1])
    if text.startswith(HASH_PREFIX):
        raise ValueError("a hashed key is `sha256:` and 64 hexadecimal digits")
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a key is one or more visible ASCII characters without spaces")
    return hashlib.sha256(text.encode("ascii")).digest()


class KeyStore:
    """All keys that this gateway accepts. Immutable; safe to share between requests.

    A presented key is hashed and looked up by its digest, in the same time however many keys there are (about 1 us).
    Why a dictionary, where one expects a constant-time comparison with each key: what leaks by timing is how much of
    *two digests* agrees, and whoever presents keys cannot steer their digests towards one that he does not know. To
    learn the first bits he must find keys whose SHA-256 begins as ours does, which tells nothing about the rest of
    the digest, let alone of the key. The dictionary even compares digests only after a 64-bit hash of them, keyed by a
    secret of the process (SipHash, PEP 456), has agreed. The digest found is compared once more in constant time, so
    the guarantee does not rest on how dictionaries are made. Time does depend on the length of the presented key, which
    its owner knows.
    """

    __slots__ = ("_principals",)

    def __init__(self, master_key: str | None, keys: Iterable[KeySettings] = ()) -> None:
        """Take the master key (plain or ``sha256:``) and the static keys.

        Raises:
            ValueError: if two keys are the same, or one cannot be a key; the message holds no key.
        """
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        if master_key is not None:
            self._add(key_digest(master_key), Principal(name=MASTER_NAME, is_master=True))
        for key in keys:
            self._add(key.digest, Principal(name=key.name, models=key.models))

    def _add(self, digest: bytes, principal: Principal) -> None:
        if digest in self._principals:
            other = self._principals[digest][1]
            raise ValueError(f"the keys {other.name!r} and {principal.name!r} are the same: give each its own")
        self._principals[digest] = (digest, principal)

    def __len__(self) -> int:
        return len(self._principals)

    def __repr__(self) -> str:
        return f"<KeyStore of {len(self)} keys>"

    def authenticate(self, presented: bytes) -> Principal | None:
        """Return whose key this is, or None. Takes the key's bytes as they came, without the word ``Bearer``."""
        digest = hashlib.sha256(presented).digest()
        found = self._principals.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]
