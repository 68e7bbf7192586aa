"""The limits of a configuration, as what counts them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.gateway.config.settings import Settings
from stages.admission.admission import Admission, tightest
from stages.admission.counts import Counts
from stages.admission.quota import Quota
from stages.admission.turns import Turns
from stages.limits import NO_LIMITS, Limits
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
    by_model: dict[str, list[Limits]] = {}
    for one in settings.deployments:
        if one.key_limits != NO_LIMITS:
            by_model.setdefault(one.model_name, []).append(one.key_limits)
    return Admission(
        counts,
        keys={key.name: key.limits for key in settings.keys if key.limits != NO_LIMITS},
        key_limits={model: tightest(limits) for model, limits in by_model.items()},
        turns=turns,
    )


def _limits_who_comes_in(settings: Settings) -> bool:
    return (
        settings.pipeline.max_requests_in_flight is not None
        or any(key.limits != NO_LIMITS or key.model_limits for key in settings.keys)
        or any(one.key_limits != NO_LIMITS for one in settings.deployments)
    )
