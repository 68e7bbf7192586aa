"""The local checks: the configuration, its keys, its stages; then the machine and the upstreams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.describe import counted
from pipeline.gateway.config.finding import find_config
from pipeline.gateway.config.keys import HASH_PREFIX, key_digest
from pipeline.gateway.config.load import load_settings
from pipeline.gateway.config.problems import ConfigError
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.doctor.findings import CHECKS, Finding, Report, ok, problem, untested, warning
from pipeline.gateway.doctor.machine import see_machine
from pipeline.gateway.doctor.upstreams import see_upstreams
from pipeline.gateway.generation import Generation
from pipeline.gateway.installed import known_plugins
from pipeline.registry import PluginError, Plugins

LEAST_CHARACTERS: Final = 20
"""Of a key; `headrace new-key` makes 35."""
WELL_KNOWN: Final = ("sk-1234", "sk-12345", "sk-123456", "sk-12345678", "sk-test", "sk-master", "sk-litellm", "sk-key")
"""Keys of examples and tutorials, the first of LiteLLM's own; compared by their digests, as the file may have these."""
ADVICE: Final = "docs/config.md has every setting; a variable can be set in headrace.env beside the configuration"
NEW_KEY: Final = "make one with `headrace new-key`"
SET_MASTER: Final = "export HEADRACE_MASTER_KEY=$(headrace new-key)"
LOCAL: Final = list(CHECKS)[: list(CHECKS).index("model") + 1]


async def examine_configuration(named: str | None, report: Report, *, offline: bool, is_asked: bool) -> Settings | None:
    """Make all local checks; return the settings, if there are any that can be used.

    Args:
        named: the file that the command line names, if it does.
        report: is told each finding.
        offline: whether no upstream is asked.
        is_asked: whether there is nothing else to check, so that a configuration is needed.

    Raises:
        CommandError: if a configuration is needed and none is found.
    """
    try:
        file = find_config(named)
    except CommandError as error:
        if is_asked:
            raise
        report(untested("configuration", "only the URL is checked", f"to check more: {error}"))
        return None
    try:
        settings = load_settings(file)
    except ConfigError as error:
        for text in error.problems:
            report(problem("configuration", text, "correct the file; docs/config.md has every setting"))
        for text in error.warnings:
            report(warning("configuration", text, ADVICE))
        for check in LOCAL[1:]:
            report(untested(check, "the configuration cannot be used"))
        return None
    packages, generation = see_packages(settings)
    for finding in (*judge_configuration(settings), *judge_keys(settings), packages):
        report(finding)
    await see_machine(settings, report)
    if generation is None:
        for check in LOCAL[LOCAL.index("upstream") :]:
            report(untested(check, "the configuration cannot be used"))
    else:
        await see_upstreams(generation, report, offline=offline)
    return settings


def judge_configuration(settings: Settings) -> Iterator[Finding]:
    """Yield what reading the file has found."""
    names = {deployment.model_name for deployment in settings.deployments}
    count = len(settings.deployments)
    text = f"{settings.source}: {counted(len(names), 'model name')}, {counted(count, 'deployment')}"
    yield ok("configuration", text)
    for said in settings.warnings:
        yield warning("configuration", said, ADVICE)


def judge_keys(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with the keys; the file has refused those that are the same."""
    known = {hashlib.sha256(key.encode()).digest(): key for key in WELL_KNOWN}
    master = settings.master_key
    weak = [key.name for key in settings.keys if key.digest in known]
    is_short = False
    if master is not None:
        is_short = not master.startswith(HASH_PREFIX) and len(master) < LEAST_CHARACTERS
        if is_short or key_digest(master) in known:
            weak.insert(0, "master")
    if weak:
        why = f"shorter than {LEAST_CHARACTERS} characters, or those of examples" if is_short else "those of examples"
        yield problem("keys", f"{', '.join(weak)}: can be guessed, being {why}", NEW_KEY)
    if master is None and not settings.keys:
        yield warning(
            "keys",
            "there is none: whoever reaches the port uses the models",
            SET_MASTER,
        )
    elif master is None:
        yield warning(
            "keys",
            "there is no master key, so /latency, /health and doctor's streams are closed",
            SET_MASTER,
        )
    elif not weak:
        count = len(settings.keys)
        yield ok("keys", f"a master key and {count} other {'key' if count == 1 else 'keys'}, each different")


def see_packages(settings: Settings) -> tuple[Finding, Generation | None]:
    """Return whether the stages that are configured are installed and fit, and what is made of the configuration."""
    plugins: Plugins = known_plugins()
    try:
        generation = Generation(settings, plugins=plugins, on_end=lambda record: None)
    except (PluginError, ConfigError, OSError) as error:
        return problem("packages", str(error), "correct pipeline_settings, or install what is missing"), None
    if plugins.broken:
        text = "; ".join(f"{name}: {why}" for name, why in plugins.broken.items())
        return warning("packages", f"installed, but broken: {text}", "install another version of it"), generation
    added = len(settings.pipeline.stages)
    text = f"all that the configuration needs; {added} added {'stage' if added == 1 else 'stages'}"
    return ok("packages", text), generation
