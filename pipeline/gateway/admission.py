"""The limits of a configuration, as what counts them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.gateway.config.settings import Settings
from stages.admission.admission import Admission
from stages.admission.counts import Counts
from stages.admission.quota import Quota
from stages.admission.turns import Turns
from stages.limits import NO_LIMITS
from stages.wire.redaction import redact


def has_limits(settings: Settings) -> bool:
    """Return whether anything is limited."""
    return _limits_who_comes_in(settings) or any(one.limits != NO_LIMITS for one in settings.deployments)


def quotas_of(settings: Settings, counts: Counts) -> Mapping[str, Quota]:
    """Return what the deployments that have limits may be given, by id.

    Raises:
        CountsFullError: if there is no room to count it.
    """
    return {
        one.id: Quota(counts, f"deployment {one.id}", f"the deployment {redact(one.id)}", one.limits)
        for one in settings.deployments
        if one.limits != NO_LIMITS
    }


def admission_of(settings: Settings, counts: Counts) -> Admission | None:
    """Return what limits the requests that come in; None if nothing does.

    Raises:
        CountsFullError: if there is no room to count it.
    """
    if not _limits_who_comes_in(settings):
        return None
    own = settings.pipeline
    turns = None
    if own.max_requests_in_flight is not None:
        turns = Turns(
            counts,
            max_in_flight=own.max_requests_in_flight,
            max_queued=own.max_queued_requests,
            timeout_s=own.queue_timeout_s,
        )
    return Admission(
        counts,
        keys={key.name: key.limits for key in settings.keys if key.limits != NO_LIMITS},
        # All deployments of a model say the same: the configuration has the strictest (`config.model_list`).
        key_limits={one.model_name: one.key_limits for one in settings.deployments if one.key_limits != NO_LIMITS},
        turns=turns,
    )


def _limits_who_comes_in(settings: Settings) -> bool:
    return (
        settings.pipeline.max_requests_in_flight is not None
        or any(key.limits != NO_LIMITS or key.model_limits for key in settings.keys)
        or any(one.key_limits != NO_LIMITS for one in settings.deployments)
    )
