"""LiteLLM's settings that we do not read, by section: without effect, not supported, or a protection that is missing.

A user must learn what they lose. So a setting that changes what a client gets, or what an operator sees, is
*unsupported*: one warning. A setting is *harmless*, with the reason, if we behave that way anyway, or if it only tunes
something that is not here and whose own setting has a warning. A *protection* keeps something from happening in
LiteLLM; a warning that says what is open here stands for it.

Source: docs.litellm.ai/docs/proxy/config_settings (October 2026), and LiteLLM 1.110.2 itself. The names are used only
for warnings and for the tables of ``docs/config.md``; ``tests/data/litellm_keys.toml`` has LiteLLM's own list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct


class Ignored(Struct, frozen=True, kw_only=True):
    """The settings of one section that are not read.

    Attributes:
        harmless: those that are accepted silently, and why.
        unsupported: those that have one warning each, and what to write instead; empty text if there is nothing.
        protections: those whose warning says what is open.
    """

    harmless: Mapping[str, str] = {}
    unsupported: Mapping[str, str] = {}
    protections: Mapping[str, str] = {}


def by_name(words: Mapping[str, str]) -> Mapping[str, str]:
    """Return the text for each name, from the names for each text."""
    return {name: text for text, names in words.items() for name in names.split()}


def unprotected(what: str) -> str:
    """Return the warning of a protection that is missing; ``what`` is open without it."""
    return f"is a protection that is NOT enforced: {what}"


PRICES: Final = re.compile(r".*cost_per_|.*_token_cost|.*_uplift_multiplier|(off_peak|tiered)_pricing$")
"""LiteLLM's prices, of which each release has more: ``input_cost_per_token``, ``cache_read_input_token_cost`` ..."""

NOT_COUNTED: Final = "costs are not counted"
ALWAYS: Final = "it is always so"
_CACHE: Final = "it tunes the `cache`"
_CALLBACKS: Final = "it tunes a callback"
CHATS: Final = "only chats are served: no files, batches, media or MCP"
CLIENT: Final = "the HTTP client is our own"
_DATABASE: Final = "there is no database"
LOGS: Final = "what is logged is `log_level` and `log_format`"
_NOBODY: Final = "there are no users, teams or dashboard"
_SIGN_IN: Final = "it tunes how clients sign in"

_KEYS_ONLY: Final = "clients are admitted by the master key and pipeline_settings.keys alone"
NO_CHECKS: Final = "no request and no answer is checked"

TOP_LEVEL: Final = Ignored(
    harmless=by_name({_CALLBACKS: "callback_settings", _NOBODY: "password_reset_settings sso_settings"}),
    unsupported=by_name(
        {
            "": (
                "credential_list mcp_servers mcp_tools vector_store_registry search_tools files_settings "
                "finetune_settings prompts assistant_settings agent_list agents default_internal_user_params "
                "default_team_settings key_management_settings worker_config worker_registry sandbox_tools "
                "default_vertex_config plugins"
            ),
            "router_settings.model_group_alias": "model_group_alias",
        }
    ),
    protections=by_name({NO_CHECKS: "guardrails policies policy_attachments"}),
)

GENERAL_SETTINGS: Final = Ignored(
    harmless=by_name(
        {
            ALWAYS: (
                "cancel_on_disconnect disable_retry_on_max_parallel_request_limit_error "
                "disable_fallbacks_on_per_model_rate_limits health_check_skip_disabled_background_models "
                "return_wildcard_routes"
            ),
            _DATABASE: (
                "disable_spend_logs disable_spend_updates disable_adding_master_key_hash_to_db "
                "disable_prisma_schema_update allow_requests_on_db_unavailable store_prompts_in_spend_logs "
                "database_type database_args database_connection_pool_limit database_connection_pool_timeout "
                "database_connection_timeout database_connect_timeout database_socket_timeout "
                "database_max_idle_connection_lifetime database_extra_connection_params "
                "database_disable_prepared_statements supported_db_objects proxy_batch_write_at "
                "use_redis_transaction_buffer user_api_key_cache_ttl user_api_key_cache_max_size "
                "maximum_spend_logs_retention_period maximum_spend_logs_retention_interval maximum_spend_logs_size "
                "maximum_spend_logs_size_check_interval maximum_spend_logs_cleanup_target_size "
                "maximum_spend_logs_cleanup_batch_size maximum_spend_logs_cleanup_max_batches "
                "maximum_spend_logs_cleanup_run_budget maximum_spend_logs_cleanup_batch_timeout "
                "maximum_spend_logs_cleanup_cron maximum_autorouter_session_retention_period "
                "maximum_health_check_retention_period maximum_daily_tag_spend_retention_period "
                "spend_logs_metadata_fields spend_logs_prompt_storage spend_capture_rate_check use_spend_logs_ledger "
                "use_spend_logs_partitioning scheduled_job_stagger disable_model_info_refresh "
                "proxy_config_reload_interval_seconds fail_closed_rate_limit_enforcement"
            ),
            NOT_COUNTED: (
                "disable_reset_budget fail_closed_budget_enforcement disable_budget_reservation "
                "proxy_budget_rescheduler_min_time proxy_budget_rescheduler_max_time self_serve_budget_policy "
                "apply_user_budget_to_team_keys"
            ),
            _NOBODY: (
                "disable_master_key_return ui_access_mode litellm_license default_team_disabled custom_sso "
                "custom_ui_sso_sign_in_handler allow_cli_sso_verification_uri_complete auto_redirect_ui_login_to_sso "
                "disable_env_credential_login disable_password_login_when_sso_enabled hide_default_credentials_hint "
                "failed_login_block_seconds failed_login_window_seconds max_failed_login_attempts_per_source "
                "max_failed_login_attempts_per_source_overrides password_policy_check_breached_passwords "
                "password_policy_min_length password_policy_require_lowercase password_policy_require_numbers "
                "password_policy_require_special_characters password_policy_require_uppercase enable_public_model_hub "
                "disable_custom_api_keys disable_key_generate_for_org_admin disable_auto_add_proxy_admin_to_teams "
                "custom_team_metadata_validate team_metadata_schema team_metadata_validation_error_message "
                "team_metadata_validation_timeout use_team_public_model_name skill_scanner control_plane_url "
                "claude_code_marketplace_auth_required claude_code_gateway_managed_settings"
            ),
            _SIGN_IN: (
                "litellm_jwtauth oauth2_config_mappings role_permissions enforce_rbac custom_auth_run_common_checks"
            ),
            CHATS: (
                "disable_responses_id_security allow_unmanaged_response_ids image_generation_model embedding_model "
                "moderation_model max_file_size_mb max_batch_file_size_mb max_batch_file_records "
                "max_batch_file_uploads_per_day max_file_downloads_per_minute allowed_file_extensions "
                "blocked_file_extensions disable_batch_input_file_rate_limiting "
                "skip_batch_input_file_rate_limiting_for_models skip_batch_input_file_rate_limiting_for_providers "
                "track_unmanaged_batch_cost proxy_batch_polling_interval transcribe_media_buckets "
                "allowed_client_side_s3_buckets allowed_client_side_s3_endpoint_urls passthrough_managed_object_ids "
                "disable_bedrock_agent_runtime_passthrough enable_openai_websocket_passthrough "
                "use_client_credentials_pass_through_routes pass_through_request_timeout "
                "vertex_ai_pass_through_drop_anthropic_betas responses_websocket_session_limit_seconds "
                "vector_store_deny_by_default search_tool_deny_by_default agent_access_default_deny "
                "user_mcp_management_mode mcp_internal_ip_ranges mcp_client_side_auth_header_name "
                "mcp_trusted_proxy_ranges required_mcp_params mcp_advertised_versions mcp_disabled_capabilities "
                "mcp_allowed_clients mcp_require_explicit_server_scope mcp_client_id_header mcp_xff_num_trusted_hops "
                "mcp_prefer_client_id_metadata_document mcp_required_fields mcp_session_token_signing "
                "mcp_allow_all_keys_respects_mcp_scope require_end_user_mcp_access_defined "
                "require_key_mcp_access_defined enable_mcp_registry"
            ),
            "it tunes the `alerting`": (
                "alerting_threshold alerting_args alert_types alert_type_config alert_to_webhook_url "
                "spend_report_frequency"
            ),
            "there are no tags": "reject_clientside_metadata_tags",
            "no address that a client names is fetched": (
                "user_url_validation user_url_allowed_hosts provider_url_destination_allowed_hosts"
            ),
            "it tunes `max_in_flight_requests_per_worker`": (
                "max_queued_requests_per_worker admission_queue_timeout_seconds"
            ),
        }
    ),
    unsupported=by_name(
        {
            "": (
                "completion_model forward_client_headers_to_llm_api forward_openai_org_id public_routes "
                "key_management_system key_management_settings custom_key_generate custom_key_update "
                "custom_key_policy infer_model_from_keys health_check_concurrency alerting pass_through_endpoints "
                "service_account_settings store_model_in_db max_response_size_mb allow_user_auth "
                "allow_client_side_credentials use_azure_key_vault use_google_kms always_include_stream_usage "
                "use_shared_health_check user_header_name user_header_mappings coordination_redis "
                "request_tag_mappings plugins search_tools missing_session_id model_list_healthy_only "
                "include_call_id_in_error_body expose_fallback_errors_to_caller enable_health_check_routing "
                "health_check_staleness_threshold health_check_ignore_transient_errors health_check_details "
                "allow_public_health_readiness_details enable_claude_code_gateway enable_drain_endpoint "
                "drain_endpoint_token"
            ),
            "pipeline_settings.keys": "database_url",
            "pipeline_settings.forwarded_allow_ips": "use_x_forwarded_for trusted_proxy_ranges",
            "pipeline_settings.allow_anonymous": "dangerously_permit_weak_or_unset_master_key",
            "litellm_settings.callbacks: [otel]": "otel",
            "model_info.disable_background_health_check": "background_health_check_model_groups",
        }
    ),
    protections=by_name(
        {
            "clients of every address are served (restrict them in the proxy or firewall in front)": "allowed_ips",
            _KEYS_ONLY: "custom_auth enable_jwt_auth enable_oauth2_auth enable_oauth2_proxy_auth",
            "every key may call all routes for chats and models": "allowed_routes admin_only_routes",
            "requests without these parameters are served": "enforced_params enforce_user_param",
            "a key that is limited to some models reaches others through fallbacks": "enforce_fallback_model_access",
            "the records of requests have their clients' addresses": "disable_requester_ip_address_logging",
        }
    ),
)

LITELLM_SETTINGS: Final = Ignored(
    harmless=by_name(
        {
            ALWAYS: (
                "drop_params turn_off_message_logging modify_params route_all_chat_openai_to_responses "
                "redact_messages_in_exceptions request_correlation_in_logs disable_copilot_system_to_assistant "
                "disable_add_transform_inline_image_block disable_add_prefix_to_prompt "
                "reasoning_auto_summary disable_stop_sequence_limit"
            ),
            LOGS: ("set_verbose json_logs suppress_debug_info suppress_startup_output log_client_error_tracebacks"),
            "nothing is sent home": "telemetry",
            "no tokenizer is used": "disable_hf_tokenizer_download disable_token_counter",
            NOT_COUNTED: (
                "disable_end_user_cost_tracking disable_end_user_cost_tracking_prometheus_only "
                "enable_end_user_cost_tracking_prometheus_only budget_duration internal_user_budget_duration "
                "max_ui_session_budget priority_reservation_settings budget_exceeded_status_code "
                "budget_exceeded_throttle_percentage budget_reset_time budget_rollover cost_discount_config "
                "cost_margin_config apply_search_free_tier model_cost_map_url"
            ),
            _NOBODY: (
                "key_generation_settings default_key_max_budget_alert_emails personal_key_model_access_from_teams "
                "enable_key_alias_format_validation key_alias_pattern scim_admin_group scim_upsert_user "
                "public_model_groups public_model_groups_links public_agent_groups public_mcp_servers "
                "public_mcp_hub_strict_whitelist public_skills_index blog_posts_url autorouter_presets_url"
            ),
            _CACHE: (
                "enable_redis_auth_cache default_in_memory_ttl default_redis_ttl default_redis_batch_cache_expiry "
                "force_redis_hash_tag_grouping caching_with_models enable_caching_on_provider_specific_optional_params"
            ),
            _CALLBACKS: (
                "langfuse_default_tags langfuse_enable_update_trace_keys langsmith_batch_size argilla_batch_size "
                "datadog_params datadog_use_v1 datadog_llm_observability_params gcs_params gcs_pub_sub_use_v1 "
                "generic_api_use_v1 generic_logger_headers s3_callback_params s3_audit_callback_params "
                "aws_sqs_callback_params newrelic_params pointfive_params zerobus_params dynamodb_table_name "
                "otel_tenant_destination_mode standard_logging_payload_excluded_fields global_disable_no_log_param "
                "allow_dynamic_callback_disabling disable_streaming_logging redact_user_api_key_info store_audit_logs "
                "disable_add_user_agent_to_request_tags extra_spend_tag_headers azure_content_safety_params "
                "prompt_injection_params presidio_ad_hoc_recognizers presidio_logging_only output_parse_pii "
                "llamaguard_model_name llamaguard_unsafe_content_categories llm_guard_mode blocked_user_list "
                "banned_keywords_list openai_moderations_model_name google_moderation_confidence_threshold "
                "websearch_interception_params code_interpreter_interception_params compression_interception_params"
            ),
            "it tunes the `guardrails`": (
                "guardrail_name_config_map skip_system_message_in_guardrail skip_tool_message_in_guardrail"
            ),
            CHATS: (
                "use_chat_completions_url_for_anthropic_messages anthropic_messages_estimate_initial_input_tokens "
                "anthropic_sse_ping_interval_seconds strip_anthropic_total_tokens gemini_live_defer_setup "
                "enable_loadbalancing_on_batch_endpoints disable_vertex_batch_output_transformation "
                "batch_line_item_callbacks require_managed_files logged_real_time_event_types "
                "vector_store_search_failure_mode mcp_aliases mcp_semantic_tool_filter mcp_tool_search "
                "agent_search_embedding_model skill_search_embedding_model responses"
            ),
            CLIENT: "use_aiohttp_transport disable_aiohttp_transport disable_aiohttp_trust_env safe_memory_mode",
            "no address that a client names is fetched": (
                "user_url_validation user_url_allowed_hosts provider_url_destination_allowed_hosts"
            ),
            "there are no previews": "enable_preview_features",
        }
    ),
    unsupported=by_name(
        {
            "": (
                "service_callback service_callbacks audit_log_callbacks input_callback cold_storage_custom_logger "
                "cache cache_params caching upperbound_key_generate_params default_key_generate_params "
                "default_internal_user_params default_team_params default_team_settings force_ipv4 ssl_security_level "
                "ssl_ecdh_curve ssl_certificate enable_json_schema_validation "
                "enable_model_config_credential_overrides model_group_settings custom_provider_map "
                "custom_prompt_dict global_prompt_directory global_bitbucket_config global_gitlab_config "
                "add_function_to_prompt forward_traceparent_to_llm_provider network_mock "
                "responses_api_encrypted_content_affinity log_raw_request_response log_auth_failure_key_identity "
                "expose_router_debug_in_errors return_response_headers include_cost_in_streaming_usage "
                "filter_invalid_headers add_user_information_to_llm_headers overwrite_user_with_key_hash "
                "num_retries_per_request reasoning_effort_rounding gemini_include_thoughts_default "
                "enable_gemini_default_thinking_level_low enable_anthropic_prompt_caching "
                "anthropic_prompt_caching_ttl openai_system_messages_first "
                "disable_anthropic_gemini_context_caching_transform anthropic_beta_headers_url "
                "bedrock_neutralize_orphaned_tool_blocks bedrock_request_metadata_fields vertex_ai_safety_settings "
                "vertex_project vertex_location enable_azure_ad_token_refresh use_litellm_proxy project"
            ),
            "docs/metrics.md": (
                "prometheus_metrics_config prometheus_initialize_budget_metrics prometheus_latency_buckets "
                "prometheus_exclude_metrics prometheus_exclude_labels prometheus_emit_stream_label "
                "prometheus_emit_input_sequence_length_label prometheus_emit_rate_limit_labels "
                "prometheus_deployment_and_latency_caller_identity "
                "prometheus_user_budget_label_include_email_alias prometheus_end_user_metrics_max_series_per_metric "
                "prometheus_end_user_metrics_ttl_seconds prometheus_end_user_metrics_cleanup_interval_seconds "
                "prometheus_metrics_max_series_per_metric prometheus_metrics_ttl_seconds "
                "prometheus_metrics_cleanup_interval_seconds custom_prometheus_metadata_labels custom_prometheus_tags"
            ),
            "pipeline_settings.http2": "http2",
            "pipeline_settings.ca_file": "ssl_verify",
            "pipeline_settings.proxy": "aiohttp_trust_env proxy_auth",
            "router_settings.model_group_alias": "model_alias_map",
            "the entries of model_list": (
                "api_base api_key api_version headers organization max_tokens openai_key azure_key anthropic_key "
                "groq_key xai_key openrouter_key togetherai_api_key databricks_key openai_like_key ollama_key "
                "cohere_key cloudflare_api_key novita_api_key nebius_key wandb_key llama_api_key "
                "vercel_ai_gateway_key inception_key lemonade_key replicate_key huggingface_key baseten_key ai21_key "
                "aleph_alpha_key amazon_nova_api_key bytez_key clarifai_key cometapi_key datarobot_key gdc_key "
                "gdc_api_base gigachat_key gradient_ai_api_key heroku_key infinity_key maritalk_key nlp_cloud_key "
                "ovhcloud_key predibase_key predibase_tenant_id sap_service_key snowflake_key"
            ),
        }
    ),
    protections=by_name(
        {
            NO_CHECKS: "guardrails",
            "no request is checked": "pre_call_rules",
            "no answer is checked": "post_call_rules",
            "requests of unknown end users are served": "validate_end_user_id_in_db",
            "models without a price are served": "block_requests_for_models_without_pricing",
        }
    ),
)

ROUTER_SETTINGS: Final = Ignored(
    harmless=by_name(
        {
            ALWAYS: "deployment_affinity_ttl_seconds session_affinity_repin_on_failover",
            LOGS: "debug_level set_verbose",
            CLIENT: "client_ttl",
            CHATS: "assistants_config search_tools",
            "it tunes the `auto_router`": "auto_router_capability_limit",
            "it tunes the scheduler of LiteLLM's SDK": "polling_interval default_priority",
            "it tunes the `guardrails`": "guardrail_list",
            "it tunes `enable_tag_filtering`": "tag_filtering_match_any tag_routing_prefix",
            "it tunes `cache_responses`": "cache_kwargs caching_groups",
        }
    ),
    unsupported=by_name(
        {
            "": (
                "enable_tag_filtering redis_host redis_port redis_password redis_url redis_db redis_ssl "
                "cache_responses alerting_config optional_pre_call_checks ignore_invalid_deployments "
                "enable_health_check_routing health_check_staleness_threshold health_check_ignore_transient_errors "
                "routing_groups weights enable_weighted_failover enable_mid_stream_fallback_continuation "
                "fallback_on_unsupported_params model_group_affinity_config router_general_settings plugins"
            ),
            "num_retries": "max_retries",
            "the entries of model_list": "default_litellm_params model_list",
            "model_info.disable_background_health_check": "background_health_check_model_groups",
        }
    ),
)

GUARDS: Final = frozenset(
    {
        "presidio",
        "llamaguard_moderations",
        "hide_secrets",
        "openai_moderations",
        "lakera_prompt_injection",
        "aporia_prompt_injection",
        "google_text_moderation",
        "llmguard_moderations",
        "blocked_user_check",
        "banned_keywords",
        "detect_prompt_injection",
        "azure_content_safety",
    }
)
"""LiteLLM's callbacks that check requests or answers, as guardrails do."""
