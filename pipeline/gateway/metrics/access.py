"""Decides which clients may read the metrics on the service's port."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import ClientFault
from pipeline.gateway.config.settings import Settings
from stages.principal import Principal


def check_access(settings: Settings, identify: Callable[[], Principal]) -> None:
    """Return if a client may read the metrics.

    Args:
        settings: the configuration.
        identify: returns whose key the client has; it raises if there is none.

    Raises:
        ClientFault: if the metrics are switched off, if the key may not read them, or whatever ``identify`` raises.
    """
    own = settings.pipeline
    if not own.metrics:
        raise ClientFault("the metrics are switched off: set pipeline_settings.metrics to true", code="route_not_found")
    if own.metrics_without_key:
        return
    principal = identify()
    has_keys = settings.master_key is not None or bool(settings.keys)  # else it accepts everybody for everything
    if has_keys and not (principal.is_master or principal.reads_metrics):
        raise ClientFault(
            "this key may not read the metrics: use the master key, or a key that has metrics: true",
            code="metrics_forbidden",
        )
