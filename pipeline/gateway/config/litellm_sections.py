"""What is read of LiteLLM's sections: each field, what it may be, and how a message says that.

A field that is a `Node` has a reader of its own. ``docs/config.md`` says what each is for. Names that are not here are
in `litellm_names`.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from pipeline.gateway.config.kinds import HIDDEN, KEY
from pipeline.gateway.config.settings import HEADER_NAME
from pipeline.gateway.config.yaml_tree import Node
from stages.routing.settings import Strategy

MOST: int = 1_000_000_000_000
"""The largest whole number that is accepted."""

Duration: TypeAlias = Annotated[float, Meta(gt=0, description="seconds, more than 0, such as 60")]
Pause: TypeAlias = Annotated[float, Meta(ge=0, le=86_400, description="seconds from 0 to 86400, such as 5")]
Limit: TypeAlias = Annotated[int, Meta(ge=0, le=MOST, description="a whole number from 0, such as 100")]
Parallel: TypeAlias = Annotated[int, Meta(ge=1, le=MOST, description="a whole number from 1, such as 100")]
InFlight: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1, such as 100")]
LimitsByModel: TypeAlias = Annotated[
    dict[str, Limit], Meta(description="a mapping of numbers by model, such as {gpt-5: 100}")
]
Times: TypeAlias = Annotated[int, Meta(ge=0, le=100, description="a whole number from 0 to 100")]
Fails: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")]
RetryPolicy: TypeAlias = Annotated[dict[str, Times], Meta(description="a mapping such as {TimeoutErrorRetries: 3}")]
FailsPolicy: TypeAlias = Annotated[
    dict[str, Fails], Meta(description="a mapping such as {TimeoutErrorAllowedFails: 3}")
]
Url: TypeAlias = Annotated[str, Meta(description="a URL such as https://api.example.com/v1"), HIDDEN]
Place: TypeAlias = Annotated[str, Meta(description="text, such as the name of a region, a project or an account")]
MasterKey: TypeAlias = Annotated[str, Meta(description="text such as os.environ/LITELLM_MASTER_KEY"), KEY]


UncountedStrategy: TypeAlias = Literal[
    "usage-based-routing", "usage-based-routing-v2", "cost-based-routing", "provider-budget-routing"
]
"""LiteLLM's strategies that need to know what each deployment was used for, or what it costs."""


class TopLevel(Struct, frozen=True, kw_only=True):
    """The document."""

    model_list: Node | None = None
    litellm_settings: Node | None = None
    general_settings: Node | None = None
    router_settings: Node | None = None
    environment_variables: Node | None = None
    include: Node | None = None
    pipeline_settings: Node | None = None


class GeneralSettings(Struct, frozen=True, kw_only=True):
    """``general_settings``."""

    master_key: Node | None = None
    max_request_size_mb: Annotated[float, Meta(gt=0, le=2048, description="a number of MiB, such as 100")] | None = None
    background_health_checks: bool | None = None
    health_check_interval: Duration | None = None
    litellm_key_header_name: (
        Annotated[str, Meta(pattern=HEADER_NAME, description="the name of a header, such as x-api-key")] | None
    ) = None
    max_parallel_requests: Parallel | None = None
    # Zero would refuse every request, which nobody wants of a gateway: it is an error.
    global_max_parallel_requests: InFlight | None = None


class StrategyArgs(Struct, frozen=True, kw_only=True):
    """``routing_strategy_args``."""

    lowest_latency_buffer: Annotated[float, Meta(ge=0, le=100, description="a number from 0 on, such as 0.1")] = 0.0


class RoutingSection(Struct, frozen=True, kw_only=True):
    """What may stand in ``router_settings``, and in ``litellm_settings`` too."""

    num_retries: Times | None = None
    retry_after: Pause | None = None
    retry_policy: RetryPolicy | None = None
    model_group_retry_policy: Annotated[dict[str, RetryPolicy], Meta(description="a mapping of model names")] | None = (
        None
    )
    fallbacks: Node | None = None
    default_fallbacks: Node | None = None
    context_window_fallbacks: Node | None = None
    content_policy_fallbacks: Node | None = None
    max_fallbacks: Times | None = None
    allowed_fails: Fails | None = None
    allowed_fails_policy: FailsPolicy | None = None
    cooldown_time: Pause | None = None
    disable_cooldowns: bool | None = None
    routing_strategy: Literal[Strategy, UncountedStrategy] | None = None
    routing_strategy_args: StrategyArgs | None = None
    model_group_alias: Node | None = None
    enable_pre_call_checks: bool | None = None


class LitellmSettings(RoutingSection, frozen=True, kw_only=True):
    """``litellm_settings``."""

    request_timeout: Duration | None = None
    sse_keepalive_ping_interval_seconds: Node | None = None
    max_parallel_requests: Parallel | None = None
    callbacks: Node | None = None
    success_callback: Node | None = None
    failure_callback: Node | None = None
    require_auth_for_metrics_endpoint: bool | None = None


class RouterSettings(RoutingSection, frozen=True, kw_only=True):
    """``router_settings``."""

    timeout: Duration | None = None
    stream_timeout: Duration | None = None
    default_max_parallel_requests: Parallel | None = None


class DeploymentLimits(Struct, frozen=True, kw_only=True):
    """What LiteLLM reads in an entry of ``model_list``, in its ``litellm_params`` and in its ``model_info``."""

    rpm: Limit | None = None
    tpm: Limit | None = None
    max_parallel_requests: Limit | None = None


class ModelEntry(DeploymentLimits, frozen=True, kw_only=True):
    """An entry of ``model_list``."""

    model_name: Annotated[str, Meta(description="the name that clients ask for, such as gpt-5")]
    litellm_params: Annotated[Node, Meta(description="model, api_key and so on")]
    model_info: Node | None = None


class LitellmParams(DeploymentLimits, frozen=True, kw_only=True):
    """``litellm_params`` of an entry; the parameters of requests are in `request_parameters`."""

    model: Annotated[str, Meta(description="text such as openai/gpt-5")]
    custom_llm_provider: Annotated[str, Meta(description="the name of a provider, such as openai")] | None = None
    api_base: Url | None = None
    base_url: Url | None = None
    api_key: Annotated[str, Meta(description="text such as os.environ/OPENAI_API_KEY"), KEY] | None = None
    api_version: Annotated[str, Meta(description="text such as 2025-04-01-preview")] | None = None
    aws_region_name: Place | None = None
    region_name: Place | None = None
    vertex_project: Place | None = None
    vertex_ai_project: Place | None = None
    vertex_location: Place | None = None
    vertex_ai_location: Place | None = None
    account_id: Place | None = None
    token_command: Node | None = None
    token_refresh_s: Duration | None = None
    token_timeout_s: Duration | None = None
    organization: Annotated[str, Meta(description="text such as org-123"), KEY] | None = None
    headers: Node | None = None
    extra_headers: Node | None = None
    timeout: Duration | None = None
    request_timeout: Duration | None = None
    stream_timeout: Duration | None = None
    use_chat_completions_api: bool | None = None
    weight: Annotated[float, Meta(ge=0, le=1_000_000, description="a number from 0 on, such as 1")] | None = None
    order: Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number from 0, such as 1")] | None = None
    max_retries: Times | None = None
    num_retries: Times | None = None
    default_api_key_rpm_limit: Limit | None = None
    default_api_key_tpm_limit: Limit | None = None
    forward_fields: Annotated[tuple[str, ...], Meta(description="a list such as [provider, models]")] | None = None
    extra_body: Node | None = None
    additional_drop_params: Annotated[tuple[str, ...], Meta(description="a list such as [reasoning_effort]")] | None = (
        None
    )

    def __repr__(self) -> str:
        """Return the model: the rest may hold a secret."""
        return f"<LitellmParams {self.model}>"


class ModelInfo(DeploymentLimits, frozen=True, kw_only=True):
    """``model_info`` of an entry."""

    id: Annotated[str | int, Meta(description="text such as gpt-5-eu")] | None = None
    mode: Annotated[str, Meta(description="chat or responses")] | None = None
    base_model: Node | None = None
    supported_endpoints: Annotated[tuple[str, ...], Meta(description='a list such as ["/v1/responses"]')] | None = None
    max_input_tokens: Annotated[int, Meta(ge=0, le=MOST, description="a number of tokens, such as 128000")] | None = (
        None
    )
    disable_background_health_check: bool | None = None
    health_check_model: Annotated[str, Meta(description="the name of a model, such as openai/gpt-5-nano")] | None = None
    health_check_timeout: Duration | None = None
