"""Warnings of settings that nobody reads: one for each, with the lines of all places."""

from __future__ import annotations

from typing import Final

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.kinds import names_of
from pipeline.gateway.config.limits import note_limit, note_limits_within
from pipeline.gateway.config.litellm_ignored import PRICES, unprotected
from pipeline.gateway.config.litellm_names import (
    GENERAL_SETTINGS,
    LITELLM_PARAMS,
    LITELLM_SETTINGS,
    MODEL_INFO,
    MODEL_LIST_ENTRY,
    ROUTER_SETTINGS,
    TOP_LEVEL,
    Names,
)
from pipeline.gateway.config.problems import Problems, did_you_mean
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.config.yaml_tree import Node


def warn_ignored(section: Section, names: Names, problems: Problems, *, near_misses_only: bool = False) -> None:
    """Note one warning for each field of the section that is not supported yet, or not known; of limits, the place."""
    ignored = names.ignored
    for name, node in section:
        if name in names.honoured or name in ignored.harmless:
            continue
        if name in names.limits:
            note_limit(name, node, section, names.unset_by_zero)
            continue
        note_limits_within(name, node, problems)
        if _asks_nothing(name, node, names):
            continue
        if name in ignored.protections:
            problems.warn(node.place, unprotected(ignored.protections[name]), is_unprotected=True)
        elif name in ignored.unsupported:
            instead = ignored.unsupported[name]
            problems.warn(node.place, f"is not supported yet and is ignored{f' (see {instead})' if instead else ''}")
    warn_unknown(section, names, problems, near_misses_only=near_misses_only)


def _asks_nothing(name: str, node: Node, names: Names) -> bool:
    if name in names.usual:
        return node.value is not None and node.value == names.usual[name]
    return node.value in (None, False, 0, "") or node.value in ([], {})


def warn_unknown(section: Section, names: Names, problems: Problems, *, near_misses_only: bool = False) -> None:
    """Note one warning for each field of the section that is not known: also where it is not read for the rest."""
    for name, node in section:
        if name in names.known or PRICES.match(name) or (names is TOP_LEVEL and name.startswith("x-")):
            continue  # of the document, x- is where YAML's anchors are kept
        if near_misses_only:
            if hint := did_you_mean(name, names.honoured, cutoff=0.8):
                problems.warn(node.place, f"is not a known setting and is ignored{hint}")
        else:
            hint = (
                _home(name, names)
                or did_you_mean(name, names.known, cutoff=0.8)
                or (_IN_PARAMS if names is LITELLM_PARAMS else "")
            )
            problems.warn(node.place, f"is not a known setting and is ignored{hint}")


def _home(name: str, names: Names) -> str:
    """Return ``; it belongs in x``, if that is where the field is read; else empty text."""
    homes = _ENTRY_HOMES if names is MODEL_LIST_ENTRY else _PARAMS_HOMES if names is LITELLM_PARAMS else _SECTIONS
    home = next((title for title, honoured in homes.items() if name in honoured), None)
    return f"; it belongs in {home}" if home else ""


_IN_PARAMS: Final = "; if the provider is to get it, write it into extra_body"
"""LiteLLM sends it what it does not know."""
_ENTRY_HOMES: Final = {"litellm_params": LITELLM_PARAMS.honoured, "model_info": MODEL_INFO.honoured}
_PARAMS_HOMES: Final = {"model_info": MODEL_INFO.honoured, "the entry itself": MODEL_LIST_ENTRY.honoured}
_SECTIONS: Final = {
    "general_settings": GENERAL_SETTINGS.honoured,
    "litellm_settings": LITELLM_SETTINGS.honoured,
    "router_settings": ROUTER_SETTINGS.honoured,
    "pipeline_settings": names_of(PipelineSettings) | {"keys"},
    "the document itself": TOP_LEVEL.honoured,
}
