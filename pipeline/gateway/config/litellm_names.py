"""LiteLLM's settings by name: those that we honour, those that need no action, and those that we do not support yet.

Source: docs.litellm.ai/docs/proxy/config_settings (October 2026), and LiteLLM 1.106.2 itself. The names are used only
for warnings, which distinguish "not supported yet" from a typing error. A name in no list is reported as unknown.
"""

from __future__ import annotations

from msgspec import Struct

from pipeline.gateway.config.kinds import names_of
from pipeline.gateway.config.litellm_sections import (
    GeneralSettings,
    LitellmParams,
    LitellmSettings,
    ModelEntry,
    ModelInfo,
    RouterSettings,
    TopLevel,
)
from pipeline.gateway.config.request_parameters import DEFAULTS
from stages.upstreams.providers import PROVIDERS


class Names(Struct, frozen=True):
    """The names of one section."""

    honoured: frozenset[str]
    """Read by us: the fields of a Struct in `litellm_sections`."""
    harmless: frozenset[str]
    """Accepted silently, because we behave that way anyway or the setting has no meaning here."""
    unsupported: frozenset[str]
    """One warning each."""
    reported_when_false: frozenset[str] = frozenset()
    """Settings whose false, zero or empty value requests something too."""
    limits: frozenset[str] = frozenset()
    """Limits that nobody enforces: the gateway does not start with them. Those of the other sets are not among them."""
    unset_by_zero: frozenset[str] = frozenset()
    """Limits for which LiteLLM takes zero as none."""

    @property
    def known(self) -> frozenset[str]:
        """All of them."""
        return self.honoured | self.harmless | self.unsupported | self.limits


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


LIMITS = _set(
    "rpm tpm itpm otpm rpm_limit tpm_limit max_parallel_requests default_max_parallel_requests "
    "global_max_parallel_requests model_rpm_limit model_tpm_limit model_max_parallel_requests "
    "default_api_key_rpm_limit default_api_key_tpm_limit team_member_rpm_limit team_member_tpm_limit "
    "token_rate_limit_type priority_reservation fairness_settings "
    "max_budget soft_budget default_soft_budget budget_limits budget_id model_max_budget temp_budget_increase "
    "max_end_user_budget max_end_user_budget_id max_internal_user_budget default_max_internal_user_budget "
    "max_user_budget team_member_budget max_budget_in_team provider_budget_config tag_budget_config"
)
"""LiteLLM's words for limits. In a section where we do not honour one, it is a limit that nobody enforces."""

LIMITS_WITHIN = _set(
    "default_internal_user_params default_team_params default_team_settings default_key_generate_params "
    "upperbound_key_generate_params default_litellm_params"
)
"""Settings that are mappings, or lists of mappings, in which the same words are limits."""

KEY_BUDGETS = _set("max_budget soft_budget budget_limits budget_id model_max_budget temp_budget_increase")
"""Limits of a key in LiteLLM that nobody enforces here."""
KEY_HARMLESS = _set("budget_duration temp_budget_expiry rpm_limit_type tpm_limit_type")
"""What LiteLLM says of a key's limits: without a budget it means nothing, and the other limits always hold."""

TOP_LEVEL = Names(
    honoured=names_of(TopLevel),
    harmless=frozenset(),
    unsupported=_set(
        "guardrails callback_settings credential_list mcp_servers mcp_tools vector_store_registry "
        "search_tools files_settings finetune_settings prompts assistant_settings agent_list "
        "default_internal_user_params default_team_settings password_reset_settings sso_settings policies "
        "policy_attachments key_management_settings model_group_alias worker_config"
    ),
    limits=LIMITS,
)

GENERAL_SETTINGS = Names(
    honoured=names_of(GeneralSettings),
    harmless=_set(
        "cancel_on_disconnect disable_spend_logs disable_spend_updates disable_master_key_return "
        "disable_reset_budget disable_adding_master_key_hash_to_db disable_prisma_schema_update "
        "disable_responses_id_security allow_requests_on_db_unavailable store_prompts_in_spend_logs "
        "disable_retry_on_max_parallel_request_limit_error fail_closed_budget_enforcement disable_budget_reservation "
        "proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time"
    ),
    unsupported=_set(
        "completion_model forward_client_headers_to_llm_api forward_openai_org_id enable_jwt_auth "
        "litellm_jwtauth enforce_user_param reject_clientside_metadata_tags allowed_routes admin_only_routes "
        "public_routes allowed_ips key_management_system key_management_settings database_url database_type "
        "database_args database_connection_pool_limit database_connection_timeout custom_auth "
        "custom_key_generate custom_sso "
        "infer_model_from_keys health_check_details health_check_concurrency "
        "alerting alerting_threshold alerting_args alert_types alert_to_webhook_url "
        "spend_report_frequency use_client_credentials_pass_through_routes pass_through_endpoints "
        "enforced_params enable_oauth2_auth enable_oauth2_proxy_auth oauth2_config_mappings "
        "use_x_forwarded_for service_account_settings image_generation_model embedding_model moderation_model "
        "store_model_in_db supported_db_objects user_mcp_management_mode max_response_size_mb "
        "proxy_batch_write_at "
        "proxy_batch_polling_interval default_team_disabled allow_user_auth user_api_key_cache_ttl "
        "allow_client_side_credentials use_azure_key_vault use_google_kms "
        "ui_access_mode litellm_license maximum_spend_logs_retention_period "
        "maximum_spend_logs_retention_interval always_include_stream_usage use_redis_transaction_buffer "
        "use_shared_health_check role_permissions control_plane_url user_header_name user_header_mappings "
        "mcp_internal_ip_ranges mcp_client_side_auth_header_name "
        "mcp_trusted_proxy_ranges required_mcp_params"
    ),
    limits=LIMITS,
)

LITELLM_SETTINGS = Names(
    honoured=names_of(LitellmSettings),
    harmless=_set(
        "drop_params turn_off_message_logging redact_user_api_key_info json_logs suppress_debug_info "
        "telemetry disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only "
        "disable_hf_tokenizer_download disable_copilot_system_to_assistant "
        "disable_add_transform_inline_image_block modify_params set_verbose "
        "use_chat_completions_url_for_anthropic_messages enable_preview_features "
        "budget_duration internal_user_budget_duration max_ui_session_budget priority_reservation_settings"
    ),
    unsupported=_set(
        "service_callbacks audit_log_callbacks "
        "langfuse_default_tags cache cache_params "
        "upperbound_key_generate_params "
        "default_key_generate_params key_generation_settings default_internal_user_params default_team_params "
        "default_team_settings force_ipv4 ssl_verify ssl_certificate ssl_security_level "
        "mcp_aliases enable_json_schema_validation enable_key_alias_format_validation "
        "model_group_settings model_alias_map "
        "custom_provider_map add_function_to_prompt post_call_rules pre_call_rules prometheus_metrics_config "
        "prometheus_initialize_budget_metrics custom_prometheus_metadata_labels custom_prometheus_tags "
        "s3_callback_params datadog_params gcs_params "
        "public_model_groups forward_traceparent_to_llm_provider "
        "network_mock store_audit_logs guardrail_name_config_map "
        "responses_api_encrypted_content_affinity extra_spend_tag_headers default_redis_ttl api_base api_key "
        "openai_key azure_key headers organization cost_discount_config cost_margin_config "
        "enable_loadbalancing_on_batch_endpoints"
    ),
    reported_when_false=_set("ssl_verify"),
    limits=LIMITS,
    unset_by_zero=_set("max_budget"),  # LiteLLM's default is 0
)

ROUTER_SETTINGS = Names(
    honoured=names_of(RouterSettings),
    harmless=_set("debug_level set_verbose client_ttl polling_interval"),
    unsupported=_set(
        ""
        ""
        ""
        "enable_tag_filtering tag_filtering_match_any redis_host "
        "redis_port redis_password redis_url redis_db redis_ssl cache_responses cache_kwargs caching_groups "
        "default_priority default_litellm_params "
        "alerting_config optional_pre_call_checks assistants_config ignore_invalid_deployments search_tools "
        "guardrail_list deployment_affinity_ttl_seconds enable_health_check_routing "
        "health_check_staleness_threshold routing_groups model_list"
    ),
    limits=LIMITS,
)

LITELLM_PARAMS = Names(
    honoured=names_of(LitellmParams) | DEFAULTS,
    harmless=_set(
        "drop_params allowed_openai_params merge_reasoning_content_in_choices "
        "base_model input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second "
        "cache_read_input_token_cost cache_creation_input_token_cost input_cost_per_token_batches "
        "output_cost_per_token_batches input_cost_per_pixel output_cost_per_pixel supports_system_message "
        "litellm_system_prompt_note model_info use_in_pass_through cost_per_query no-log verbose rust "
        "budget_duration"
    ),
    unsupported=_set(
        "tags tag_regex keepalive_seconds allow_client_keepalive_override litellm_credential_name "
        "region_name aws_region_name aws_access_key_id aws_secret_access_key aws_session_token "
        "aws_session_name aws_profile_name aws_role_name aws_web_identity_token aws_bedrock_runtime_endpoint "
        "vertex_project vertex_location vertex_credentials tenant_id client_id client_secret azure_ad_token "
        "azure_username azure_password azure_scope watsonx_region_name ssl_verify mock_response mock_timeout "
        "n tools tool_choice metadata extra_query "
        "instructions truncation include stream stream_options guardrails fallbacks "
        "context_window_fallback_dict cooldown_time retry_policy enable_prompt_caching cache caching "
        "cache_control_injection_points prompt_id prompt_variables litellm_system_prompt "
        "configurable_clientside_auth_params "
        "max_file_size_mb auto_router_config_path auto_router_config auto_router_default_model "
        "auto_router_embedding_model complexity_router_config input_type dimensions encoding_format num_ctx "
        "keep_alive provider_specific_header proxy force_timeout use_litellm_proxy"
    ),
    reported_when_false=_set("ssl_verify keepalive_seconds stream"),
    limits=LIMITS,
)

MODEL_LIST_ENTRY = Names(
    honoured=names_of(ModelEntry),
    harmless=frozenset(),
    unsupported=_set("access_groups"),
    limits=LIMITS,
)

MODEL_INFO = Names(  # LiteLLM lets users keep their own notes here: only a near miss of these is reported
    honoured=names_of(ModelInfo),
    harmless=_set("max_output_tokens"),  # it only looks like one
    unsupported=frozenset(),
    limits=_set("itpm otpm"),  # the others are not LiteLLM's there
)

UNREACHED_PROVIDERS = _set(
    "vertex_ai vertex_ai_beta palm bedrock bedrock_converse sagemaker sagemaker_chat cohere cohere_chat "
    "replicate huggingface ai21 ai21_chat nlp_cloud aleph_alpha baseten watsonx watsonx_text cloudflare "
    "anyscale voyage jina_ai azure_ai azure_text azure_anthropic text-completion-openai custom petals triton "
    "predibase galadriel aiohttp_openai chatgpt clarifai datarobot gigachat gradient_ai heroku infinity oci "
    "snowflake topaz xinference maritalk empower bytez cometapi compactifai ovhcloud abliteration amazon_nova "
    "sap langgraph a2a ragflow text-completion-codestral oobabooga deepgram elevenlabs assemblyai recraft "
    "publicai anthropic_text bedrock_mantle tencent qwencloud modelscope edenai manus veniceai scaleway "
    "helicone qwen_ai_platform nadir"
)
"""Prefixes that LiteLLM knows and we cannot reach yet: which is how they differ from a ``/`` within a model's name."""

_BARE_NAMES = (
    ("claude", "anthropic"),
    ("gemini", "vertex_ai"),
    ("deepseek-", "deepseek"),
    ("command-", "cohere"),
)
"""The provider that LiteLLM takes for a name without a prefix; ``gemini-...`` alone is Vertex AI, which signs in to
Google Cloud."""


def split_model(model: str) -> tuple[str | None, str]:
    """Split ``provider/model``; a name without a prefix gets the provider that LiteLLM takes. None: unknown prefix."""
    prefix, slash, rest = model.partition("/")
    if slash and (prefix in PROVIDERS or prefix in UNREACHED_PROVIDERS or prefix == "canned"):
        return prefix, rest
    if slash:
        return None, model
    return next((provider for start, provider in _BARE_NAMES if model.startswith(start)), "openai"), model
