"""The resolved configuration: every default applied, every variable filled in.

The ``description`` of each field of `PipelineSettings` is what error messages say is expected; ``docs/config.md`` has
a row for each field (a test compares them).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from pipeline.gateway.config.keys import KeySettings
from pipeline.gateway.config.kinds import HIDDEN
from pipeline.gateway.config.problems import Problem
from pipeline.gateway.logs import LogFormat, LogLevel
from stages.reasoning.opening import StoreKind
from stages.routing.settings import DEFAULT_ROUTING, RoutingSettings
from stages.upstreams import DEFAULT_TRANSPORT, Deployment, Transport
from stages.upstreams.transport.defaults import IDLE_EXPIRY_S
from stages.wire.downstream.profiles import ReasoningDisplay

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=604_800, description="seconds, more than 0, such as 30")]
SecondsOrOff: TypeAlias = Annotated[float, Meta(ge=0, le=604_800, description="seconds, such as 15, or 0 for never")]
SecondsOrAtOnce: TypeAlias = Annotated[
    float, Meta(ge=0, le=604_800, description="seconds, such as 5, or 0 for at once")
]
SecondsOrNone: TypeAlias = Annotated[float, Meta(ge=0, le=604_800, description="seconds, such as 10, or 0 for none")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1, such as 1000")]
HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
"""RFC 9110 section 5.1."""
METRICS_ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$"
"""A host and a port; an IPv6 address is in brackets."""
ORIGIN = r"^(\*|null|[A-Za-z][A-Za-z0-9+.-]*://[!-.0-~]+/?)$"
"""An origin as browsers send it, or ``*`` for all."""
Execution: TypeAlias = Literal["tasks", "fused"]
"""Whether each stage of a request has its own task, or neighbouring codecs share one."""


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests a stage is for; what is None does not matter.

    Attributes:
        keys: the names of keys; each may have any number of ``*``.
        models: the names that clients ask for; each may have any number of ``*``.
        stream: whether the client streams.
        profile: what kind of client it is.
    """

    keys: Annotated[tuple[str, ...], Meta(description="a list of names of keys")] | None = None
    models: Annotated[tuple[str, ...], Meta(description="a list of names of models")] | None = None
    stream: bool | None = None
    profile: Literal["cursor", "openai"] | None = None


class StageSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage that the user adds to the pipeline.

    Attributes:
        use: the name of the stage's plugin.
        at: the place where it stands; None for where what it takes flows.
        before, after: another added stage at the same place. ``after`` may also be a built-in stage, for its place.
        when: which requests it is for.
        on_error: whether a failure of the stage fails the request, or only ends the stage.
        options: the options of the plugin.
        where: the place in the configuration, for error messages.
    """

    use: Annotated[str, Meta(description="the name of a stage (`headrace stages` lists them)")]
    at: Annotated[str, Meta(description="a place, such as events")] | None = None
    before: Annotated[str, Meta(description="the name of another added stage")] | None = None
    after: Annotated[str, Meta(description="the name of another stage, such as decode_events")] | None = None
    when: Annotated[When, Meta(description="a mapping such as {models: [gpt-5*]}")] = When()
    on_error: Literal["fail", "skip"] = "fail"
    # Checked by the registry, against the stage's own type.
    options: Annotated[dict[str, Any], Meta(description="a mapping with the stage's options")] = {}
    where: str = ""

    def __repr__(self) -> str:
        """Return the names without the options, which may hold a secret."""
        return f"<StageSettings {self.use}>"


class PipelineSettings(Struct, frozen=True, kw_only=True):
    """The section ``pipeline_settings``: what LiteLLM's own settings cannot express."""

    host: Annotated[str, Meta(min_length=1, description="an address to listen on, such as 127.0.0.1")] = "0.0.0.0"
    port: Annotated[int, Meta(ge=0, le=65535, description="a port number, 1 to 65535, or 0 for any free one")] = 4000
    workers: Annotated[int, Meta(ge=1, le=256, description="a number of processes, such as 2")] = 1
    max_connections: Count = 10_000
    keep_alive_timeout_s: Seconds = 75.0
    header_timeout_s: Seconds = 15.0
    body_timeout_s: Seconds = 60.0
    write_timeout_s: Seconds = 20.0
    graceful_timeout_s: SecondsOrAtOnce = 120.0
    shutdown_delay_s: SecondsOrNone = 0.0
    max_requests: Count | None = None
    max_age_s: Seconds | None = None
    watch_config: bool = False
    max_requests_in_flight: Count | None = None
    max_queued_requests: Annotated[
        int, Meta(ge=0, le=1_000_000, description="a whole number, such as 100, or 0 for no queue")
    ] = 100
    queue_timeout_s: SecondsOrAtOnce = 5.0
    max_lag_ms: Annotated[float, Meta(ge=0, le=60_000, description="milliseconds, such as 60, or 0 for never")] = 60.0
    ignore_limits: bool = False
    max_body_mb: Annotated[float, Meta(gt=0, le=2048, description="a number of MiB, such as 100")] = 100.0
    max_upload_mb_total: (
        Annotated[float, Meta(gt=0, le=1_048_576, description="a number of MiB, such as 768")] | None
    ) = None
    keep_alive_interval_s: SecondsOrOff = 15.0
    request_timeout_s: Seconds | None = None
    client_profile: Literal["auto", "cursor", "openai"] = "auto"
    cursor_error_status: Literal[400, "passthrough"] = 400
    reasoning_display: ReasoningDisplay = "reasoning_content"
    restore_reasoning: bool = True
    reasoning_store: StoreKind = "memory"
    reasoning_store_file: (
        Annotated[str, Meta(description="the name of a file, such as reasoning.sqlite"), HIDDEN] | None
    ) = None
    reasoning_max_entries: Count | None = None
    reasoning_max_mb: (
        Annotated[float, Meta(gt=0, le=1_048_576, description="a number of MiB, more than 0, such as 64")] | None
    ) = None
    reasoning_max_age_h: (
        Annotated[float, Meta(gt=0, le=87_600, description="a number of hours, more than 0, such as 24")] | None
    ) = None
    allow_anonymous: bool = False
    key_header: (
        Annotated[str, Meta(pattern=HEADER_NAME, description="the name of a header, such as x-api-key")] | None
    ) = None
    forwarded_allow_ips: Annotated[
        tuple[str, ...], Meta(description='a list of addresses and networks, such as ["10.0.0.0/8"], or ["*"]')
    ] = ()
    allowed_origins: Annotated[
        tuple[Annotated[str, Meta(pattern=ORIGIN)], ...],
        Meta(description='a list of origins, such as ["https://example.com"]'),
    ] = ("*",)
    execution: Execution = "fused"
    stages: Annotated[tuple[StageSettings, ...], Meta(description="a list of stages, each with use")] = ()
    transport: Transport = DEFAULT_TRANSPORT
    proxy: (
        Annotated[str, Meta(description="the URL of a proxy, such as http://proxy.example.com:3128"), HIDDEN] | None
    ) = None
    http2: bool = False
    ca_file: Annotated[str, Meta(description="the name of a file with certificates in PEM form"), HIDDEN] | None = None
    upstream_max_connections: Count = 10_000
    upstream_idle_expiry_s: SecondsOrOff = IDLE_EXPIRY_S
    tls_certfile: (
        Annotated[str, Meta(description="the name of a file with our certificate in PEM form"), HIDDEN] | None
    ) = None
    tls_keyfile: (
        Annotated[str, Meta(description="the name of a file with its private key in PEM form"), HIDDEN] | None
    ) = None
    metrics: bool = True
    metrics_without_key: bool = False
    metrics_address: (
        Annotated[str, Meta(pattern=METRICS_ADDRESS, description="an address and a port, such as 127.0.0.1:9464")]
        | None
    ) = None
    otlp_endpoint: Annotated[str, Meta(description="a URL, such as http://127.0.0.1:4318"), HIDDEN] | None = None
    otlp_interval_s: Seconds = 60.0
    recorder_mb: Annotated[float, Meta(ge=0, le=1024, description="a number of MiB, such as 32, or 0 for none")] = 32.0
    trace_one_in: Annotated[
        int, Meta(ge=0, le=1_000_000_000, description="a whole number, such as 100, or 0 for none")
    ] = 100
    server_timing: bool = True
    server_timing_comment: bool = False
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    @property
    def max_body_bytes(self) -> int:
        """``max_body_mb`` in bytes."""
        return int(self.max_body_mb * 1024 * 1024)

    @property
    def recorder_bytes(self) -> int:
        """``recorder_mb`` in bytes."""
        return int(self.recorder_mb * 1024 * 1024)

    def __repr__(self) -> str:
        """Return only the address: ``proxy``, ``otlp_endpoint`` and the options of stages may hold a secret."""
        return f"<PipelineSettings {self.host}:{self.port}>"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the gateway needs.

    Attributes:
        deployments: the usable entries of ``model_list``, in their order; several of one name are a group.
        keys: the static keys.
        master_key: the key that may use everything, plain or as ``sha256:`` and its digest.
        pipeline: our own section.
        routing: which deployment answers, and which one next.
        health_check_interval_s: how often each deployment is asked in the background; None if none is.
        left_out: the names that the file has, and none of whose deployments can be used.
        found_warnings: what the file asks for and does not get.
        source: the configuration file's name.
    """

    deployments: tuple[Deployment, ...]
    keys: tuple[KeySettings, ...] = ()
    master_key: str | None = None
    pipeline: PipelineSettings = PipelineSettings()
    routing: RoutingSettings = DEFAULT_ROUTING
    health_check_interval_s: float | None = None
    left_out: frozenset[str] = frozenset()
    found_warnings: tuple[Problem, ...] = ()
    source: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings as sentences; each is logged once, at the start."""
        return tuple(map(str, self.found_warnings))

    @property
    def is_transparent(self) -> bool:
        """Whether clients call their own upstream through this service, with their own keys (`headrace study`)."""
        return any(deployment.is_transparent for deployment in self.deployments)

    def __repr__(self) -> str:
        """Return the numbers of deployments and keys, without the keys."""
        return f"<Settings of {self.source}: {len(self.deployments)} deployments, {len(self.keys)} keys>"
