"""The section ``pipeline_settings``, and the environment variables and flags that override it.

Unlike in LiteLLM's sections, an unknown name is an error here: no other program reads this section.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_origin

from msgspec import Meta, Struct

from pipeline.gateway.client_address import is_proxy
from pipeline.gateway.config.fields import Environment, Section
from pipeline.gateway.config.keys import MASTER_NAME, KeySettings, key_digest
from pipeline.gateway.config.kinds import KEY, kinds_of
from pipeline.gateway.config.limits import MODEL_LIMITS, note_limit, read_model_limits
from pipeline.gateway.config.litellm_names import KEY_BUDGETS, KEY_HARMLESS
from pipeline.gateway.config.litellm_sections import Limit, LimitsByModel
from pipeline.gateway.config.problems import FieldPlace, Problems, did_you_mean, safe_name, safe_word
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.config.urls import url_problem
from pipeline.gateway.config.yaml_tree import Node
from stages.choose_deployment import Deployments
from stages.limits import Limits

PREFIX = "HEADRACE_"
FLAGS = ("host", "port", "workers", "log-format")
"""Settings that are command-line flags too. They are among the environment variables, as ``--host``."""
LAST_PORT = 65535
WEAK_KEY_CHARACTERS = 16
"""Shorter plain keys get a warning: 16 random letters and digits have 95 bits; LiteLLM's example is ``sk-1234``."""

_KINDS: Final = kinds_of(PipelineSettings)
_SCALARS: Final = tuple(name for name, kind in _KINDS.items() if get_origin(kind.bare) is not tuple)
_FILES: Final = ("ca_file", "tls_certfile", "tls_keyfile")


class KeyEntry(Struct, frozen=True, kw_only=True):
    """An entry of ``keys``."""

    name: Annotated[str, Meta(description="the name of the key in logs, such as anna-laptop")]
    key: Annotated[str, Meta(description="a key, sha256: and 64 hexadecimal digits, or os.environ/NAME"), KEY]
    models: (
        Annotated[tuple[str, ...], Meta(description='a list of model names, such as ["gpt-5", "openai/*"]')] | None
    ) = None
    metrics: bool = False
    trace: bool = False
    rpm_limit: Limit | None = None
    tpm_limit: Limit | None = None
    max_parallel_requests: Limit | None = None
    model_rpm_limit: LimitsByModel = {}
    model_tpm_limit: LimitsByModel = {}
    model_max_parallel_requests: LimitsByModel = {}

    def __repr__(self) -> str:
        """Return the name without the key."""
        return f"<KeyEntry {self.name}>"


def read_pipeline_settings(
    section: Section, process: Mapping[str, str], fallbacks: Mapping[str, object]
) -> PipelineSettings:
    """Read the section; ``fallbacks`` are LiteLLM's settings of the same meaning, and ``process`` overrides both."""
    environment = section.environment
    for name, field in section:
        if name not in (*_KINDS, "keys"):
            hint = did_you_mean(name, (*_KINDS, "keys"), cutoff=0.6)
            environment.problems.error(field.place, f"is not a setting{hint}")
    values: dict[str, Any] = {**fallbacks, **section.values(PipelineSettings)}
    overridden = _override(values, process, environment)
    _check_together(section, values, overridden, environment)
    return PipelineSettings(**values)


def read_keys(section: Section, known: Deployments) -> tuple[KeySettings, ...]:
    """Read ``keys``: a list of mappings with ``name``, ``key`` and, optionally, ``models`` and limits."""
    problems = section.problems
    keys: list[KeySettings] = []
    owners: dict[bytes, str] = {}
    for item in section.items("keys", "a list of keys, each with name and key"):
        entry = Section(item, section.environment)
        entry.refuse_unknown(kinds_of(KeyEntry), accepted=KEY_BUDGETS | KEY_HARMLESS)
        for word, field in entry:
            if word in KEY_BUDGETS:
                note_limit(word, field, entry)
        found = entry.read(KeyEntry)
        if found is None:
            continue
        model_limits = read_model_limits(entry, {word: getattr(found, word) for word in MODEL_LIMITS}, known)
        digest = check_key(entry.get("key"), found.key, problems)
        if found.name == MASTER_NAME or any(key.name == found.name for key in keys):
            problems.error(
                entry.place("name"), "this name is taken: choose another, so that the keys can be told apart in logs"
            )
        elif digest is not None and digest in owners:
            problems.error(
                entry.place("key"),
                f"is the same key as that of {safe_name(owners[digest])}: use a different key for each",
            )
        elif digest is not None:
            owners[digest] = found.name
            limits = Limits(rpm=found.rpm_limit, tpm=found.tpm_limit, parallel=found.max_parallel_requests)
            keys.append(KeySettings(found.name, digest, found.models, limits, model_limits, found.metrics, found.trace))
    return tuple(keys)


def check_key(node: Node | None, text: str, problems: Problems) -> bytes | None:
    """Return a key's digest; None, and an error is recorded, if it is not valid. Warns about a short key."""
    place = node.place if node else FieldPlace("", None, "environment")
    try:
        digest = key_digest(text)
    except ValueError as error:
        problems.error(place, str(error))
        return None
    if len(text) < WEAK_KEY_CHARACTERS:
        problems.warn(place, f"is shorter than {WEAK_KEY_CHARACTERS} characters and easy to guess: use a random key")
    return digest


def _override(values: dict[str, Any], process: Mapping[str, str], environment: Environment) -> dict[str, FieldPlace]:
    """Apply ``PORT``, then ``HEADRACE_<SETTING>``, then flags; an empty one counts as absent.

    Returns:
        The variable or flag that overrode each setting, by the setting's name.
    """
    sources = [("PORT", "port"), *((PREFIX + name.upper(), name) for name in _SCALARS)]
    sources += [(f"--{name}", name.replace("-", "_")) for name in FLAGS]
    overridden: dict[str, FieldPlace] = {}
    for variable, name in sources:
        text = process.get(variable, "").strip()
        if not text:
            continue
        overridden[name] = place = _place_of(variable)
        kind = _KINDS[name]
        try:
            values[name] = kind.convert(text)
        except ValueError:
            word = None if kind.is_hidden else safe_word(text)
            found = f'found "{word}"' if word else "cannot be read"
            environment.problems.error(place, f"{found}, expected {kind.expected(text)}")
    known = {variable for variable, _ in sources}
    for variable in process:
        if variable.startswith(PREFIX) and variable not in known and variable not in environment.named:
            hint = did_you_mean(variable.removeprefix(PREFIX).lower(), _SCALARS, cutoff=0.75)
            if hint:  # other variables may be the user's own
                near = PREFIX + hint.removeprefix("; did you mean ").rstrip("?").upper()
                environment.problems.warn(
                    _place_of(safe_name(variable)),
                    f"is not a setting and is ignored; did you mean {near}?",
                )
    return overridden


def _place_of(variable: str) -> FieldPlace:
    return FieldPlace("", None, variable if variable.startswith("--") else f"environment variable {variable}")


def _check_together(
    section: Section, values: dict[str, Any], overridden: Mapping[str, FieldPlace], environment: Environment
) -> None:
    """Check settings that depend on each other, on files and on packages."""
    problems = environment.problems

    def place(name: str) -> FieldPlace:
        return overridden.get(name) or section.place(name)

    for name in ("proxy", "http2"):
        if values.get(name):
            if values.get("transport") == "headrace":
                problems.error(
                    place("transport"),
                    f"headrace's own transport does not support {name}: write httpx, or remove {name}",
                )
            values["transport"] = "httpx"
    if (proxy := values.get("proxy")) and (problem := url_problem(proxy)):
        problems.error(place("proxy"), problem)
    if address := values.get("metrics_address"):
        host, _, port_text = address.rpartition(":")
        port, default = int(port_text), PipelineSettings()
        hosts = {host.strip("[]"), values.get("host", default.host)}
        if port > LAST_PORT:
            problems.error(place("metrics_address"), f"there is no such port: the last one is {LAST_PORT}")
        elif port == values.get("port", default.port) != 0 and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
            problems.error(place("metrics_address"), f"is on the port of the service, {port}: write another one")
    if endpoint := values.get("otlp_endpoint"):
        if problem := url_problem(endpoint):
            problems.error(place("otlp_endpoint"), problem)
        if not _has_exporter():
            problems.error(
                place("otlp_endpoint"), "needs packages that are not installed: pip install 'headrace[otel]'"
            )
    if values.get("http2") and importlib.util.find_spec("h2") is None:
        problems.error(place("http2"), "needs a package that is not installed: pip install 'headrace[http2]'")
    if values.get("watch_config") and importlib.util.find_spec("watchfiles") is None:
        problems.error(place("watch_config"), "needs a package that is not installed: pip install 'headrace[watch]'")
    for name in _FILES:
        if file_name := values.get(name):
            file = _beside(section, name, file_name)
            if not os.path.isfile(file):  # unlike Path.is_file, it never raises
                expected = "expected certificates or a key in PEM form (from the configuration's folder)"
                problems.error(place(name), f"there is no such file: {expected}")
            values[name] = str(file)
    for name in values.get("forwarded_allow_ips", ()):
        if not is_proxy(name):
            problems.error(
                place("forwarded_allow_ips"),
                f"{safe_name(name)} is not an address: expected {_KINDS['forwarded_allow_ips'].expected()}",
            )
    _check_reasoning_store(section, values, problems, place)
    if bool(values.get("tls_certfile")) != bool(values.get("tls_keyfile")):
        given, missing = (
            ("tls_certfile", "tls_keyfile") if values.get("tls_certfile") else ("tls_keyfile", "tls_certfile")
        )
        problems.error(place(given), f"needs {missing} too: set both, or neither")


def _has_exporter() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # of a parent
        return False


def _check_reasoning_store(
    section: Section, values: dict[str, Any], problems: Problems, place: Callable[[str], FieldPlace]
) -> None:
    """Check that the store serves all workers, and that the folder of its file exists; the file need not."""
    is_on_disk = values.get("reasoning_store") == "sqlite"
    name = values.get("reasoning_store_file")
    if values.get("workers", 1) > 1 and values.get("restore_reasoning", True) and not is_on_disk:
        problems.warn(
            place("workers"),
            "is more than 1, and reasoning is kept in each worker's memory: a turn that another worker answers "
            "continues without it; set reasoning_store: sqlite",
        )
    if name is None and is_on_disk:
        problems.error(
            place("reasoning_store"), "needs reasoning_store_file too: a file name, such as reasoning.sqlite"
        )
    if name is None:
        return
    file = _beside(section, "reasoning_store_file", name)
    values["reasoning_store_file"] = str(file)
    if not is_on_disk:
        problems.warn(place("reasoning_store_file"), "is not used: set reasoning_store: sqlite to keep reasoning in it")
    elif "\0" in name or os.path.isdir(file) or not os.path.isdir(file.parent):
        problems.error(
            place("reasoning_store_file"),
            "is a folder, or in one that does not exist: expected the name of a file (from the configuration's folder)",
        )


def _beside(section: Section, name: str, file_name: str) -> Path:
    """Return the path of a file: relative to the section's folder if the section names it, else to the current one."""
    folder = Path(section.node.source).parent if section.get(name) and section.node else Path()
    return (folder / file_name).absolute()
