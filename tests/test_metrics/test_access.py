"""``GET /metrics`` on the service's port: who may read it, and what switches it on and off."""

from __future__ import annotations

import pytest
import trio
from kit.clients.chat_posts import ask
from kit.service.config_texts import parse, problems
from kit.service.running import CONFIG, KEY, Service, model, serving
from prometheus_client.parser import text_string_to_metric_families

from pipeline.gateway.config.describe import describe
from pipeline.gateway.wrong_keys import FIRST_DELAY_S, FREE_TRIES

MONITOR = "sk-monitor-key-0123456789"
LIMITED = "sk-limited-key-0123456789"
MODELS = "model_list: [{model_name: echo, litellm_params: {model: canned/echo}}]\n"
A_MONITOR = "    - {name: monitor, key: " + MONITOR + ", metrics: true, models: []}"


async def test_the_master_key_and_keys_for_metrics_may_read_them() -> None:
    async with serving(is_measured=True, pipeline=A_MONITOR) as service:
        for key in (KEY, MONITOR):
            answer = await service.get("/metrics", key=key)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert "# TYPE headrace_in_flight gauge\nheadrace_in_flight 0\n" in answer.text


async def test_no_key_is_a_401_and_another_one_a_403() -> None:
    async with serving(is_measured=True, pipeline=A_MONITOR) as service:
        for key in (None, "sk-unknown-key-0123456789"):
            answer = await service.get("/metrics", key=key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        answer = await service.get("/metrics", key=LIMITED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "metrics_forbidden")
        assert answer.json()["error"]["message"] == (
            "this key may not read the metrics: use the master key, or a key that has metrics: true"
        )


async def test_a_key_that_may_read_metrics_may_do_nothing_else_that_its_models_forbid() -> None:
    async with serving(is_measured=True, pipeline=A_MONITOR) as service:
        assert (await service.post(ask("echo", stream=False), key=MONITOR)).status_code == 403
        assert (await service.get("/health", key=MONITOR)).status_code == 403


async def test_they_can_be_switched_off_and_on_by_a_reload() -> None:
    async with serving(is_measured=True, pipeline="  metrics: false") as service:
        answer = await service.get("/metrics")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")
        assert answer.json()["error"]["message"].startswith("the metrics are switched off")
        await service.reload(pipeline="  metrics_without_key: true")
        assert (await service.get("/metrics", key=None)).status_code == 200
        await service.reload()
        assert (await service.get("/metrics", key=None)).status_code == 401


async def test_a_gateway_without_any_key_answers_everybody() -> None:
    config = CONFIG.replace("general_settings: {{master_key: {key}}}\n", "").replace(
        "    - {{name: limited", "    []\n  stages: []\n#"
    )
    async with serving(is_measured=True, pipeline="  allow_anonymous: true", config=config) as service:
        assert (await service.get("/metrics", key=None)).status_code == 200
        assert (await service.get("/v1/models", key="sk-of-cursor-anything")).status_code == 200


async def test_only_get_is_served() -> None:
    async with serving(is_measured=True) as service:
        answer = await service.get("/metrics", method="POST")
        assert answer.status_code == 405
        assert "GET" in answer.headers["allow"]


async def test_what_clients_got_is_what_is_counted() -> None:
    async with serving(is_measured=True) as service:
        for _ in range(3):
            assert (await service.post(ask("echo", stream=False))).status_code == 200
        await service.post(ask("nothing", stream=False))
        await service.post(ask("echo", stream=False), key="sk-unknown-key-0123456789")
        for number in range(5):
            await service.record(number)
        ends = await figures(service, "headrace_requests")
        assert ends == {"OK": 3, "BR": 1, "AU": 1}


async def test_no_word_of_a_client_is_in_them() -> None:
    models = model("wild/*", "http://127.0.0.1:1/v1", upstream="openai/*")
    async with serving(models, is_measured=True) as service:
        for number, name in enumerate(("evil", "wild/evil", "echo-evil")):
            await service.post(ask(name, stream=False) | {"input": "evil"}, x_request_id="evil", user_agent="evil")
            await service.record(number)
        text = (await service.get("/metrics")).text
        assert 'deployment="' in text
        assert "evil" not in text
        assert KEY not in text


async def test_wrong_keys_are_answered_late() -> None:
    async with serving(is_measured=True) as service:
        for _ in range(FREE_TRIES):
            await service.get("/metrics", key="sk-unknown-key-0123456789")
        since = trio.current_time()
        assert (await service.get("/metrics", key="sk-unknown-key-0123456789")).status_code == 401
        assert trio.current_time() - since >= FIRST_DELAY_S


async def figures(service: Service, name: str) -> dict[str, float]:
    text = (await service.get("/metrics")).text
    (family,) = (one for one in text_string_to_metric_families(text) if one.name == name)
    return {",".join(sample.labels.values()): sample.value for sample in family.samples}


@pytest.mark.parametrize("where", ["callbacks", "success_callback", "failure_callback"])
@pytest.mark.parametrize("form", ["[prometheus]", "prometheus"])
def test_litellms_callback_switches_them_on_without_a_warning(where: str, form: str) -> None:
    settings = parse(f"{MODELS}litellm_settings: {{{where}: {form}}}\n")
    assert settings.pipeline.metrics
    assert not any(where in warning for warning in settings.warnings)


def test_our_own_setting_takes_precedence_over_the_callback() -> None:
    text = f"{MODELS}litellm_settings: {{callbacks: [prometheus]}}\npipeline_settings: {{metrics: false}}\n"
    assert not parse(text).pipeline.metrics


def test_other_callbacks_have_a_warning_each() -> None:
    settings = parse(f"{MODELS}litellm_settings: {{callbacks: [prometheus, langfuse, 5]}}\n")
    assert [warning for warning in settings.warnings if "callbacks" in warning] == [
        "config.yaml:2: litellm_settings.callbacks[1]: langfuse is not supported yet and is ignored",
        "config.yaml:2: litellm_settings.callbacks[2]: is not supported yet and is ignored",
    ]


@pytest.mark.parametrize(("value", "is_open"), [("false", True), ("true", False), ("null", False)])
def test_litellms_setting_opens_them_to_everybody(value: str, is_open: bool) -> None:
    text = f"{MODELS}litellm_settings: {{require_auth_for_metrics_endpoint: {value}}}\n"
    assert parse(text).pipeline.metrics_without_key is is_open
    assert not parse(text + "pipeline_settings: {metrics_without_key: false}\n").pipeline.metrics_without_key


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, "http://collector:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://a.example/otlp/"}, "https://a.example/otlp/v1/metrics"),
        (
            {"OTEL_ENDPOINT": "https://a.example/v1/traces", "OTEL_EXPORTER": "otlp_http"},
            "https://a.example/v1/metrics",
        ),
    ],
)
def test_litellms_otel_callback_exports_to_the_usual_variable(variables: dict[str, str], endpoint: str) -> None:
    assert parse(f"{MODELS}litellm_settings: {{callbacks: [otel]}}\n", **variables).pipeline.otlp_endpoint == endpoint


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({}, "otel is ignored without an address: set the environment variable OTEL_EXPORTER_OTLP_ENDPOINT, or "),
        (
            {"OTEL_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER": "otlp_grpc"},
            "otel is ignored: the environment variable OTEL_EXPORTER_OTLP_PROTOCOL or OTEL_EXPORTER is not "
            "http/protobuf, the only protocol that headrace exports by; set ",
        ),
    ],
)
def test_an_otel_callback_that_cannot_work_is_a_warning(variables: dict[str, str], warning: str) -> None:
    settings = parse(f"{MODELS}litellm_settings: {{callbacks: [otel]}}\n", **variables)
    assert settings.pipeline.otlp_endpoint is None
    assert (
        f"config.yaml:2: litellm_settings.callbacks[0]: {warning}pipeline_settings.otlp_endpoint" in settings.warnings
    )


def test_addresses_that_cannot_be_are_errors() -> None:
    assert problems(f"{MODELS}pipeline_settings: {{metrics_address: ':9464', otlp_endpoint: 'ftp://secret'}}\n") == (
        'config.yaml:2: pipeline_settings.metrics_address: found ":9464" (text), expected an address and a port, such '
        "as 127.0.0.1:9464",
        "config.yaml:2: pipeline_settings.otlp_endpoint: the URL does not start with http:// or https://: expected one "
        "such as https://api.example.com/v1",
    )
    assert problems(f"{MODELS}pipeline_settings: {{metrics_address: 'localhost:65536'}}\n") == (
        "config.yaml:2: pipeline_settings.metrics_address: there is no such port: the last one is 65535",
    )
    for service in ("", "port: 4000, ", "host: 127.0.0.1, "):
        assert problems(f"{MODELS}pipeline_settings: {{{service}metrics_address: '127.0.0.1:4000'}}\n") == (
            "config.yaml:2: pipeline_settings.metrics_address: is on the port of the service, 4000: write another one",
        )
    for service, port in (("port: 0", 0), ("host: 10.0.0.1", 4000)):
        parse(f"{MODELS}pipeline_settings: {{{service}, metrics_address: '127.0.0.1:{port}'}}\n")


def test_check_config_names_the_keys_that_read_metrics() -> None:
    keys = f"[{{name: monitor, key: {MONITOR}, metrics: true, models: []}}]"
    text = describe(parse(f"{MODELS}pipeline_settings: {{keys: {keys}}}\n"))
    assert "  monitor, no model, reads the metrics" in text
