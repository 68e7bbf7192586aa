"""Keys with limits, for tests."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.gateway.config.keys import KeySettings, key_digest
from stages.limits import Limits


def key_of(name: str) -> str:
    """Return the key with this name."""
    return f"sk-of-{name}-0123456789"


def limited_key(name: str, model_limits: Mapping[str, Limits] | None = None, **limits: int) -> KeySettings:
    """Return the settings of a key with these limits."""
    return KeySettings(name, key_digest(key_of(name)), None, Limits(**limits), model_limits or {})
