"""The upstreams: each host's name, connection, certificate and clock, and an answer of each deployment."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import trio

from pipeline import PipelineError
from pipeline.gateway.config.describe import full_model, host_of
from pipeline.gateway.doctor.client import CONNECT_LIMIT_S, failure_text
from pipeline.gateway.doctor.connection import addresses_of, date_of, end_of, ends_text
from pipeline.gateway.doctor.findings import Finding, Report, ok, problem, untested, warning
from pipeline.gateway.generation import Generation
from pipeline.gateway.health_checks import make_ask
from stages.routing.router import Candidate
from stages.upstreams import Deployment, Upstream
from stages.upstreams.transport.tls import client_context
from stages.wire.redaction import message_to_show

AT_A_TIME: Final = 8
"""Deployments that are asked at the same time: more could meet an upstream's own limits."""
ASK_LIMIT_S: Final = 30.0
CLOCK_LIMIT_S: Final = 5.0
"""What tokens with a time in them usually allow."""

REMEDIES: Final[Mapping[str, str]] = {
    "upstream_unauthorized": "replace its api_key: the upstream does not accept it",
    "upstream_not_found": "correct its model and api_base: the upstream has no such model or path",
    "upstream_unreachable": "correct its api_base, or start the server",
    "upstream_timeout": "see whether the server is up, and its model loaded",
    "upstream_rate_limited": "the key is accepted; wait, or raise the account's limits or credit",
    "upstream_rejected": "correct its parameters; the upstream says which one",
}
"""By code."""


async def see_upstreams(generation: Generation, report: Report, *, offline: bool) -> None:
    """Ask each upstream, several at a time.

    Args:
        generation: what is made of the configuration; it is not opened otherwise.
        report: is told each finding.
        offline: whether none is asked.
    """
    own = generation.settings.pipeline
    asked = [one for one in generation.settings.deployments if one.url]
    if offline or not asked:
        why = "--offline" if offline else "all models are embedded ones"
        for check in ("upstream", "clock", "model"):
            report(untested(check, why))
        return
    limiter, dates = trio.CapacityLimiter(AT_A_TIME), list[tuple[str, float]]()

    async def host(origin: str) -> None:
        async with limiter:
            finding, ahead_s = await see_host(origin, client_context(ca_file=own.ca_file))
        report(finding)
        if ahead_s is not None:
            dates.append((httpx.URL(origin).host, ahead_s))

    async def ask(deployment: Deployment) -> None:
        async with limiter:
            finding = await see_model(deployment, generation.parts.upstreams)
        report(finding)

    async with generation.clients, trio.open_nursery() as nursery:
        if own.proxy is None:
            for origin in dict.fromkeys(_origin(one.url) for one in asked):
                nursery.start_soon(host, origin)
        else:
            report(untested("upstream", "the proxy of the configuration connects to them"))
        for deployment in asked:
            nursery.start_soon(ask, deployment)
    report(judge_clock(dates))


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


async def see_host(origin: str, tls: ssl.SSLContext) -> tuple[Finding, float | None]:
    """Connect to a host; return the finding, and by how many seconds its clock is ahead of ours, if it says so."""
    url, began_s = httpx.URL(origin), trio.current_time()
    about = url.netloc.decode("ascii")
    port = url.port or (443 if url.scheme == "https" else 80)
    took: list[str] = []
    try:
        with trio.fail_after(CONNECT_LIMIT_S):
            addresses = await addresses_of(url.host, port)
            took.append(f"{len(addresses)} {'address' if len(addresses) == 1 else 'addresses'} in {_ms(began_s)}")
            began_s = trio.current_time()
            async with (
                httpx.AsyncClient(verify=tls, trust_env=False, timeout=None) as client,
                client.stream("HEAD", origin) as response,
            ):
                took.append(f"answers in {_ms(began_s)}")
                connection = response.extensions["network_stream"].get_extra_info("ssl_object")
                certificate = None if connection is None else connection.getpeercert()
                date = date_of(response.headers.get("date", ""))
    except (trio.TooSlowError, OSError, httpx.HTTPError, UnicodeError) as error:
        why = "too slow" if isinstance(error, trio.TooSlowError) else failure_text(error)
        where = "no address in the DNS" if not took else f"port {port}: {why}"
        remedy = "correct api_base, or the DNS and the firewall of this machine; ca_file for authorities of your own"
        return problem("upstream", where, remedy, about=about), None
    now = datetime.now(UTC)
    ahead_s = None if date is None else (date - now).total_seconds()
    end = end_of(certificate)
    if end is not None:
        text, is_soon = ends_text(end, now)
        took.append(text)
        if is_soon:
            return warning("upstream", ", ".join(took), "whoever runs it must renew it", about=about), ahead_s
    return ok("upstream", ", ".join(took), about=about), ahead_s


def judge_clock(dates: Iterable[tuple[str, float]]) -> Finding:
    """Return whether our clock is right, by the upstreams' (in whole seconds): by most of them, if they differ."""
    known = sorted(dates, key=lambda one: one[1])
    if not known:
        return untested("clock", "no upstream has said what time it is")
    host, ahead_s = known[len(known) // 2]
    text = f"{abs(ahead_s):.0f} s {'behind' if ahead_s > 0 else 'ahead of'} {host}"
    if abs(ahead_s) > CLOCK_LIMIT_S:
        return warning("clock", text, "let NTP set it (timedatectl): certificates and tokens have times")
    return ok("clock", text)


# Any: each kind of upstream prepares its own.
async def see_model(deployment: Deployment, upstreams: Mapping[str, Upstream[Any]]) -> Finding:
    """Ask a deployment for the shortest possible chat, as the background health checks do."""
    about = f"{deployment.model_name} ({full_model(deployment)} at {host_of(deployment)})"
    check = deployment.health_check
    model = deployment.model if check is None else check.model
    if "*" in model:
        return untested("model", "a wildcard", "model_info.health_check_model names the model to ask", about=about)
    if deployment.token is not None:
        remedy = "run it by hand where headrace runs; its log has what failed"
        return untested("model", "its token_command is not run here", remedy, about=about)
    began_s, limit_s = trio.current_time(), ASK_LIMIT_S if check is None else min(check.timeout_s, ASK_LIMIT_S)
    form = deployment
    try:
        with trio.fail_after(limit_s):
            try:
                await make_ask(upstreams)(Candidate(form, model))
            except PipelineError as fault:
                if fault.code != "upstream_not_found" or deployment.on_chat is None:
                    raise
                form = deployment.on_chat
                await make_ask(upstreams)(Candidate(form, model))
    except trio.TooSlowError:
        return problem("model", f"no answer within {limit_s:g} s", REMEDIES["upstream_timeout"], about=about)
    except PipelineError as fault:
        said = message_to_show(fault.public, deployment.secrets, max_characters=300)
        return problem("model", said, REMEDIES.get(fault.code, "see docs/errors.md: " + fault.code), about=about)
    by_chat = " by chat, having no Responses API (use_chat_completions_api: true saves the first try)"
    return ok("model", f"answers in {_ms(began_s)}{by_chat if form is not deployment else ''}", about=about)


def _ms(began_s: float) -> str:
    return f"{(trio.current_time() - began_s) * 1000:.0f} ms"
