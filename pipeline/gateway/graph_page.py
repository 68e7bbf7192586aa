"""``headrace graph``: the pipelines of a configuration, stage by stage, and its models.

Nothing is opened, and no secret is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pipeline import Inlet, Outlet, RequestContext
from pipeline.gateway.assembly import Assembly
from pipeline.gateway.config.settings import Settings, When
from pipeline.gateway.generation import Generation
from pipeline.gateway.health_page import HealthPage
from pipeline.gateway.insertions import Installed, Planned, plan, type_words
from pipeline.gateway.models_page import models_page
from pipeline.graph import StageDescription, TaskDescription
from pipeline.line import CodecStage
from pipeline.registry import AnyPlugin
from stages.wire.redaction import redact

_ABOUT: Final[Mapping[str, str]] = {
    "accept": "reads a request, and chooses the deployment that answers it",
    "authenticate": "finds out whose request it is, because some of the added stages depend on that",
    "read": "reads the request",
    "choose": "chooses the deployment that answers it",
    "attempt": "one attempt at an answer, which answer_call makes when the innermost around asks for it",
    "stream": "answers a client that streams",
    "whole": "answers a client that does not stream",
}

_SOURCES: Final[Mapping[str, str]] = {
    "accept": "the request's body",
    "authenticate": "nothing",
    "read": "the request's body",
    "choose": "the request",
    "attempt": "the call",
    "stream": "the call",
    "whole": "the call",
}
"""What the first task of a pipeline takes."""


def graph_page(settings: Settings, plugins: Mapping[str, AnyPlugin], live: HealthPage | None = None) -> str:
    """Return the pipelines of a configuration, and its models, as text.

    Args:
        settings: the configuration.
        plugins: the stages that are installed, by name.
        live: what a running server with this configuration knows of its deployments.

    Raises:
        PluginError: if a configured stage does not exist or does not fit in its place.
    """
    parts = Generation(settings, plugins=plugins, on_end=lambda record: None).parts
    planned = plan(settings.pipeline.stages, plugins)
    assembly = Assembly(parts, [Installed.of(one, _made(one)) for one in planned])
    lines = [*_page(settings, planned, assembly.describe()), "", *models_page(settings, live)]
    return "\n".join(lines) + "\n"


class _NotOpened:
    """Stands for what a plugin gives that has to be opened first."""

    def __init__(self, plugin: AnyPlugin) -> None:
        self.name = plugin.name
        self.accepts = plugin.accepts
        self.emits = plugin.emits

    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        raise NotImplementedError(f"{self.name} was not opened")


def _made(one: Planned) -> Any:
    """Return what an added stage makes, or what stands for it if it has to be opened."""
    plugin = one.plugin
    if plugin.make is not None:
        return plugin.make(one.options)
    if one.settings.on_error == "skip":  # it must be a codec, then
        return CodecStage[Any, Any](
            plugin.name, lambda ctx: None, accepts=plugin.accepts, emits=plugin.emits, holds_nothing=True
        )
    return _NotOpened(plugin)


def _page(
    settings: Settings, planned: Sequence[Planned], described: Mapping[str, tuple[TaskDescription, ...]]
) -> Iterator[str]:
    added = {one.plugin.name: one for one in planned}
    yield f"{settings.source}: execution: {settings.pipeline.execution}"
    for name, tasks in described.items():
        yield ""
        yield f"{name}: {_ABOUT[name]}"
        if name == "attempt":
            yield from _around(one for one in planned if one.plugin.kind == "around")
        for number, task in enumerate(tasks, 1):
            source = (
                _SOURCES[name] if number == 1 else f"what task {number - 1} gives when it asks, in one task with it"
            )
            yield f"  task {number} ({task.stages[0].name}){_taking(task, source)}"
            width = max(len(stage.name) for stage in task.stages)
            for stage in task.stages:
                yield from _stage(stage, added.get(stage.name), width)
    observers = [one for one in planned if one.plugin.kind == "observer"]
    if observers:
        yield ""
        yield "observers: are told of each request's start and end"
        for one in observers:
            yield f"  {one.plugin.name}{_about(one)}"
    if any(one.is_conditional for one in planned):
        yield ""
        yield "A request passes only those stages with `when` that are for it. The others are left out of its"
        yield "pipelines, and what is next to each other then may share a task. Without any around, answer_call is left"
        yield "out too, and the stages of the attempt are in its place."
    if any(one.plugin.serve is not None and one.plugin.kind == "stage" for one in planned):
        yield ""
        yield "A stage that is opened at start-up may share a task with its neighbours, which is known only then."


def _taking(task: TaskDescription, source: str) -> str:
    fused = f", {len(task.stages)} stages fused" if len(task.stages) > 1 else ""
    if task.link is None:
        return f"{fused}: takes {source}"
    batches = "1 batch" if task.capacity == 1 else f"{task.capacity} batches"
    return f"{fused}: from the link {task.link}, which holds {batches}"


def _around(arounds: Iterator[Planned]) -> Iterator[str]:
    yield "  around it, the outermost first:"
    for number, one in enumerate(arounds, 1):
        yield f"    {number}. {one.plugin.name}{_about(one)}"


def _stage(stage: StageDescription, one: Planned | None, width: int) -> Iterator[str]:
    kind = "codec" if stage.is_codec else "run"
    if one is not None and one.plugin.serve is not None:
        kind = "opened at start-up"
    waits = ", waits" if stage.is_waiting else ""
    ticks = "" if stage.tick_s is None else f", ticks after {stage.tick_s:g} s"
    accepts, emits = stage.accepts, stage.emits
    if one is not None:
        accepts, emits = accepts or one.plugin.accepts, emits or one.plugin.emits
    yield f"    {stage.name:<{width}}  {type_words(accepts)} -> {type_words(emits)}  ({kind}{waits}{ticks})"
    if one is not None:
        yield f"    {'':<{width}}  added at {one.place}{_about(one)}"


def _about(one: Planned) -> str:
    """Return how an added stage is configured, to be put after its name."""
    settings = one.settings
    said = [_when(settings.when)] if one.is_conditional else []
    if one.plugin.kind == "stage":
        said.append(f"on_error: {settings.on_error}")
    if settings.options:
        said.append(f"options: {', '.join(_option(name, value) for name, value in settings.options.items())}")
    return "".join(f"; {words}" for words in said)


def _when(when: When) -> str:
    conditions = {
        "keys": when.keys and ", ".join(when.keys),
        "models": when.models and ", ".join(when.models),
        "stream": None if when.stream is None else str(when.stream).lower(),
        "profile": when.profile,
    }
    said = [f"{name}: {value}" for name, value in conditions.items() if value is not None]
    return f"when {'; and '.join(said)}"


def _option(name: str, value: object) -> str:
    """Return an option with its value if that is a number or a switch; any text may be a secret, and is left out."""
    match value:
        case bool() | int() | float() | None:
            return redact(f"{name}={msgspec.json.encode(value).decode()}")
        case str():
            return f"{name}=(text)"
        case list():
            return f"{name}=(list)"
        case _:
            return f"{name}=(mapping)"
