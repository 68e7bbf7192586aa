"""How much a key, a deployment or the whole service may have, in LiteLLM's words."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Limits of one key or one deployment; None means no limit.

    Attributes:
        rpm: requests in any 60 seconds.
        tpm: tokens in any 60 seconds, of the prompts and of the answers.
        parallel: requests at a time.
    """

    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


NO_LIMITS: Final = Limits()
