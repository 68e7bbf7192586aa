"""Which settings a reload cannot change, and what to do about each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pipeline.gateway.config.settings import PipelineSettings

OF_A_PROCESS: Final = (
    "max_connections",
    "keep_alive_timeout_s",
    "header_timeout_s",
    "write_timeout_s",
    "max_requests",
    "tls_certfile",
    "tls_keyfile",
)
"""What a worker reads when it starts."""
OF_THE_SERVICE: Final = (
    "host",
    "port",
    "workers",
    "max_age_s",
    "watch_config",
    "graceful_timeout_s",
    "shutdown_delay_s",
    "metrics_address",
    "otlp_endpoint",
    "otlp_interval_s",
    "recorder_mb",
    "log_format",
)
"""What is read when the service starts, before any worker."""


def needed_restart(names: Iterable[str], started: PipelineSettings, now: PipelineSettings) -> str | None:
    """Return what to do about those settings that have changed; None if none has.

    Args:
        names: `OF_A_PROCESS` or `OF_THE_SERVICE`.
        started: what the process was started with that reads them.
        now: the configuration as it is now.
    """
    changed = [name for name in names if getattr(started, name) != getattr(now, name)]
    if not changed:
        return None
    what = f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed"
    if names is OF_THE_SERVICE:
        return f"{what}: restart the service to use the new value"
    return f"{what}: new workers use the new value; SIGUSR1 replaces all of them"
