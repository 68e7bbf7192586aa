"""What the name of an OpenAI model says about it: whether it reasons, and so which parameters it accepts."""

from __future__ import annotations

import re
from typing import Final

_REASONS: Final = re.compile(r"(?:^|/)(?:o\d|gpt-[5-9](?!.*-chat))")


def reasons(model: str) -> bool:
    """Return whether this is one of OpenAI's reasoning models.

    They refuse ``temperature`` and ``top_p`` (400 "Unsupported parameter") and require ``max_completion_tokens``.
    Source: OpenAI, "Using GPT-5" (2025-08) and the o-series' notes; GPT-5.1 and later accept them with effort ``none``.
    """
    return _REASONS.search(model) is not None
