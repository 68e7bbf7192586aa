"""LiteLLM's callbacks: ``prometheus`` and ``otel`` have a meaning here, all others have a warning."""

from __future__ import annotations

from typing import Final

from pipeline.gateway.config.fields import Section
from pipeline.gateway.config.litellm_ignored import GUARDS, NO_CHECKS, unprotected
from pipeline.gateway.config.litellm_sections import LitellmSettings
from pipeline.gateway.config.problems import safe_word
from pipeline.gateway.config.yaml_tree import Node

SIGNAL_PATH: Final = "/v1/metrics"
"""What an address for all signals gets (OpenTelemetry specification 1.50, "OTLP exporter")."""
ENDPOINT_NAMES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_ENDPOINT")
"""Variables with the address that ``otel`` exports to; the second is LiteLLM's own."""
PROTOCOL_NAMES: Final = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER")
HTTP: Final = ("http/protobuf", "otlp_http", "http/json")
"""Their values for what we speak. JSON is left to LiteLLM: a collector takes both at one address."""


def read_callbacks(litellm: Section, settings: LitellmSettings) -> dict[str, object]:
    """Return what they mean, under the names of our settings; those of ``pipeline_settings`` take precedence."""
    found: dict[str, object] = {}
    for node in (settings.callbacks, settings.success_callback, settings.failure_callback):
        for item in _items(node):
            word = item.value
            if word == "prometheus":
                found["metrics"] = True
            elif word == "otel":
                _read_otel(found, item, litellm)
            else:
                shown = safe_word(word) if isinstance(word, str) else None
                is_guard = shown in GUARDS
                said = unprotected(NO_CHECKS) if is_guard else "is not supported yet and is ignored"
                litellm.problems.warn(item.place, f"{f'{shown} ' if shown else ''}{said}", is_unprotected=is_guard)
    if settings.require_auth_for_metrics_endpoint is False:
        found["metrics_without_key"] = True
    return found


def _items(node: Node | None) -> list[Node]:
    if node is None or node.value in ("", False):
        return []
    return node.value if isinstance(node.value, list) else [node]


def _read_otel(found: dict[str, object], item: Node, litellm: Section) -> None:
    protocol = litellm.environment.first_of(PROTOCOL_NAMES)
    endpoint = litellm.environment.first_of(ENDPOINT_NAMES)
    if protocol is not None and protocol not in HTTP:
        litellm.problems.warn(
            item.place,
            f"otel is ignored: the environment variable {' or '.join(PROTOCOL_NAMES)} is not http/protobuf, the only "
            "protocol that headrace exports by; set pipeline_settings.otlp_endpoint",
        )
    elif endpoint is None:
        litellm.problems.warn(
            item.place,
            f"otel is ignored without an address: set the environment variable {ENDPOINT_NAMES[0]}, or "
            "pipeline_settings.otlp_endpoint",
        )
    else:
        base = endpoint.rstrip("/").removesuffix("/v1/traces").removesuffix(SIGNAL_PATH)
        found["otlp_endpoint"] = base + SIGNAL_PATH
