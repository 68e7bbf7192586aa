"""The models of ``headrace graph``: which deployments answer to a name, in which order, and what follows then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.gateway.config.describe import limits_of, target_of
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.health_page import EndpointHealth, HealthPage
from stages.routing.faults import FaultKind
from stages.routing.health import MAX_COOLDOWN_S
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment
from stages.wire.redaction import redact

_FALLBACKS: tuple[tuple[FaultKind, str], ...] = (
    ("unavailable", "if all of them fail"),
    ("context_window", "if the conversation is too long"),
    ("content_policy", "if the content is refused"),
)


def models_page(settings: Settings, live: HealthPage | None = None) -> Iterator[str]:
    """Return the lines; with ``live``, what a running server knows of each deployment follows its line."""
    routing = settings.routing
    states = {one.id: one for one in (*live.healthy_endpoints, *live.unhealthy_endpoints)} if live else None
    yield "models: which deployments answer to a name"
    if live is not None:
        others = f" alone, one of {live.workers}: each has its own view" if live.workers > 1 else ""
        yield f"  with their state, as worker process {live.worker} knows it{others}"
    yield f"  {_STRATEGIES[routing.strategy]}"
    yield f"  {_cooldown(routing)}"
    yield (
        f"  a request is repeated {_times(routing.num_retries)} at most, and goes on to {routing.max_fallbacks} other "
        "models at most"
    )
    if settings.health_check_interval_s is not None:
        yield f"  each is asked in the background every {settings.health_check_interval_s:g} s, where a line says so"
    groups: dict[str, list[Deployment]] = {}
    for deployment in settings.deployments:
        groups.setdefault(deployment.model_name, []).append(deployment)
    for name, deployments in groups.items():
        aliases = [alias for alias, meant in routing.aliases.items() if meant == name]
        yield f"  {name}{', also as ' if aliases else ''}{', '.join(aliases)}"
        yield from _group(deployments, settings, states)
        yield from _fallbacks(name, routing)


_STRATEGIES = {
    "simple-shuffle": "simple-shuffle: a conversation has one of the lowest order, by weight, and keeps it while it is "
    "healthy",
    "least-busy": "least-busy: a conversation gets one of the lowest order that answers the fewest, and keeps it",
    "latency-based-routing": "latency-based-routing: a conversation gets the fastest of the lowest order and keeps it",
}


def _cooldown(routing: RoutingSettings) -> str:
    if not routing.has_cooldowns:
        return "none is left out, however often it fails (disable_cooldowns)"
    most_s = max(MAX_COOLDOWN_S, routing.cooldown_s)
    text = (
        f"one that fails more than {_times(routing.allowed_fails)} in a minute is left out for "
        f"{routing.cooldown_s:g} s, and each time that it fails again for twice as long, up to {most_s:g} s"
    )
    if routing.allowed_fails_policy:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in routing.allowed_fails_policy.items())
        text += f" (counted apart: {kinds})"
    return text


def _times(number: int) -> str:
    return {0: "0 times", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _group(
    deployments: Sequence[Deployment], settings: Settings, states: dict[str, EndpointHealth] | None
) -> Iterator[str]:
    for one in sorted(deployments, key=lambda one: one.order):
        is_checked = settings.health_check_interval_s is not None and one.health_check is not None
        checked = ", asked in the background" if is_checked else ""
        yield f"    order {one.order}, weight {one.weight:g}: {redact(target_of(one))}{checked}{limits_of(one)}"
        if states is not None:
            yield f"      {_state(states.get(one.id))}"


def _state(health: EndpointHealth | None) -> str:
    if health is None:
        return "the server does not know it: it has another configuration"
    words: str = health.state
    if health.state == "ejected":
        words += f" for {health.ejected_for_s:g} s more"
    if health.ejections > 1:
        words += f" ({health.ejections} in a row)"
    said = [words, f"{health.in_flight} in flight"]
    if health.latency_s is not None:
        said.append(f"begins to answer after {health.latency_s:g} s")
    if health.last_minute:
        said.append("last minute: " + ", ".join(f"{count} {kind}" for kind, count in health.last_minute.items()))
    return "; ".join(said)


def _fallbacks(name: str, routing: RoutingSettings) -> Iterator[str]:
    usual = routing.fallbacks_of(name, "unavailable")
    for kind, when in _FALLBACKS:
        found = routing.fallbacks_of(name, kind)
        if found and (kind == "unavailable" or found != usual):
            yield f"    {when}: {', then '.join(found)}"
