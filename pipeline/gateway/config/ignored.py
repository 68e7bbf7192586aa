"""Warnings of settings that nobody reads: one for each, with the lines of all places."""

from __future__ import annotations

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.limits import note_limit, note_limits_within
from pipeline.gateway.config.litellm_ignored import PRICES, unprotected
from pipeline.gateway.config.litellm_names import Names
from pipeline.gateway.config.problems import Problems, did_you_mean
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
            problems.warn(node.place, unprotected(ignored.protections[name]))
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
        if name not in names.known and not PRICES.match(name):
            hint = did_you_mean(name, names.honoured if near_misses_only else names.known, cutoff=0.8)
            if hint or not near_misses_only:
                problems.warn(node.place, f"is not a known setting and is ignored{hint}")
