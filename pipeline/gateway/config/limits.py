"""Limits in LiteLLM's words: those that are enforced are read, and any other keeps the gateway from starting.

A limit that is ignored is found out by the bill, so it is not one warning among many. ``ignore_limits: true`` in
``pipeline_settings`` makes warnings of them. ``docs/config.md`` ("Limits") has a row for each word, with a test.

Source: docs.litellm.ai/docs/proxy/config_settings, .../users and .../dynamic_rate_limit (November 2026), and where
LiteLLM reads the words: ``router_strategy/lowest_tpm_rpm_v2.py``, ``proxy/auth/auth_utils.py``, ``utils.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.litellm_names import LIMITS, LIMITS_WITHIN
from pipeline.gateway.config.litellm_sections import LitellmParams, ModelEntry, ModelInfo
from pipeline.gateway.config.problems import FieldPlace, Problems
from pipeline.gateway.config.yaml_tree import Node
from stages.choose_deployment import Deployments
from stages.limits import NO_LIMITS, Limits

MODEL_LIMITS: Final = {"model_rpm_limit": "rpm", "model_tpm_limit": "tpm", "model_max_parallel_requests": "parallel"}
"""Mappings of numbers by model, in an entry of ``keys``."""

IGNORE: Final = "ignore_limits: true"


def deployment_limits(
    entry: ModelEntry, params: LitellmParams, info: ModelInfo, default_parallel: int | None
) -> tuple[Limits, Limits]:
    """Return what a deployment may be given, and what each key may have of its model.

    LiteLLM looks for ``rpm`` and ``tpm`` in the entry, then in ``litellm_params``, then in ``model_info``. It derives a
    number of parallel requests from them where none is set, because it does not count them by default; we do.
    """
    places = (entry, params, info)
    own = Limits(
        rpm=first(place.rpm for place in places),
        tpm=first(place.tpm for place in places),
        parallel=first((*(place.max_parallel_requests for place in places), default_parallel)),
    )
    return own, Limits(rpm=params.default_api_key_rpm_limit, tpm=params.default_api_key_tpm_limit)


def read_model_limits(
    entry: Section, numbers: Mapping[str, Mapping[str, int]], known: Deployments
) -> dict[str, Limits]:
    """Return what a key may have of each model, from the numbers in its entry by the word and the model's name."""
    of_models: dict[str, Limits] = {}
    for word, by_model in numbers.items():
        for name, number in by_model.items():
            place = Section(entry.get(word), entry.environment).place(name)
            model = _counted_name(name, place, known, entry.problems)
            if model is not None:
                # Of a model and its alias the stricter one counts, because they are one model.
                limit = Limits(**{MODEL_LIMITS[word]: number})
                of_models[model] = strictest((of_models.get(model, NO_LIMITS), limit))
    return of_models


def first(numbers: Iterable[int | None]) -> int | None:
    """Return the first number that is set."""
    return next((number for number in numbers if number is not None), None)


def strictest(limits: Iterable[Limits]) -> Limits:
    """Return the smallest number of each kind; None if there is none."""
    limits = tuple(limits)

    def least(numbers: Iterable[int | None]) -> int | None:
        return min((number for number in numbers if number is not None), default=None)

    return Limits(
        rpm=least(one.rpm for one in limits),
        tpm=least(one.tpm for one in limits),
        parallel=least(one.parallel for one in limits),
    )


def limit_words(limits: Limits) -> str:
    """Return limits as text: ``at most 100 requests/min, 5 at a time``; empty if there are none."""
    said = (
        (limits.rpm, "requests/min"),
        (limits.tpm, "tokens/min"),
        (limits.parallel, "at a time"),
    )
    words = ", ".join(f"{number} {unit}" for number, unit in said if number is not None)
    return f"at most {words}" if words else ""


def note_limit(name: str, node: Node, section: Section, unset_by_zero: frozenset[str] = frozenset()) -> None:
    """Record a limit that is not enforced, unless it is null or empty, or zero and in ``unset_by_zero``."""
    if not _is_set(node) or (name in unset_by_zero and node.value in (0, "0")):
        return
    if name == "token_rate_limit_type" and section.value(name, str) == "total":
        return  # which is how we count
    section.problems.limits.append(node.place)


def note_limits_within(name: str, node: Node, problems: Problems) -> None:
    """Record the limits in a mapping of defaults for what does not exist here: teams, users, keys of a database."""
    if name in LIMITS_WITHIN:
        for found in _limits_within(node):
            problems.limits.append(found.place)


def report_limits(problems: Problems, *, ignored: bool, own: Node | None) -> None:
    """Report the recorded limits: as one error that names all of them, or as warnings if they are ``ignored``.

    Args:
        problems: where they were recorded, and where they are reported.
        ignored: whether the configuration has ``ignore_limits: true``.
        own: the section ``pipeline_settings``, perhaps empty; None if there is none.
    """
    limits = sorted(problems.limits, key=lambda place: (place.file, place.line or 0))
    if ignored:
        for place in limits:
            problems.warn(place, "is a limit that is not enforced (ignore_limits)")
    elif limits:
        groups: dict[str, dict[str, FieldPlace]] = {}
        for place in limits:  # an alias may repeat one on one line
            groups.setdefault(_topic(place), {}).setdefault(f"{place.file}:{place.line}", place)
        (first, *same), *others = (list(group.values()) for group in groups.values())
        also = f" (also on {_lines(first.file, same)})" if same else ""
        if others:
            named = ", ".join(f"{group[0].path} ({_lines(first.file, group)})" for group in others)
            also += f", and so {'is' if len(others) == 1 and len(others[0]) == 1 else 'are'} {named}"
        them = "them" if same or others else "it"
        line = (
            f"pipeline_settings: {{{IGNORE}}}"
            if own is None
            else f"{IGNORE}, in pipeline_settings ({own.source}:{own.line})"
        )
        problems.error(
            first,
            f"is a limit that headrace does not enforce{also}: remove {them}, "
            f"or add this line to start without {them}: {line}",
        )


def _counted_name(name: str, place: FieldPlace, known: Deployments, problems: Problems) -> str | None:
    """Return the name under which a model's limit is counted; None, and a problem is recorded, if there is none."""
    found = known.find(name)
    if found is None:
        problems.warn(place, "is the limit of a model that no model_name answers to, and has no effect")
        return None
    if name in (found.alias, found.variant.name):
        return found.variant.name
    problems.limits.append(place)  # A variant may be asked for by its model's name too, with the effort in the body.
    return None


def _limits_within(node: Node) -> Iterator[Node]:
    items = node.value if isinstance(node.value, list) else []
    fields = node.value if isinstance(node.value, dict) else {}
    for name, field in fields.items():
        if name in LIMITS:
            yield from [field] if _is_set(field) else []
        else:
            yield from _limits_within(field)
    for item in items:
        yield from _limits_within(item)


def _is_set(node: Node) -> bool:
    return node.value is not None and node.value is not False and node.value not in ("", [], {})


def _topic(place: FieldPlace) -> str:
    return re.sub(r"\[\d+\]", "[]", place.path)


def _lines(file: str, places: list[FieldPlace]) -> str:
    """Return ``line 5`` or ``lines 5, 9``; with the file if it is another one."""
    if any(place.file != file for place in places):
        return ", ".join(f"{place.file}:{place.line}" for place in places)
    lines = ", ".join(str(place.line) for place in places)
    return f"line{'s' if len(places) > 1 else ''} {lines}"
