"""The required form of an answer, as Anthropic Messages accepts it: a schema that it can enforce, or an instruction.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs, "JSON Schema limitations" (2026-11).
"""

from __future__ import annotations

from typing import Final

from stages.wire.foreign_json import Json, encode, is_list, is_object

_UNKNOWN: Final = frozenset(
    # Refused with 400. They are dropped, and the client checks the answer itself.
    """minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength minItems maxItems uniqueItems
    minProperties maxProperties""".split()  # noqa: SIM905 - a paragraph of words
)
_INEXPRESSIBLE: Final = (
    "not",
    "if",
    "patternProperties",
    "propertyNames",
    "prefixItems",
    "dependentSchemas",
    "contains",
)
_MANY: Final = ("properties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "allOf")


class _Inexpressible(Exception):
    """The schema has something that Anthropic cannot enforce and that cannot be dropped."""


def output_format(layout: Json, *, has_formats: bool) -> tuple[dict[str, Json] | None, str | None]:
    """Return ``output_config.format`` for a text format, or else an instruction that asks for it; neither for text.

    Args:
        layout: ``text.format`` of the normal form.
        has_formats: whether the model accepts schemas.
    """
    kind = layout.get("type") if is_object(layout) else None
    if kind == "json_object":
        return None, "Answer with one JSON object and nothing else."
    if kind != "json_schema":
        return None, None
    schema = layout.get("schema")
    if not is_object(schema):
        return None, "Answer with JSON and nothing else."
    if has_formats:
        try:
            return {"type": "json_schema", "schema": _closed(schema)}, None
        except _Inexpressible:
            pass
    return None, f"Answer with JSON that matches this JSON Schema, and nothing else:\n{encode(schema).decode()}"


def _closed(schema: dict[str, Json]) -> dict[str, Json]:
    """Close all objects, as Anthropic requires, and drop the bounds that it does not support.

    Raises:
        _Inexpressible: if the schema has something that cannot be dropped, such as an object with any keys.
    """
    if any(key in schema for key in _INEXPRESSIBLE) or _is_open(schema):
        raise _Inexpressible
    closed = {key: value for key, value in schema.items() if key not in _UNKNOWN}
    if "oneOf" in closed:
        closed["anyOf"] = closed.pop("oneOf")
    for key in _MANY:
        if is_object(group := closed.get(key)):
            closed[key] = {name: _closed_one(inner) for name, inner in group.items()}
    for key in _LISTS:
        if is_list(group := closed.get(key)):
            closed[key] = [_closed_one(inner) for inner in group]
    if "items" in closed:
        closed["items"] = _closed_one(closed["items"])
    if schema.get("type") == "object" or "properties" in schema:
        closed["additionalProperties"] = False
    return closed


def _closed_one(schema: Json) -> dict[str, Json]:
    if not is_object(schema):
        raise _Inexpressible
    return _closed(schema)


def _is_open(schema: dict[str, Json]) -> bool:
    """Return whether an object may have keys that the schema does not name."""
    if schema.get("type") == "object" and not schema.get("properties"):
        return True
    return bool(schema.get("additionalProperties"))
