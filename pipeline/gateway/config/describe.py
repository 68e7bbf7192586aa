"""What ``headrace check-config`` prints: the resolved configuration, or what is wrong with it, without any secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from pipeline.gateway.config.limits import limit_words
from pipeline.gateway.config.problems import ConfigError, Problem
from pipeline.gateway.config.settings import PipelineSettings, Settings, StageSettings
from stages.upstreams import Deployment, UpstreamKind
from stages.wire.redaction import redact

_HIDDEN = ("proxy", "otlp_endpoint")
"""Settings whose value may hold a password, or a key in the query."""


class CheckedDeployment(Struct, frozen=True):
    """A deployment in the document of ``check-config --json``.

    Attributes:
        id: its name in logs and metrics.
        model_name: what clients ask for.
        provider, model: what answers.
        api: by which API it is asked.
        host: the host and the port of its address; empty if it has none.
    """

    id: str
    model_name: str
    provider: str
    model: str
    api: UpstreamKind
    host: str


class CheckedConfig(Struct, frozen=True):
    """The document that ``check-config --json`` prints.

    Attributes:
        file: the configuration's name.
        usable: whether headrace starts with it.
        errors, warnings: what was found; a usable one has no errors.
        deployments: what can be asked; empty if it is not usable.
    """

    file: str
    usable: bool
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    deployments: tuple[CheckedDeployment, ...] = ()


def checked(settings: Settings) -> CheckedConfig:
    """Return the document about a usable configuration."""
    deployments = tuple(
        CheckedDeployment(
            redact(one.id), redact(one.model_name), one.provider, shown_model(one), one.kind, host_of(one)
        )
        for one in settings.deployments
    )
    return CheckedConfig(settings.source, True, (), settings.found_warnings, deployments)


def describe_failure(error: ConfigError) -> str:
    """Return the errors and the warnings of a configuration that cannot be used, as lines of text."""
    errors, warnings = error.problems, error.warnings
    if len(errors) == 1 and not warnings:
        return f"{errors[0]}\n"
    counts = f"{counted(len(errors), 'error')}, {counted(len(warnings), 'warning')}"
    file = next((one.file for one in error.errors if one.file), "the configuration")
    lines = [f"{file}: not usable, {counts}", "", *errors, *(["", "warnings:"] if warnings else []), *warnings]
    return "\n".join(lines) + "\n"


def describe(settings: Settings) -> str:
    """Return deployments, keys by name, settings that differ from their default, and warnings, as lines of text."""
    return "\n".join(_lines(settings)) + "\n"


def _lines(settings: Settings) -> Iterator[str]:
    yield f"{settings.source}: usable, {counted(len(settings.warnings), 'warning')}"
    yield ""
    yield f"{counted(len(settings.deployments), 'deployment')}:"
    asked = [redact(deployment.model_name) for deployment in settings.deployments]
    width = max(map(len, asked), default=0)
    for name, deployment in zip(asked, settings.deployments, strict=True):
        yield f"  {name:<{width}} -> {target_of(deployment)}{limits_of(deployment)}"
    names = [*(["master"] if settings.master_key is not None else []), *(key.name for key in settings.keys)]
    yield ""
    yield f"{counted(len(names), 'key')}:{'' if names else ' requests need no key'}"
    for key in settings.keys:
        models = "" if key.models is None else f", only {', '.join(key.models)}" if key.models else ", no model"
        limits = [limit_words(key.limits), *(f"of {name} {limit_words(of)}" for name, of in key.model_limits.items())]
        metrics = ", reads the metrics" if key.reads_metrics else ""
        yield redact(f"  {key.name}{models}{metrics}{''.join(f'; {words}' for words in limits if words)}")
    if settings.master_key is not None:
        yield "  master, may use everything"
    if settings.health_check_interval_s is not None:
        checked = [one for one in settings.deployments if one.health_check is not None]
        yield ""
        yield f"background health checks: {counted(len(checked), 'deployment')}, each every " + (
            f"{settings.health_check_interval_s:g} s by each worker"
        )
    changed = list(_changed(settings.pipeline))
    if changed:
        yield ""
        yield "settings that differ from their default:"
        yield from (f"  {line}" for line in changed)
    if settings.warnings:
        yield ""
        yield "warnings:"
        yield from (f"  {warning}" for warning in settings.warnings)


def target_of(deployment: Deployment) -> str:
    """Return what answers for a deployment: its model, API and host, and its id if that is not its name."""
    host = host_of(deployment)
    named = f", id {redact(deployment.id)}" if deployment.id != deployment.model_name else ""
    comma = "" if deployment.on_chat is None else ","
    token = "" if deployment.token is None else f", token by {deployment.token.command.program}"
    return f"{full_model(deployment)} ({api_words(deployment)}{f'{comma} at {host}' if host else ''}{token}{named})"


def limits_of(deployment: Deployment) -> str:
    """Return what it may be given and what each key may have of it, after a semicolon; empty if all is unlimited."""
    own, of_keys = limit_words(deployment.limits), limit_words(deployment.key_limits)
    return (f"; {own}" if own else "") + (f"; each key {of_keys}" if of_keys else "")


def full_model(deployment: Deployment) -> str:
    """Return ``provider/model``; of a recording only the file's name."""
    return f"{deployment.provider}/{shown_model(deployment)}"


def shown_model(deployment: Deployment) -> str:
    """Return the model; of a recording only the file's name. A key in the place of a name is not shown."""
    model = deployment.model
    return f"replay:{Path(model.removeprefix('replay:')).name}" if model.startswith("replay:") else redact(model)


def host_of(deployment: Deployment) -> str:
    """Return the host and the port of its address, without what else an address may hold; empty if it has none."""
    parts = urlsplit(deployment.url)
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}" if deployment.url else ""


def api_words(deployment: Deployment) -> str:
    """Return by which API a deployment is asked, and what is tried if its server does not have that."""
    if deployment.on_chat is None:
        return deployment.kind
    return f"{deployment.kind}, then {deployment.on_chat.kind} if the server does not know it"


def _changed(pipeline: PipelineSettings) -> Iterator[str]:
    for field in msgspec.structs.fields(PipelineSettings):
        value = getattr(pipeline, field.name)
        if value == field.default or value == ():
            continue
        if field.name == "stages":
            for stage in pipeline.stages:
                yield f"stages: {stage.use}{_where(stage)}"
        else:
            yield f"{field.name}: {'(set)' if field.name in _HIDDEN else value}"


def _where(stage: StageSettings) -> str:
    """Return what the configuration says of its place."""
    said = {"at": stage.at, "after": stage.after, "before": stage.before}
    return "".join(f" {word} {value}" for word, value in said.items() if value is not None)


def counted(number: int, noun: str) -> str:
    """Return ``1 model`` or ``3 models``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
