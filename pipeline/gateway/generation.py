"""One generation: everything that is made of one reading of the configuration, and what it has open.

What is about the world and not about the configuration goes on in the next generation: remembered reasoning,
connections to upstreams, the health of deployments, wrong keys, the memory of uploads, the stores of plugins.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import msgspec

from pipeline.gateway.admission import admission_of, has_limits, quotas_of
from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.bridge import Bridge, OnEnd
from pipeline.gateway.client_address import Proxies
from pipeline.gateway.config.keys import ANONYMOUS, KeyStore
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.cors import Cors
from pipeline.gateway.health_checks import health_checks, running
from pipeline.gateway.health_log import HealthLog
from pipeline.gateway.insertions import plan
from pipeline.gateway.lasting import Lasting
from pipeline.gateway.memory import memory_limit_bytes
from pipeline.gateway.open_plugins import OpenPlugins
from pipeline.gateway.server_timing import ServerTiming
from pipeline.gateway.shedding import Shedding
from pipeline.gateway.token_commands import keeping_tokens
from pipeline.gateway.traced_requests import TracedRequests
from pipeline.gateway.upload_budget import UploadBudget, default_total_bytes
from pipeline.gateway.upstream_clients import ClientSettings, UpstreamClients
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from stages.admission.counts import Counts, CountsFullError
from stages.choose_deployment import Deployments
from stages.principal import Principal
from stages.reasoning.opening import open_store
from stages.reasoning.store import ReasoningStore
from stages.upstreams import Deployment
from stages.upstreams.apis import APIS
from stages.upstreams.canned.upstream import CannedUpstream
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.profiles import CURSOR, OPENAI, Profile
from stages.wire.redaction import redact

log = logging.getLogger("headrace")


class Generation:
    """What answers the requests that come while its configuration is the current one, each to its end.

    Args:
        settings: the configuration, resolved.
        plugins: the stages that are installed, by name.
        on_end: called at the end of each request with what makes a `FinishedRequest` of it.
        number: of the generation; the first one of a process has 1.
        before: the current generation, whose place this one is to take. Nothing of it changes until `take_over`.
        counts: where limits are counted together with other processes; None to go on with those of ``before``, or to
            count here only.
        observed: counts the requests of this process; None if nobody does.

    Attributes:
        parts: what the built-in stages are made of.
        bridge: serves the requests.
        counts: where limits are counted; None if there are none.

    Raises:
        PluginError: if a configured stage does not exist or does not fit in its place.
        ConfigError: if there are more limits than can be counted.
        OSError: if ``ca_file`` cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plugins: Mapping[str, AnyPlugin],
        on_end: OnEnd,
        number: int = 1,
        before: Generation | None = None,
        counts: Counts | None = None,
        observed: Observed | None = None,
    ) -> None:
        own = settings.pipeline
        self.settings = settings
        self.number = number
        is_open = own.allow_anonymous and settings.master_key is None and not settings.keys
        # Cursor always sends a key: where there are none, any will do.
        self.keys = (_AnyKey if settings.is_transparent or is_open else KeyStore)(settings.master_key, settings.keys)
        self.anonymous = ANONYMOUS if own.allow_anonymous else None
        if before is not None:
            _keep_tokens(settings, before.settings)
        self._health_log: HealthLog = HealthLog() if before is None else before._health_log
        self.deployments = Deployments(
            settings.deployments, settings.routing, left_out=settings.left_out, on_change=self._health_log.note
        )
        self.deployments.router.on_chat_only = _log_chat_only
        self.counts: Counts | None = counts if before is None else before.counts
        admission = None
        if self.counts is None and has_limits(settings):
            self.counts = Counts()
        if self.counts is not None:
            try:
                self.deployments.router.quotas = quotas_of(settings, self.counts)
                admission = admission_of(settings, self.counts)
            except CountsFullError as full:
                raise ConfigError([f"{settings.source}: {full}"]) from None
        self._clients: Lasting[UpstreamClients] = _clients(own, None if before is None else before._clients)
        self.clients = self._clients.resource
        self._store: Lasting[ReasoningStore] | None = _store(own, None if before is None else before._store)
        self.reasoning = None if self._store is None else self._store.resource
        parts = Parts(
            keys=self.keys,
            anonymous=self.anonymous,
            key_header=own.key_header,
            keeps_sent=settings.is_transparent,
            deployments=self.deployments,
            upstreams={
                **{name: HttpUpstream(api, self.clients.transport_for) for name, api in APIS.items()},
                "canned": CannedUpstream(),
            },
            max_body_bytes=own.max_body_bytes,
            keep_alive_interval_s=own.keep_alive_interval_s,
            reasoning=self.reasoning,
            execution=own.execution,
            admission=admission,
        )
        interval_s = settings.health_check_interval_s
        self._health_checks = (
            None
            if interval_s is None
            else health_checks(self.deployments.router, settings.deployments, parts.upstreams, interval_s)
        )
        self.plugins: OpenPlugins = OpenPlugins(
            plan(own.stages, plugins),
            deployments={one.id: one for one in settings.deployments},
            shared=None if before is None else before.plugins.shared,
            series=None if observed is None else observed.series,
        )
        self.parts = parts
        self.cors = Cors(own.allowed_origins)
        self.bridge = Bridge(
            None if self.plugins.have_lifetimes else Assembly(parts, self.plugins.made()),
            profile_of=_profile_chooser(own, is_transparent=settings.is_transparent),
            on_end=on_end,
            cors=self.cors,
            proxies=Proxies(own.forwarded_allow_ips),
            request_timeout_s=own.request_timeout_s,
            body_timeout_s=own.body_timeout_s,
            uploads=_upload_budget(own),
            shedding=Shedding(own.max_lag_ms),
            traced=TracedRequests(own.trace_one_in),
            timing=ServerTiming(in_heads=own.server_timing, in_comments=own.server_timing_comment),
            observed=observed,
            generation=number,
        )
        self._opened = AsyncExitStack()
        self._checking = AsyncExitStack()

    async def open(self) -> None:
        """Open what it needs; if that fails, what is open is closed again.

        Raises:
            PluginError: if a plugin cannot be opened.
            StoreError: if the store of reasoning cannot.
        """
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self._clients)
            if any(one.token is not None for one in self.settings.deployments):
                await opening.enter_async_context(keeping_tokens(self.settings.deployments))
            if self._store is not None:
                await opening.enter_async_context(self._store)
            if self.plugins.have_lifetimes:
                self.bridge.assembly = Assembly(self.parts, await opening.enter_async_context(self.plugins))
            self._opened = opening.pop_all()

    def take_over(self, before: Generation) -> None:
        """Go on with what the generation before knows of the world. It goes on with it, too."""
        self.deployments.router.take_over(before.deployments.router)
        self.bridge.take_over(before.bridge)
        self._health_log.keep_only({one.id for one in self.settings.deployments})

    async def begin_checks(self) -> None:
        """Ask the deployments in the background, if that is configured, from now on."""
        if self._health_checks is not None:
            await self._checking.enter_async_context(running(self._health_checks))

    async def end_checks(self) -> None:
        """Ask no deployment in the background any more."""
        await self._checking.aclose()

    async def close(self) -> None:
        """Close what it has opened, in reverse order, unless the next generation uses it."""
        await self.end_checks()
        await self._opened.aclose()


def _keep_tokens(settings: Settings, before: Settings) -> None:
    printed = {one.token: one.token for one in before.deployments if one.token is not None}
    for token in {one.token for one in settings.deployments if one.token is not None}:
        if (last := printed.get(token)) is not None:
            token.go_on_with(last)


def _clients(own: PipelineSettings, before: Lasting[UpstreamClients] | None) -> Lasting[UpstreamClients]:
    settings = ClientSettings(
        max_connections=own.upstream_max_connections,
        idle_expiry_s=own.upstream_idle_expiry_s,
        ca_file=own.ca_file,
        proxy=own.proxy,
        http2=own.http2,
    )
    try:
        made_of = (settings, None if own.ca_file is None else _stamp(own.ca_file))
        if before is not None and before.made_of == made_of and not before.has_failed:
            return before
        return Lasting(UpstreamClients(settings), made_of, "the connections to upstreams")
    except OSError as error:
        raise OSError(f"the certificates of ca_file, {own.ca_file}, cannot be used: {error}") from error


def _stamp(file: str) -> tuple[int, int, int]:
    """Return what changes if a file does."""
    found = os.stat(file)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _store(own: PipelineSettings, before: Lasting[ReasoningStore] | None) -> Lasting[ReasoningStore] | None:
    if not own.restore_reasoning:
        return None
    limits = (own.reasoning_max_entries, own.reasoning_max_mb, own.reasoning_max_age_h)
    made_of = (own.reasoning_store, own.reasoning_store_file, limits)
    if before is not None and before.made_of == made_of and not before.has_failed:
        return before
    store = open_store(
        own.reasoning_store,
        file=own.reasoning_store_file,
        max_entries=own.reasoning_max_entries,
        max_mb=own.reasoning_max_mb,
        max_age_h=own.reasoning_max_age_h,
    )
    return Lasting(store, made_of, "the store of reasoning")


def _log_chat_only(deployment: Deployment) -> None:
    log.warning(
        "the server of deployment %s has no /responses and is asked by /chat/completions from now on: "
        "use_chat_completions_api: true in its litellm_params saves the first attempt after each start",
        redact(deployment.id),
    )


def _upload_budget(own: PipelineSettings) -> UploadBudget:
    if own.max_upload_mb_total is None:
        total_bytes = default_total_bytes(memory_limit_bytes(), own.workers)
    else:
        total_bytes = int(own.max_upload_mb_total * 1024 * 1024)
    return UploadBudget(total_bytes, max_body_bytes=own.max_body_bytes)


class _AnyKey(KeyStore):
    """Accepts every key: it is the client's own, for the upstream, or there are none. Only the configured are known."""

    def authenticate(self, presented: bytes) -> Principal:
        """Return the owner of a key."""
        return super().authenticate(presented) or ANONYMOUS


def _profile_chooser(own: PipelineSettings, *, is_transparent: bool) -> Callable[[dict[bytes, bytes]], Profile]:
    """Return a function from a request's headers to its client profile."""
    display = own.reasoning_display
    openai = msgspec.structs.replace(OPENAI, reasoning_display=display, errors_as_upstream=is_transparent)
    errors_as_400 = own.cursor_error_status == 400
    cursor = msgspec.structs.replace(CURSOR, errors_as_400=errors_as_400, reasoning_display=display)
    if own.client_profile == "cursor":
        return lambda headers: cursor
    if own.client_profile == "openai":
        return lambda headers: openai
    return lambda headers: cursor if headers.get(b"user-agent", b"")[:7].lower() == b"cursor/" else openai
