"""The schemas of chat requests, in both shapes. They are open: other fields are passed on, or ignored."""

from __future__ import annotations

from typing import Final

from pipeline.gateway.openapi.schemas import Schema, ref
from stages.wire.downstream.parameters import parameter_schemas
from stages.wire.downstream.request import MAX_MODEL_CHARS

_CONTENT: Final[Schema] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "object"}, {"type": "null"}],
    "description": "A text, or parts of texts, images and files in the form of any of the three APIs.",
}
_MESSAGE: Final[Schema] = {
    "description": "A message of Chat Completions, or with blocks of Anthropic's Messages API.",
    "type": "object",
    "properties": {
        "role": {"type": "string", "description": "system, developer, user, assistant or tool."},
        "content": _CONTENT,
        "tool_calls": {"type": ["array", "null"], "items": {}, "description": "The calls of an assistant's message."},
        "tool_call_id": {"type": ["string", "null"], "description": "The call that a tool's message answers."},
    },
}
_ITEM: Final[Schema] = {
    "description": "An item of the Responses API. Messages of the other APIs are read, too.",
    "type": "object",
    "properties": {
        "type": {
            "type": ["string", "null"],
            "description": "message, function_call, function_call_output, custom_tool_call, custom_tool_call_output, "
            "reasoning, or another one that the upstream knows.",
        },
        "role": {"type": ["string", "null"], "description": "Of a message: system, developer, user or assistant."},
        "content": _CONTENT,
        "call_id": {"type": ["string", "null"], "description": "Of a call, and of its output."},
    },
}
_TOOL: Final[Schema] = {
    "description": "A tool in the form of any of the three APIs: with the function's fields beside `type`, in "
    "`function`, or with `input_schema`. Types that are not known are passed on.",
    "type": "object",
    "properties": {
        "type": {"type": ["string", "null"]},
        "name": {"type": ["string", "null"]},
        "description": {"type": ["string", "null"]},
        "function": {"type": ["object", "null"]},
    },
}
_SHAPES: Final[dict[str, tuple[str, str, Schema]]] = {
    "ResponsesBody": (
        "input",
        "A request in the shape of the Responses API. Null means that a field is absent.",
        {
            "description": "The conversation.",
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": ref("Item")},
            ],
        },
    ),
    "ChatCompletionsBody": (
        "messages",
        "A request in the shape of Chat Completions. Null means that a field is absent.",
        {"description": "The conversation.", "type": "array", "minItems": 1, "items": ref("Message")},
    ),
}


def request_schemas() -> dict[str, Schema]:
    """Return the schemas of bodies in each shape, and of what they are made of, by name."""
    common: Schema = {
        "model": {"type": "string", "minLength": 1, "maxLength": MAX_MODEL_CHARS, "description": "As `/models` says."},
        "tools": {"type": ["array", "null"], "items": ref("Tool")},
        **{name: _or_null(schema) for name, schema in parameter_schemas().items()},
    }
    found: dict[str, Schema] = {"Message": _MESSAGE, "Item": _ITEM, "Tool": _TOOL}
    for name, (field, description, conversation) in _SHAPES.items():
        body: Schema = {"description": description, "type": "object", "properties": {field: conversation, **common}}
        found[name] = {**body, "required": ["model", field]}
        found[f"{name}OfNamedModel"] = {
            **body,
            "description": f"{description} The model is the one that the path names.",
            "properties": {**body["properties"], "model": {}},
            "required": [field],
        }
    return {name: {**schema, "additionalProperties": True} for name, schema in found.items()}


def body_of(*, names_model: bool, examples: Schema) -> Schema:
    """Return the request body of a chat.

    Args:
        names_model: whether the path does.
        examples: by their names.
    """
    suffix = "OfNamedModel" if names_model else ""
    schema = {"anyOf": [ref(f"{name}{suffix}") for name in _SHAPES]}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    return {**nullable, "enum": [*schema["enum"], None]} if "enum" in schema else nullable
