"""Request parameters besides the conversation: types checked, chat dialect translated, overrides of ours removed.

Source: OpenAI's Responses and Chat Completions references; docs/facts/translation.md, "Parameters". What a client may
not override, and that LiteLLM honours ``api_key`` and ``extra_headers`` from the body: docs/facts/litellm.md, "What a
client may not override".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from stages.wire.bad_request import BadRequest, need_object, need_text, wrong_type
from stages.wire.foreign_json import Json, is_list, is_object
from stages.wire.normal_form import LOGPROBS

_OURS: Final = frozenset(
    # Fields of `ResponsesRequest`, or read elsewhere.
    ("model", "stream", "stream_options", "input", "messages", "tools", "tool_choice", "parallel_tool_calls")
)
_OVERRIDES: Final = frozenset(
    # Where and how the upstream is called is configuration. The names are those of the SDKs and LiteLLM.
    """api_base base_url api_key api_version api_type organization project extra_headers extra_body extra_query headers
    default_headers default_query timeout request_timeout stream_timeout force_timeout max_retries num_retries fallbacks
    context_window_fallbacks cache caching guardrails tags client http_client ssl_verify custom_llm_provider
    deployment_id specific_deployment model_info model_list drop_params additional_drop_params allowed_openai_params
    use_chat_completions_api user_config proxy_server_request secret_fields no-log rpm tpm region_name credentials
    input_cost_per_token output_cost_per_token""".split()  # noqa: SIM905 - a paragraph, not fifty lines
)
_OVERRIDE_PREFIXES: Final = ("litellm_", "aws_", "azure_", "vertex_", "mock_", "user_api_key", "x-litellm", "router_")
_TWINS: Final = frozenset(
    # Other APIs' names for parameters of the Responses API: translated by `native_parameters`; ``functions``,
    # ``function_call`` and ``system`` by ``request.py``.
    (
        *("max_tokens", "max_completion_tokens", "reasoning_effort", "response_format", "verbosity", "logprobs"),
        *("functions", "function_call", "stop_sequences", "system"),
    )
)
_NEVER: Final = frozenset(
    # A background response is queued and must be polled, so it cannot be a chat completion; our response is one text.
    ("background", "background_options", "n", "modalities", "audio")
)
_STRIPPED: Final = _OURS | _OVERRIDES | _TWINS | _NEVER


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_limit(value: Json) -> bool:
    return _is_count(value) and value > 0


def _is_bool(value: Json) -> bool:
    return isinstance(value, bool)


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_texts(value: Json) -> bool:
    return is_list(value) and all(isinstance(item, str) for item in value)


def _is_choice(value: Json) -> bool:
    return isinstance(value, str | dict)


def _is_one(value: Json) -> bool:
    return _is_count(value) and value == 1


def _is_stop(value: Json) -> bool:
    return isinstance(value, str) or _is_texts(value)


class _Type(NamedTuple):
    """What a parameter must be.

    Attributes:
        is_right: says whether a value is.
        expected: a noun with its article, for people.
        schema: the same as a JSON Schema, for programs, with what is checked later of an object's fields.
    """

    is_right: Callable[[Json], bool]
    expected: str
    schema: dict[str, Any]  # JSON Schema has values of all kinds


_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
_NUMBER: Final = _Type(_is_number, "a number", {"type": "number"})
_COUNT: Final = _Type(_is_count, "a whole number that is not negative", {"type": "integer", "minimum": 0})
_LIMIT: Final = _Type(_is_limit, "a whole number above 0", {"type": "integer", "minimum": 1})
_WHOLE: Final = _Type(_is_whole, "a whole number", {"type": "integer"})
_BOOL: Final = _Type(_is_bool, "true or false", {"type": "boolean"})
_TEXT: Final = _Type(_is_text, "a string", {"type": "string"})
_TEXTS: Final = _Type(_is_texts, "an array of strings", _STRINGS)
_STOP: Final = _Type(_is_stop, "a string or an array of strings", {"anyOf": [{"type": "string"}, _STRINGS]})
_OBJECT: Final = _Type(is_object, "an object", {"type": "object"})
_STREAM_OPTIONS: Final = _Type(
    is_object, "an object", {"type": "object", "properties": {"include_usage": {"type": ["boolean", "null"]}}}
)
_FORMAT: Final = _Type(
    is_object,
    "an object",
    {"type": "object", "properties": {"type": {"type": "string", "minLength": 1}}, "required": ["type"]},
)
_CHOICE: Final = _Type(
    _is_choice, 'a string such as "auto" or an object', {"anyOf": [{"type": "string"}, {"type": "object"}]}
)
_ONE: Final = _Type(_is_one, "1 (a request has one answer)", {"type": "integer", "enum": [1]})

_TYPES: Final[dict[str, _Type]] = {
    "stream": _BOOL,
    "stream_options": _STREAM_OPTIONS,
    "parallel_tool_calls": _BOOL,
    "tool_choice": _CHOICE,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_logprobs": _COUNT,
    "max_output_tokens": _LIMIT,
    "max_completion_tokens": _LIMIT,
    "max_tokens": _LIMIT,
    "max_tool_calls": _LIMIT,
    "n": _ONE,
    "stop": _STOP,
    "stop_sequences": _TEXTS,
    "seed": _WHOLE,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "logit_bias": _OBJECT,
    "store": _BOOL,
    "logprobs": _BOOL,
    "metadata": _OBJECT,
    "reasoning": _OBJECT,
    "text": _OBJECT,
    "response_format": _FORMAT,
    "include": _TEXTS,
    "instructions": _TEXT,
    "user": _TEXT,
    "safety_identifier": _TEXT,
    "previous_response_id": _TEXT,
    "prompt_cache_key": _TEXT,
    "prompt_cache_retention": _TEXT,
    "service_tier": _TEXT,
    "truncation": _TEXT,
    "reasoning_effort": _TEXT,
    "verbosity": _TEXT,
}


def check_types(raw: dict[str, Json]) -> None:
    """Check the types of the parameters that we know; null means that a parameter is not set.

    Raises:
        BadRequest: if one is of the wrong type.
    """
    for key, value in raw.items():
        if value is not None and (expected := expected_type(key, value)) is not None:
            raise wrong_type(key, expected, value)


def expected_type(key: str, value: Json) -> str | None:
    """Return what a parameter must be, as a noun with its article, if the value is of another type; else None."""
    if key not in _TYPES:
        return None
    known = _TYPES[key]
    return None if known.is_right(value) else known.expected


def parameter_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each parameter that we know, by its name; null is allowed besides."""
    return {name: known.schema for name, known in _TYPES.items()}


def native_parameters(raw: dict[str, Json]) -> dict[str, Json]:
    """Return the parameters as the Responses API has them, without the conversation and the tools.

    Null is dropped everywhere: it means the default, and some upstreams refuse it. A parameter of another API is
    renamed to its twin unless the twin is set too. Those without a twin (``stop``, ``seed``, penalties ...) and those
    that we do not know pass: an upstream of their own API accepts them, and ``responses/request.py`` drops the former.

    Raises:
        BadRequest: if ``response_format`` has no type, or no schema where one is needed.
    """
    body = {
        key: value
        for key, value in raw.items()
        if value is not None and key not in _STRIPPED and not key.startswith(_OVERRIDE_PREFIXES)
    }
    if _TWINS.isdisjoint(raw):
        return body
    limit = next((raw[key] for key in ("max_completion_tokens", "max_tokens") if raw.get(key) is not None), None)
    if limit is not None:
        body.setdefault("max_output_tokens", limit)
    if raw.get("stop_sequences") is not None:
        body.setdefault("stop", raw["stop_sequences"])
    _put(body, "reasoning", "effort", raw.get("reasoning_effort"))
    _put(body, "text", "verbosity", raw.get("verbosity"))
    if raw.get("response_format") is not None:
        _put(body, "text", "format", _text_format(raw["response_format"]))
    if raw.get("logprobs"):
        include = body.get("include", [])
        if LOGPROBS not in include:
            body["include"] = [*include, LOGPROBS]
    return body


def _put(body: dict[str, Json], group: str, key: str, value: Json) -> None:
    """Set ``body[group][key]`` unless it is set; the group belongs to the client's body, so it is copied."""
    if value is None:
        return
    present = body.get(group, {})
    if present.get(key) is None:
        body[group] = {**present, key: value}


def _text_format(response_format: dict[str, Json]) -> dict[str, Json] | None:
    """Flatten ``response_format``; None for plain text, which is the default."""
    kind = need_text(response_format, "type", "response_format")
    if kind == "text":
        return None
    if kind != "json_schema" or "schema" in response_format:
        return response_format
    nested = response_format.get("json_schema")
    if nested is None:
        raise BadRequest("response_format.json_schema is missing; it must be an object.", "response_format.json_schema")
    schema = need_object(nested, "response_format.json_schema")
    return {**{key: value for key, value in schema.items() if value is not None}, "type": "json_schema"}
