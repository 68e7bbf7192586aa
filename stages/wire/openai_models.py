"""OpenAI's models by family: which parameters, efforts and tools each family accepts. The only table of these rules.

A rule belongs to the model, so it holds on OpenAI and on Azure, wherever the model's name shows the family; other
servers translate OpenAI's parameters themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct


class ModelFamily(Struct, frozen=True, kw_only=True):
    """What all models of a family have in common.

    Attributes:
        thinks: whether its models reason: ``always``, unless the effort is ``none`` (``by_default``), only if an effort
            is given (``if_asked``), or ``never``. None: unknown.
        samples: whether ``temperature``, ``top_p`` and log probabilities are accepted: ``always``, with the effort
            ``none`` only (``unthinking``), or ``never``.
        efforts: its names for efforts that it does not know. Others are passed on: the upstream decides.
        has_summary: whether ``reasoning.summary`` may be ``auto``.
        refused_tiers: values of ``service_tier`` that are an error.
        tools_on_chat: whether Chat Completions accept function tools in every request.
    """

    thinks: Literal["always", "by_default", "if_asked", "never"] | None = None
    samples: Literal["always", "unthinking", "never"] = "always"
    efforts: Mapping[str, str] = MappingProxyType({})
    has_summary: bool = False
    refused_tiers: frozenset[str] = frozenset()
    tools_on_chat: bool = True

    @property
    def reasons(self) -> bool:
        """Whether it is a family of reasoning models, which require ``max_completion_tokens``."""
        return self.thinks not in (None, "never")

    def effort(self, effort: str) -> str:
        """Return the family's name for an effort."""
        return self.efforts.get(effort, effort)

    def may_sample(self, effort: object) -> bool:
        """Return whether sampling parameters and log probabilities are accepted with an effort, or None for none."""
        return self.samples == "always" or (self.samples == "unthinking" and effort == "none")

    def thinks_with(self, effort: object) -> bool:
        """Return whether the model thinks if the request has this effort, or None if it has none."""
        if self.thinks == "always":
            return True
        return self.reasons and effort != "none" and (effort is not None or self.thinks == "by_default")


_SIX: Final = {"none": "low", "minimal": "low"}
"""GPT-6 knows low, medium, high, xhigh and max; the efforts below are 400 (orchidfiles/ungate maps both, live)."""

_FIVE: Final = {"max": "high"}
_FIVE_TWO: Final = {"max": "xhigh"}
"""GPT-5 has no effort above high, and from 5.2 on none above xhigh: the nearest one is asked for."""

_OTHER: Final = ModelFamily()

_FAMILIES: Final = tuple(
    (re.compile(rf"(?:^|/|openai\.)(?:{names})"), family)
    for names, family in (
        # No reasoning parameters, no sampling parameters: BerriAI/litellm#51151.
        (r"(?:gpt-)?chat-latest|gpt-[6-9].*-chat", ModelFamily(thinks="never", samples="never")),
        # platform.openai.com/docs/guides/latest-model (2026-11): gpt-6-astra, 6-sol, 6-luna, 6.1-sol, 6.1-terra,
        # 6.2-astra, 6.2-sol. No sampling at any effort, function tools only on /responses, the default effort is
        # medium; 6.2 has no tier ``flex``.
        (
            r"gpt-6\.2",
            ModelFamily(
                thinks="always",
                samples="never",
                efforts=_SIX,
                has_summary=True,
                refused_tiers=frozenset({"flex"}),
                tools_on_chat=False,
            ),
        ),
        (
            r"gpt-[6-9]",
            ModelFamily(thinks="always", samples="never", efforts=_SIX, has_summary=True, tools_on_chat=False),
        ),
        # The same page on GPT-5.1 and later: their effort is `none` unless the request says otherwise, and only with it
        # are sampling parameters accepted. From 5.4 on, function tools with reasoning exist on /responses only:
        # BerriAI/litellm#34029.
        (r"gpt-5.*-chat", ModelFamily()),
        (
            r"gpt-5\.(?:[4-9]|\d\d)",
            ModelFamily(
                thinks="if_asked", samples="unthinking", efforts=_FIVE_TWO, has_summary=True, tools_on_chat=False
            ),
        ),
        (
            r"gpt-5\.[23](?!\d)(?!.*codex)",
            ModelFamily(thinks="if_asked", samples="unthinking", efforts=_FIVE_TWO, has_summary=True),
        ),
        (
            r"gpt-5\.1(?!\d)(?!.*codex)",
            ModelFamily(thinks="if_asked", samples="unthinking", efforts=_FIVE, has_summary=True),
        ),
        # "Using GPT-5" (2025-08), and the notes on the o-series.
        (r"gpt-5", ModelFamily(thinks="by_default", samples="unthinking", efforts=_FIVE, has_summary=True)),
        (r"o[34]", ModelFamily(thinks="always", samples="unthinking", has_summary=True)),
        (r"o\d", ModelFamily(thinks="always", samples="unthinking")),
    )
)


@lru_cache(1024)
def family_of(model: str) -> ModelFamily:
    """Return the family of a model; one without rules if its name does not show it."""
    return next((family for names, family in _FAMILIES if names.search(model)), _OTHER)
