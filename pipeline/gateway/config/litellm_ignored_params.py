"""Settings of an entry of LiteLLM's ``model_list`` that we do not read; see `litellm_ignored`."""

from __future__ import annotations

from typing import Final

from pipeline.gateway.config.litellm_ignored import (
    ALWAYS,
    CHATS,
    CLIENT,
    LOGS,
    NO_CHECKS,
    NOT_COUNTED,
    Ignored,
    by_name,
)

LITELLM_PARAMS: Final = Ignored(
    harmless=by_name(
        {
            ALWAYS: (
                "drop_params allowed_openai_params base_model "
                "disable_add_transform_inline_image_block stream_chunk_size "
            ),
            NOT_COUNTED: "budget_duration daily_reset_time",
            LOGS: (
                "no-log verbose litellm_request_debug log_client_error_tracebacks logger_fn litellm_trace_id "
                "litellm_session_id litellm_metadata"
            ),
            CHATS: (
                "use_in_pass_through max_file_size_mb input_type dimensions encoding_format embedding_model "
                "max_agentic_loops search_tool_name aws_batch_role_arn s3_bucket_name s3_region_name s3_endpoint_url "
                "s3_output_bucket_name s3_bucket_owner s3_access_key_id s3_secret_access_key s3_encryption_key_id "
                "bedrock_tags gcs_bucket_name bucket_name allow_legacy_cloud_file_ids vector_store_id "
                "vector_bucket_name index_name milvus_text_field milvus_db_name milvus_partition_names valkey_host "
                "valkey_port valkey_password valkey_ssl valkey_text_field valkey_embedding_field"
            ),
            CLIENT: "client shared_session",
            "notes of yours": "model_info id litellm_system_prompt_note",
            "there is one implementation": "rust",
        }
    ),
    unsupported=by_name(
        {
            "": (
                "tags tag_regex enable_tag_filtering allow_client_keepalive_override litellm_credential_name "
                "aws_access_key_id aws_secret_access_key aws_session_token "
                "aws_session_name aws_profile_name aws_role_name aws_web_identity_token aws_external_id "
                "aws_session_tags aws_sts_endpoint aws_bedrock_runtime_endpoint aws_bedrock_control_plane_endpoint "
                "aws_bedrock_project_id vertex_credentials tenant_id client_id "
                "client_secret azure azure_ad_token azure_ad_token_provider azure_username azure_password "
                "azure_scope watsonx_region_name anthropic_federation_rule_id anthropic_organization_id "
                "anthropic_service_account_id anthropic_federation_workspace_id anthropic_identity_token_file "
                "anthropic_identity_token anthropic_identity_source anthropic_issuer_url anthropic_issuer_subject "
                "anthropic_issuer_audience anthropic_issuer_ttl_seconds anthropic_issuer_signing_key_ref "
                "anthropic_keycloak_token_url anthropic_keycloak_client_id anthropic_keycloak_auth_method "
                "anthropic_keycloak_client_secret_ref anthropic_keycloak_scope "
                "anthropic_disable_workload_identity_federation openai_identity_provider_id "
                "openai_service_account_id openai_identity_token_file token_exchange_endpoint "
                "token_exchange_profile token_exchange_scope token_exchange_audience use_xai_oauth "
                "chatgpt_auth_file github_copilot_auth_type github_copilot_host github_copilot_user_session "
                "fireworks_forward_user_id timeout_by_service_tier stream_timeout_by_service_tier "
                "responses_api_version kubernetes_pod_discovery use_litellm_proxy mock_response mock_timeout "
                "silent_model fastest_response model_list complete_response provider_affinity_header "
                "provider_specific_header n tools tool_choice functions function_call metadata extra_query "
                "modalities prediction audio logprobs top_logprobs web_search_options "
                "include_server_side_tool_invocations safety_identifier prompt_cache_key prompt_cache_retention "
                "context_management instructions truncation include stream stream_options num_ctx keep_alive "
                "retry_strategy cache caching caching_groups ttl enable_prompt_caching "
                "cache_control_injection_points prompt_id prompt_variables prompt_version prompt_environment "
                "prompt_label litellm_system_prompt custom_prompt_dict initial_prompt_value roles "
                "final_prompt_value bos_token eos_token hf_model_name ensure_alternating_roles "
                "user_continue_message assistant_continue_message enable_json_schema_validation "
                "configurable_clientside_auth_params auto_router_config_path auto_router_config "
                "auto_router_default_model auto_router_embedding_model auto_router_max_input_chars "
                "auto_router_routing_compression auto_router_model_compression complexity_router_config "
                "complexity_router_default_model adaptive_router_config adaptive_router_default_model "
                "quality_router_config quality_router_default_model switchyard_router_config "
                "thought_signature_in_tool_call_id supports_system_message"
            ),
            "router_settings.cooldown_time": "cooldown_time",
            "router_settings.fallbacks": "fallbacks context_window_fallback_dict",
            "router_settings.retry_policy": "retry_policy",
            "router_settings.routing_strategy": "routing_strategy",
            "pipeline_settings.keep_alive_interval_s": "keepalive_seconds",
            "pipeline_settings.proxy": "proxy",
            "pipeline_settings.ca_file": "ssl_verify",
            "pipeline_settings.reasoning_display: think": "merge_reasoning_content_in_choices",
            "timeout": "force_timeout",
        }
    ),
    protections=by_name(
        {
            NO_CHECKS: "guardrails",
            "requests may be answered in any region": "allowed_model_region",
        }
    ),
)

MODEL_LIST_ENTRY: Final = Ignored(
    unsupported=by_name({"pipeline_settings.keys": "access_groups"}),
    protections=by_name({"the model is served": "blocked"}),
)

MODEL_INFO: Final = Ignored(
    harmless=by_name({"it only looks like `max_input_tokens`": "max_output_tokens"}),
    unsupported=by_name(
        {"pipeline_settings.keys": "access_groups", "": "enforce_supported_endpoints health_check_max_tokens"}
    ),
    protections=by_name(
        {
            "the model is served": "blocked",
            "the model is served at all times": "access_windows",
            "every key may use the model, unless its own models are listed": "team_id",
        }
    ),
)
