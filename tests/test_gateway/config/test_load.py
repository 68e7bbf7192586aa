"""Configuration: LiteLLM's file starts, mistakes are reported with their line, secrets are never shown."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.service.config_texts import MASTER, model, only, parse, problems

from pipeline.gateway.config.describe import checked
from pipeline.gateway.config.keys import key_digest
from pipeline.gateway.config.load import (
    ConfigError,
    PipelineSettings,
    config_files,
    describe,
    load_settings,
    parse_settings,
)
from stages.routing.settings import RoutingSettings
from stages.upstreams import HealthCheck as HealthCheckSettings
from stages.upstreams import Timeouts

ROOT = Path(__file__).parents[3]
FULL = ROOT / "tests" / "data" / "litellm_full.yaml"
FULL_ENVIRON = {
    "OPENAI_API_KEY": "sk-openai-0123456789\n",
    "AZURE_API_KEY": "azure0123456789",
    "XAI_API_KEY": "xai-0123456789",
    "ANTHROPIC_API_KEY": "sk-ant-0123456789",
    "GEMINI_API_KEY": "gemini-0123456789",
    "DEEPSEEK_API_KEY": "deepseek-0123456789",
    "LITELLM_MASTER_KEY": MASTER,
    "HEADRACE_IGNORE_LIMITS": "true",  # it has a budget
}


# --- a whole LiteLLM file ---------------------------------------------------------------------------------------------


def test_an_unmodified_litellm_file_starts_with_one_warning_for_each_unsupported_setting() -> None:
    settings = load_settings(FULL, FULL_ENVIRON)
    warnings = [warning.removeprefix(f"{FULL}:") for warning in settings.warnings]
    assert warnings == [
        "104: guardrails: is a protection that is NOT enforced: no request and no answer is checked",
        "40: model_list[4]: is not for chats (if it is, write mode: chat into model_info); 1 deployment is left "
        "out: text-embedding-3-large (embedding)",
        "60: model_list[11]: Bedrock has the Claude models whose name ends in a version (-v1:0) only "
        "by InvokeModel and Converse, which are not supported; name one without, such as us.anthropic.claude-opus-5 or "
        "anthropic.claude-haiku-4-5; 1 deployment is left out: bedrock-claude",
        "62: model_list[12]: signing in to Google Cloud is not supported (token_command: gcloud auth "
        "print-access-token is, and for the file of a service account token_command: env "
        "GOOGLE_APPLICATION_CREDENTIALS=FILE gcloud auth application-default print-access-token); "
        "1 deployment is left out: vertex-gemini",
        "19: model_list[0].litellm_params.tags: is not supported yet and is ignored",
        "20: model_list[0].litellm_params.keepalive_seconds: is not supported yet and is ignored "
        "(see pipeline_settings.keep_alive_interval_s)",
        "69: litellm_settings.callbacks[1]: otel is ignored without an address: set the environment variable "
        "OTEL_EXPORTER_OTLP_ENDPOINT, or pipeline_settings.otlp_endpoint",
        "70: litellm_settings.success_callback[0]: langfuse is not supported yet and is ignored",
        "71: litellm_settings.cache: is not supported yet and is ignored",
        "72: litellm_settings.cache_params: is not supported yet and is ignored",
        "75: litellm_settings.max_budget: is a limit that is not enforced (ignore_limits)",
        "80: litellm_settings.ssl_verify: is not supported yet and is ignored (see pipeline_settings.ca_file)",
        "92: router_settings.redis_host: is not supported yet and is ignored",
        "93: router_settings.redis_password: is not supported yet and is ignored",
        "94: router_settings.routing_strategi: is not a known setting and is ignored; did you mean routing_strategy?",
        "98: general_settings.database_url: is not supported yet and is ignored (see pipeline_settings.keys)",
        "100: general_settings.forward_client_headers_to_llm_api: is not supported yet and is ignored",
    ]


def test_row_83_a_litellm_file_with_a_budget_does_not_start_without_the_line_that_ignores_it() -> None:
    """A LiteLLM file has a budget: headrace does not start until it is removed or `ignore_limits` is set."""
    environ = {name: value for name, value in FULL_ENVIRON.items() if name != "HEADRACE_IGNORE_LIMITS"}
    with pytest.raises(ConfigError) as caught:
        load_settings(FULL, environ)
    assert caught.value.problems == (
        f"{FULL}:75: litellm_settings.max_budget: is a limit that headrace does not enforce: remove it, or add this "
        "line to start without it: pipeline_settings: {ignore_limits: true}",
    )


def test_the_deployments_of_a_litellm_file_are_resolved() -> None:
    settings = load_settings(FULL, FULL_ENVIRON)
    assert [(d.id, d.kind, d.provider, d.model, d.url) for d in settings.deployments] == [
        ("dep-1", "responses", "openai", "gpt-5", "http://gateway.internal:8080/v1/responses"),
        ("gpt-5", "responses", "azure", "gpt-5-eu",
         "https://example.openai.azure.com/openai/responses?api-version=2025-04-01-preview"),
        ("claude-sonnet", "anthropic", "anthropic", "claude-sonnet-4-5", "https://api.anthropic.com/v1/messages"),
        ("gemini", "chat", "gemini", "gemini-2.5-pro",
         "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("deepseek", "chat", "deepseek", "deepseek-chat", "https://api.deepseek.com/chat/completions"),
        ("bridged", "chat", "openai", "gpt-5", "https://api.openai.com/v1/chat/completions"),
        ("openai/*", "responses", "openai", "*", "https://api.openai.com/v1/responses"),
        ("wild/*", "responses", "openai", "*", "https://api.openai.com/v1/responses"),
        ("qwen", "responses", "hosted_vllm", "Qwen/Qwen3-Coder", "http://10.0.0.7:8000/v1/responses"),
        ("grok", "responses", "xai", "grok-4", "https://api.x.ai/v1/responses"),
    ]  # fmt: skip
    assert [d.headers for d in settings.deployments] == [
        (("authorization", "Bearer sk-openai-0123456789"),),
        (("api-key", "azure0123456789"),),
        (("x-api-key", "sk-ant-0123456789"), ("anthropic-version", "2023-06-01")),
        (("authorization", "Bearer gemini-0123456789"),),
        (("authorization", "Bearer deepseek-0123456789"),),
        (("authorization", "Bearer sk-openai-0123456789"),),
        (("authorization", "Bearer sk-openai-0123456789"),),
        (("authorization", "Bearer sk-from-the-file-0000000"),),
        (("X-Region", "eu"), ("X-Shard", "7")),
        (("authorization", "Bearer xai-0123456789"),),
    ]
    assert settings.deployments[0].timeouts == Timeouts(headers_s=60, first_event_s=20, idle_s=20)
    assert settings.deployments[9].timeouts == Timeouts(headers_s=300, first_event_s=45, idle_s=45)
    assert settings.master_key == MASTER
    assert settings.pipeline.keep_alive_interval_s == 10.0
    assert settings.pipeline.max_body_bytes == 50 * 1024 * 1024
    assert settings.pipeline.request_timeout_s is None


def test_check_config_prints_everything_but_secrets() -> None:
    text = describe(load_settings(FULL, FULL_ENVIRON))
    words = "responses, then chat if the server does not know it, at 10.0.0.7:8000"
    assert f"  qwen          -> hosted_vllm/Qwen/Qwen3-Coder ({words})\n" in text
    assert "\n  master, may use everything\n" in text
    assert "\n  max_body_mb: 50.0\n" in text
    assert text.startswith(f"{FULL}: usable, 17 warnings\n")
    for secret in (*FULL_ENVIRON.values(), "hunter2", "sk-from-the-file"):
        assert secret.strip() not in text


def test_check_config_prints_our_own_settings() -> None:
    own = """
pipeline_settings:
  keys: [{name: anna, key: sk-anna-0123456789abcdef, models: [gpt-5, "openai/*"]}]
  stages:
    - {use: strip_thinking, after: decode_events, options: {token: hunter2}}
    - {use: shout, at: events, before: strip_thinking}
    - {use: retry}
  proxy: http://user:hunter2@proxy:3128
"""
    text = describe(parse(model("{model: canned/echo}") + own))
    assert text == (
        "config.yaml: usable, 0 warnings\n\n1 deployment:\n  m -> canned/echo (canned)\n\n2 keys:\n"
        "  anna, only gpt-5, openai/*\n  master, may use everything\n\nsettings that differ from their default:\n"
        "  stages: strip_thinking after decode_events\n  stages: shout at events before strip_thinking\n"
        "  stages: retry\n  transport: httpx\n  proxy: (set)\n"
    )


def test_check_config_does_not_show_a_key_in_the_place_of_a_name_or_an_address() -> None:
    key = "sk-proj-0123456789abcdef"
    own = f"""
pipeline_settings:
  keys: [{{name: anna, key: sk-anna-0123456789abcdef, models: [{key}]}}]
  otlp_endpoint: http://127.0.0.1:4318/?key=hunter2
"""
    found = parse(model(f"{{model: deepseek/{key}, api_key: k}}", "{id: " + key + "-id}", name=key) + own)
    text, document = describe(found), msgspec.json.encode(checked(found)).decode()
    assert "\n  [redacted] -> deepseek/[redacted] (chat at api.deepseek.com, id [redacted])\n" in text
    assert "\n  anna, only [redacted]\n" in text
    assert "\n  otlp_endpoint: (set)\n" in text
    assert key not in text + document
    assert "hunter2" not in text + document


# --- every mistake, with its line -------------------------------------------------------------------------------------

MISTAKES = [
    (model("{model: 5}"), "config.yaml:3: model_list[0].litellm_params.model: "
     "found 5 (a number), expected text such as openai/gpt-5"),
    (model("{model: [a]}"), "config.yaml:3: model_list[0].litellm_params.model: "
     "found a list, expected text such as openai/gpt-5"),
    (model("{model: ''}"), "config.yaml:3: model_list[0].litellm_params.model: "
     "found empty text, expected text such as openai/gpt-5"),
    (model("{api_key: x}"), "config.yaml:3: model_list[0].litellm_params: has no model: "
     "expected text such as openai/gpt-5"),
    (model("[1]"), "config.yaml:3: model_list[0].litellm_params: found a list, "
     "expected a mapping (name: value lines, indented)"),
    ("model_list:\n  - model_name: m\n",
     "config.yaml:2: model_list[0]: has no litellm_params: expected model, api_key and so on"),
    ("model_list:\n  - litellm_params: {model: canned/echo}\n",
     "config.yaml:2: model_list[0]: has no model_name: expected the name that clients ask for, such as gpt-5"),
    ("model_list:\n  - model_name: true\n    litellm_params: {model: canned/echo}\n",
     "config.yaml:2: model_list[0].model_name: found true (a yes/no value), "
     "expected the name that clients ask for, such as gpt-5"),
    ("model_list:\n  - gpt-5\n",
     "config.yaml:2: model_list[0]: found text, expected a mapping with model_name and litellm_params"),
    ("model_list:\n  - null\n",
     "config.yaml:2: model_list[0]: found nothing, expected a mapping with model_name and litellm_params"),
    ("\nmodel_list: {}\n", "config.yaml:2: model_list: found a mapping, "
     "expected a list of models, each beginning with - model_name:"),
    (model("{model: gpt-5, api_key: 1234}"), "config.yaml:3: model_list[0].litellm_params.api_key: "
     "found a number, expected text such as os.environ/OPENAI_API_KEY; put quotes around it"),
    (model("{model: gpt-5, api_key: 'a b'}"), "config.yaml:3: model_list[0].litellm_params.api_key: "
     "the key contains a space, line break or control character: copy the key again, on one line"),
    (model("{model: gpt-5, api_key: schlüssel}"), "config.yaml:3: model_list[0].litellm_params.api_key: "
     "the key contains a character that is not ASCII, which an HTTP header cannot carry: copy the key again"),
    (model("{model: custom_openai/x, api_key: k}"), "config.yaml:3: model_list[0].litellm_params.api_base: is missing: "
     "provider custom_openai needs a URL such as https://api.example.com/v1"),
    (model("{model: gpt-5, api_base: example.com/v1}"), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL does not start with http:// or https://: expected one such as https://api.example.com/v1"),
    (model("{model: gpt-5, api_base: 'http://a b/'}"), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL contains a space, a control character or a character that is not ASCII: "
     "expected one such as https://api.example.com/v1"),
    (model('{model: gpt-5, api_base: "http://a/\\r\\nX: y"}'), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL contains a space, a control character or a character that is not ASCII: "
     "expected one such as https://api.example.com/v1"),
    (model("{model: gpt-5, api_base: 'http://'}"), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL has no valid host: expected one such as https://api.example.com/v1"),
    (model("{model: gpt-5, api_base: 'http://a:99999'}"), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL's host or port cannot be read: expected one such as https://api.example.com:8443/v1"),
    (model("{model: gpt-5, api_base: 'http://u:p@a'}"), "config.yaml:3: model_list[0].litellm_params.api_base: "
     "the URL contains a user name or password: remove it, and set the key as api_key"),
    (model("{model: azure/a, api_base: 'http://a', api_key: k, api_version: 'a&b=c'}"),
     "config.yaml:3: model_list[0].litellm_params.api_version: contains a character that is not allowed in a version: "
     "expected text such as 2025-04-01-preview"),
    (model("{model: canned/echo, timeout: soon}"), "config.yaml:3: model_list[0].litellm_params.timeout: "
     'found "soon" (text), expected seconds, more than 0, such as 60'),
    (model("{model: canned/echo, stream_timeout: 0}"), "config.yaml:3: model_list[0].litellm_params.stream_timeout: "
     "found 0 (a number), expected seconds, more than 0, such as 60"),
    (model("{model: canned/echo, timeout: .inf}"), "config.yaml:3: model_list[0].litellm_params.timeout: "
     "found .inf (a number), expected seconds, more than 0, such as 60"),
    (model("{model: canned/echo, use_chat_completions_api: 2}").replace("canned/echo", "gpt-5, api_key: k"),
     "config.yaml:3: model_list[0].litellm_params.use_chat_completions_api: "
     "found 2 (a number), expected true or false"),
    (model('{model: gpt-5, api_key: k, extra_headers: {X-A: "a\\r\\nb"}}'),
     "config.yaml:3: model_list[0].litellm_params.extra_headers.X-A: "
     "the header's value contains a line break, a control character or one that is not ASCII: remove it"),
    (model("{model: gpt-5, api_key: k, extra_headers: {'X A': a}}"),
     "config.yaml:3: model_list[0].litellm_params.extra_headers.X A: "
     "the header's name contains a character that HTTP does not allow there"),
    (model("{model: gpt-5, api_key: k, extra_headers: {X-A: [a]}}"),
     "config.yaml:3: model_list[0].litellm_params.extra_headers.X-A: found a list, expected the text of a header"),
    (model("{model: gpt-5, api_key: k, extra_headers: a}"),
     "config.yaml:3: model_list[0].litellm_params.extra_headers: found text, "
     "expected a mapping (name: value lines, indented)"),
    (model("{model: canned/stroy}"), "config.yaml:3: model_list[0].litellm_params.model: is not a canned model: "
     "expected canned/echo, canned/story, canned/agent, canned/timed:<script> or canned/replay:<file.sse>; "
     "did you mean story?"),
    (model("{model: canned/timed:gap=20}"), "config.yaml:3: model_list[0].litellm_params.model: has an invalid "
     "script: gap=20 is not a duration: expected a number and its unit, such as 400ms or 1.5s"),
    (model("{model: 'canned/replay:nope.sse'}"), "config.yaml:3: model_list[0].litellm_params.model: "
     "the file nope.sse does not exist: expected a recorded stream, relative to this file"),
    (model("{model: 'openai/*', api_key: k}"), "config.yaml:3: model_list[0].litellm_params.model: "
     "contains a *, but model_name does not: write the same * there, or name one model here"),
    (model("{model: canned/echo}", "{id: a}") + model("{model: canned/echo}", "{id: a}").removeprefix("model_list:\n"),
     "config.yaml:5: model_list[1].model_info.id: is also that of the deployment on line 2: write another"),
    (model("{model: gpt-5, api_key: k}", "{mode: 5}"),
     "config.yaml:4: model_list[0].model_info.mode: found 5 (a number), expected chat or responses"),
    (model("{model: gpt-5, api_key: k}", "{supported_endpoints: /v1/responses}"),
     "config.yaml:4: model_list[0].model_info.supported_endpoints: "
     'found "/v1/responses" (text), expected a list such as ["/v1/responses"]'),
    (model("{model: gpt-5, api_key: k}", "{supported_endpoints: [5]}"),
     "config.yaml:4: model_list[0].model_info.supported_endpoints[0]: found 5 (a number), expected text"),
    ("pipeline_settings:\n  prot: 5\n", "config.yaml:2: pipeline_settings.prot: is not a setting; did you mean port?"),
    ("pipeline_settings:\n  port: 70000\n", "config.yaml:2: pipeline_settings.port: "
     "found 70000 (a number), expected a port number, 1 to 65535, or 0 for any free one"),
    ("pipeline_settings:\n  port: true\n", "config.yaml:2: pipeline_settings.port: "
     "found true (a yes/no value), expected a port number, 1 to 65535, or 0 for any free one"),
    ("pipeline_settings:\n  port: [1]\n", "config.yaml:2: pipeline_settings.port: "
     "found a list, expected a port number, 1 to 65535, or 0 for any free one"),
    ("pipeline_settings:\n  http2: 1\n",
     "config.yaml:2: pipeline_settings.http2: found 1 (a number), expected true or false"),
    ("pipeline_settings:\n  execution: fuse\n", "config.yaml:2: pipeline_settings.execution: "
     'found "fuse" (text), expected one of: tasks, fused; did you mean fused?'),
    ("pipeline_settings:\n  fuse: true\n", "config.yaml:2: pipeline_settings.fuse: is not a setting"),
    ("pipeline_settings:\n  reasoning_display: thinking\n", "config.yaml:2: pipeline_settings.reasoning_display: "
     'found "thinking" (text), expected one of: reasoning_content, think, details, none; did you mean think?'),
    ("pipeline_settings:\n  reasoning_store: disk\n", "config.yaml:2: pipeline_settings.reasoning_store: "
     'found "disk" (text), expected one of: memory, sqlite'),
    ("pipeline_settings:\n  reasoning_store: sqlite\n", "config.yaml:2: pipeline_settings.reasoning_store: "
     "needs reasoning_store_file too: a file name, such as reasoning.sqlite"),
    ("pipeline_settings:\n  reasoning_store: sqlite\n  reasoning_store_file: nowhere/a.sqlite\n",
     "config.yaml:3: pipeline_settings.reasoning_store_file: is a folder, or in one that does not exist: "
     "expected the name of a file (from the configuration's folder)"),
    ("pipeline_settings:\n  reasoning_store: sqlite\n  reasoning_store_file: .\n",
     "config.yaml:3: pipeline_settings.reasoning_store_file: is a folder, or in one that does not exist: "
     "expected the name of a file (from the configuration's folder)"),
    ("pipeline_settings:\n  reasoning_max_entries: 0\n", "config.yaml:2: pipeline_settings.reasoning_max_entries: "
     "found 0 (a number), expected a whole number from 1, such as 1000"),
    ("pipeline_settings:\n  reasoning_max_mb: 0\n", "config.yaml:2: pipeline_settings.reasoning_max_mb: "
     "found 0 (a number), expected a number of MiB, more than 0, such as 64"),
    ("pipeline_settings:\n  reasoning_max_age_h: -1\n", "config.yaml:2: pipeline_settings.reasoning_max_age_h: "
     "found -1 (a number), expected a number of hours, more than 0, such as 24"),
    ("pipeline_settings:\n  restore_reasoning: maybe\n", "config.yaml:2: pipeline_settings.restore_reasoning: "
     'found "maybe" (text), expected true or false'),
    (f"pipeline_settings:\n  ca_file: {'x' * 300}\n", "config.yaml:2: pipeline_settings.ca_file: "
     "there is no such file: expected certificates or a key in PEM form (from the configuration's folder)"),
    ("pipeline_settings:\n  write_timeout_s: -1\n", "config.yaml:2: pipeline_settings.write_timeout_s: "
     "found -1 (a number), expected seconds, more than 0, such as 30"),
    ("pipeline_settings:\n  write_timeout_s: .nan\n", "config.yaml:2: pipeline_settings.write_timeout_s: "
     "found .nan (a number), expected seconds, more than 0, such as 30"),
    ("pipeline_settings:\n  write_timeout_s: 604801\n", "config.yaml:2: pipeline_settings.write_timeout_s: "
     "found 604801 (a number), expected seconds, more than 0, such as 30, and at most 604800"),
    ("pipeline_settings:\n  workers: 257\n", "config.yaml:2: pipeline_settings.workers: "
     "found 257 (a number), expected a number of processes, such as 2, and at most 256"),
    ("pipeline_settings:\n  graceful_timeout_s: -1\n", "config.yaml:2: pipeline_settings.graceful_timeout_s: "
     "found -1 (a number), expected seconds, such as 5, or 0 for at once"),
    ("pipeline_settings:\n  queue_timeout_s: .inf\n", "config.yaml:2: pipeline_settings.queue_timeout_s: "
     "found .inf (a number), expected seconds, such as 5, or 0 for at once, and at most 604800"),
    ("pipeline_settings:\n  shutdown_delay_s: soon\n", "config.yaml:2: pipeline_settings.shutdown_delay_s: "
     'found "soon" (text), expected seconds, such as 10, or 0 for none'),
    ("pipeline_settings:\n  log_format: jsn\n", "config.yaml:2: pipeline_settings.log_format: "
     'found "jsn" (text), expected one of: auto, json, text; did you mean json?'),
    ("pipeline_settings:\n  cursor_error_status: 500\n", "config.yaml:2: pipeline_settings.cursor_error_status: "
     "found 500 (a number), expected one of: 400, passthrough"),
    ("pipeline_settings:\n  forwarded_allow_ips: [10.0.0.0/8, proxy]\n",
     "config.yaml:2: pipeline_settings.forwarded_allow_ips: proxy is not an address: "
     'expected a list of addresses and networks, such as ["10.0.0.0/8"], or ["*"]'),
    ("pipeline_settings:\n  key_header: 'x key'\n", "config.yaml:2: pipeline_settings.key_header: "
     'found "x key" (text), expected the name of a header, such as x-api-key'),
    ("general_settings:\n  litellm_key_header_name: 'x key'\n",
     "config.yaml:2: general_settings.litellm_key_header_name: "
     'found "x key" (text), expected the name of a header, such as x-api-key'),
    ("pipeline_settings:\n  allowed_origins: [1]\n", "config.yaml:2: pipeline_settings.allowed_origins[0]: "
     "found 1 (a number), expected text"),
    ("pipeline_settings:\n  allowed_origins: [example.com]\n", "config.yaml:2: pipeline_settings.allowed_origins: "
     'found a list, expected a list of origins, such as ["https://example.com"]'),
    ("pipeline_settings:\n  allowed_origins: [null]\n", "config.yaml:2: pipeline_settings.allowed_origins[0]: "
     "found nothing, expected text"),
    ("pipeline_settings: [a]\n",
     "config.yaml:1: pipeline_settings: found a list, expected a mapping (name: value lines, indented)"),
    ("pipeline_settings:\n  ca_file: nope.pem\n", "config.yaml:2: pipeline_settings.ca_file: "
     "there is no such file: expected certificates or a key in PEM form (from the configuration's folder)"),
    (f"pipeline_settings:\n  tls_certfile: {FULL}\n", "config.yaml:2: pipeline_settings.tls_certfile: "
     "needs tls_keyfile too: set both, or neither"),
    ("pipeline_settings:\n  proxy: ftp://a\n", "config.yaml:2: pipeline_settings.proxy: "
     "the URL does not start with http:// or https://: expected one such as https://api.example.com/v1"),
    ("pipeline_settings:\n  proxy: http://a\n  transport: headrace\n", "config.yaml:3: pipeline_settings.transport: "
     "headrace's own transport does not support proxy: write httpx, or remove proxy"),
    ("pipeline_settings:\n  keys: 5\n",
     "config.yaml:2: pipeline_settings.keys: found 5 (a number), expected a list of keys, each with name and key"),
    ("pipeline_settings:\n  keys: [{name: a}]\n", "config.yaml:2: pipeline_settings.keys[0]: has no key: "
     "expected a key, sha256: and 64 hexadecimal digits, or os.environ/NAME"),
    ("pipeline_settings:\n  keys: [{key: sk-0123456789abcdef}]\n", "config.yaml:2: pipeline_settings.keys[0]: "
     "has no name: expected the name of the key in logs, such as anna-laptop"),
    ("pipeline_settings:\n  keys: [{name: a, key: 'sha256:12'}]\n", "config.yaml:2: pipeline_settings.keys[0].key: "
     "a hashed key is `sha256:` and 64 hexadecimal digits"),
    ("pipeline_settings:\n  keys:\n  - {name: a, key: sk-0123456789abcdef}\n  - {name: b, key: sk-0123456789abcdef}\n",
     "config.yaml:4: pipeline_settings.keys[1].key: is the same key as that of a: use a different key for each"),
    ("pipeline_settings:\n  keys:\n  - {name: a, key: sk-0123456789abcdef}\n  - {name: a, key: sk-0123456789abcdeg}\n",
     "config.yaml:4: pipeline_settings.keys[1].name: "
     "this name is taken: choose another, so that the keys can be told apart in logs"),
    ("pipeline_settings:\n  keys: [{name: master, key: sk-0123456789abcdef}]\n",
     "config.yaml:2: pipeline_settings.keys[0].name: "
     "this name is taken: choose another, so that the keys can be told apart in logs"),
    ("pipeline_settings:\n  keys: [{name: a, key: sk-0123456789abcdef, modles: [x]}]\n",
     "config.yaml:2: pipeline_settings.keys[0].modles: is not a setting; did you mean models?"),
    (f"pipeline_settings:\n  keys: [{{name: a, key: {MASTER}}}]\n",
     "environment variable HEADRACE_MASTER_KEY or LITELLM_MASTER_KEY: "
     "is the same key as that of a: use a different key for each"),
    ("pipeline_settings:\n  stages: [{at: events}]\n", "config.yaml:2: pipeline_settings.stages[0]: has no use: "
     "expected the name of a stage (`headrace stages` lists them)"),
    ("pipeline_settings:\n  stages: [{use: a, on_error: hide}]\n",
     'config.yaml:2: pipeline_settings.stages[0].on_error: found "hide" (text), expected one of: fail, skip'),
    ("pipeline_settings:\n  stages: [{use: a, when: [b]}]\n", "config.yaml:2: pipeline_settings.stages[0].when: "
     "found a list, expected a mapping such as {models: [gpt-5*]}"),
    ("pipeline_settings:\n  stages: [{use: a, when: {models: gpt-5}}]\n",
     "config.yaml:2: pipeline_settings.stages[0].when.models: "
     'found "gpt-5" (text), expected a list of names of models'),
    ("pipeline_settings:\n  stages: [{use: a, when: {modles: [a]}}]\n",
     "config.yaml:2: pipeline_settings.stages[0].when.modles: is not a setting; did you mean models?"),
    ("pipeline_settings:\n  stages: [{use: a, after: b, options: [1]}]\n",
     "config.yaml:2: pipeline_settings.stages[0].options: found a list, expected a mapping with the stage's options"),
    ("pipeline_settings:\n  stages: [{use: a, after: b, opts: {}}]\n",
     "config.yaml:2: pipeline_settings.stages[0].opts: is not a setting; did you mean options?"),
    ("general_settings:\n  master_key: 1234\n", "config.yaml:2: general_settings.master_key: "
     "found a number, expected text such as os.environ/LITELLM_MASTER_KEY; put quotes around it"),
    ("general_settings: 5\n",
     "config.yaml:1: general_settings: found a number, expected a mapping (name: value lines, indented)"),
    ("general_settings:\n  max_request_size_mb: much\n",
     "config.yaml:2: general_settings.max_request_size_mb: "
     'found "much" (text), expected a number of MiB, such as 100'),
    ("litellm_settings:\n  request_timeout: [1]\n", "config.yaml:2: litellm_settings.request_timeout: "
     "found a list, expected seconds, more than 0, such as 60"),
    ("environment_variables:\n  A: [1]\n",
     "config.yaml:2: environment_variables.A: found a list, expected the text of a variable"),
    ("include: models.yaml\n", 'config.yaml:1: include: found "models.yaml" (text), '
     "expected a list of file names, such as [models.yaml]"),
    ("include:\n  - nope.yaml\n", "config.yaml:2: include[0]: the included file cannot be used: "
     "nope.yaml: there is no such file: check its name"),
    ("a: !secret hunter2\n",
     "config.yaml:1: a: has a YAML tag (a word that begins with !), which is not supported: remove it"),
    ("a: !!int hunter2\n",
     "config.yaml:1: a: cannot be read as int: write another value, or put quotes around it"),
    ("? [a]\n: b\n", "config.yaml:1: the name of a field is a list or mapping: expected a word"),
    ("a:\n  <<: hunter2\n",
     "config.yaml:2: << merges something that is not a mapping: expected an alias such as *defaults"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[problem[:90] for _, problem in MISTAKES])
def test_a_mistake_is_reported_with_file_line_field_finding_and_remedy(text: str, problem: str) -> None:
    assert problems(text) == (problem,)


BROKEN = [
    ("model_list:\n\t- a\n", "config.yaml:2: this is not YAML: found character '\\t' that cannot start any token; "
     "indent with spaces, not tabs"),
    ("model_list:\n  - a\n b: c\n", "config.yaml:3: this is not YAML: expected <block end>, but found "
     "'<block mapping start>', in what began on line 1; check the indentation"),
    ("a: {b: c\n", "config.yaml:2: this is not YAML: expected ',' or '}', but got '<stream end>', "
     "in what began on line 1; check the indentation"),
    ("api_key: *hunter2\n", "config.yaml:1: this is not YAML: found undefined alias ...; "
     "put quotes around values that begin with * or &"),
    ("a: 1\n---\nb: 2\n", "config.yaml:2: this is not YAML: but found another document, in what began on line 1; "
     "keep one document in the file, without a second ---"),
    ("a: \x00\n", "config.yaml:1: a character that YAML does not allow: save the file as plain UTF-8 text"),
    ("- a\n", "config.yaml:1: found a list, expected a mapping with fields such as model_list"),
    ("hunter2-hunter2-hunter2-hunter2", "config.yaml:1: found text, expected a mapping with fields such as model_list"),
    ("[" * 200 + "]" * 200, "config.yaml:1: lists and mappings are nested more than 50 levels deep"),
    ("[" * 5000, "config.yaml: lists and mappings are nested too deeply: at most 50 levels"),
    ("a: &a [*a]", "config.yaml:1: lists and mappings are nested more than 50 levels deep"),
    ("a: &a\n  <<: *a\n  b: 1\n", "config.yaml:1: lists and mappings are nested more than 50 levels deep"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), BROKEN, ids=[problem[:70] for _, problem in BROKEN])
def test_a_file_that_is_not_yaml_is_reported_with_its_line_and_without_quoting_it(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="config.yaml", environ={})
    (reported,) = caught.value.problems
    assert reported.startswith(problem)
    assert "hunter2" not in reported


@pytest.mark.parametrize("kind", ["lists", "merges"])
def test_a_file_that_grows_without_bound_is_refused_quickly(kind: str) -> None:
    if kind == "lists":
        bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    else:
        bomb = "a0: &a0 {x: 1}\n"
        bomb += "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))
    start = time.perf_counter()
    (reported,) = problems(bomb)
    assert re.fullmatch(
        r"config\.yaml:\d+: with its aliases expanded, the file contains more than 100000 values", reported
    )
    assert time.perf_counter() - start < 10


def test_all_mistakes_are_reported_together_in_the_order_of_the_file() -> None:
    text = (
        "pipeline_settings:\n  port: a\n  http2: 3\n" + model("{model: 5}") + "general_settings:\n  master_key: [x]\n"
    )
    assert [problem.split(":")[1] for problem in problems(text)] == ["2", "3", "6", "9"]


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    def problem_with(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_settings(path, {})
        (problem,) = caught.value.problems
        return problem.removeprefix(str(path))

    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: 1\nb: schlüssel\n".encode("latin-1"))
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (5 * 1024 * 1024))
    assert problem_with(tmp_path / "nope.yaml") == ": there is no such file: check its name"
    assert problem_with(tmp_path) == f": is a folder: name the file in it, such as {tmp_path}/config.yaml"
    assert problem_with(latin) == ":2: is not UTF-8: save the file in that encoding"
    assert problem_with(huge) == ": the file is larger than 4 MiB: is it the right one?"
    assert problem_with(Path("a\0b")).endswith(
        "cannot be read (the name is not valid): check its name and its permissions"
    )
    assert str(ConfigError(["a", "b"])) == "a\nb"


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + model("{model: canned/echo}").encode())
    assert len(load_settings(path, {"LITELLM_MASTER_KEY": MASTER}).deployments) == 1


# --- keys and access --------------------------------------------------------------------------------------------------


NO_KEY = (
    "config.yaml: there is no master key, so every request would be refused: make a key with "
    "`export HEADRACE_MASTER_KEY=$(headrace new-key)`, or a line HEADRACE_MASTER_KEY=... of headrace.env beside the "
    "configuration (or set general_settings.master_key or "
    "pipeline_settings.keys; or, to accept requests without a key, pipeline_settings.allow_anonymous: true)"
)


@pytest.mark.parametrize(
    "general", ["", "general_settings:\n", "general_settings: {master_key: }\n", "general_settings: {master_key: ''}\n"]
)
def test_without_any_key_the_gateway_does_not_start(general: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(model("{model: canned/echo}") + general, source="config.yaml", environ={})
    assert caught.value.problems == (NO_KEY,)


@pytest.mark.parametrize("others", ["", "pipeline_settings: {allow_anonymous: true}\n"])
def test_a_master_key_that_names_a_variable_that_is_not_set_is_refused_with_the_line_that_makes_one(
    others: str,
) -> None:
    text = model("{model: canned/echo}") + "general_settings: {master_key: os.environ/PROXY_KEY}\n" + others
    assert problems(text) == (
        "config.yaml:5: general_settings.master_key: the environment variable PROXY_KEY is not set, or is empty: make "
        "a key with `export PROXY_KEY=$(headrace new-key)`, or a line PROXY_KEY=... of headrace.env beside the "
        "configuration",
    )


def test_requests_without_a_key_can_be_allowed_with_a_warning_if_others_can_reach_the_gateway() -> None:
    text = model("{model: canned/echo}") + "pipeline_settings: {allow_anonymous: true, host: 127.0.0.1}\n"
    assert parse_settings(text, source="config.yaml", environ={}).warnings == ()
    (warning,) = parse_settings(text, source="config.yaml", environ={"HEADRACE_HOST": "0.0.0.0"}).warnings
    assert warning.startswith(
        "config.yaml: accepts requests without a key (allow_anonymous) on an address that others can reach"
    )


def test_static_keys_are_kept_as_digests_with_their_names_and_models() -> None:
    hashed = "sha256:" + "ab" * 32
    text = model("{model: canned/echo}") + (
        "pipeline_settings:\n  keys:\n  - {name: anna, key: os.environ/ANNA, models: [gpt-5, 'openai/*']}\n"
        f"  - {{name: ben, key: '{hashed}'}}\n"
    )
    settings = parse_settings(text, source="config.yaml", environ={"ANNA": " sk-anna-0123456789\n"})
    assert settings.master_key is None
    assert [(key.name, key.digest, key.models) for key in settings.keys] == [
        ("anna", key_digest("sk-anna-0123456789"), ("gpt-5", "openai/*")),
        ("ben", bytes.fromhex("ab" * 32), None),
    ]


def test_a_weak_or_unusual_master_key_only_gets_a_warning() -> None:
    settings = parse(model("{model: canned/echo}") + "general_settings:\n  master_key: hunter2\n")
    assert settings.master_key == "hunter2"
    assert settings.warnings == (
        "config.yaml:6: general_settings.master_key: is shorter than 16 characters and easy to guess: use a random key",
        "config.yaml:6: general_settings.master_key: does not begin with sk-: "
        "LiteLLM would refuse it (headrace does not)",
    )


def test_the_master_key_of_the_file_wins_over_that_of_the_environment() -> None:
    text = model("{model: canned/echo}")
    assert parse_settings(text, source="c", environ={"LITELLM_MASTER_KEY": MASTER}).master_key == MASTER
    other = "sk-other-0123456789abcdef"
    assert parse(text + f"general_settings: {{master_key: {other}}}").master_key == other


# --- deployments ------------------------------------------------------------------------------------------------------


def test_a_bare_model_name_belongs_to_openai() -> None:
    assert only(model("{model: gpt-5, api_key: k}")).provider == "openai"
    assert only(model("{model: openai/responses/gpt-5, api_key: k}")).model == "gpt-5"
    assert only(model("{model: meta/llama, custom_llm_provider: openai, api_key: k}")).model == "meta/llama"


def test_a_local_server_needs_no_key() -> None:
    assert only(model("{model: openai/m, api_base: 'http://127.0.0.1:1/v1'}")).headers == ()
    assert only(model("{model: lm_studio/m}")).url == "http://localhost:1234/v1/responses"


def test_empty_text_counts_as_absent_as_in_litellm() -> None:
    entry = "{model: openai/gpt-5, api_key: '', api_base: '', organization: ' '}"
    deployment = only(model(entry), OPENAI_API_KEY="sk-1")
    assert deployment.headers == (("authorization", "Bearer sk-1"),)
    assert deployment.url == "https://api.openai.com/v1/responses"


def test_extra_headers_replace_ours_and_may_carry_the_key() -> None:
    deployment = only(
        model("{model: gpt-5, organization: org-1, extra_headers: {Authorization: 'Bearer mine', x-a: true}}")
    )
    assert deployment.headers == (("openai-organization", "org-1"), ("Authorization", "Bearer mine"), ("x-a", "true"))


def test_several_entries_of_one_name_are_a_group_in_their_order_with_different_ids() -> None:
    entry = "  - {model_name: m, litellm_params: {model: canned/%s}%s}\n"
    text = "model_list:\n" + entry % ("echo", "") + entry % ("story", "") + entry % ("agent", ", model_info: {id: m}")
    text += entry % ("echo", ", model_info: {id: 7}")
    found = [(deployment.id, deployment.model) for deployment in parse(text).deployments]
    assert found == [("m#2", "echo"), ("m#3", "story"), ("m", "agent"), ("7", "echo")]


def test_a_replayed_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "a.sse").write_text("data: {}\n\n")
    config = tmp_path / "config.yaml"
    config.write_text(model("{model: 'canned/replay:a.sse'}"))
    settings = load_settings(config, {"LITELLM_MASTER_KEY": MASTER})
    (deployment,) = settings.deployments
    assert (deployment.kind, deployment.model, deployment.url) == ("canned", f"replay:{tmp_path / 'a.sse'}", "")
    assert "m -> canned/replay:a.sse (canned)" in describe(settings)


def test_timeouts_fall_back_from_the_deployment_to_the_router_to_ours() -> None:
    assert only(model("{model: canned/echo}")).timeouts == Timeouts()
    deployment = only(model("{model: canned/echo, timeout: '60'}") + "router_settings: {timeout: 9, stream_timeout: 8}")
    assert deployment.timeouts == Timeouts(headers_s=60, first_event_s=8, idle_s=8)
    deployment = only(model("{model: canned/echo, timeout: 60}") + "pipeline_settings: {request_timeout_s: 900}")
    assert deployment.timeouts == Timeouts(headers_s=60, first_event_s=60, idle_s=60, total_s=900)


# --- the rest of the file, and the environment ------------------------------------------------------------------------


def test_included_files_continue_lists_and_replace_fields_and_keep_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("include: [more.yaml]\n" + model("{model: canned/echo}", name="a"))
    (tmp_path / "more.yaml").write_text(
        "include: [config.yaml]\n"
        + model("{model: canned/echo, tags: [a]}", name="b")
        + "pipeline_settings: {port: 1}\n"
    )
    settings = load_settings(tmp_path / "config.yaml", {"LITELLM_MASTER_KEY": MASTER})
    assert [deployment.model_name for deployment in settings.deployments] == ["a", "b"]
    assert settings.pipeline.port == 1
    assert settings.warnings == (
        f"{tmp_path}/more.yaml:4: model_list[0].litellm_params.tags: is not supported yet and is ignored",
    )
    assert settings.source == str(tmp_path / "config.yaml")
    config, more, variables = (str(tmp_path / name) for name in ("config.yaml", "more.yaml", "headrace.env"))
    assert config_files(config) == (config, more, variables)
    (tmp_path / "more.yaml").unlink()
    assert config_files(config) == (config, more, variables)
    (tmp_path / "config.yaml").unlink()
    assert config_files(config) == (config, variables)


def test_variables_of_the_file_are_used_if_the_process_has_none() -> None:
    text = "environment_variables: {A: from-file, B: 5}\n" + model(
        "{model: hosted_vllm/m, api_base: 'http://h', extra_headers: {a: os.environ/A, b: os.environ/B}}"
    )
    assert only(text).headers == (("a", "from-file"), ("b", "5"))
    assert only(text, A="from-process").headers == (("a", "from-process"), ("b", "5"))


def test_merge_keys_fill_in_what_an_entry_omits() -> None:
    text = """
x-defaults: &defaults {api_base: "http://h/v1", timeout: 5}
model_list:
  - model_name: m
    litellm_params: {<<: *defaults, model: openai/m, timeout: 7}
"""
    settings = parse(text)
    assert settings.deployments[0].timeouts.headers_s == 7
    assert settings.deployments[0].url == "http://h/v1/responses"
    assert settings.warnings == ()  # x- is where anchors are kept


def test_our_own_settings_are_read_in_their_types() -> None:
    settings = parse("""
pipeline_settings:
  port: "8080"
  keep_alive_interval_s: 0
  execution: tasks
  cursor_error_status: passthrough
  allowed_origins: [https://example.com]
  request_timeout_s:
  http2: true
  log_level: debug
  stages:
    - use: strip_thinking
      after: decode_events
      options: {level: 3, words: [a, os.environ/WORD], deep: {x: null}}
""", WORD="b")  # fmt: skip
    own = settings.pipeline
    assert (own.port, own.keep_alive_interval_s, own.execution) == (8080, 0.0, "tasks")
    assert (own.cursor_error_status, own.allowed_origins) == ("passthrough", ("https://example.com",))
    assert (own.request_timeout_s, own.transport, own.log_level) == (None, "httpx", "debug")
    (stage,) = own.stages
    assert (stage.use, stage.after) == ("strip_thinking", "decode_events")
    assert stage.options == {"level": 3, "words": ["a", "b"], "deep": {"x": None}}
    assert stage.where == "config.yaml:12: pipeline_settings.stages[0]"


def test_litellms_settings_of_the_same_meaning_are_honoured_unless_ours_are_set() -> None:
    text = "litellm_settings: {sse_keepalive_ping_interval_seconds: 0}\n"
    assert parse(text).pipeline.keep_alive_interval_s == 0.0
    assert parse(text + "pipeline_settings: {keep_alive_interval_s: 5}").pipeline.keep_alive_interval_s == 5.0


def test_litellms_request_timeout_is_the_default_timeout_of_deployments_and_does_not_bound_streams() -> None:
    text = model("{model: canned/echo}") + "litellm_settings: {request_timeout: '90'}\n"
    assert only(text).timeouts == Timeouts(headers_s=90, first_event_s=90, idle_s=90)
    assert parse(text).pipeline.request_timeout_s is None
    assert only(text + "router_settings: {timeout: 80}").timeouts.headers_s == 80


def test_the_environment_overrides_the_file() -> None:
    text = "pipeline_settings: {port: 1}\n"
    assert parse(text, PORT="2").pipeline.port == 2
    assert parse(text, PORT="2", HEADRACE_PORT="3").pipeline.port == 3
    assert parse(text, HEADRACE_PORT=" ").pipeline.port == 1
    own = parse(
        text, HEADRACE_EXECUTION="tasks", HEADRACE_WRITE_TIMEOUT_S="1.5", HEADRACE_CURSOR_ERROR_STATUS="400"
    ).pipeline
    assert (own.execution, own.write_timeout_s, own.cursor_error_status) == ("tasks", 1.5, 400)


def test_every_scalar_setting_can_be_overridden() -> None:
    plain = {"float": "7", "int": "7", "bool": "true", "str": "x"}
    special = {"proxy": "http://p:1", "transport": "httpx", "client_profile": "cursor", "log_format": "text",
               "log_level": "error", "cursor_error_status": "passthrough", "ca_file": str(FULL), "execution": "tasks",
               "reasoning_display": "none", "restore_reasoning": "false", "metrics": "false",
               "metrics_address": "127.0.0.1:9464", "otlp_endpoint": "http://127.0.0.1:4318",
               "server_timing": "false"}  # fmt: skip
    for field in msgspec.structs.fields(PipelineSettings):
        if field.name in ("stages", "allowed_origins", "forwarded_allow_ips"):
            continue
        kind = next(kind for kind in (*plain, "Literal") if kind in str(field.type))
        text = special.get(field.name, plain.get(kind, ""))
        variables = {f"HEADRACE_{field.name.upper()}": text}
        if field.name == "reasoning_store":
            variables = {"HEADRACE_REASONING_STORE": "sqlite", "HEADRACE_REASONING_STORE_FILE": "a.sqlite"}
        if field.name.startswith("tls_"):
            variables = {"HEADRACE_TLS_CERTFILE": str(FULL), "HEADRACE_TLS_KEYFILE": str(FULL)}
        own = parse("", **variables).pipeline
        assert getattr(own, field.name) != field.default, field.name


def test_reasoning_is_kept_in_memory_unless_a_file_is_named_relative_to_the_configuration(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    environ = {"LITELLM_MASTER_KEY": MASTER}
    config.write_text(model("{model: canned/echo}"))
    own = load_settings(config, environ).pipeline
    assert (own.reasoning_display, own.restore_reasoning) == ("reasoning_content", True)
    assert (own.reasoning_store, own.reasoning_store_file) == ("memory", None)
    config.write_text(
        model("{model: canned/echo}") + "pipeline_settings:\n  reasoning_display: none\n  reasoning_store: sqlite\n"
        "  reasoning_store_file: kept.sqlite\n  reasoning_max_entries: 5\n  reasoning_max_mb: 1.5\n"
        "  reasoning_max_age_h: 2\n  workers: 2\n"
    )
    settings = load_settings(config, environ)
    own = settings.pipeline
    assert own.reasoning_display == "none"
    assert (own.reasoning_store, own.reasoning_store_file) == ("sqlite", str(tmp_path / "kept.sqlite"))
    assert (own.reasoning_max_entries, own.reasoning_max_mb, own.reasoning_max_age_h) == (5, 1.5, 2.0)
    assert settings.warnings == ()


def test_reasoning_that_is_not_kept_as_one_might_expect_gets_a_warning() -> None:
    text = model("{model: canned/echo}")
    assert parse(text + "pipeline_settings:\n  workers: 2\n").warnings == (
        "config.yaml:6: pipeline_settings.workers: is more than 1, and reasoning is kept in each worker's memory: a "
        "turn that another worker answers continues without it; set reasoning_store: sqlite",
    )
    for variable, place in (("HEADRACE_WORKERS", "environment variable HEADRACE_WORKERS"), ("--workers", "--workers")):
        [warning] = parse(text + "pipeline_settings:\n  workers: 1\n", **{variable: "2"}).warnings
        assert warning.startswith(f"{place}: is more than 1, and reasoning is kept in each worker's memory")
    assert parse(text + "pipeline_settings:\n  workers: 2\n  restore_reasoning: false\n").warnings == ()
    assert parse(text + "pipeline_settings:\n  reasoning_store_file: a.sqlite\n").warnings == (
        "config.yaml:6: pipeline_settings.reasoning_store_file: is not used: "
        "set reasoning_store: sqlite to keep reasoning in it",
    )


@pytest.mark.parametrize(
    "text",
    [
        model("{model: os.environ/NAME}"),
        model("{model: canned/echo}", name="os.environ/NAME"),
        model('{model: "openai/\\ud800", api_key: k}'),
        model("{model: canned/echo}", "{id: os.environ/NAME}"),
        model("{model: deepseek/m, token_command: [os.environ/NAME]}"),
    ],
)
def test_half_a_character_is_an_error_because_nothing_can_send_or_print_it(text: str) -> None:
    [said] = problems(text, NAME="caf\udce9")
    assert ("found a list, expected " if "token_command" in text else "found text, expected ") in said


def test_a_wrong_variable_is_an_error_and_a_misspelt_one_gets_a_warning() -> None:
    assert problems("", PORT="http") == (
        'environment variable PORT: found "http", expected a port number, 1 to 65535, or 0 for any free one',
    )
    assert problems("", HEADRACE_PORT="1", **{"--port": "99999"}) == (
        '--port: found "99999", expected a port number, 1 to 65535, or 0 for any free one',
    )
    assert problems("", HEADRACE_LOG_LEVEL="x" * 30) == (
        "environment variable HEADRACE_LOG_LEVEL: cannot be read, expected one of: debug, info, warning, error",
    )
    text = model("{model: canned/echo}")
    assert parse(text, HEADRACE_PROT="1", HEADRACE_OF_MINE="2").warnings == (
        "environment variable HEADRACE_PROT: is not a setting and is ignored; did you mean HEADRACE_PORT?",
    )


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = "zJ4Xq9-hunter2-Wm7Kp2Lx8Rt5Vb3"
PLACES = [
    model(f"{{model: gpt-5, api_key: '{SECRET}%s'}}"),
    model(f"{{model: gpt-5, api_key: [{SECRET}%s]}}"),
    model(f"{{model: gpt-5, api_key: {{{SECRET}%s}}}}"),
    model(f"{{model: gpt-5, api_key: os.environ/{SECRET}%s}}"),
    model("{model: gpt-5, api_key: os.environ/MARKED}"),
    model(f"{{model: gpt-5, api_key: k, api_base: 'https://{SECRET}%s@h'}}"),
    model(f"{{model: gpt-5, api_key: k, api_base: '{SECRET}%s'}}"),
    model("{model: gpt-5, api_key: k, api_base: os.environ/MARKED}"),
    model("{model: os.environ/MARKED, api_key: k, timeout: os.environ/MARKED}"),
    model(f"{{model: gpt-5, api_key: k, timeout: '{SECRET}%s'}}"),
    model(f"{{model: gpt-5, extra_headers: {{Authorization: '{SECRET}%s'}}}}"),
    model(f"{{model: gpt-5, api_key: k, extra_headers: '{SECRET}%s'}}"),
    model(f"{{model: gpt-5, api_key: k, organization: '{SECRET}%s'}}"),
    model(f"{{model: gpt-5, api_key: k, aws_secret_access_key: '{SECRET}%s'}}"),
    model(f"'{SECRET}%s'"),
    model(f"{{model: anthropic/m, api_key: '{SECRET}%s'}}"),
    model(f"{{model: azure/m, api_key: '{SECRET}%s', api_base: 'https://h', use_chat_completions_api: '{SECRET}%s'}}"),
    model(f"{{model: gemini/m, api_base: 'https://h/?key={SECRET}%s'}}"),
    f"general_settings: {{master_key: '{SECRET}%s', database_url: '{SECRET}%s'}}",
    f"general_settings: '{SECRET}%s'",
    f"router_settings: {{redis_password: '{SECRET}%s'}}",
    f"environment_variables: {{A: '{SECRET}%s'}}",
    f"environment_variables: {{A: ['{SECRET}%s']}}",
    f"pipeline_settings: {{keys: [{{name: a, key: '{SECRET}%s'}}]}}",
    f"pipeline_settings: {{keys: [{{name: a, key: 'sha256:{SECRET}%s'}}]}}",
    f"pipeline_settings: {{keys: ['{SECRET}%s']}}",
    f"pipeline_settings: {{keys: '{SECRET}%s'}}",
    f"pipeline_settings: {{proxy: 'http://u:{SECRET}%s@h:1'}}",
    f"pipeline_settings: {{proxy: '{SECRET}%s', port: '{SECRET}', ca_file: os.environ/MARKED}}",
    f"pipeline_settings: {{reasoning_store: '{SECRET}%s', execution: '{SECRET}%s'}}",
    f"pipeline_settings: {{reasoning_store: sqlite, reasoning_store_file: '/nowhere/{SECRET}%s/a'}}",
    f"pipeline_settings: {{stages: [{{use: a, after: b, options: {{x: '{SECRET}%s'}}}}]}}",
    f"pipeline_settings: {{stages: [{{use: a, after: b, options: '{SECRET}%s'}}], port: os.environ/MARKED}}",
    f"x: *{SECRET}\n",
    f"x: '{SECRET}%s\n",
    f"general_settings:\n  master_key: {SECRET}\n bad: x\n",
    f"general_settings: {{master_key: {SECRET}: x}}\n",
    f"{SECRET}",
]


def assert_nothing_shows_the_secret(text: str, marked: str) -> None:
    environ = {"MARKED": marked, "HEADRACE_MASTER_KEY": f"{SECRET}-master", "HEADRACE_WORKERS": SECRET}
    for chosen in (environ, {name: value for name, value in environ.items() if name != "HEADRACE_WORKERS"}):
        try:
            found = parse_settings(text, source="config.yaml", environ=chosen)
        except ConfigError as error:
            shown = str(error) + repr(error) + repr(error.problems)
        else:
            shown = describe(found) + repr(found) + repr(found.deployments) + repr(found.keys) + repr(found.pipeline)
            shown += repr(found.warnings) + repr(found.pipeline.stages)
            if "model: os.environ/MARKED" in text:  # a model's name is not a secret, wherever it comes from
                continue
        assert "hunter2" not in shown


@pytest.mark.parametrize("place", PLACES)
def test_no_message_and_no_repr_shows_a_secret(place: str) -> None:
    assert_nothing_shows_the_secret(place.replace("%s", ""), SECRET)


@given(
    place=st.sampled_from(PLACES),
    tail=st.text(st.characters(exclude_characters="'%{}[]", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_no_odd_character_reveals_a_secret(place: str, tail: str) -> None:
    assert_nothing_shows_the_secret(place.replace("%s", tail), SECRET + tail)


# --- anything at all --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([
    "model_list", "model_name", "litellm_params", "model", "api_base", "api_key", "timeout", "extra_headers",
    "organization", "api_version", "model_info", "id", "mode", "supported_endpoints", "general_settings",
    "master_key", "litellm_settings", "request_timeout", "sse_keepalive_ping_interval_seconds",
    "max_request_size_mb", "router_settings", "environment_variables", "include", "pipeline_settings", "port",
    "keys", "key", "name", "models", "stages", "use", "after", "options", "proxy", "ca_file", "allowed_origins",
    "forwarded_allow_ips", "key_header", "litellm_key_header_name",
    "execution", "reasoning_store", "reasoning_store_file", "custom_llm_provider", "request_timeout_s",
    "cursor_error_status", "use_chat_completions_api", "x",
])  # fmt: skip
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.dates()
    | st.sampled_from(["openai/gpt-5", "canned/echo", "canned/replay:", "azure/*", "*", "os.environ/A", "os.environ/",
                       "http://h/v1", "http://[", "http://h:x", "sha256:", "60", "nan", "1e999", "\0", "a\nb",
                       "responses"])
)  # fmt: skip
TREES = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5))
ENTRIES = st.dictionaries(NAMES, TREES, max_size=6)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "model_list": st.lists(
            st.fixed_dictionaries({"model_name": VALUES, "litellm_params": ENTRIES}, optional={"model_info": ENTRIES})
            | TREES,
            max_size=3,
        ),
        "pipeline_settings": ENTRIES | TREES,
        "general_settings": ENTRIES | TREES,
        "litellm_settings": ENTRIES | TREES,
        "environment_variables": ENTRIES | TREES,
        "include": TREES,
    },
)


@given(FILES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_structure_raises_anything_but_a_config_error(tree: dict[str, Any]) -> None:
    reported: tuple[str, ...] = ("usable",)
    try:
        describe(parse(yaml.safe_dump(tree), A="a"))
    except ConfigError as error:
        reported = error.problems
    assert all(reported)
    assert reported


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`?, \n\t<1.~=\\/"), max_size=40) | st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    reported: tuple[str, ...] = ()
    try:
        describe(parse(text))
    except ConfigError as error:
        reported = error.problems
    assert all(problem.startswith("config.yaml") for problem in reported)


# --- documentation ----------------------------------------------------------------------------------------------------


def test_the_example_configuration_starts_without_warnings() -> None:
    settings = load_settings(ROOT / "config.example.yaml", {"HEADRACE_MASTER_KEY": MASTER})
    assert settings.warnings == ()
    assert {deployment.kind for deployment in settings.deployments} == {"canned"}


def test_the_example_configuration_also_works_with_its_comments_enabled() -> None:
    text = (ROOT / "config.example.yaml").read_text()
    text = re.sub(r"^  # (?=- |  |keys:|stages:)", "  ", text, flags=re.MULTILINE)
    named = ("HEADRACE_MASTER_KEY", "ANNA_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY")
    settings = parse_settings(text, source="config.example.yaml", environ={name: f"{MASTER}-{name}" for name in named})
    assert settings.warnings == ()
    assert {deployment.model_name: deployment.kind for deployment in settings.deployments} == {
        **dict.fromkeys(("echo", "story", "agent"), "canned"),
        **dict.fromkeys(("my-gpt", "openai/*", "my-qwen"), "responses"),
        **dict.fromkeys(("my-gpt-by-chat", "my-deepseek"), "chat"),
        "my-claude": "anthropic",
    }
    assert [key.name for key in settings.keys] == ["anna-laptop"]
    assert [stage.use for stage in settings.pipeline.stages] == ["strip_thinking"]


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "config.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, flags=re.MULTILINE))
    for field in msgspec.structs.fields(PipelineSettings):
        default = field.default
        if isinstance(default, float) and default.is_integer():
            default = int(default)
        shown = f"`{default}`" if isinstance(default, str) else str(default).lower()
        if isinstance(default, tuple):
            shown = f"`{json.dumps(default)}`"
        columns = [column.strip() for column in rows[field.name].split(" | ")]
        assert columns[1] == shown, field.name
        assert len(columns) == 4, field.name


def test_every_litellm_setting_that_we_read_is_documented() -> None:
    from pipeline.gateway.config import litellm_names as names

    text = (ROOT / "docs" / "config.md").read_text()
    sections = (names.TOP_LEVEL, names.GENERAL_SETTINGS, names.LITELLM_SETTINGS, names.ROUTER_SETTINGS,
                names.LITELLM_PARAMS, names.MODEL_LIST_ENTRY, names.MODEL_INFO)  # fmt: skip
    for section in sections:
        for name in section.honoured:
            assert f"`{name}`" in text, name


# --- routing ----------------------------------------------------------------------------------------------------------


def routing(text: str) -> RoutingSettings:
    return parse(model("{model: canned/echo}") + text).routing


def test_routing_settings_are_litellms() -> None:
    assert routing("") == RoutingSettings()
    found = routing(
        """
litellm_settings: {num_retries: 5, default_fallbacks: [b], allowed_fails: "1"}
router_settings:
  num_retries: 3
  retry_after: 0.5
  retry_policy: {TimeoutErrorRetries: 4, DefaultRetries: 1}
  model_group_retry_policy: {m: {RateLimitErrorRetries: 0}}
  fallbacks: [{m: [b, {model: c}]}]
  context_window_fallbacks: [{m: [long]}]
  content_policy_fallbacks: {m: mild}
  max_fallbacks: 2
  allowed_fails_policy: {RateLimitErrorAllowedFails: 100}
  cooldown_time: 7
  disable_cooldowns: true
  routing_strategy: latency-based-routing
  routing_strategy_args: {lowest_latency_buffer: 0.1, ttl: 60}
  model_group_alias: {old: m, older: {model: m, hidden: true}}
  enable_pre_call_checks: true
"""
    )
    assert found == RoutingSettings(
        num_retries=3,
        retry_after_s=0.5,
        retry_policy={"timeout": 4, "default": 1},
        group_retry_policy={"m": {"rate_limit": 0}},
        fallbacks={"m": ("b", "c")},
        default_fallbacks=("b",),
        context_window_fallbacks={"m": ("long",)},
        content_policy_fallbacks={"m": ("mild",)},
        max_fallbacks=2,
        allowed_fails=1,
        allowed_fails_policy={"rate_limit": 100},
        cooldown_s=7,
        has_cooldowns=False,
        strategy="latency-based-routing",
        latency_buffer=0.1,
        aliases={"old": "m", "older": "m"},
        hidden_aliases=frozenset({"older"}),
        checks_windows=True,
    )


def test_strategies_that_are_not_there_yet_are_shuffled_with_a_warning() -> None:
    settings = parse(model("{model: canned/echo}") + "router_settings: {routing_strategy: usage-based-routing-v2}\n")
    assert settings.routing.strategy == "simple-shuffle"
    assert settings.warnings == (
        "config.yaml:5: router_settings.routing_strategy: usage-based-routing-v2 needs figures that are not kept yet: "
        "deployments are chosen by simple-shuffle",
    )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("num_retries: many", "expected a whole number from 0 to 100"),
        ("num_retries: -1", "expected a whole number from 0 to 100"),
        ("cooldown_time: soon", "expected seconds from 0 to 86400"),
        ("retry_policy: 3", "expected a mapping such as {TimeoutErrorRetries: 3}"),
        ("retry_policy: {TimeoutErrorRetrys: 3}", "is not a kind of failure; did you mean TimeoutErrorRetries?"),
        ("fallbacks: [b]", 'expected a mapping such as {gpt-5: ["gpt-4o"]}'),
        ("fallbacks: [{m: [1]}]", "expected the name of a model"),
        ("routing_strategy: shuffle", 'found "shuffle" (text), expected one of: simple-shuffle, least-busy, '),
        ("routing_strategy: simple_shuffle", "did you mean simple-shuffle?"),
        ("routing_strategy_args: 1", "expected a mapping"),
        ("model_group_alias: {a: 1}", "expected the name of a model"),
    ],
)
def test_a_routing_setting_that_makes_no_sense_is_an_error_with_its_line(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        routing(f"router_settings:\n  {setting}\n")
    [problem] = refused.value.problems
    assert problem.startswith("config.yaml:6: router_settings")
    assert said in problem


def test_weight_and_order_are_numbers_from_0_on() -> None:
    [deployment] = parse(model("{model: openai/gpt-5, api_key: sk-1, weight: 3, order: 2}")).deployments
    assert (deployment.weight, deployment.order) == (3, 2)
    with pytest.raises(ConfigError, match="expected a number from 0 on"):
        parse(model("{model: openai/gpt-5, api_key: sk-1, weight: heavy}"))


# --- background health checks -----------------------------------------------------------------------------------------


def checks(general: str) -> float | None:
    return parse(
        model("{model: canned/echo}") + f"general_settings: {{master_key: {MASTER}, {general}}}\n"
    ).health_check_interval_s


def test_background_health_checks_are_off_unless_they_are_asked_for() -> None:
    assert checks("health_check_interval: 60") is None
    assert checks("background_health_checks: false") is None
    assert checks("background_health_checks: true") == 300
    assert checks("background_health_checks: true, health_check_interval: 60") == 60


@pytest.mark.parametrize(
    ("params", "info", "found"),
    [
        ("{model: openai/gpt-5, api_key: k}", "{}", HealthCheckSettings(model="gpt-5")),
        (
            "{model: openai/gpt-5, api_key: k}",
            "{health_check_timeout: 5}",
            HealthCheckSettings(model="gpt-5", timeout_s=5),
        ),
        (
            "{model: openai/gpt-5, api_key: k}",
            "{health_check_model: openai/gpt-5-nano}",
            HealthCheckSettings(model="gpt-5-nano"),
        ),
        (
            "{model: openrouter/x, api_key: k}",
            "{health_check_model: openai/gpt-5-nano}",
            HealthCheckSettings(model="openai/gpt-5-nano"),
        ),
        ("{model: openai/gpt-5, api_key: k}", "{disable_background_health_check: true}", None),
        ("{model: canned/echo}", "{}", None),
    ],
)
def test_how_a_deployment_is_asked_in_the_background(params: str, info: str, found: HealthCheckSettings | None) -> None:
    assert only(model(params, info)).health_check == found


def test_a_wildcard_is_asked_in_the_background_only_if_a_model_is_named() -> None:
    entry = "{model: openai/*, api_key: k}"
    assert only(model(entry, name="w/*")).health_check is None
    named = only(model(entry, "{health_check_model: gpt-5-nano}", name="w/*")).health_check
    assert named == HealthCheckSettings(model="gpt-5-nano")


def test_what_is_wrong_with_a_background_check_is_an_error_with_its_line() -> None:
    info = "{disable_background_health_check: 3, health_check_model: 5, health_check_timeout: soon}"
    general = "general_settings: {background_health_checks: true, health_check_interval: 0}\n"
    assert problems(model("{model: openai/gpt-5, api_key: k}", info) + general) == (
        "config.yaml:4: model_list[0].model_info.disable_background_health_check: found 3 (a number), "
        "expected true or false",
        "config.yaml:4: model_list[0].model_info.health_check_model: found 5 (a number), "
        "expected the name of a model, such as openai/gpt-5-nano",
        'config.yaml:4: model_list[0].model_info.health_check_timeout: found "soon" (text), '
        "expected seconds, more than 0, such as 60",
        "config.yaml:5: general_settings.health_check_interval: found 0 (a number), "
        "expected seconds, more than 0, such as 60",
    )


def test_the_description_says_how_many_are_asked_in_the_background() -> None:
    text = model("{model: openai/gpt-5, api_key: k}") + model("{model: canned/echo}").removeprefix("model_list:\n")
    general = f"general_settings: {{master_key: {MASTER}, background_health_checks: true}}\n"
    assert "background health checks: 1 deployment, each every 300 s by each worker" in describe(parse(text + general))


@pytest.mark.parametrize(
    ("params", "retries"),
    [
        ("", None),
        ("max_retries: 0", 0),
        ('max_retries: "3"', 3),
        ("num_retries: 4", 4),
        ("max_retries: 0, num_retries: 4", 0),
        ("max_retries: null, num_retries: 4", 4),
    ],
)
def test_a_deployment_has_a_number_of_retries_of_its_own(params: str, retries: int | None) -> None:
    settings = parse(model(f"{{model: openai/gpt-5, api_key: sk-1, {params}}}"))
    assert settings.deployments[0].max_retries == retries
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("info", "window"),
    [
        ("", None),
        ("max_input_tokens: 128000", 128000),
        ('max_input_tokens: "128000"', 128000),
        ("max_input_tokens: 0", None),
        ("max_input_tokens: null", None),
        ("max_tokens: 4096, max_output_tokens: 4096", None),
    ],
)
def test_the_window_of_a_model_is_that_of_its_input(info: str, window: int | None) -> None:
    settings = parse(model("{model: openai/gpt-5, api_key: sk-1}", f"{{{info}}}"))
    assert settings.deployments[0].max_input_tokens == window
    assert settings.warnings == ()


@pytest.mark.parametrize(
    ("params", "info", "said"),
    [
        (
            "max_retries: some",
            "",
            'litellm_params.max_retries: found "some" (text), expected a whole number from 0 to 100',
        ),
        ("num_retries: -1", "", "litellm_params.num_retries: found -1 (a number), expected a whole number"),
        ("max_retries: true", "", "litellm_params.max_retries: found true (a yes/no value), expected a whole number"),
        ("", "max_input_tokens: 128k", 'model_info.max_input_tokens: found "128k" (text), expected a number of tokens'),
    ],
)
def test_a_number_that_is_not_valid_is_an_error_with_its_place(params: str, info: str, said: str) -> None:
    text = model(f"{{model: openai/gpt-5, api_key: sk-1, {params}}}", f"{{{info}}}")
    with pytest.raises(ConfigError) as refused:
        parse(text)
    [problem] = refused.value.problems
    assert said in problem


def test_pre_call_checks_without_any_window_are_a_warning() -> None:
    params, on = "{model: openai/gpt-5, api_key: sk-1}", "router_settings: {enable_pre_call_checks: true}\n"
    assert parse(model(params) + on).warnings == (
        "config.yaml: has enable_pre_call_checks, which does nothing without model_info.max_input_tokens: write it "
        "into the entries of model_list",
    )
    assert parse(model(params, "{max_input_tokens: 128000}") + on).warnings == ()


def test_names_that_nothing_answers_to_are_warnings() -> None:
    settings = """router_settings:
  fallbacks: [{m: [nope]}, {gone: [m]}, {"*": [m]}]
  default_fallbacks: [nada, w/anything]
  model_group_alias: {old: m, older: lost}
  model_group_retry_policy: {other: {TimeoutErrorRetries: 1}}
"""
    text = model("{model: openai/gpt-5, api_key: k}") + model("{model: openai/*, api_key: k}", name="w/*").removeprefix(
        "model_list:\n"
    )
    assert parse(text + settings).warnings == (
        "config.yaml: fallbacks, policies or aliases name gone, lost, nada, nope, other, and no model_name answers to "
        "that",
    )


def test_the_numbers_of_litellms_own_example_are_accepted() -> None:
    routing = """router_settings:
  allowed_fails: 1000
  allowed_fails_policy: {BadRequestErrorAllowedFails: 1000, RateLimitErrorAllowedFails: 10000}
  retry_policy: {TimeoutErrorRetries: null, RateLimitErrorRetries: 3}
  routing_strategy: provider-budget-routing
"""
    settings = parse(model("{model: openai/gpt-5, api_key: k}") + routing)
    assert settings.routing.allowed_fails_policy == {"bad_request": 1000, "rate_limit": 10000}
    assert (settings.routing.allowed_fails, settings.routing.retry_policy) == (1000, {"rate_limit": 3})
    assert settings.routing.strategy == "simple-shuffle"
