"""Defaults of the transports that the configuration shows too, without what the transports themselves need."""

from __future__ import annotations

from typing import Final

IDLE_EXPIRY_S: Final = 30.0
"""How long an idle connection is kept."""
