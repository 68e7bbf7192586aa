"""Reads the configuration: LiteLLM's ``config.yaml`` with our own ``pipeline_settings``, then the environment.

An unmodified LiteLLM file starts: each setting that we do not support yet gets one warning. What cannot work is an
error, and all errors are reported together. ``docs/config.md`` describes every setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.gateway.config.callbacks import read_callbacks
from pipeline.gateway.config.describe import describe
from pipeline.gateway.config.env_file import env_file_of, with_env_file
from pipeline.gateway.config.fields import Environment, Section, StructT, is_not_set
from pipeline.gateway.config.ignored import warn_ignored
from pipeline.gateway.config.keys import KeySettings
from pipeline.gateway.config.limits import first, report_limits
from pipeline.gateway.config.litellm_names import GENERAL_SETTINGS, LITELLM_SETTINGS, ROUTER_SETTINGS, TOP_LEVEL, Names
from pipeline.gateway.config.litellm_sections import GeneralSettings, LitellmSettings, MasterKey, RouterSettings
from pipeline.gateway.config.model_list import Defaults, read_deployments
from pipeline.gateway.config.pipeline_section import check_key, read_keys, read_pipeline_settings
from pipeline.gateway.config.problems import ConfigError, FieldPlace, Problems, listed, safe_name
from pipeline.gateway.config.routing_section import read_routing
from pipeline.gateway.config.settings import PipelineSettings, SecondsOrOff, Settings, StageSettings
from pipeline.gateway.config.yaml_tree import MAX_FILE_BYTES, Node, read_yaml
from stages.choose_deployment import Deployments
from stages.routing.settings import RoutingSettings

__all__ = [
    "ConfigError",
    "KeySettings",
    "PipelineSettings",
    "Settings",
    "StageSettings",
    "describe",
    "load_settings",
    "parse_settings",
]

MASTER_KEY_NAMES = ("HEADRACE_MASTER_KEY", "LITELLM_MASTER_KEY")
"""Variables that hold the master key if the file does not; the second is LiteLLM's."""
MAX_INCLUDED_FILES = 100

HEALTH_CHECK_INTERVAL_S = 300.0
"""LiteLLM's default of ``health_check_interval``."""

NO_DEPLOYMENT = (
    "has no deployment that can be used: write one into model_list, such as "
    "`- {model_name: my-gpt, litellm_params: {model: openai/gpt-5, api_key: os.environ/OPENAI_API_KEY}}`, or let "
    "`headrace init` write a configuration"
)
ALL_LEFT_OUT = (
    "has no deployment that can be used: all entries of model_list are left out, and the warnings say why; where a "
    "variable is not set, set it in the environment, or in headrace.env beside the configuration"
)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def load_settings(path: str | Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file, with the variables that are beside it (`config.env_file`).

    Raises:
        ConfigError: if it cannot be read or used; ``problems`` names everything that is wrong.
    """
    text = _read_file(Path(path))
    return parse_settings(text, source=str(path), environ=with_env_file(path, environ))


def parse_settings(text: str, *, source: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration from text. Files that it names are relative to the folder of ``source``.

    Raises:
        ConfigError: if it cannot be used; ``problems`` names everything that is wrong.
    """
    problems = Problems()
    environment = Environment(environ, problems)
    lenient = environment.telling(
        # LiteLLM, too, reads such a setting as absent.
        lambda place, name: problems.warn(
            place, f"{is_not_set(name)}: the setting counts as absent", topic=f"unset {name}"
        )
    )
    included, _ = _with_included(read_yaml(text, source, problems), problems)
    top = Section(included, environment)
    _add_file_variables(top, lenient)
    general, in_general = _read(top, "general_settings", GeneralSettings, GENERAL_SETTINGS, lenient)
    litellm, in_litellm = _read(top, "litellm_settings", LitellmSettings, LITELLM_SETTINGS, lenient)
    router, in_router = _read(top, "router_settings", RouterSettings, ROUTER_SETTINGS, lenient)
    warn_ignored(top, TOP_LEVEL, problems)

    own = Section(top.get("pipeline_settings"), environment)
    pipeline = read_pipeline_settings(own, environ, _fallbacks(litellm, in_general, in_litellm))
    defaults = Defaults(
        # LiteLLM's request_timeout is the default of its `timeout`, and does not bound a stream that continues.
        timeout_s=in_router.timeout or in_litellm.request_timeout,
        stream_timeout_s=in_router.stream_timeout,
        total_s=pipeline.request_timeout_s,
        # LiteLLM's documentation says that general_settings.max_parallel_requests is for each deployment, its schema
        # that it is for each key, and it enforces neither. By deployment is what users read, and it bounds keys too.
        parallel=first(
            (
                in_router.default_max_parallel_requests,
                in_general.max_parallel_requests,
                in_litellm.max_parallel_requests,
            )
        ),
        transport=pipeline.transport,
    )
    before = problems.count
    entries = top.items("model_list", "a list of models, each beginning with - model_name:")
    deployments = read_deployments(entries, environment, defaults)
    if not deployments and problems.count == before:
        problems.error(FieldPlace(source), ALL_LEFT_OUT if problems.left_out else NO_DEPLOYMENT)
    routing = read_routing(router, litellm, in_router, in_litellm)
    left_out = frozenset(problems.left_out - {deployment.model_name for deployment in deployments})
    known = Deployments(deployments, routing, left_out=left_out)
    keys = read_keys(own, known)
    master_key = _master_key(general, keys, environment)
    interval_s = None
    if in_general.background_health_checks:
        interval_s = in_general.health_check_interval or HEALTH_CHECK_INTERVAL_S
    _check_names(source, routing, known, problems)
    if routing.checks_windows and not any(deployment.max_input_tokens for deployment in deployments):
        problems.warn(
            FieldPlace(source),
            "has enable_pre_call_checks, which does nothing without model_info.max_input_tokens: "
            "write it into the entries of model_list",
        )
    has_key = master_key is not None or bool(keys)
    is_configured = general.get("master_key") is not None or own.get("keys") is not None
    _check_access(source, has_key, is_configured, pipeline, problems)
    assert isinstance(included.value, dict)  # read_yaml guarantees it
    report_limits(problems, ignored=pipeline.ignore_limits, own=included.value.get("pipeline_settings"))
    problems.raise_errors()
    return Settings(
        deployments=deployments,
        keys=keys,
        master_key=master_key,
        pipeline=pipeline,
        routing=routing,
        health_check_interval_s=interval_s,
        left_out=left_out,
        found_warnings=problems.warnings,
        source=source,
    )


def _read(
    top: Section, name: str, struct: type[StructT], names: Names, environment: Environment
) -> tuple[Section, StructT]:
    """Read one of LiteLLM's sections, and warn of what is not read in it."""
    section = Section(top.get(name), environment)
    warn_ignored(section, names, environment.problems)
    return section, section.read(struct) or struct()


def config_files(path: str | Path) -> tuple[str, ...]:
    """Return the names of a configuration file, of those that it includes, and of the file with its variables.

    Those that cannot be read are among them, and so is the last one even if it does not exist: it may come.
    """
    problems = Problems()
    try:
        files = _with_included(read_yaml(_read_file(Path(path)), str(path), problems), problems)[1]
    except ConfigError:
        files = (str(path),)
    return (*files, str(env_file_of(path)))


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError.at(FieldPlace(str(path)), "there is no such file: check its name") from None
    except IsADirectoryError:
        raise ConfigError.at(
            FieldPlace(str(path)), f"is a folder: name the file in it, such as {path}/config.yaml"
        ) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "the name is not valid"
        raise ConfigError.at(
            FieldPlace(str(path)), f"cannot be read ({reason}): check its name and its permissions"
        ) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError.at(FieldPlace(str(path), line), "is not UTF-8: save the file in that encoding") from None


def _with_included(top: Node, problems: Problems) -> tuple[Node, tuple[str, ...]]:
    """Add the files that ``include`` names, as LiteLLM does: lists are continued, any other field is replaced.

    Returns:
        All of it, and the names of the files.
    """
    assert isinstance(top.value, dict)  # read_yaml guarantees it
    fields = dict(top.value)
    files = [top.source]
    waiting, seen = [top], {str(Path(top.source).resolve())}
    while waiting:
        including = waiting.pop(0)
        names = including.child("include")
        for item in _listed(names, problems):
            file = Path(item.source).parent / str(item.value)
            if str(file.resolve()) in seen:
                continue
            if len(seen) > MAX_INCLUDED_FILES:
                problems.error(item.place, f"is included file {len(seen)}: at most {MAX_INCLUDED_FILES} are allowed")
                continue
            seen.add(str(file.resolve()))
            files.append(str(file))
            try:
                included = read_yaml(_read_file(file), str(file), problems)
            except ConfigError as error:
                for problem in error.problems:
                    problems.error(item.place, f"the included file cannot be used: {problem}")
                continue
            waiting.append(included)
            assert isinstance(included.value, dict)
            for name, node in included.value.items():
                there = fields.get(name)
                if there is not None and isinstance(there.value, list) and isinstance(node.value, list):
                    fields[name] = Node([*there.value, *node.value], there.source, there.line, there.path)
                elif name != "include":
                    fields[name] = node
    return Node(fields, top.source, top.line, top.path), tuple(files)


def _listed(names: Node | None, problems: Problems) -> list[Node]:
    if names is None:
        return []
    if not isinstance(names.value, list) or any(
        not isinstance(item.value, str) or "\0" in item.value for item in names.value
    ):
        problems.error(names.place, f"{names.found()}, expected a list of file names, such as [models.yaml]")
        return []
    return names.value


def _add_file_variables(top: Section, environment: Environment) -> None:
    for name, node in Section(top.get("environment_variables"), environment):
        if isinstance(node.value, dict | list):
            environment.problems.error(node.place, f"{node.found()}, expected the text of a variable")
        elif isinstance(node.value, str):
            text = environment.fill_in(node)
            if text is not None:
                environment.add_default(name, text)
        elif node.value is not None:
            environment.add_default(name, node.raw)


def _fallbacks(litellm: Section, in_general: GeneralSettings, in_litellm: LitellmSettings) -> dict[str, object]:
    """Return the settings of LiteLLM that have the same meaning as some of ours, under our names."""
    ping = in_litellm.sse_keepalive_ping_interval_seconds
    is_off = ping is not None and ping.value is False  # LiteLLM takes 0 for that too
    found = {
        **read_callbacks(litellm, in_litellm),
        "keep_alive_interval_s": 0.0 if is_off else litellm.value("sse_keepalive_ping_interval_seconds", SecondsOrOff),
        "max_body_mb": in_general.max_request_size_mb,
        "max_requests_in_flight": in_general.global_max_parallel_requests,
        "key_header": in_general.litellm_key_header_name,
    }
    return {name: value for name, value in found.items() if value is not None}


def _master_key(general: Section, keys: tuple[KeySettings, ...], environment: Environment) -> str | None:
    problems = environment.problems
    node = general.get("master_key")
    if node is not None:
        own = environment.telling(lambda place, name: problems.error(place, f"{is_not_set(name)}: {_make_key(name)}"))
        text: str | None = Section(general.node, own).value("master_key", MasterKey)
    else:
        text = environment.first_of(MASTER_KEY_NAMES)
    if text is None:
        return None
    digest = check_key(node, text, problems)
    if digest is None:
        return None
    place = node.place if node else FieldPlace("", None, f"environment variable {' or '.join(MASTER_KEY_NAMES)}")
    if node is not None and not text.startswith(("sk-", "sha256:")):
        problems.warn(place, "does not begin with sk-: LiteLLM would refuse it (headrace does not)")
    for key in keys:
        if key.digest == digest:
            problems.error(place, f"is the same key as that of {key.name}: use a different key for each")
    return text


def _make_key(variable: str) -> str:
    return (
        f"make a key with `export {variable}=$(headrace new-key)`, or a line {variable}=... of headrace.env beside the "
        "configuration"
    )


def _check_access(
    source: str, has_key: bool, is_configured: bool, pipeline: PipelineSettings, problems: Problems
) -> None:
    """Refuse a gateway without keys, unless it is intended; a key that is not valid already has its own error."""
    if not has_key and not is_configured and not pipeline.allow_anonymous:
        problems.error(
            FieldPlace(source),
            f"there is no master key, so every request would be refused: {_make_key(MASTER_KEY_NAMES[0])} "
            "(or set general_settings.master_key or pipeline_settings.keys; or, to accept requests without a key, "
            "pipeline_settings.allow_anonymous: true)",
        )
    if not has_key and pipeline.allow_anonymous and pipeline.host not in _LOOPBACK:
        problems.warn(
            FieldPlace(source),
            "accepts requests without a key (allow_anonymous) on an address that others can reach: "
            "they can spend on your upstream keys; set pipeline_settings.host to 127.0.0.1, or a master_key",
        )


def _check_names(source: str, routing: RoutingSettings, known: Deployments, problems: Problems) -> None:
    """Warn of names in the routing settings that nothing answers to: found out in an outage, it is too late."""
    special = (routing.fallbacks, routing.context_window_fallbacks, routing.content_policy_fallbacks)
    names = {name for fallbacks in special for group in fallbacks.items() for name in (group[0], *group[1])}
    names |= {*routing.default_fallbacks, *routing.group_retry_policy, *routing.aliases.values()}
    if idle := [safe_name(name) for name in sorted(names & known.left_out)]:
        problems.warn(
            FieldPlace(source), f"fallbacks, policies or aliases name models that are left out: {listed(idle)}"
        )
    if lost := [safe_name(name) for name in sorted(names - {"*"}) if known.find(name) is None]:
        problems.warn(
            FieldPlace(source), f"fallbacks, policies or aliases name {listed(lost)}, and no model_name answers to that"
        )
