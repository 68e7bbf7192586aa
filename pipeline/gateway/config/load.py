"""Reads the configuration: LiteLLM's ``config.yaml`` with our own ``pipeline_settings``, then the environment.

An unmodified LiteLLM file starts: each setting that we do not support yet gets one warning. What cannot work is an
error, and all errors are reported together. ``docs/config.md`` describes every setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipeline.gateway.config.callbacks import read_callbacks
from pipeline.gateway.config.describe import describe
from pipeline.gateway.config.env_file import env_file_of, with_env_file
from pipeline.gateway.config.fields import Environment, Section, is_filled_in
from pipeline.gateway.config.ignored import warn_ignored
from pipeline.gateway.config.keys import KeySettings
from pipeline.gateway.config.limits import read_default_parallel, report_limits
from pipeline.gateway.config.litellm_names import GENERAL_SETTINGS, LITELLM_SETTINGS, ROUTER_SETTINGS, TOP_LEVEL
from pipeline.gateway.config.model_list import Defaults, read_deployments
from pipeline.gateway.config.pipeline_section import check_key, read_keys, read_pipeline_settings
from pipeline.gateway.config.problems import ConfigError, Problems, safe_name
from pipeline.gateway.config.routing_section import read_routing
from pipeline.gateway.config.settings import HEADER_NAME, PipelineSettings, Settings, StageSettings
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

MAX_IN_FLIGHT = 1_000_000
"""The largest ``max_requests_in_flight``."""

HEALTH_CHECK_INTERVAL_S = 300.0
"""LiteLLM's default of ``health_check_interval``."""

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
    included, _ = _with_included(read_yaml(text, source, problems), problems)
    top = Section(included, environment)
    _add_file_variables(top, environment)
    warn_ignored(top, TOP_LEVEL, problems)

    general = Section(top.get("general_settings"), environment)
    litellm = Section(top.get("litellm_settings"), environment)
    router = Section(top.get("router_settings"), environment)
    warn_ignored(general, GENERAL_SETTINGS, problems)
    warn_ignored(litellm, LITELLM_SETTINGS, problems)
    warn_ignored(router, ROUTER_SETTINGS, problems)

    pipeline = read_pipeline_settings(
        top.get("pipeline_settings"), environment, environ, _fallbacks(general, litellm, environment)
    )
    own = top.get("pipeline_settings")
    defaults = Defaults(
        # LiteLLM's request_timeout is the default of its `timeout`, and does not bound a stream that continues.
        timeout_s=router.seconds("timeout") or litellm.seconds("request_timeout"),
        stream_timeout_s=router.seconds("stream_timeout"),
        total_s=pipeline.request_timeout_s,
        parallel=read_default_parallel(router, general, litellm),
        transport=pipeline.transport,
    )
    deployments = read_deployments(_model_list(top), environment, defaults)
    if not deployments:
        problems.warn(source, "has no deployment that can be used: every request will be answered with model_not_found")
    routing = read_routing(router, litellm)
    known = Deployments(deployments, routing)
    keys = read_keys(Section(own if own is not None and isinstance(own.value, dict) else None, environment), known)
    master_key = _master_key(general, keys, environment)
    interval_s = None
    if general.flag("background_health_checks"):
        interval_s = general.seconds("health_check_interval") or HEALTH_CHECK_INTERVAL_S
    _check_names(source, routing, known, problems)
    if routing.checks_windows and not any(deployment.max_input_tokens for deployment in deployments):
        problems.warn(
            source,
            "has enable_pre_call_checks, which does nothing without model_info.max_input_tokens: "
            "write it into the entries of model_list",
        )
    has_key = master_key is not None or bool(keys)
    is_configured = general.get("master_key") is not None or (own is not None and own.child("keys") is not None)
    _check_access(source, has_key, is_configured, pipeline, problems)
    assert isinstance(top.node, Node)
    assert isinstance(top.node.value, dict)
    report_limits(problems, ignored=pipeline.ignore_limits, own=top.node.value.get("pipeline_settings"))
    problems.raise_errors()
    return Settings(
        deployments=deployments,
        keys=keys,
        master_key=master_key,
        pipeline=pipeline,
        routing=routing,
        health_check_interval_s=interval_s,
        warnings=problems.warnings,
        source=source,
    )


def config_files(path: str | Path) -> tuple[str, ...]:
    """Return the names of a configuration file, of those that it includes, and of the file with its variables.

    Those that cannot be read are among them.
    """
    problems = Problems()
    try:
        files = _with_included(read_yaml(_read_file(Path(path)), str(path), problems), problems)[1]
    except ConfigError:
        files = (str(path),)
    variables = env_file_of(path)
    return (*files, str(variables)) if variables.exists() else files


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file: check the name after --config"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: is a folder: name the file in it, such as {path}/config.yaml"]) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "the name is not valid"
        raise ConfigError([f"{path}: cannot be read ({reason}): check its name and its permissions"]) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8: save the file in that encoding"]) from None


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
                problems.error(item.where, f"is included file {len(seen)}: at most {MAX_INCLUDED_FILES} are allowed")
                continue
            seen.add(str(file.resolve()))
            files.append(str(file))
            try:
                included = read_yaml(_read_file(file), str(file), problems)
            except ConfigError as error:
                for problem in error.problems:
                    problems.error(item.where, f"the included file cannot be used: {problem}")
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
        problems.error(names.where, f"{names.found()}, expected a list of file names, such as [models.yaml]")
        return []
    return names.value


def _add_file_variables(top: Section, environment: Environment) -> None:
    for name, node in Section(top.get("environment_variables"), environment):
        if isinstance(node.value, dict | list):
            environment.problems.error(node.where, f"{node.found()}, expected the text of a variable")
        elif isinstance(node.value, str):
            text = environment.fill_in(node)
            if text is not None:
                environment.add_default(name, text)
        elif node.value is not None:
            environment.add_default(name, node.raw)


def _fallbacks(general: Section, litellm: Section, environment: Environment) -> dict[str, object]:
    """Return the settings of LiteLLM that have the same meaning as some of ours, under our names."""
    fallbacks = read_callbacks(litellm)
    ping = litellm.get("sse_keepalive_ping_interval_seconds")
    if ping is not None:
        # LiteLLM turns it off with 0.
        is_off = ping.value in (0, False, "0")
        seconds = 0.0 if is_off else litellm.seconds("sse_keepalive_ping_interval_seconds")
        if seconds is not None:
            fallbacks["keep_alive_interval_s"] = seconds
    limit = general.get("max_request_size_mb")
    if limit is not None:
        if isinstance(limit.value, int | float) and not isinstance(limit.value, bool) and 0 < limit.value <= 2048:
            fallbacks["max_body_mb"] = float(limit.value)
        else:
            environment.problems.error(
                limit.where, f"{limit.found(secret=True)}, expected a number of MiB, such as 100"
            )
    # Zero would refuse every request, which nobody wants of a gateway: it is an error.
    if (in_flight := general.whole("global_max_parallel_requests", least=1, most=MAX_IN_FLIGHT)) is not None:
        fallbacks["max_requests_in_flight"] = in_flight
    expected = "the name of a header, such as x-api-key"
    if (header := general.text("litellm_key_header_name", expected)) is not None:
        if re.fullmatch(HEADER_NAME, header):
            fallbacks["key_header"] = header
        else:
            node = general.get("litellm_key_header_name")
            assert node is not None
            environment.problems.error(node.where, f"{node.found(secret=is_filled_in(node))}, expected {expected}")
    return fallbacks


def _master_key(general: Section, keys: tuple[KeySettings, ...], environment: Environment) -> str | None:
    problems = environment.problems
    node = general.get("master_key")
    if node is not None:
        text = general.secret("master_key", "text such as os.environ/LITELLM_MASTER_KEY")
    else:
        text = environment.first_of(MASTER_KEY_NAMES)
    if text is None:
        return None
    digest = check_key(node, text, problems)
    if digest is None:
        return None
    where = node.where if node else f"environment variable {' or '.join(MASTER_KEY_NAMES)}"
    if node is not None and not text.startswith(("sk-", "sha256:")):
        problems.warn(where, "does not begin with sk-: LiteLLM would refuse it (headrace does not)")
    for key in keys:
        if key.digest == digest:
            problems.error(where, f"is the same key as that of {key.name}: use a different key for each")
    return text


def _model_list(top: Section) -> list[Node]:
    node = top.get("model_list")
    if node is None:
        return []
    if not isinstance(node.value, list):
        top.problems.error(node.where, f"{node.found()}, expected a list of models, each beginning with - model_name:")
        return []
    return node.value


def _check_access(
    source: str, has_key: bool, is_configured: bool, pipeline: PipelineSettings, problems: Problems
) -> None:
    """Refuse a gateway without keys, unless it is intended; a key that is not valid already has its own error."""
    if not has_key and not is_configured and not pipeline.allow_anonymous:
        problems.error(
            source,
            "there is no key, so every request would be refused: set general_settings.master_key, "
            "pipeline_settings.keys or the environment variable HEADRACE_MASTER_KEY "
            "(or pipeline_settings.allow_anonymous: true, to accept requests without a key)",
        )
    if not has_key and pipeline.allow_anonymous and pipeline.host not in _LOOPBACK:
        problems.warn(
            source,
            "accepts requests without a key (allow_anonymous) on an address that others can reach: "
            "they can spend on your upstream keys; set pipeline_settings.host to 127.0.0.1, or a master_key",
        )


def _check_names(source: str, routing: RoutingSettings, known: Deployments, problems: Problems) -> None:
    """Warn of names in the routing settings that nothing answers to: found out in an outage, it is too late."""
    special = (routing.fallbacks, routing.context_window_fallbacks, routing.content_policy_fallbacks)
    names = {name for fallbacks in special for group in fallbacks.items() for name in (group[0], *group[1])}
    names |= {*routing.default_fallbacks, *routing.group_retry_policy, *routing.aliases.values()}
    for name in sorted(names - {"*"}):
        if known.find(name) is None:
            problems.warn(
                source,
                f"names {safe_name(name)} among fallbacks, policies or aliases, and no model_name answers to it",
            )
