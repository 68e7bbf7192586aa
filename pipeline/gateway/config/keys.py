"""The key store: finds the owner of a presented key. It keeps no key, and its timing reveals none."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from stages.limits import NO_LIMITS, Limits
from stages.principal import Principal

MASTER_NAME = "master"
"""The name of the master key in logs; no static key may have this name."""

ANONYMOUS = Principal("anonymous")
"""The principal of a request without a key if ``allow_anonymous`` is on."""

HASH_PREFIX = "sha256:"
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})\Z")


class KeySettings(Struct, frozen=True):
    """One static key of the configuration; only its digest is kept, not the key itself.

    Attributes:
        name: its name in logs.
        digest: the SHA-256 of the key, 32 bytes.
        models: the model names that it may use, as in `Principal.models`.
        limits, model_limits: what it may have in all, and of each model, as in `Principal`.
        reads_metrics: whether it may read ``/metrics``.
        may_trace: whether it may ask for a trace of its requests.
    """

    name: str
    digest: bytes
    models: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS
    model_limits: Mapping[str, Limits] = {}
    reads_metrics: bool = False
    may_trace: bool = False

    def __repr__(self) -> str:
        """Return the name without the digest, with which a guess could be checked offline."""
        return f"<KeySettings {self.name}>"


def key_digest(text: str) -> bytes:
    """Return the SHA-256 of a key that the configuration has in plain text, or as ``sha256:`` and 64 hex digits.

    Raises:
        ValueError: if it is neither; the message does not contain the key.
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
    Why a dictionary, where a constant-time comparison with each key might be expected: timing can only reveal how much
    of *two digests* agrees, and an attacker cannot steer the digests of the keys that they present towards an unknown
    one. To learn the first bits, they must find keys whose SHA-256 begins as ours does, which reveals nothing about the
    rest of the digest, let alone the key. Besides, the dictionary compares digests only if their 64-bit hashes, keyed
    by a secret of the process (SipHash, PEP 456), are equal. The digest found is compared once more in constant time,
    so that the guarantee does not depend on how dictionaries work. The time does depend on the length of the presented
    key, which the client knows.
    """

    __slots__ = ("_principals",)

    def __init__(self, master_key: str | None, keys: Iterable[KeySettings] = ()) -> None:
        """Store the digests of the master key (plain or ``sha256:``) and of the static keys.

        Raises:
            ValueError: if two keys are the same, or one cannot be a key; the message does not contain a key.
        """
        self._principals: dict[bytes, tuple[bytes, Principal]] = {}
        if master_key is not None:
            self._add(key_digest(master_key), Principal(name=MASTER_NAME, is_master=True))
        for key in keys:
            self._add(
                key.digest,
                Principal(
                    name=key.name,
                    models=key.models,
                    limits=key.limits,
                    model_limits=key.model_limits,
                    reads_metrics=key.reads_metrics,
                    may_trace=key.may_trace,
                ),
            )

    def _add(self, digest: bytes, principal: Principal) -> None:
        if digest in self._principals:
            other = self._principals[digest][1]
            raise ValueError(
                f"the keys {other.name!r} and {principal.name!r} are the same: use a different key for each"
            )
        self._principals[digest] = (digest, principal)

    def __len__(self) -> int:
        return len(self._principals)

    def __repr__(self) -> str:
        return f"<KeyStore of {len(self)} keys>"

    def authenticate(self, presented: bytes) -> Principal | None:
        """Return the owner of a key, or None. ``presented`` is the key as received, without the word ``Bearer``."""
        digest = hashlib.sha256(presented).digest()
        found = self._principals.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]
