"""``GET /health``: what one worker knows of each deployment, in the shape of LiteLLM's page. Nothing is called for it.

Source: LiteLLM 1.106.2: ``healthy_endpoints``, ``unhealthy_endpoints`` and their counts, with ``model`` and
``api_base``; the other fields are ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct

from pipeline.gateway.config.describe import full_model, host_of
from pipeline.gateway.routes import HEALTH_PATH
from pipeline.study import live
from stages.routing.health import HealthState
from stages.routing.router import Router
from stages.upstreams import Deployment
from stages.wire.redaction import redact


class EndpointHealth(Struct, kw_only=True):
    """One deployment.

    Attributes:
        model_name: what clients ask for.
        model: the provider and its name for the model.
        id: the deployment's.
        api_base: the host and port of its address.
        state: what is to be expected of it.
        ejected_for_s: for how much longer it is left out; 0 if it is not.
        ejections: how often it was ejected, each time within a minute of its return.
        in_flight: how many requests it is answering.
        latency_s: how long its answers take to begin, smoothed; null if none has.
        last_minute: how often it has answered, and failed in which way.
    """

    model_name: str
    model: str
    id: str
    api_base: str
    state: HealthState
    ejected_for_s: float
    ejections: int
    in_flight: int
    latency_s: float | None
    last_minute: dict[str, int]


class HealthPage(Struct, kw_only=True):
    """All deployments. Those that nothing is known of count as healthy, those that are half open do not.

    Attributes:
        worker: the process whose view it is.
        workers: how many there are.
        wrong_keys: how many requests with an unknown key the process has refused.
    """

    healthy_endpoints: list[EndpointHealth]
    unhealthy_endpoints: list[EndpointHealth]
    healthy_count: int
    unhealthy_count: int
    worker: int
    workers: int
    wrong_keys: int = 0


def health_page(
    router: Router, deployments: Iterable[Deployment], now_s: float, *, workers: int, wrong_keys: int
) -> HealthPage:
    """Return what this process knows of its deployments."""
    endpoints = [_endpoint(router, deployment, now_s) for deployment in deployments]
    healthy = [one for one in endpoints if one.state in ("healthy", "unknown")]
    unhealthy = [one for one in endpoints if one.state not in ("healthy", "unknown")]
    return HealthPage(
        healthy_endpoints=healthy,
        unhealthy_endpoints=unhealthy,
        healthy_count=len(healthy),
        unhealthy_count=len(unhealthy),
        worker=os.getpid(),
        workers=workers,
        wrong_keys=wrong_keys,
    )


def _endpoint(router: Router, deployment: Deployment, now_s: float) -> EndpointHealth:
    health = router.health[deployment.id]
    until_s = health.ejected_until_s
    return EndpointHealth(
        model_name=deployment.model_name,
        model=redact(full_model(deployment)),
        id=deployment.id,
        api_base=host_of(deployment),
        state=health.state(now_s),
        ejected_for_s=0.0 if until_s is None else round(max(0.0, until_s - now_s), 3),
        ejections=health.ejections,
        in_flight=health.in_flight,
        latency_s=None if health.latency_s is None else round(health.latency_s, 3),
        last_minute=health.last_minute(now_s),
    )


def fetch_health(url: str, key: str) -> HealthPage:
    """Return the page of a running server.

    Args:
        url: where it serves, as http://127.0.0.1:4000.
        key: its master key.

    Raises:
        LiveError: if it cannot be reached, refuses the key, or is not headrace.
    """
    return live.decoded(url, live.fetch(url, key, HEALTH_PATH)[0], HealthPage)
