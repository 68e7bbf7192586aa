"""Names of model variants: what Cursor's picker appends to a name, read as a name and an effort.

Cursor requests ``claude-opus-5-thinking-high`` or ``gpt-5-fast`` where the deployment is called ``claude-opus-5``. Only
the configuration knows which reading is right: ``kimi-k2-thinking-high`` may be a variant of ``kimi-k2-thinking`` or of
``kimi-k2``. So this module lists all readings, and the caller, which knows the deployments, uses the first one that
exists. A name that is configured literally is never read in another way.

Source: docs/facts/cursor.md, "Model names" (BerriAI/litellm#35554, #35834; orchidfiles/ungate b56ddac;
Firzus/codex-cursor-proxy; velum-labs/routekit).
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
    # Not `-max`: real names end with it (gpt-5.1-codex-max).
    "-extra": "xhigh",
    "-extra-high": "xhigh",
    **{f"-{effort}-thinking": effort for effort in ("low", "medium", "high", "xhigh")},  # claude-4.6-opus-high-thinking
}
_SUFFIXES: Final = {**_THINKING, **_COLON, **_TRAILING}
_FAST: Final = "-fast"

_LEGACY: Final = re.compile(r"claude-([4-9])(?:\.(\d))?-(opus|sonnet|haiku)\Z")
"""Cursor's older word order: ``claude-4.6-opus`` is Anthropic's ``claude-opus-4-6`` (orchidfiles/ungate 3b2d28f).
Up to 3.7 it was Anthropic's own."""

FAST_TIER: Final = "priority"
"""The service tier for ``-fast``: the one that OpenAI sells as the faster one."""

FAST_SPEED: Final = "fast"
"""The same for Anthropic, which has a parameter of its own for it, ``speed``; its tiers are something else."""


class Variant(Struct, frozen=True):
    """One reading of a model's name.

    Attributes:
        name: the model.
        effort: the reasoning effort; None if the name has none.
        is_fast: whether the name has ``-fast``.
        is_certain: whether the name has ``-thinking-<effort>``, which no vendor's model has: where every name is
            passed on (``*``), this reading is better than the name itself.
    """

    name: str
    effort: str | None = None
    is_fast: bool = False
    is_certain: bool = False


def variants(model: str) -> list[Variant]:
    """Return the readings of ``model`` besides itself: those that keep most of the name first, renamed ones last.

    A bare ``-thinking`` names no effort, so it stays a part of the name, as in ``kimi-k2-thinking``.
    """
    found: list[Variant] = []
    level = [Variant(model)]
    while level:
        level = [shorter for variant in level for shorter in _without_a_suffix(variant)]
        found += level
    unique = {variant.name: variant for variant in reversed(found)}
    plain = sorted(unique.values(), key=lambda variant: -len(variant.name))
    renamed = [_in_current_order(variant) for variant in (Variant(model), *plain)]
    return [*plain, *(variant for variant in renamed if variant is not None)]


def _in_current_order(variant: Variant) -> Variant | None:
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
    """Return the body with the effort, the tier and the speed of the name; those in the body itself take precedence.

    Returns ``body`` itself if nothing changes, else a copy.
    """
    reasoning: dict[str, Json] = body.get("reasoning") or {}
    if variant.effort is not None and reasoning.get("effort") is None:
        body = {**body, "reasoning": {**reasoning, "effort": variant.effort}}
    if variant.is_fast and body.get("service_tier") is None:
        body = {"speed": FAST_SPEED, **body, "service_tier": FAST_TIER}
    return body
