"""Request parameters in ``litellm_params`` to what a deployment sets in its requests, in normal form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from pipeline.gateway.config.fields import ENVIRON, Environment, Section, is_filled_in, plain
from pipeline.gateway.config.litellm_sections import LitellmParams
from pipeline.gateway.config.problems import safe_name
from pipeline.gateway.config.yaml_tree import Node
from stages.upstreams.parameters import PLACES, Parameters, Place, drop
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.parameters import expected_type, native_parameters
from stages.wire.foreign_json import Json, is_object

_OWN_TYPES: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "top_k": (int, "a whole number"),
    "min_p": ((int, float), "a number"),
    "repetition_penalty": ((int, float), "a number"),
    "chat_template_kwargs": (dict, "a mapping"),
    "enable_thinking": (bool, "true or false"),
    "thinking_budget": (int, "a whole number"),
    "thinking": (dict, "a mapping such as {type: enabled, budget_tokens: 4000}"),
    "extra_body": (dict, "a mapping"),
}
"""Types that are checked in a configuration only: a client's parameters of other vendors are passed on as they are."""

_NOT_OVERRIDDEN: Final = ("model", "stream", "messages", "input")
"""What ``extra_body`` may not contain: the request itself, and the form in which its answer is read."""

DEFAULTS: Final = frozenset(
    """temperature top_p top_k min_p max_tokens max_completion_tokens max_output_tokens reasoning reasoning_effort
    thinking enable_thinking thinking_budget verbosity seed stop presence_penalty frequency_penalty repetition_penalty
    logit_bias parallel_tool_calls service_tier store user response_format
    chat_template_kwargs""".split()  # noqa: SIM905 - a paragraph
)
"""Those whose value is used if the client's request has none."""

_KEPT: Final = frozenset({"input", "messages", "model", "stream", "stream_options"})
"""Names in ``additional_drop_params`` that are not removed: they are the request itself, and how it is answered."""


def read_parameters(params: Section, found: LitellmParams) -> Parameters | None:
    """Read them from ``litellm_params``, of which ``found`` is the rest; None if there are none.

    Errors and warnings go to ``params.problems``.
    """
    reader = _ParameterReader(params)
    dropped = reader.dropped(found.additional_drop_params or ())
    extra = reader.extra_body()
    defaults = reader.defaults(dropped)
    if not defaults and not dropped and not extra:
        return None
    return Parameters(defaults=defaults, dropped=dropped, extra_body=extra, secrets=tuple(reader.secrets))


class _ParameterReader:
    def __init__(self, params: Section) -> None:
        self._params = params
        self._problems = params.problems
        self.secrets: list[str] = []

    def defaults(self, dropped: tuple[Place, ...]) -> dict[str, Json]:
        """Return those that are not dropped anyway, in normal form."""
        raw: dict[str, Json] = {}
        for name, node in self._params:
            if name in DEFAULTS and (value := self._value(name, node)) is not None:
                raw[name] = value
        if is_object(raw.get("reasoning_effort")):  # LiteLLM: {effort: high, summary: auto}
            raw["reasoning"] = {**raw.pop("reasoning_effort"), **raw.get("reasoning", {})}
        try:
            found = native_parameters(raw)
        except BadRequest as bad:
            written = self._params.get("response_format") or self._params.node
            assert written is not None
            self._problems.error(written.place, bad.message)
            return {}
        if "parallel_tool_calls" in raw:
            found["parallel_tool_calls"] = raw["parallel_tool_calls"]
        for place in dropped:
            drop(found, place)
        return found

    def extra_body(self) -> dict[str, Json]:
        node = self._params.get("extra_body")
        if node is None or not is_object(found := self._value("extra_body", node)):
            return {}
        for name in _NOT_OVERRIDDEN:
            if name in found:
                del found[name]
                self._problems.warn(node.place, f"contains {name}, which it cannot replace: that is ignored")
        return found

    def dropped(self, names: tuple[str, ...]) -> tuple[Place, ...]:
        places: list[Place] = []
        for name in names:
            if name in _KEPT or not name.replace("_", "").isalnum():
                shown = safe_name(name) if name in _KEPT else "a field within another one"
                self._problems.warn(
                    self._params.place("additional_drop_params"),
                    f"lists {shown}, which is not supported yet and is ignored",
                )
            else:
                places.append(PLACES.get(name, (name,)))
        return tuple(places)

    def _value(self, name: str, node: Node) -> Json:
        """Return a value of the right type, its variables filled in; None if an error was noted."""
        value = plain(node, self._params.environment)
        if value is None:
            return None
        expected = _expected(name, value)
        if expected is not None and isinstance(value, str):
            # From the environment everything is text; LiteLLM takes numbers in quotes, too.
            try:
                value = msgspec.json.decode(value.lower() if value.lower() in ("true", "false") else value)
            except msgspec.DecodeError:
                pass
            else:
                expected = _expected(name, value)
        if expected is None and not _is_json(value):
            expected = "what JSON can express"
        if expected is not None:
            self._problems.error(node.place, f"{node.found(secret=is_filled_in(node))}, expected {expected}")
            return None
        self.secrets += _filled_in(node, self._params.environment)
        return value


def _expected(name: str, value: Json) -> str | None:
    """Return what is expected if a value is of the wrong type; None if it is right."""
    if name == "reasoning_effort" and is_object(value):
        return None
    if name not in _OWN_TYPES:
        return expected_type(name, value)
    kinds, expected = _OWN_TYPES[name]
    is_right = isinstance(value, kinds) and not (isinstance(value, bool) and kinds is not bool)
    if is_right and name == "thinking" and is_object(value):
        budget = value.get("budget_tokens")
        is_count = budget is None or (isinstance(budget, int) and not isinstance(budget, bool) and budget > 0)
        is_right = value.get("type") in ("enabled", "disabled", "adaptive") and is_count
    return None if is_right else expected


def _is_json(value: Json) -> bool:
    """Return whether a value comes out of JSON as it went in: not an infinite number, say, or half a character."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (ValueError, OverflowError, msgspec.MsgspecError):
        return False


def _filled_in(node: Node, environment: Environment) -> list[str]:
    """Return the texts in a value that come from the environment."""
    match node.value:
        case dict():
            return [text for item in node.value.values() for text in _filled_in(item, environment)]
        case list():
            return [text for item in node.value for text in _filled_in(item, environment)]
        case str() if node.value.startswith(ENVIRON):
            text = environment.get(node.value.removeprefix(ENVIRON).strip())
            return [] if text is None else [text]
        case _:
            return []
