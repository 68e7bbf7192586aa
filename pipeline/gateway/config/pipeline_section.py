"""The section ``pipeline_settings``, and the environment variables and flags that override it.

Unlike in LiteLLM's sections, an unknown name is an error here: no other program reads this section.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from pipeline.gateway.client_address import is_proxy
from pipeline.gateway.config.fields import Environment, Section, is_filled_in, plain
from pipeline.gateway.config.keys import MASTER_NAME, KeySettings, key_digest
from pipeline.gateway.config.limits import KEY_LIMITS, MODEL_LIMITS, note_limit, read_key_limits
from pipeline.gateway.config.litellm_names import KEY_BUDGETS, KEY_HARMLESS
from pipeline.gateway.config.problems import Problems, did_you_mean, safe_name, safe_word
from pipeline.gateway.config.settings import PipelineSettings, StageSettings, When
from pipeline.gateway.config.urls import url_problem
from pipeline.gateway.config.yaml_tree import Node
from stages.choose_deployment import Deployments

PREFIX = "HEADRACE_"
FLAGS = ("host", "port", "workers", "log-format")
"""Settings that are command-line flags too. They are among the environment variables, as ``--host``."""
LAST_PORT = 65535
WEAK_KEY_CHARACTERS = 16
"""Shorter plain keys get a warning: 16 random letters and digits have 95 bits; LiteLLM's example is ``sk-1234``."""

_FIELDS = {field.name: field for field in msgspec.structs.fields(PipelineSettings)}
_SCALARS = tuple(name for name in _FIELDS if name not in ("stages", "allowed_origins", "forwarded_allow_ips"))
_FILES = ("ca_file", "tls_certfile", "tls_keyfile")
_SECRET = ("proxy", "otlp_endpoint", *_FILES, "reasoning_store_file")
"""Settings whose value is not shown in any message."""
_KEY_FIELDS = ("name", "key", "models", "metrics", "trace", *KEY_LIMITS, *MODEL_LIMITS)
_STAGE_FIELDS = tuple(field.name for field in msgspec.structs.fields(StageSettings) if field.name != "where")
_WHEN_FIELDS = tuple(field.name for field in msgspec.structs.fields(When))


def read_pipeline_settings(
    node: Node | None, environment: Environment, process: Mapping[str, str], fallbacks: Mapping[str, object]
) -> PipelineSettings:
    """Read the section; ``fallbacks`` are LiteLLM's settings of the same meaning, and ``process`` overrides both."""
    problems = environment.problems
    section = Section(node, environment)
    values: dict[str, Any] = dict(fallbacks)
    for name, field in section:
        if name == "keys" or (field.value is None and name in _FIELDS):
            continue
        if name not in _FIELDS:
            problems.error(field.where, f"is not a setting{did_you_mean(name, (*_FIELDS, 'keys'), cutoff=0.6)}")
        elif name == "stages":
            values[name] = _stages(field, environment)
        elif (value := _from_file(field, name, environment)) is not None:
            values[name] = value
    overridden = _override(values, process, environment)
    _check_together(section, values, overridden, environment)
    return PipelineSettings(**values)


def read_keys(section: Section, known: Deployments) -> tuple[KeySettings, ...]:
    """Read ``keys``: a list of mappings with ``name``, ``key`` and, optionally, ``models`` and limits."""
    node, problems = section.get("keys"), section.problems
    if node is None:
        return ()
    keys: list[KeySettings] = []
    owners: dict[bytes, str] = {}
    for item in _items(node, problems, "a list of keys, each with name and key"):
        entry = Section(item, section.environment)
        _refuse_unknown(entry, _KEY_FIELDS, KEY_BUDGETS | KEY_HARMLESS)
        for word, field in entry:
            if word in KEY_BUDGETS:
                note_limit(word, field, entry)
        name = _needed(entry, "name", "the name of the key in logs, such as anna-laptop")
        text = _needed(entry, "key", "a key, sha256: and 64 hexadecimal digits, or os.environ/NAME", secret=True)
        models = entry.texts("models", 'a list of model names, such as ["gpt-5", "openai/*"]')
        limits, model_limits = read_key_limits(entry, known)
        reads_metrics = bool(entry.flag("metrics"))
        may_trace = bool(entry.flag("trace"))
        if name is None or text is None:
            continue
        digest = check_key(entry.get("key"), text, problems)
        if name == MASTER_NAME or any(key.name == name for key in keys):
            place = entry.get("name") or item
            problems.error(
                place.where, "this name is taken: choose another, so that the keys can be told apart in logs"
            )
        elif digest is not None and digest in owners:
            place = entry.get("key") or item
            problems.error(
                place.where, f"is the same key as that of {safe_name(owners[digest])}: use a different key for each"
            )
        elif digest is not None:
            owners[digest] = name
            keys.append(KeySettings(name, digest, models, limits, model_limits, reads_metrics, may_trace))
    return tuple(keys)


def check_key(node: Node | None, text: str, problems: Problems) -> bytes | None:
    """Return a key's digest; None, and an error is recorded, if it is not valid. Warns about a short key."""
    where = node.where if node else "environment"
    try:
        digest = key_digest(text)
    except ValueError as error:
        problems.error(where, str(error))
        return None
    if len(text) < WEAK_KEY_CHARACTERS:
        problems.warn(where, f"is shorter than {WEAK_KEY_CHARACTERS} characters and easy to guess: use a random key")
    return digest


def _from_file(node: Node, name: str, environment: Environment) -> object | None:
    if isinstance(node.value, list):
        value: Any = [environment.fill_in(item) if isinstance(item.value, str) else item.value for item in node.value]
        if any(isinstance(item.value, str) and got is None for item, got in zip(node.value, value, strict=True)):
            return None  # a variable is not set, which has been recorded
    else:
        value = environment.fill_in(node) if isinstance(node.value, str) else node.value
    if value is None:
        return None
    try:
        return _convert(name, value)
    except ValueError:
        hint = did_you_mean(node.value, _choices(name), cutoff=0.5) if isinstance(node.value, str) else ""
        found = node.found(secret=is_filled_in(node) or name in _SECRET)
        environment.problems.error(node.where, f"{found}, expected {_expected(name, value)}{hint}")
        return None


def _override(values: dict[str, Any], process: Mapping[str, str], environment: Environment) -> dict[str, str]:
    """Apply ``PORT``, then ``HEADRACE_<SETTING>``, then flags; an empty one counts as absent.

    Returns:
        The variable or flag that overrode each setting, by the setting's name.
    """
    sources = [("PORT", "port"), *((PREFIX + name.upper(), name) for name in _SCALARS)]
    sources += [(f"--{name}", name.replace("-", "_")) for name in FLAGS]
    overridden: dict[str, str] = {}
    for variable, name in sources:
        text = process.get(variable, "").strip()
        if not text:
            continue
        overridden[name] = where = variable if variable.startswith("--") else f"environment variable {variable}"
        try:
            values[name] = _convert(name, text)
        except ValueError:
            word = safe_word(text) if name not in _SECRET else None
            found = f'found "{word}"' if word else "cannot be read"
            environment.problems.error(where, f"{found}, expected {_expected(name, text)}")
    known = {variable for variable, _ in sources}
    for variable in process:
        if variable.startswith(PREFIX) and variable not in known and variable not in environment.named:
            hint = did_you_mean(variable.removeprefix(PREFIX).lower(), _SCALARS, cutoff=0.75)
            if hint:  # other variables may be the user's own
                near = PREFIX + hint.removeprefix("; did you mean ").rstrip("?").upper()
                environment.problems.warn(
                    f"environment variable {safe_name(variable)}",
                    f"is not a setting and is ignored; did you mean {near}?",
                )
    return overridden


def _convert(name: str, value: object) -> object:
    """Return the value in the setting's type. Text that reads as a number or as true/false is accepted.

    Raises:
        ValueError: if it does not fit.
    """
    wanted = _FIELDS[name].type
    if isinstance(value, str):
        value = value.strip()
        if value.lower() in ("true", "false", "yes", "no", "on", "off") and _is_bool(wanted):
            return value.lower() in ("true", "yes", "on")
        if not value or (value.lower() in ("null", "none") and value not in _choices(name)):
            raise ValueError("empty")
    elif isinstance(value, int) and not isinstance(value, bool) and _is_bool(wanted):
        raise ValueError("1 and 0 are not true and false")
    converted = msgspec.convert(value, wanted, strict=False)  # its ValidationError is a ValueError
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError("not finite")
    return converted


def _check_together(
    section: Section, values: dict[str, Any], overridden: Mapping[str, str], environment: Environment
) -> None:
    """Check settings that depend on each other, on files and on packages."""
    problems = environment.problems

    def place(name: str) -> str:
        node = section.get(name)
        return overridden.get(name) or (node.where if node else name)

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
    if (address := values.get("metrics_address")) and int(address.rpartition(":")[2]) > LAST_PORT:
        problems.error(place("metrics_address"), f"there is no such port: the last one is {LAST_PORT}")
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
                f"{safe_name(name)} is not an address: expected {_expected('forwarded_allow_ips')}",
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
    section: Section, values: dict[str, Any], problems: Problems, place: Callable[[str], str]
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


def _stages(node: Node, environment: Environment) -> tuple[StageSettings, ...]:
    stages: list[StageSettings] = []
    for item in _items(node, environment.problems, "a list of stages, each with use"):
        entry = Section(item, environment)
        _refuse_unknown(entry, _STAGE_FIELDS)
        use = _needed(entry, "use", "the name of a stage (`headrace stages` lists them)")
        values: dict[str, Any] = {}
        for name in ("at", "before", "after"):
            if entry.get(name) is not None:
                values[name] = entry.text(name, _PLACE_EXPECTED[name])
        if (on_error := entry.get("on_error")) is not None:
            values["on_error"] = _converted(on_error, environment, StageSettings, "on_error", "fail or skip")
        if (when := entry.get("when")) is not None:
            values["when"] = _when(when, environment)
        if (options := entry.get("options")) is not None:
            if isinstance(options.value, dict):
                values["options"] = plain(options, environment)
            else:
                environment.problems.error(
                    options.where, f"{options.found()}, expected a mapping with the stage's options"
                )
        if use is not None:
            known = {name: value for name, value in values.items() if value is not None}
            stages.append(StageSettings(use=use, where=item.where, **known))
    return tuple(stages)


_PLACE_EXPECTED = {
    "at": "a place, such as events",
    "before": "the name of another added stage",
    "after": "the name of another stage, such as decode_events",
}


def _when(node: Node, environment: Environment) -> When | None:
    if not isinstance(node.value, dict):
        environment.problems.error(node.where, f"{node.found()}, expected a mapping such as {{models: [gpt-5*]}}")
        return None
    section = Section(node, environment)
    _refuse_unknown(section, _WHEN_FIELDS)
    known = [(name, value) for name, value in section if name in _WHEN_FIELDS]
    found = {name: _converted(value, environment, When, name, _WHEN_EXPECTED[name]) for name, value in known}
    return When(**{name: value for name, value in found.items() if value is not None})


_WHEN_EXPECTED = {
    "keys": "a list of names of keys",
    "models": "a list of names of models",
    "stream": "true or false",
    "profile": "cursor or openai",
}


def _converted(node: Node, environment: Environment, kind: type[Struct], name: str, expected: str) -> Any:
    """Return the value of a field of a Struct; None after a problem."""
    [wanted] = [field.type for field in msgspec.structs.fields(kind) if field.name == name]
    try:
        return msgspec.convert(plain(node, environment), wanted)
    except msgspec.ValidationError:
        environment.problems.error(node.where, f"{node.found()}, expected {expected}")
        return None


def _items(node: Node, problems: Problems, expected: str) -> list[Node]:
    if not isinstance(node.value, list):
        problems.error(node.where, f"{node.found()}, expected {expected}")
        return []
    return node.value


def _needed(section: Section, name: str, expected: str, *, secret: bool = False) -> str | None:
    if section.node is not None and isinstance(section.node.value, dict) and section.get(name) is None:
        section.problems.error(section.node.where, f"has no {name}: expected {expected}")
        return None
    return section.secret(name, expected) if secret else section.text(name, expected)


def _refuse_unknown(section: Section, known: tuple[str, ...], accepted: frozenset[str] = frozenset()) -> None:
    for name, node in section:
        if name not in known and name not in accepted:
            hint = did_you_mean(name, known, cutoff=0.5) or f": expected {', '.join(known)}"
            section.problems.error(node.where, f"is not a setting{hint}")


def _expected(name: str, found: object = None) -> str:
    """Return what a setting may be; with the greatest number, if what was ``found`` is greater."""
    if choices := _choices(name):
        return f"one of: {', '.join(choices)}"
    meta = _meta(_FIELDS[name].type)
    if meta is None or not meta.description:
        return "another value"
    if meta.le is not None and _is_greater(found, meta.le) and str(meta.le) not in meta.description:
        return f"{meta.description}, and at most {meta.le}"
    return meta.description


def _is_greater(found: object, greatest: float) -> bool:
    if isinstance(found, bool) or not isinstance(found, (int, float, str)):
        return False
    try:
        return float(found) > greatest
    except (ValueError, OverflowError):  # no number; or a whole one beyond all floats
        return isinstance(found, int) and found > 0


def _meta(type: object) -> Meta | None:
    for argument in get_args(type):
        if isinstance(argument, Meta) and argument.description:
            return argument
        if (found := _meta(argument)) is not None:
            return found
    return None


def _choices(name: str) -> tuple[str, ...]:
    wanted = _FIELDS[name].type
    return tuple(str(choice) for choice in get_args(wanted)) if get_origin(wanted) is Literal else ()


def _is_bool(wanted: object) -> bool:
    return wanted is bool or bool in get_args(wanted)
