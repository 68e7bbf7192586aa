"""All checks of the address that was typed into Cursor, some of them at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable
from datetime import datetime
from typing import Final

import httpx
import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.doctor.client import failure_text, make_client
from pipeline.gateway.doctor.connection import see_address, see_server
from pipeline.gateway.doctor.entering import NO_PAGE, FirstAnswer, enter, judge_arrival, probe_wrong_key
from pipeline.gateway.doctor.findings import CHECKS, Finding, Report, problem, untested
from pipeline.gateway.doctor.requests import probe_azure, probe_cursor, probe_double_slash, probe_large_body
from pipeline.gateway.doctor.streaming import probe_idle, probe_leaving, probe_stream
from pipeline.gateway.doctor.target import Plan, Target, Visit

FIRST_OF_PUBLIC: Final = "address"
SEE_LOGS: Final = "see the log of the proxy and of headrace"


class Probe(Struct, frozen=True):
    """A check of a server that answers.

    Attributes:
        checks: what its findings are about.
        run: makes them.
        needs_page: whether it needs a headrace that answers at known times, so the master key.
    """

    checks: tuple[str, ...]
    run: Callable[[Visit], Awaitable[list[Finding]]]
    needs_page: bool = False


IDLE: Final = Probe(("idle",), probe_idle, needs_page=True)
TOGETHER: Final = (
    Probe(("wrong key",), probe_wrong_key),
    Probe(("stream", "compression"), probe_stream, needs_page=True),
    Probe(("leaving",), probe_leaving, needs_page=True),
    Probe(("cursor request",), probe_cursor),
    Probe(("azure",), probe_azure),
    Probe(("double slash",), probe_double_slash),
)
AFTERWARDS: Final = (Probe(("large body",), probe_large_body),)
"""Those that would fill the line, and delay the parts of streams that are timed."""
_IN_TURN: Final = (TOGETHER, AFTERWARDS)


async def visit(target: Target, plan: Plan, now: datetime, report: Report, *, only: Container[str] = CHECKS) -> None:
    """Make all checks of an address.

    Args:
        target: the address.
        plan: how much is asked.
        now: the wall clock.
        report: is told each finding.
        only: the checks that are wanted: others are left out, but for those that come first.
    """
    told: set[str] = set()

    def tell(finding: Finding) -> None:
        told.add(finding.check)
        report(finding)

    await _enter(target, plan, now, tell, only)
    public = list(CHECKS)[list(CHECKS).index(FIRST_OF_PUBLIC) :]
    for check in public:
        if check not in told and check in only:
            report(untested(check, "because of what was found before"))


async def _enter(target: Target, plan: Plan, now: datetime, report: Report, only: Container[str]) -> None:
    address, is_loopback = await see_address(target)
    report(address)
    if is_loopback is None:
        return
    encryption, nonsense = await see_server(target, now, may_be_plain=is_loopback)
    report(encryption)
    if nonsense is None:
        return
    async with make_client(target.tls) as client:
        entry = FirstAnswer([problem("key", f"no answer within {plan.limit_s:g} s", SEE_LOGS)])
        with trio.move_on_after(plan.limit_s):
            entry = await enter(client, target, nonsense)
        for finding in entry.findings:
            report(finding)
        if entry.models is None:
            return
        for finding in judge_arrival(entry.page, entry.proxy):
            report(finding)
        known = Visit(target=target, client=client, plan=plan, proxy=entry.proxy, page=entry.page, models=entry.models)
        first, then = ([one for one in probes if any(check in only for check in one.checks)] for probes in _IN_TURN)
        async with trio.open_nursery() as nursery:
            if "idle" in only:
                nursery.start_soon(_run, IDLE, known, report)
            await _run_together(first, known, report)
            await _run_together(then, known, report)


async def _run_together(probes: Iterable[Probe], known: Visit, report: Report) -> None:
    async with trio.open_nursery() as nursery:
        for probe in probes:
            nursery.start_soon(_run, probe, known, report)


async def _run(probe: Probe, known: Visit, report: Report) -> None:
    for finding in await findings_of(probe, known):
        report(finding)


async def findings_of(probe: Probe, known: Visit) -> list[Finding]:
    """Return the findings of a probe; one that fails or takes too long has found a problem."""
    if probe.needs_page and known.page is None:
        return [untested(check, NO_PAGE) for check in probe.checks if check != "stream"]  # `probe_cursor` times one
    limit_s = known.plan.limit_s + (known.plan.idle_s if probe is IDLE else 0)
    try:
        with trio.fail_after(limit_s):
            return await probe.run(known)
    except httpx.HTTPError as error:
        why = failure_text(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        why = "the answer is not what headrace says"
    except trio.TooSlowError:
        why = f"no end within {limit_s:g} s"
    return [problem(check, why, SEE_LOGS) for check in probe.checks]
