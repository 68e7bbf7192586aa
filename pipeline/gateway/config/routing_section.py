"""LiteLLM's routing settings to ours. They stand in ``router_settings`` or, most of them, in ``litellm_settings``."""

from __future__ import annotations

from typing import Final, get_args

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.problems import Problems, did_you_mean, safe_word
from pipeline.gateway.config.yaml_tree import Node
from stages.routing.faults import FaultKind
from stages.routing.settings import FaultNumbers, RoutingSettings, Strategy

STRATEGIES: Final[dict[str, Strategy]] = {name: name for name in get_args(Strategy)}
SHUFFLED: Final = frozenset(
    {"usage-based-routing", "usage-based-routing-v2", "cost-based-routing", "provider-budget-routing"}
)
"""LiteLLM's strategies that need to know what each deployment was used for, or what it costs."""

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
_MAX_RETRIES: Final = 100
_MAX_FAILS: Final = 1_000_000


def read_routing(router: Section, litellm: Section) -> RoutingSettings:
    """Read the settings. Errors and warnings go to the sections' ``problems``."""
    return _RoutingReader(router, litellm).read()


class _RoutingReader:
    def __init__(self, router: Section, litellm: Section) -> None:
        self._sections = (router, litellm)
        self._problems: Problems = router.problems

    def read(self) -> RoutingSettings:
        usual = RoutingSettings()
        aliases, hidden = self._aliases()
        strategy, buffer = self._strategy()
        return RoutingSettings(
            num_retries=self._count("num_retries", usual.num_retries, _MAX_RETRIES),
            retry_after_s=self._seconds("retry_after", usual.retry_after_s),
            retry_policy=self._policy(self._node("retry_policy"), "Retries"),
            group_retry_policy={
                name: self._policy(node, "Retries") for name, node in self._mapping("model_group_retry_policy")
            },
            fallbacks=self._fallbacks("fallbacks"),
            default_fallbacks=self._names(self._node("default_fallbacks")),
            context_window_fallbacks=self._fallbacks("context_window_fallbacks"),
            content_policy_fallbacks=self._fallbacks("content_policy_fallbacks"),
            max_fallbacks=self._count("max_fallbacks", usual.max_fallbacks, _MAX_RETRIES),
            allowed_fails=self._count("allowed_fails", usual.allowed_fails, _MAX_FAILS),
            allowed_fails_policy=self._policy(self._node("allowed_fails_policy"), "AllowedFails", _MAX_FAILS),
            cooldown_s=self._seconds("cooldown_time", usual.cooldown_s),
            has_cooldowns=not any(section.flag("disable_cooldowns") for section in self._sections),
            strategy=strategy,
            latency_buffer=buffer,
            aliases=aliases,
            hidden_aliases=hidden,
            checks_windows=any(section.flag("enable_pre_call_checks") for section in self._sections),
        )

    def _node(self, name: str) -> Node | None:
        return next((node for section in self._sections if (node := section.get(name)) is not None), None)

    def _number(self, node: Node, expected: str, *, most: float) -> float | None:
        return self._sections[0].number_in(node, expected, most=most)

    def _count(self, name: str, usual: int, most: int) -> int:
        node = self._node(name)
        if node is None or node.value is None:
            return usual
        found = self._number(node, f"a whole number from 0 to {most}", most=most)
        return usual if found is None else int(found)

    def _seconds(self, name: str, usual: float) -> float:
        node = self._node(name)
        if node is None or node.value is None:
            return usual
        found = self._number(node, "seconds from 0 to 86400, such as 5", most=86_400)
        return usual if found is None else found

    def _mapping(self, name: str) -> list[tuple[str, Node]]:
        node = self._node(name)
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, dict):
            self._problems.error(node.place, f"{node.found()}, expected a mapping of model names")
            return []
        return list(node.value.items())

    def _policy(self, node: Node | None, suffix: str, most: int = _MAX_RETRIES) -> FaultNumbers:
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            example = f"{{TimeoutError{suffix}: 3}}"
            self._problems.error(node.place, f"{node.found()}, expected a mapping such as {example}")
            return {}
        known = {f"{name}{suffix}": kind for name, kind in _KINDS.items()}
        found: dict[FaultKind | str, int] = {}
        for name, number in node.value.items():
            kind = "default" if name == f"Default{suffix}" else known.get(name)
            if kind is None:
                hint = did_you_mean(name, known, cutoff=0.7)
                self._problems.error(
                    number.place, f"is not a kind of failure{hint}: expected one of {', '.join(known)}"
                )
            elif number.value is None:
                continue
            elif (count := self._number(number, f"a whole number from 0 to {most}", most=most)) is not None:
                found[kind] = int(count)
        return found  # type: ignore[return-value]  # the names are those of the table

    def _names(self, node: Node | None) -> tuple[str, ...]:
        if node is None or node.value is None:
            return ()
        items = node.value if isinstance(node.value, list) else [node]
        names: list[str] = []
        for item in items:
            named = item.value.get("model") if isinstance(item.value, dict) else item
            if named is not None and isinstance(named.value, str) and named.value.strip():
                names.append(named.value.strip())
            else:
                self._problems.error(item.place, f"{item.found()}, expected the name of a model in model_list")
            if isinstance(item.value, dict) and len(item.value) > 1:
                self._problems.warn(
                    item.place, "has parameters of its own, which are not supported yet: only model is used"
                )
        return tuple(names)

    def _fallbacks(self, name: str) -> dict[str, tuple[str, ...]]:
        """Read ``[{"gpt-5": ["gpt-4o", "claude"]}]``; a mapping is accepted too."""
        node = self._node(name)
        if node is None or node.value is None:
            return {}
        entries = node.value if isinstance(node.value, list) else [node]
        found: dict[str, tuple[str, ...]] = {}
        for entry in entries:
            if not isinstance(entry.value, dict):
                self._problems.error(entry.place, f'{entry.found()}, expected a mapping such as {{gpt-5: ["gpt-4o"]}}')
                continue
            for group, names in entry.value.items():
                found[group] = self._names(names)
        return found

    def _strategy(self) -> tuple[Strategy, float]:
        node = self._node("routing_strategy")
        buffer = 0.0
        for name, argument in self._mapping("routing_strategy_args"):
            if name == "lowest_latency_buffer":
                buffer = self._number(argument, "a number from 0 on, such as 0.1", most=100) or 0.0
        if node is None or node.value is None:
            return "simple-shuffle", buffer
        word = str(node.value)
        if word in SHUFFLED:
            self._problems.warn(
                node.place, f"{word} needs figures that are not kept yet: deployments are chosen by simple-shuffle"
            )
            return "simple-shuffle", buffer
        if (strategy := STRATEGIES.get(word)) is None:
            hint = did_you_mean(word, [*STRATEGIES, *SHUFFLED], cutoff=0.6)
            self._problems.error(
                node.place, f"is {safe_word(word) or 'no strategy'}: expected {', '.join(STRATEGIES)}{hint}"
            )
            return "simple-shuffle", buffer
        return strategy, buffer

    def _aliases(self) -> tuple[dict[str, str], frozenset[str]]:
        """Read ``{"gpt-4": "gpt-5"}`` and ``{"gpt-4": {"model": "gpt-5", "hidden": true}}``."""
        aliases: dict[str, str] = {}
        hidden: set[str] = set()
        for name, node in self._mapping("model_group_alias"):
            named = node.value.get("model") if isinstance(node.value, dict) else node
            if named is None or not isinstance(named.value, str) or not named.value.strip():
                self._problems.error(node.place, f"{node.found()}, expected the name of a model in model_list")
                continue
            aliases[name] = named.value.strip()
            if isinstance(node.value, dict) and (flag := node.value.get("hidden")) is not None and flag.value is True:
                hidden.add(name)
        return aliases, frozenset(hidden)
