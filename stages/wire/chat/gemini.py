"""Gemini's ``thinking_config``, without which its compatible endpoint does not show the thoughts.

It replaces ``reasoning_effort``: with both the answer is 400 "Expected one of either `reasoning_effort` or custom
`thinking_config`; found both." So the effort goes into it, as the endpoint itself would translate it.

Source: https://ai.google.dev/gemini-api/docs/openai, "Thinking" (2026-11).
"""

from __future__ import annotations

import re
from typing import Final

from stages.wire.foreign_json import Json

_THINKS: Final = re.compile(r"gemini-(?:2\.5|[3-9](?:\.\d+)?|(?=(?:pro|flash)-latest))")
_OTHER_MODES: Final = re.compile(r"image|tts|live|audio|embedding")
_LEVELS: Final = {
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_PRO_LEVELS: Final = {**_LEVELS, "minimal": "low"}
_FIRST_PRO_LEVELS: Final = {**_PRO_LEVELS, "medium": "high"}
"""Gemini 3 Pro itself has two levels."""
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}


def thinking_config(model: str, effort: Json) -> dict[str, Json] | None:
    """Return the configuration that shows the thoughts of a model, None if it does not think with this effort.

    Args:
        model: Gemini's name of the model.
        effort: the reasoning effort; None if the model decides.
    """
    found = _THINKS.search(model)
    if found is None or effort == "none" or _OTHER_MODES.search(model) is not None:
        return None
    is_second = found[0] == "gemini-2.5"
    if is_second and effort is None and "flash-lite" in model:
        return None  # does not think unless it is asked to, and then refuses to show its thoughts
    config: dict[str, Json] = {"include_thoughts": True}
    if not isinstance(effort, str):
        return config
    if is_second:
        if effort in _BUDGETS:
            config["thinking_budget"] = _BUDGETS[effort]
        return config
    levels = _LEVELS
    if "pro" in model:
        levels = _FIRST_PRO_LEVELS if found[0] == "gemini-3" else _PRO_LEVELS
    if effort in levels:
        config["thinking_level"] = levels[effort]
    return config
