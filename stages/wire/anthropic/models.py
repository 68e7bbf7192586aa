"""How Anthropic's models differ in what they accept: one table, by family and version.

Sources, all 2026-11: platform.claude.com/docs/en/models (limits), .../models/opus-5-5/migration-guide and its siblings
for Sonnet 5.5 and Haiku 5.5 (thinking that cannot be turned off, forced tools, sampling, priority tier, accounts),
.../build-with-claude/preserved-thinking and .../prefix-checks (`binds_prefix`, and the models that it is true for),
.../build-with-claude/fast-mode, .../build-with-claude/effort and .../build-with-claude/structured-outputs; AI SDK's
@ai-sdk/anthropic for the models from before 4.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

_DISABLED: Final = MappingProxyType({"type": "disabled"})
_EFFORTS: Final = MappingProxyType(
    {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
)
_EFFORTS_OF_4_6: Final = MappingProxyType({**_EFFORTS, "xhigh": "max"})


class ClaudeModel(Struct, frozen=True, kw_only=True):
    """What one model accepts.

    Attributes:
        max_output: the maximum number of tokens of an answer; None if it is not known.
        thinking: how thinking is requested: with a budget, or adaptively with an effort.
        thinks_by_default: whether it thinks if the request does not say.
        no_thinking: the value of ``thinking`` that turns it off; None if there is no such value.
        efforts: its word for each reasoning effort, if it thinks adaptively. Without one its own default counts, which
            is medium for Opus 5.5, and high for the others.
        quiet_efforts: the same where thinking is turned off: Opus 5 accepts that up to high only.
        has_sampling: whether it accepts temperature or top_p.
        takes_forced_tools: whether it accepts ``tool_choice`` of the types ``any`` and ``tool``.
        has_prefill: whether a conversation may end with the assistant.
        has_formats: whether it accepts ``output_config.format``.
        binds_prefix: whether it checks that nothing before a thinking block has changed, and accepts
            ``thinking.block_binding``, which makes it drop a block that fails instead of refusing the request.
        binds_account: whether only the account that made a thinking block can use it.
        has_fast: whether it accepts ``speed: "fast"``.
        has_tiers: whether it accepts ``service_tier``.
    """

    max_output: int | None = 128_000
    thinking: Literal["none", "budget", "adaptive"] = "adaptive"
    thinks_by_default: bool = False
    no_thinking: Mapping[str, str] | None = _DISABLED
    efforts: Mapping[str, str] = _EFFORTS
    quiet_efforts: Mapping[str, str] = _EFFORTS
    has_sampling: bool = False
    takes_forced_tools: bool = True
    has_prefill: bool = False
    has_formats: bool = True
    binds_prefix: bool = False
    binds_account: bool = False
    has_fast: bool = False
    has_tiers: bool = True


_NEWEST: Final = ClaudeModel(thinks_by_default=True, no_thinking=None, takes_forced_tools=False)
"""What every Claude accepts: for names that do not say which model it is."""

_ALWAYS_THINKING: Final = replace(_NEWEST, binds_prefix=True)
_FAST: Final = replace(_ALWAYS_THINKING, has_fast=True)
_SONNET_5_5: Final = replace(
    _ALWAYS_THINKING, no_thinking=MappingProxyType({"type": "between_tools"}), binds_account=True
)
_HAIKU_5_5: Final = ClaudeModel(thinks_by_default=True, binds_prefix=True, binds_account=True, has_tiers=False)
_FIVE: Final = ClaudeModel(thinks_by_default=True)
_OPUS_5: Final = replace(
    _FIVE, has_fast=True, quiet_efforts=MappingProxyType({**_EFFORTS, "xhigh": "high", "max": "high"})
)
_FOUR_SIX: Final = ClaudeModel(efforts=_EFFORTS_OF_4_6, has_sampling=True)
_FOUR_FIVE: Final = ClaudeModel(max_output=64_000, thinking="budget", has_sampling=True, has_prefill=True)
_FOUR_ONE: Final = ClaudeModel(max_output=32_000, thinking="budget", has_sampling=True, has_prefill=True)
_OPUS_4: Final = ClaudeModel(
    max_output=32_000, thinking="budget", has_sampling=True, has_prefill=True, has_formats=False
)
_SONNET_4: Final = ClaudeModel(
    max_output=64_000, thinking="budget", has_sampling=True, has_prefill=True, has_formats=False
)
_THREE_FIVE: Final = ClaudeModel(
    max_output=8192, thinking="none", no_thinking=None, has_sampling=True, has_prefill=True, has_formats=False
)
_THREE: Final = ClaudeModel(
    max_output=4096, thinking="none", no_thinking=None, has_sampling=True, has_prefill=True, has_formats=False
)

CLAUDE_MODELS: Final[Mapping[str, tuple[tuple[tuple[int, int], ClaudeModel], ...]]] = {
    "opus": (
        ((5, 5), _FAST),
        ((5, 0), _OPUS_5),
        ((4, 8), ClaudeModel(has_fast=True)),
        ((4, 7), ClaudeModel()),
        ((4, 6), _FOUR_SIX),
        ((4, 5), _FOUR_FIVE),
        ((4, 1), _FOUR_ONE),
        ((4, 0), _OPUS_4),
        ((0, 0), _THREE),
    ),
    "sonnet": (
        ((5, 5), _SONNET_5_5),
        ((5, 0), _FIVE),
        ((4, 6), _FOUR_SIX),
        ((4, 5), _FOUR_FIVE),
        ((3, 7), _SONNET_4),
        ((3, 5), _THREE_FIVE),
        ((0, 0), _THREE),
    ),
    "haiku": (
        ((5, 5), _HAIKU_5_5),
        ((5, 0), _FIVE),
        ((4, 5), _FOUR_FIVE),
        ((3, 5), _THREE_FIVE),
        ((0, 0), _THREE),
    ),
    "fable": (
        ((5, 2), _FAST),
        ((5, 1), _ALWAYS_THINKING),
        ((0, 0), ClaudeModel(thinks_by_default=True, no_thinking=None)),
    ),
    "mythos": (
        ((5, 2), _FAST),
        ((5, 1), _ALWAYS_THINKING),
        ((0, 0), ClaudeModel(thinks_by_default=True, no_thinking=None)),
    ),
}
"""By family: the first version of each behaviour, the newest first."""

_NOT_CLAUDE: Final = ClaudeModel(max_output=None, thinking="budget", has_sampling=True, has_formats=False)
"""Other vendors' models behind an API of Anthropic's shape (DeepSeek, Kimi, GLM, MiniMax), which implement its older
parts."""

_VERSION: Final = re.compile(
    r"(?:(?P<major>\d)(?:[.-](?P<minor>\d))?-)?"
    r"(?P<family>opus|sonnet|haiku|fable|mythos)"
    r"(?:-(?P<later_major>\d{1,2})(?:[.-](?P<later_minor>\d{1,2}))?(?!\d))?"
)


@lru_cache(256)
def claude_model(name: str) -> ClaudeModel:
    """Return what the model of that name accepts.

    The version is after the family (``claude-opus-4-5-20251101``, ``us.anthropic.claude-opus-4-6-v1``) or before it
    (``claude-3-7-sonnet-20250219``). A name without a version, or of an unknown family, counts as a new model, which
    accepts the least.
    """
    name = name.lower()
    found = _VERSION.search(name)
    if found is None:
        return _NEWEST if "claude" in name else _NOT_CLAUDE
    entries = CLAUDE_MODELS[found["family"]]
    major, minor = found["later_major"] or found["major"], found["later_minor"] or found["minor"]
    if major is None:
        return replace(entries[0][1], binds_prefix=False, has_fast=False)
    version = (int(major), int(minor or 0))
    return next(model for since, model in entries if version >= since)
