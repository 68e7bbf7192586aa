"""Stages of other distributions, from the configuration to what the client sees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import ask, good_answer
from kit.service.plugins import install
from kit.service.running import CONFIG, KEY, model, serving
from kit.upstreams.scripted import scripted_upstream

from pipeline import Plugin, Stage, per_event
from pipeline.gateway import cli
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.config.settings import StageSettings, When
from pipeline.gateway.insertions import plan, unmatched_models
from pipeline.registry import AnyPlugin, NoOptions, PluginError, discover
from stages.events import Finished, StreamEvent, TextDelta
from stages.request import ResponsesRequest
from stages.upstreams import UpstreamCall


@dataclass(frozen=True)
class Marks:
    """Options."""

    mark: str
    times: int = 1


def exclaiming(options: Marks) -> Stage[StreamEvent, StreamEvent]:
    """Put marks before the end."""
    if options.times > 5:
        raise ValueError("times is over 5: that is too excited")

    @per_event
    def exclaim(event: StreamEvent) -> Iterator[StreamEvent]:
        if isinstance(event, Finished):
            yield TextDelta(options.mark * options.times)
        yield event

    return exclaim


@per_event
def narrow(event: TextDelta) -> Iterator[TextDelta]:
    """Accepts only text, but other events occur there too."""
    yield event


@per_event
def wrong_kind(chunk: bytes) -> Iterator[bytes]:
    """Handles bytes."""
    yield chunk.replace(b"Hello", b"Howdy")


@per_event
def decode_events(event: StreamEvent) -> Iterator[StreamEvent]:
    """Has the name of a built-in stage."""
    yield event


@per_event
def shorter(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
    """Changes the request."""
    yield ResponsesRequest(
        requested_model=request.requested_model,
        stream=request.stream,
        include_usage=request.include_usage,
        body={**request.body, "max_output_tokens": 16},
    )


@per_event
def other_model(call: UpstreamCall) -> Iterator[UpstreamCall]:
    """Asks for a model other than the deployment's."""
    yield UpstreamCall(request=call.request, deployment=call.deployment, model="another")


def bare(stage: Stage[Any, Any], kind: object) -> Plugin[NoOptions]:
    return Plugin(stage.name, lambda _: stage, NoOptions, kind, kind)


PLUGINS: dict[str, AnyPlugin] = {
    "exclaim": Plugin("exclaim", exclaiming, Marks, StreamEvent, StreamEvent),
    "narrow": bare(narrow, TextDelta),
    "wrong_kind": bare(wrong_kind, bytes),
    "decode_events": bare(decode_events, StreamEvent),
    "shorter": bare(shorter, ResponsesRequest),
    "other_model": bare(other_model, UpstreamCall),
}


async def test_an_installed_stage_changes_what_the_client_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path)
    plugins = discover()
    assert "shout" in plugins
    async with serving(pipeline="  stages: [{use: shout, after: decode_events}]", plugins=plugins) as service:
        body = {"model": "echo", "input": "Hello there"}
        streamed = fold_stream((await service.post({**body, "stream": True})).content)
        whole = fold_document((await service.post(body)).content)
        assert (streamed.content, whole.content) == ("HELLO THERE", "HELLO THERE")
        assert streamed.is_done
        for number in (0, 1):
            stages = list((await service.record(number))["stages"])
            assert stages[stages.index("remember_reasoning") + 1] == "shout"  # the upstream's own answer is remembered


@pytest.mark.parametrize("execution", ["tasks", "fused"])
async def test_stages_after_the_same_stage_keep_the_order_of_the_list(execution: str) -> None:
    pipeline = f"""\
  execution: {execution}
  stages:
    - {{use: exclaim, after: decode_events, options: {{mark: "!", times: 3}}}}
    - {{use: wrong_kind, after: encode_chunks}}
"""
    async with serving(pipeline=pipeline, plugins=PLUGINS) as service:
        answer = await service.post({"model": "echo", "input": "Hello", "stream": True})
        assert fold_stream(answer.content).content == "Howdy!!!"


async def test_stages_can_be_added_to_the_request_side() -> None:
    pipeline = "  stages: [{use: shorter, after: parse_request}, {use: other_model, after: choose_deployment}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), pipeline, plugins=PLUGINS) as service,
    ):
        assert (await service.post(ask())).status_code == 200
        sent = upstream.requests[0].json()
        assert (sent["max_output_tokens"], sent["model"]) == (16, "another")


WRONG = {
    "- {use: shot, after: decode_events}": "no stage named 'shot' is installed (installed: decode_events, exclaim,",
    "- {use: exclaim, after: keep_alive, options: {mark: x}}": "cannot follow 'keep_alive': choose one of",
    "- {use: exclaim, after: decode_events}": "the options of stage 'exclaim' do not fit: the option 'mark' is missing",
    "- {use: exclaim, at: events, options: {mark: 5}}": "do not fit: mark: found a whole number, expected text",
    "- {use: exclaim, at: events, options: {marc: x}}": "(options: mark, times); did you mean 'mark'?",
    "- {use: exclaim, after: decode_events, options: {mark: x, times: 6}}": "times is over 5: that is too excited",
    "- {use: narrow, after: decode_events}": "stage 'narrow' does not take ",
    "- {use: wrong_kind, after: decode_events}": "stage 'wrong_kind' does not take ",
    "- {use: exclaim, after: encode_chunks, options: {mark: x}}": "stage 'exclaim' does not take bytes",
    "- {use: exclaim, after: decode_event, options: {mark: x}}": "at the same place; did you mean 'decode_events'?",
    "- {use: exclaim, at: event, options: {mark: x}}": "client_bytes; did you mean 'events'?",
    "- {use: exclaim, at: request, options: {mark: x}}": "at 'request': put it at events, where ",
    "- {use: narrow}": "stage 'narrow' does not take Annotations, ",
    "- {use: decode_events, after: decode_events}": "another stage is already named 'decode_events'",
    "- {use: shorter, after: parse_request}\n    - {use: shorter, after: parse_request}": "use each stage once",
}


@pytest.mark.parametrize("lines", WRONG)
async def test_a_stage_that_does_not_fit_fails_at_startup_with_its_line(lines: str) -> None:
    with pytest.raises(PluginError) as refused:
        async with serving(pipeline=f"  stages:\n    {lines}", plugins=PLUGINS):
            pass
    text = str(refused.value)
    assert WRONG[lines] in text
    line = 15 + lines.count("\n")
    assert text.startswith((f"test.yaml line {line}", f"test.yaml:{line}")), text


async def test_all_stages_that_do_not_fit_are_reported_together() -> None:
    pipeline = "  stages:\n    - {use: shot}\n    - {use: exclaim}\n    - {use: shorter}\n    - {use: narrow, at: call}"
    with pytest.raises(PluginError) as refused:
        async with serving(pipeline=pipeline, plugins=PLUGINS):
            pass
    assert [problem.partition(": ")[0] for problem in refused.value.problems] == [
        f"test.yaml:{line}" for line in (15, 16, 18)
    ]


def test_an_option_that_is_a_number_may_come_from_the_environment() -> None:
    pipeline = '  stages: [{use: exclaim, at: events, options: {mark: "!", times: os.environ/TIMES}}]'
    text = CONFIG.format(models="", key=KEY, pipeline=pipeline)
    [settings] = parse_settings(text, source="test.yaml", environ={"TIMES": "3"}).pipeline.stages
    [planned] = plan([settings], PLUGINS)
    assert planned.options == Marks("!", 3)


def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a distribution that cannot be imported; return the path of a configuration without stages."""
    project = tmp_path / "broken"
    project.mkdir()
    (project / "broken_stage.py").write_text("import no_such_module\n")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "broken"\nversion = "1"\n[project.entry-points."pipeline.stages"]\nx = "broken_stage:x"\n'
    )
    install(monkeypatch, tmp_path / "site", project)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(models="", key=KEY, pipeline="  port: 4001"))
    return config


def test_a_broken_distribution_stops_only_those_who_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = broken(tmp_path, monkeypatch)
    said = "'x' = 'broken_stage:x' of the distribution 'broken' cannot be imported: ModuleNotFoundError("
    remedy = "-m pip uninstall broken"
    assert cli.main(["check-config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "usable, 1 warning" in shown
    assert said in shown
    assert remedy in shown
    assert cli.main(["stages"]) == 0
    assert said in capsys.readouterr().out
    assert cli.main(["graph", str(config)]) == 0
    assert said in capsys.readouterr().err
    config.write_text(CONFIG.format(models="", key=KEY, pipeline="  stages: [{use: x}]"))
    assert cli.main(["check-config", str(config)]) == 2
    assert f"{config}:14: pipeline_settings.stages[0]: the stage plugin {said}" in capsys.readouterr().err


def test_every_error_of_stages_begins_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(models="", key=KEY, pipeline="  stages: [{use: shot},\n    {use: shut}]"))
    assert cli.main(["check-config", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": no stage named ")[0] for line in lines] == [
        "the configuration: not usable, 2 errors, 0 warnings",
        "",
        f"{config}:14: pipeline_settings.stages[0]",
        f"{config}:15: pipeline_settings.stages[1]",
    ]


def test_a_condition_that_no_model_meets_is_warned_about() -> None:
    def warned(*patterns: str, names: tuple[str, ...] = ("gpt-5", "story")) -> str:
        settings = StageSettings(use="shout", where="c.yaml:7", when=When(models=patterns))
        return "\n".join(unmatched_models([settings], names))

    assert warned("stroy") == (
        "c.yaml:7: no model's name matches 'stroy', so that stage 'shout' is for no request with it; did you mean "
        "'story'?"
    )
    assert warned("story", "gpt-*", "gpt-5-fast", "*", "gpt-5-*") == ""
    assert warned("stroy", names=("story", "*")) == ""


def test_what_reads_only_the_beginning_does_no_harm(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "pipeline.gateway", "stages"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, b"")
