"""Background health checks of one serving process: a tiny request to each deployment, by the way of any other."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from pipeline import Pipeline, RequestContext
from pipeline.errors import places_of
from stages.call_upstream import call_upstream
from stages.decode_events import decode_events
from stages.routing.checks import HealthChecks
from stages.routing.router import Candidate, Router
from stages.slots import CALL, FAILURE
from stages.upstreams import Deployment, Upstream, UpstreamCall, UpstreamKind
from stages.upstreams.faults import fault_from
from stages.wire.downstream.request import parse_body

MAX_OUTPUT_TOKENS: Final = 16
"""The least that OpenAI's Responses API accepts (API reference, "Create a model response", 2026-10)."""

_NAME: Final = "health-check"

log = logging.getLogger("headrace")


# Any: each kind of upstream prepares its own.
def make_ask(upstreams: Mapping[UpstreamKind, Upstream[Any]]) -> Callable[[Candidate], Awaitable[None]]:
    """Return a function that asks a deployment, and raises a `PipelineError` unless it answers to the end."""
    pipeline = Pipeline(call_upstream(upstreams)).then(decode_events)

    async def ask(candidate: Candidate) -> None:
        body = {"model": candidate.deployment.model_name, "input": "ping", "max_output_tokens": MAX_OUTPUT_TOKENS}
        request = parse_body(msgspec.json.encode(body))
        ctx = RequestContext(_NAME)
        ctx[CALL] = UpstreamCall(request=request, deployment=candidate.deployment, model=candidate.model)
        await pipeline.run([[ctx[CALL]]], ctx)
        if (failed := ctx.get(FAILURE)) is not None:
            raise fault_from(failed)

    return ask


def health_checks(
    router: Router,
    deployments: Iterable[Deployment],
    upstreams: Mapping[UpstreamKind, Upstream[Any]],
    interval_s: float,
) -> HealthChecks | None:
    """Return the checks of those deployments that are to be asked; None if none is."""
    asked = [(Candidate(one, check.model), check) for one in deployments if (check := one.health_check) is not None]
    return HealthChecks(router, asked, make_ask(upstreams), on_bug=_log_bug, interval_s=interval_s) if asked else None


@asynccontextmanager
async def running(checks: HealthChecks) -> AsyncGenerator[None]:
    """Run the checks until the block is left; then those that are running end at once.

    They live in a task of their own, because the block may be left in another task than it was entered in.
    """
    living, ended = trio.CancelScope(), trio.Event()

    async def live() -> None:
        try:
            with living:
                await checks.run()
        except Exception as error:
            log.error("the background health checks have failed, and are no longer made: %s", places_of(error))
        finally:
            ended.set()

    trio.lowlevel.spawn_system_task(live, name="health checks")
    try:
        yield
    finally:
        living.cancel()
        with trio.CancelScope(shield=True):
            await ended.wait()


def _log_bug(candidate: Candidate, error: Exception) -> None:
    log.error(
        "deployment %s cannot be asked in the background: %s: switch that off with its "
        "model_info.disable_background_health_check",
        candidate.deployment.id,
        getattr(error, "public", None) or places_of(error),
    )
