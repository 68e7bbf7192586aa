"""``headrace graph``: the pipelines of a configuration as text."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.service.plugins import install

from pipeline import Host, Inlet, Observer, Outlet, Pipeline, Plugin, RequestContext, codec_stage, per_event
from pipeline.gateway import cli
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.graph_page import graph_page
from pipeline.gateway.health_page import EndpointHealth, HealthPage
from pipeline.graph import StageDescription, TaskDescription
from pipeline.registry import AnyPlugin, NoOptions, PluginError
from stages.events import StreamEvent
from stages.request import ResponsesRequest
from stages.routing.health import HealthState

CONFIG = """\
model_list:
  - model_name: echo
    litellm_params: {model: canned/echo}
general_settings:
  master_key: sk-graph-test-0123456789abcdef
"""


@per_event
def shorter(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
    yield request


@per_event
def pass_on(event: StreamEvent) -> Iterator[StreamEvent]:
    yield event


class Wait:
    name = "wait"

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None: ...


class Held:
    def __init__(self, ctx: RequestContext) -> None: ...

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        return batch

    def flush(self) -> list[StreamEvent]:
        return []

    def tick(self) -> list[StreamEvent]:
        return []


class Near:
    def __init__(self, name: str) -> None:
        self.name = name

    def call(self, call: Any, next: Any) -> Any: ...


class Count:
    name = "count"

    def on_start(self, ctx: RequestContext) -> None: ...

    def on_end(self, record: Any) -> None: ...


@dataclass(frozen=True)
class Options:
    api_key: str = ""
    words: tuple[str, ...] = ()
    table: dict[str, str] | None = None
    times: int = 1
    loud: bool = True
    secret: int = 0


@asynccontextmanager
async def refuse(options: Options, host: Host) -> AsyncGenerator[Any]:
    raise AssertionError("a plugin was opened")
    yield


def stage(made: Any, kind: object) -> Plugin[NoOptions]:
    return Plugin(made.name, lambda _: made, NoOptions, kind, kind)


def around(name: str) -> Plugin[NoOptions]:
    return Plugin(name, lambda _: Near(name), kind="around")


def counting(_: NoOptions) -> Observer:
    return Count()


PLUGINS: dict[str, AnyPlugin] = {
    "shorter": stage(shorter, ResponsesRequest),
    "pass_on": stage(pass_on, StreamEvent),
    "wait": stage(Wait(), StreamEvent),
    "retry": around("retry"),
    "cache": around("cache"),
    "count": Plugin("count", counting, kind="observer"),
    "served": Plugin("served", serve=refuse, options=Options, accepts=StreamEvent, emits=StreamEvent),
    "served_around": Plugin("served_around", serve=refuse, options=Options, kind="around"),
    "served_observer": Plugin("served_observer", serve=refuse, options=Options, kind="observer"),
}


def page(*stages: str, more: str = "") -> dict[str, list[str]]:
    """Return the page's paragraphs by their first word."""
    lines = "".join(f"    - {one}\n" for one in stages)
    text = f"{CONFIG}pipeline_settings:\n{more}" + (f"  stages:\n{lines}" if stages else "")
    shown = graph_page(parse_settings(text, source="c.yaml", environ={}), PLUGINS)
    paragraphs = [paragraph.splitlines() for paragraph in shown.removesuffix("\n").split("\n\n")]
    return {re.split("[: ]", paragraph[0])[0]: paragraph for paragraph in paragraphs}


PLAIN = """\
c.yaml: execution: fused

accept: reads a request, and chooses the deployment that answers it
  task 1 (authenticate), 4 stages fused: takes the request's body
    authenticate       bytes -> bytes  (codec)
    parse_request      bytes -> ResponsesRequest  (codec, waits)
    choose_deployment  ResponsesRequest -> UpstreamCall  (codec)
    restore_reasoning  UpstreamCall -> UpstreamCall  (codec, waits)

stream: answers a client that streams
  task 1 (call_upstream): takes the call
    call_upstream  UpstreamCall -> Failed | bytes  (run)
  task 2 (decode_events), 5 stages fused: from the link call_upstream>decode_events, which holds 1 batch
    decode_events       Failed | bytes -> StreamEvent  (codec, ticks after 1 s)
    remember_reasoning  StreamEvent -> StreamEvent  (codec)
    encode_chunks       StreamEvent -> bytes  (codec)
    keep_alive          bytes -> bytes  (codec, ticks after 15 s)
    write_sse           bytes -> Never  (codec, waits)

whole: answers a client that does not stream
  task 1 (call_upstream): takes the call
    call_upstream  UpstreamCall -> Failed | bytes  (run)
  task 2 (decode_events), 4 stages fused: takes what task 1 gives when it asks, in one task with it
    decode_events       Failed | bytes -> StreamEvent  (codec, ticks after 1 s)
    remember_reasoning  StreamEvent -> StreamEvent  (codec)
    collect_completion  StreamEvent -> bytes  (codec)
    write_json          bytes -> Never  (codec, waits)

models: which deployments answer to a name
  simple-shuffle: a conversation has one of the lowest order, by weight, and keeps it while it is healthy
  one that fails more than 3 times in a minute is left out for 5 s, and each time that it fails again for \
twice as long, up to 60 s
  a request is repeated twice at most, and goes on to 5 other models at most
  echo
    order 0, weight 1: canned/echo (canned)
"""


def test_without_added_stages_the_built_in_ones_are_shown() -> None:
    assert graph_page(parse_settings(CONFIG, source="c.yaml", environ={}), {}) == PLAIN


def test_in_tasks_every_stage_has_a_task_of_its_own() -> None:
    shown = page(more="  execution: tasks\n")
    assert shown["c.yaml"] == ["c.yaml: execution: tasks"]
    assert [line for line in shown["stream"] if "fused" in line] == []
    assert sum("  task " in line for line in shown["stream"]) == 6


def test_an_added_stage_is_shown_in_its_place_with_its_rules() -> None:
    shown = page("{use: pass_on, on_error: skip}", "{use: shorter}")
    assert shown["accept"][3:6] == [
        "    parse_request      bytes -> ResponsesRequest  (codec, waits)",
        "    shorter            ResponsesRequest -> ResponsesRequest  (codec)",
        "                       added at request; on_error: fail",
    ]
    for name in ("stream", "whole"):
        at = shown[name].index("    pass_on             StreamEvent -> StreamEvent  (codec)")
        assert shown[name][at - 1].split()[0] == "remember_reasoning"
        assert shown[name][at + 1].strip() == "added at events; on_error: skip"


def test_a_stage_that_waits_divides_the_others_and_has_the_types_of_its_plugin() -> None:
    tasks = [line for line in page("{use: wait}")["stream"] if line.startswith("  task ")]
    assert tasks[1:] == [
        "  task 2 (decode_events), 2 stages fused: from the link call_upstream>decode_events, which holds 1 batch",
        "  task 3 (wait): from the link remember_reasoning>wait, which holds 1 batch",
        "  task 4 (encode_chunks), 3 stages fused: from the link wait>encode_chunks, which holds 1 batch",
    ]
    assert "    wait  StreamEvent -> StreamEvent  (run)" in page("{use: wait}")["stream"]


def test_arounds_are_shown_with_the_attempt_and_the_outermost_first() -> None:
    shown = page("{use: retry}", "{use: cache, when: {keys: [anna, team-*]}}")
    assert shown["attempt"][:5] == [
        "attempt: one attempt at an answer, which answer_call makes when the innermost around asks for it",
        "  around it, the outermost first:",
        "    1. retry",
        "    2. cache; when keys: anna, team-*",
        "  task 1 (restore_reasoning): takes the call",
    ]
    assert shown["stream"][1:3] == [
        "  task 1 (answer_call): takes the call",
        "    answer_call  UpstreamCall -> StreamEvent  (run)",
    ]
    assert "restore_reasoning" not in "".join(shown["accept"])
    assert "answer_call is left" in "".join(shown["A"])


def test_the_models_tell_which_may_be_asked_by_chat() -> None:
    entry = "{model: openai/qwen, api_base: 'http://10.0.0.7:8000/v1', api_key: k}"
    text = CONFIG.replace("{model: canned/echo}", entry)
    shown = graph_page(parse_settings(text, source="c.yaml", environ={}), {})
    assert "openai/qwen (responses, then chat if the server does not know it, at 10.0.0.7:8000)" in shown


def test_observers_are_listed() -> None:
    assert page("{use: count}")["observers"] == [
        "observers: are told of each request's start and end",
        "  count",
    ]
    assert "observers" not in page()


def test_a_condition_is_shown_and_divides_what_is_known_later() -> None:
    shown = page('{use: shorter, when: {models: ["gpt-*", o3], stream: false, profile: cursor}}')
    assert "accept" not in shown
    assert shown["authenticate"][1:] == [
        "  task 1 (authenticate): takes nothing",
        "    authenticate  bytes -> bytes  (codec)",
    ]
    assert [line.split()[0] for line in shown["read"][2:]] == ["parse_request"]
    assert shown["choose"][3].strip() == (
        "added at request; when models: gpt-*, o3; and stream: false; and profile: cursor; on_error: fail"
    )
    assert shown["A"][0].startswith("A request passes only those stages with `when` that are for it")


@pytest.mark.parametrize(("is_stream", "name", "other"), [("true", "stream", "whole"), ("false", "whole", "stream")])
def test_a_stage_for_one_kind_of_response_is_shown_there_only(is_stream: str, name: str, other: str) -> None:
    shown = page(f"{{use: pass_on, when: {{stream: {is_stream}}}}}")
    assert "pass_on" in "".join(shown[name])
    assert "pass_on" not in "".join(shown[other])


MODELS = """\
model_list:
  - model_name: gpt
    litellm_params: {model: openai/gpt-5, api_key: sk-first-0123456789abcdef, order: 2, weight: 3}
    model_info: {id: late}
  - model_name: gpt
    litellm_params:
      model: azure/gpt-5
      api_base: "https://eu.example.com:8443/openai/v1?code=hunter2"
      api_key: sk-second-0123456789abcdef
      order: 1
    model_info: {id: early, health_check_timeout: 5}
  - model_name: "claude-*"
    litellm_params: {model: "anthropic/claude-*", api_key: sk-third-0123456789abcdef}
router_settings:
  fallbacks: [{gpt: [claude-5, gpt-old]}]
  context_window_fallbacks: [{gpt: [claude-5]}]
  content_policy_fallbacks: [{gpt: [claude-5, gpt-old]}]
  model_group_alias: {best: gpt}
  allowed_fails_policy: {TimeoutErrorAllowedFails: 7}
  routing_strategy: least-busy
general_settings: {master_key: sk-graph-test-0123456789abcdef, background_health_checks: true}
"""


def models(text: str, live: HealthPage | None = None) -> list[str]:
    """Return the lines about models."""
    shown = graph_page(parse_settings(text, source="c.yaml", environ={}), {}, live)
    assert "hunter2" not in shown
    assert "sk-" not in shown
    return shown.partition("\nmodels: ")[2].splitlines()


def test_the_models_are_shown_with_their_deployments_in_order_and_what_follows_them() -> None:
    assert models(MODELS)[1:] == [
        "  least-busy: a conversation gets one of the lowest order that answers the fewest, and keeps it",
        "  one that fails more than 3 times in a minute is left out for 5 s, and each time that it fails again for "
        "twice as long, up to 60 s (counted apart: timeout: 7)",
        "  a request is repeated twice at most, and goes on to 5 other models at most",
        "  each is asked in the background every 300 s, where a line says so",
        "  gpt, also as best",
        "    order 1, weight 1: azure/gpt-5 (responses at eu.example.com:8443, id early), asked in the background",
        "    order 2, weight 3: openai/gpt-5 (responses at api.openai.com, id late), asked in the background",
        "    if all of them fail: claude-5, then gpt-old",
        "    if the conversation is too long: claude-5",
        "  claude-*",
        "    order 0, weight 1: anthropic/claude-* (anthropic at api.anthropic.com)",
    ]


def test_without_cool_downs_the_page_says_so() -> None:
    assert "  none is left out, however often it fails (disable_cooldowns)" in models(
        CONFIG + "router_settings: {disable_cooldowns: true}\n"
    )


def test_the_state_of_a_running_server_follows_each_deployment() -> None:
    def health(id: str, state: HealthState, **fields: Any) -> EndpointHealth:
        usual: dict[str, Any] = {"ejected_for_s": 0.0, "ejections": 0, "in_flight": 0, "latency_s": None}
        return EndpointHealth(
            model_name="gpt", model="m", id=id, api_base="h", state=state, **{**usual, "last_minute": {}, **fields}
        )

    live = HealthPage(
        healthy_endpoints=[
            health("late", "healthy", in_flight=2, latency_s=0.35, last_minute={"answered": 9, "timeout": 1})
        ],
        unhealthy_endpoints=[health("early", "ejected", ejected_for_s=4.2, ejections=3)],
        healthy_count=1,
        unhealthy_count=1,
        worker=123,
        workers=4,
    )
    lines = models(MODELS, live)
    assert lines[1] == "  with their state, as worker process 123 knows it alone, one of 4: each has its own view"
    states = [line.strip() for line in lines if line.startswith("      ")]
    assert states == [
        "ejected for 4.2 s more (3 in a row); 0 in flight",
        "healthy; 2 in flight; begins to answer after 0.35 s; last minute: 9 answered, 1 timeout",
        "the server does not know it: it has another configuration",
    ]


def test_nothing_is_opened() -> None:
    shown = page("{use: served}", "{use: served_around}", "{use: served_observer}")
    assert "    served  StreamEvent -> StreamEvent  (opened at start-up)" in shown["stream"]
    assert "    1. served_around" in shown["attempt"]
    assert shown["observers"][1] == "  served_observer"
    [last] = [paragraph for name, paragraph in shown.items() if name == "A"]
    assert last == [
        "A stage that is opened at start-up may share a task with its neighbours, which is known only then."
    ]


def test_what_is_opened_and_may_be_skipped_must_be_a_codec() -> None:
    [task] = [line for line in page("{use: served, on_error: skip}")["stream"] if "task 2" in line]
    assert "6 stages fused" in task


def test_texts_among_the_options_are_not_shown() -> None:
    options = "{api_key: hunter2, words: [swordfish], table: {a: swordfish}, times: 3, loud: false, secret: 123456}"
    shown = page(f"{{use: served, options: {options}}}")
    [line] = [line for line in shown["stream"] if "options" in line]
    assert line.partition("options: ")[2] == (
        "api_key=(text), words=(list), table=(mapping), times=3, loud=false, secret=[redacted]"
    )
    everything = str(shown)
    assert "hunter2" not in everything
    assert "swordfish" not in everything


def test_a_stage_that_does_not_fit_is_refused() -> None:
    with pytest.raises(PluginError, match="no stage named 'shot' is installed"):
        page("{use: shot}")
    with pytest.raises(PluginError, match="stage 'shorter' does not take bytes"):
        page("{use: shorter, at: client_bytes}")


def test_the_command_prints_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path / "site")
    (config := tmp_path / "config.yaml").write_text(f"{CONFIG}pipeline_settings: {{stages: [{{use: shout}}]}}\n")
    assert cli.main(["graph", str(config)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{config}: execution: fused\n\naccept: ")
    assert "    shout               StreamEvent -> StreamEvent  (codec)\n" in out
    assert not out.endswith("\n\n")
    assert "sk-graph-test" not in out + err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model_list: 5\n", "config.yaml"),
        (f"{CONFIG}pipeline_settings: {{stages: [{{use: nope}}]}}\n", "no stage named 'nope' is installed"),
    ],
)
def test_an_invalid_configuration_is_status_2(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config := tmp_path / "config.yaml").write_text(text)
    assert cli.main(["graph", str(config)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_a_pipeline_describes_its_tasks() -> None:
    held = codec_stage("held", Held, tick_s=2)
    chain = Pipeline(Wait()).then(pass_on, capacity=3).then(held).fused()
    assert chain.describe() == (
        TaskDescription((StageDescription("wait", None, None, is_codec=False),), None, 1),
        TaskDescription(
            (
                StageDescription("pass_on", StreamEvent, StreamEvent, is_codec=True),
                StageDescription("held", StreamEvent, StreamEvent, is_codec=True, tick_s=2),
            ),
            "wait>pass_on",
            3,
        ),
    )
