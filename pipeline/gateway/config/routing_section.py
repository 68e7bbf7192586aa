"""LiteLLM's routing settings to ours. They stand in ``router_settings`` or, most of them, in ``litellm_settings``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar, get_args

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.kinds import kinds_of
from pipeline.gateway.config.litellm_sections import RoutingSection, StrategyArgs, UncountedStrategy
from pipeline.gateway.config.problems import did_you_mean
from pipeline.gateway.config.yaml_tree import Node
from stages.routing.faults import FaultKind
from stages.routing.settings import FaultNumbers, RoutingSettings, Strategy

_STRATEGIES: Final[dict[str, Strategy]] = {name: name for name in get_args(Strategy)}
_UNCOUNTED: Final = get_args(UncountedStrategy)

_KINDS: Final[dict[str, FaultKind]] = {
    "AuthenticationError": "auth",
    "BadRequestError": "bad_request",
    "ContentPolicyViolationError": "content_policy",
    "InternalServerError": "internal",
    "NotFoundError": "not_found",
    "RateLimitError": "rate_limit",
    "ServiceUnavailableError": "unavailable",
    "TimeoutError": "timeout",
}


T = TypeVar("T")


def read_routing(
    router: Section, litellm: Section, in_router: RoutingSection, in_litellm: RoutingSection
) -> RoutingSettings:
    """Return the settings of the two sections, each and as it was read; of one that both have, that of the former.

    Errors and warnings go to the sections' ``problems``.
    """
    found = {name: _either(getattr(in_router, name), getattr(in_litellm, name)) for name in kinds_of(RoutingSection)}
    return _RoutingReader((router, litellm), RoutingSection(**found)).read()


class _RoutingReader:
    def __init__(self, sections: tuple[Section, Section], found: RoutingSection) -> None:
        self._sections = sections
        self._found = found
        self._problems = sections[0].problems

    def read(self) -> RoutingSettings:
        usual, found = RoutingSettings(), self._found
        groups = self._node("model_group_retry_policy")
        aliases, hidden = self._aliases()
        return RoutingSettings(
            num_retries=_either(found.num_retries, usual.num_retries),
            retry_after_s=_either(found.retry_after, usual.retry_after_s),
            retry_policy=self._policy(found.retry_policy, self._node("retry_policy"), "Retries"),
            group_retry_policy={
                name: self._policy(policy, None if groups is None else groups.child(name), "Retries")
                for name, policy in (found.model_group_retry_policy or {}).items()
            },
            fallbacks=self._fallbacks(found.fallbacks),
            default_fallbacks=self._names(found.default_fallbacks),
            context_window_fallbacks=self._fallbacks(found.context_window_fallbacks),
            content_policy_fallbacks=self._fallbacks(found.content_policy_fallbacks),
            max_fallbacks=_either(found.max_fallbacks, usual.max_fallbacks),
            allowed_fails=_either(found.allowed_fails, usual.allowed_fails),
            allowed_fails_policy=self._policy(
                found.allowed_fails_policy, self._node("allowed_fails_policy"), "AllowedFails"
            ),
            cooldown_s=_either(found.cooldown_time, usual.cooldown_s),
            has_cooldowns=not found.disable_cooldowns,
            strategy=self._strategy(found.routing_strategy),
            latency_buffer=(found.routing_strategy_args or StrategyArgs()).lowest_latency_buffer,
            aliases=aliases,
            hidden_aliases=hidden,
            checks_windows=bool(found.enable_pre_call_checks),
        )

    def _node(self, name: str) -> Node | None:
        return next((node for section in self._sections if (node := section.get(name)) is not None), None)

    def _policy(self, numbers: Mapping[str, int] | None, node: Node | None, suffix: str) -> FaultNumbers:
        known = {f"{name}{suffix}": kind for name, kind in _KINDS.items()}
        found: dict[FaultKind | str, int] = {}
        for name, number in (numbers or {}).items():
            kind = "default" if name == f"Default{suffix}" else known.get(name)
            if kind is not None:
                found[kind] = number
            elif node is not None and (place := node.child(name)) is not None:
                hint = did_you_mean(name, known, cutoff=0.7) or f": expected one of {', '.join(known)}"
                self._problems.error(place.place, f"is not a kind of failure{hint}")
        return found  # type: ignore[return-value]  # the names are those of the table

    def _name(self, node: Node | None, at: Node) -> str | None:
        """Return the name of a model; None, and that is recorded, if it is something else."""
        if node is None or not isinstance(node.value, str) or not node.value.strip():
            self._problems.error(at.place, f"{at.found()}, expected the name of a model in model_list")
            return None
        name = self._sections[0].environment.fill_in(node)
        return None if name is None else name.strip()

    def _names(self, node: Node | None) -> tuple[str, ...]:
        items = [] if node is None or node.value is None else node.value if isinstance(node.value, list) else [node]
        names: list[str | None] = []
        for item in items:
            is_mapping = isinstance(item.value, dict)
            names.append(self._name(item.child("model") if is_mapping else item, item))
            if isinstance(item.value, dict) and len(item.value) > 1:
                self._problems.warn(
                    item.place, "has parameters of its own, which are not supported yet: only model is used"
                )
        return tuple(name for name in names if name is not None)

    def _fallbacks(self, node: Node | None) -> dict[str, tuple[str, ...]]:
        """Read ``[{"gpt-5": ["gpt-4o", "claude"]}]``; a mapping is accepted too."""
        found: dict[str, tuple[str, ...]] = {}
        for entry in [] if node is None else node.value if isinstance(node.value, list) else [node]:
            if isinstance(entry.value, dict):
                found.update({group: self._names(names) for group, names in entry.value.items()})
            else:
                self._problems.error(entry.place, f'{entry.found()}, expected a mapping such as {{gpt-5: ["gpt-4o"]}}')
        return found

    def _strategy(self, word: Strategy | UncountedStrategy | None) -> Strategy:
        if word in _UNCOUNTED:
            node = self._node("routing_strategy")
            assert node is not None
            self._problems.warn(
                node.place, f"{word} needs figures that are not kept yet: deployments are chosen by simple-shuffle"
            )
        return _STRATEGIES.get(word or "", "simple-shuffle")

    def _aliases(self) -> tuple[dict[str, str], frozenset[str]]:
        """Read ``{"gpt-4": "gpt-5"}`` and ``{"gpt-4": {"model": "gpt-5", "hidden": true}}``."""
        node = self._found.model_group_alias
        if node is None:
            return {}, frozenset()
        if not isinstance(node.value, dict):
            self._problems.error(node.place, f"{node.found()}, expected a mapping of model names")
            return {}, frozenset()
        names = {
            alias: self._name(item.child("model") if isinstance(item.value, dict) else item, item)
            for alias, item in node.value.items()
        }
        hidden = {
            alias
            for alias, item in node.value.items()
            if (flag := item.child("hidden")) is not None and flag.value is True
        }
        found = {alias: name for alias, name in names.items() if name is not None}
        return found, frozenset(hidden & found.keys())


def _either(value: T | None, usual: T) -> T:
    return usual if value is None else value
