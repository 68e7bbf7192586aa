"""The configuration of a world, and those that its reloads put into its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from kit.service.running import KEY

from pipeline.gateway.config.keys import KeySettings, key_digest
from pipeline.gateway.config.settings import Execution, PipelineSettings, Settings, StageSettings
from stages.limits import NO_LIMITS, Limits
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Timeouts

Kind = Literal["responses", "chat", "anthropic"]
"""The API of an upstream."""

MAX_BODY_BYTES: Final = 160 * 1024
"""More than our server reads ahead."""
CONNECT_S: Final = 2.0
HEADERS_S: Final = 3.0
IDLE_S: Final = 4.0
BODY_TIMEOUT_S: Final = 6.0
WRITE_TIMEOUT_S: Final = 8.0
KEEP_ALIVE_TIMEOUT_S: Final = 20.0
GRACEFUL_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 25.0

KeyName = Literal["master", "early", "late"]
KEYS: Final[dict[KeyName, str]] = {
    "master": KEY,
    "early": "sk-early-key-0123456789",
    "late": "sk-late-key-0123456789",
}
"""The keys that clients may have. All configurations have the master key; which others, they differ in."""

WITNESS: Final = "witness"
"""The name of the added stage."""

_TIMEOUTS: Final = Timeouts(connect_s=CONNECT_S, headers_s=HEADERS_S, first_event_s=IDLE_S, idle_s=IDLE_S)
_PATHS: Final[dict[Kind, str]] = {"responses": "responses", "chat": "chat/completions", "anthropic": "messages"}
_PROVIDERS: Final[dict[Kind, str]] = {"responses": "openai", "chat": "deepseek", "anthropic": "anthropic"}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What differs between worlds, and between the generations of one world.

    Attributes:
        number: of this configuration; the first of a world has 0.
        kinds: the API of each host.
        first, second: the hosts of the deployments of each model; a model without any does not exist.
        secret: with what the upstreams are asked.
        keys: the names of the keys that are valid besides the master key.
        stage: the name of an added stage; None without any.
        in_flight, queued, queue_s: how many requests may run at a time, and how many may wait for how long.
        key_limits: of each key that has limits.
        host_limits: of the deployment at each host that has limits.
    """

    number: int = 0
    kinds: dict[str, Kind]
    first: tuple[str, ...]
    second: tuple[str, ...]
    secret: str = "sk-simulated-0"
    keys: frozenset[KeyName] = frozenset({"early"})
    has_fallback: bool
    retries: int
    request_timeout_s: float | None
    comments_s: float
    max_upstream_connections: int
    executes: Execution
    stage: str | None = None
    in_flight: int | None = None
    queued: int = 0
    queue_s: float = 0.0
    key_limits: dict[KeyName, Limits] = field(default_factory=dict)
    host_limits: dict[str, Limits] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Those of all deployments."""
        return self.first + self.second

    @property
    def has_limits(self) -> bool:
        """Whether anything is limited."""
        return self.in_flight is not None or bool(self.key_limits) or bool(self.host_limits)

    def accepts(self, key: KeyName) -> bool:
        """Whether a key is valid."""
        return key == "master" or key in self.keys

    def has_model(self, model: str) -> bool:
        """Whether a model exists."""
        return bool(self._hosts_of(model))

    def may_ask(self, model: str) -> set[tuple[str, str]]:
        """Return whom a request for a model may be sent to: each host, and the secret with which it is asked."""
        hosts = self._hosts_of(model)
        if model == "first" and self._falls_back:
            hosts += self.second
        return {(host, self.secret) for host in hosts}

    def id_of(self, host: str) -> str:
        """Return the id of the deployment at a host."""
        return "b" if host in self.second else "ac"[self.first.index(host)]

    def settings(self) -> Settings:
        """Return the settings of the gateway."""
        return Settings(
            deployments=(
                *(self._deployment(id, "first", host) for id, host in zip("ac", self.first, strict=False)),
                *(self._deployment("b", "second", host) for host in self.second),
            ),
            master_key=KEY,
            keys=tuple(
                KeySettings(name, key_digest(KEYS[name]), limits=self.key_limits.get(name, NO_LIMITS))
                for name in sorted(self.keys)
            ),
            routing=RoutingSettings(
                num_retries=self.retries,
                fallbacks={"first": ("second",)} if self._falls_back else {},
                cooldown_s=2.0,
            ),
            pipeline=PipelineSettings(
                max_body_mb=MAX_BODY_BYTES / 1024 / 1024,
                header_timeout_s=5.0,
                body_timeout_s=BODY_TIMEOUT_S,
                write_timeout_s=WRITE_TIMEOUT_S,
                keep_alive_timeout_s=KEEP_ALIVE_TIMEOUT_S,
                graceful_timeout_s=GRACEFUL_S,
                keep_alive_interval_s=self.comments_s,
                request_timeout_s=self.request_timeout_s,
                upstream_max_connections=self.max_upstream_connections,
                upstream_idle_expiry_s=10.0,
                execution=self.executes,
                server_timing=False,  # it would put real time into the bytes
                max_requests_in_flight=self.in_flight,
                max_queued_requests=self.queued,
                queue_timeout_s=self.queue_s,
                stages=() if self.stage is None else (StageSettings(use=self.stage),),
            ),
        )

    @property
    def _falls_back(self) -> bool:
        return self.has_fallback and bool(self.second)

    def _hosts_of(self, model: str) -> tuple[str, ...]:
        return self.first if model == "first" else self.second

    def _deployment(self, id: str, model_name: str, host: str) -> Deployment:
        limits = self.host_limits.get(host, NO_LIMITS)
        return deployment(id, model_name, self.kinds[host], host, 1, secret=self.secret, limits=limits)


def deployment(
    id: str,
    model_name: str,
    kind: Kind,
    host: str,
    order: int,
    *,
    secret: str = "sk-simulated-0",
    limits: Limits = NO_LIMITS,
) -> Deployment:
    """Return a deployment at a simulated host."""
    return Deployment(
        id=id,
        model_name=model_name,
        model="m",
        provider=_PROVIDERS[kind],
        kind=kind,
        url=f"http://{host}/v1/{_PATHS[kind]}",
        headers=(("authorization", f"Bearer {secret}"),),
        timeouts=_TIMEOUTS,
        order=order,
        limits=limits,
    )
