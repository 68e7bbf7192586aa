"""Names of variants of a model: what Cursor's picker puts behind a name, read as a name and an effort.

Cursor asks for ``claude-opus-5-thinking-high`` or ``gpt-5-fast``, where one deployment answers to ``claude-opus-5``.
Which reading is right only the configuration knows: ``kimi-k2-thinking-high`` may be a variant of ``kimi-k2-thinking``
or of ``kimi-k2``. So this gives all readings, and whoever knows the deployments takes the first that there is; a name
that is configured as it stands is never read otherwise.

Source: cursor-wire.md 1.7 (LiteLLM #35554, #35834; ungate b56ddac; Firzus; RouteKit); payload 11.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from stages.wire.foreign_json import Json
from stages.wire.normal_form import EFFORTS

_THINKING: Final = {f"-thinking-{effort}": effort for effort in EFFORTS}
_COLON: Final = {f":{effort}": effort for effort in EFFORTS}
_TRAILING: Final = {
    **{f"-{effort}": effort for effort in ("none", "minimal", "low", "medium", "high", "xhigh")},
    # Not `-max`: that is the end of real names (gpt-5.1-codex-max).
    "-extra": "xhigh",
    "-extra-high": "xhigh",
    **{f"-{effort}-thinking": effort for effort in ("low", "medium", "high", "xhigh")},  # claude-4.6-opus-high-thinking
}
_SUFFIXES: Final = {**_THINKING, **_COLON, **_TRAILING}
_FAST: Final = "-fast"

_LEGACY: Final = re.compile(r"claude-([4-9])(?:\.(\d))?-(opus|sonnet|haiku)\Z")
"""Cursor's older order of words: ``claude-4.6-opus`` is Anthropic's ``claude-opus-4-6`` (payload 11, ungate).
Up to 3.7 it was Anthropic's own."""

FAST_TIER: Final = "priority"
"""What ``-fast`` asks for: the tier that OpenAI sells as the faster one."""


class Variant(Struct, frozen=True):
    """One reading of a model's name.

    Attributes:
        name: the model.
        effort: how hard it is to think; None if the name does not say.
        is_fast: whether the name says ``-fast``.
        is_certain: whether the name says ``-thinking-<effort>``, as no vendor's model is called: where everything is
            passed on (``*``), this reading is better than the name itself.
    """

    name: str
    effort: str | None = None
    is_fast: bool = False
    is_certain: bool = False


def variants(model: str) -> list[Variant]:
    """Give the readings of ``model`` beside itself: those that leave most of the name first, other names last.

    A bare ``-thinking`` says nothing that could be passed on: it is a part of the name, as with ``kimi-k2-thinking``.
    """
    found: list[Variant] = []
    level = [Variant(model)]
    while level:
        level = [shorter for variant in level for shorter in _without_a_suffix(variant)]
        found += level
    unique = {variant.name: variant for variant in reversed(found)}
    plain = sorted(unique.values(), key=lambda variant: -len(variant.name))
    renamed = [_in_todays_order(variant) for variant in (Variant(model), *plain)]
    return [*plain, *(variant for variant in renamed if variant is not None)]


def _in_todays_order(variant: Variant) -> Variant | None:
    if (legacy := _LEGACY.match(variant.name)) is None:
        return None
    version, minor, family = legacy.groups()
    name = f"claude-{family}-{version}" if minor is None else f"claude-{family}-{version}-{minor}"
    return Variant(name, variant.effort, variant.is_fast, variant.is_certain)


def _without_a_suffix(variant: Variant) -> list[Variant]:
    name = variant.name
    shorter: list[Variant] = []
    if not variant.is_fast and len(name) > len(_FAST) and name.endswith(_FAST):
        shorter.append(Variant(name.removesuffix(_FAST), variant.effort, True, variant.is_certain))
    if variant.effort is None:
        shorter += [
            Variant(name.removesuffix(suffix), effort, variant.is_fast, suffix in _THINKING)
            for suffix, effort in _SUFFIXES.items()
            if len(name) > len(suffix) and name.endswith(suffix)
        ]
    return shorter


def with_variant(body: dict[str, Json], variant: Variant) -> dict[str, Json]:
    """Give the body that asks for what the name said; what the body itself says wins.

    Gives ``body`` itself if nothing changes; a changed one is a copy.
    """
    reasoning: dict[str, Json] = body.get("reasoning") or {}
    if variant.effort is not None and reasoning.get("effort") is None:
        body = {**body, "reasoning": {**reasoning, "effort": variant.effort}}
    if variant.is_fast and body.get("service_tier") is None:
        body = {**body, "service_tier": FAST_TIER}
    return body
