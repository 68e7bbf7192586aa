"""Stages of other distributions, from the configuration to what the client sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kit.clients.chat_fold import fold_document, fold_stream
from kit.clients.chat_posts import ask, good_answer
from kit.service.plugins import install
from kit.service.running import model, serving
from kit.upstreams.scripted import scripted_upstream

from pipeline import Plugin, Stage, per_event
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
    "- {use: exclaim, after: decode_events}": "the options of stage 'exclaim' do not fit: Object missing required",
    "- {use: exclaim, after: decode_events, options: {mark: 5}}": "Expected `str`, got `int` - at `$.mark`",
    "- {use: exclaim, after: decode_events, options: {marc: x}}": "there is no option 'marc' (options: mark, times)",
    "- {use: exclaim, after: decode_events, options: {mark: x, times: 6}}": "times is over 5: that is too excited",
    "- {use: narrow, after: decode_events}": "stage 'narrow' does not take ",
    "- {use: wrong_kind, after: decode_events}": "stage 'wrong_kind' does not take ",
    "- {use: exclaim, after: encode_chunks, options: {mark: x}}": "stage 'exclaim' does not take bytes",
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


def test_a_broken_distribution_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "broken"
    project.mkdir()
    (project / "broken_stage.py").write_text("import no_such_module\n")
    (project / "pyproject.toml").write_text(
        '[project]\nname = "broken"\nversion = "1"\n[project.entry-points."pipeline.stages"]\nx = "broken_stage:x"\n'
    )
    install(monkeypatch, tmp_path / "site", project)
    with pytest.raises(PluginError, match=r"'broken_stage:x' cannot be imported: .*no_such_module"):
        discover()
