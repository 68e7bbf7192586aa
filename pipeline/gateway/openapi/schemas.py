"""The schemas of what is answered: made of the types, with what their docstrings say of each field."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final, TypeAlias

import msgspec

from pipeline.gateway.admin.shapes import NowDocument, RequestLine, StallLine
from pipeline.gateway.admin.summaries import RequestSummary
from pipeline.gateway.board import RunningRequest
from pipeline.gateway.doctor.server_page import ServerPage
from pipeline.gateway.health_page import HealthPage
from pipeline.gateway.page_shapes import ListedModel, ModelList, Readiness
from stages.wire.downstream.chat_shapes import ChatCompletion, ChatCompletionChunk, ErrorDocument
from stages.wire.foreign_json import is_list, is_object

Schema: TypeAlias = dict[str, Any]  # JSON Schema has values of all kinds
"""A JSON Schema, or another object of the document."""

ANSWERS: Final[tuple[type, ...]] = (
    *(ChatCompletion, ChatCompletionChunk, ErrorDocument, ListedModel, ModelList, Readiness, HealthPage, ServerPage),
    *(NowDocument, RunningRequest, RequestSummary, RequestLine, StallLine),
)
_SECTION: Final = re.compile(r"\n\n(?P<name>\w+):\n(?P<text>(?:    .*\n?|\n)+)")
_ATTRIBUTE: Final = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.+(?:\n {8}.+)*)", re.MULTILINE)


def ref(name: str | type) -> Schema:
    """Return what refers to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name if isinstance(name, str) else name.__name__}"}


def list_of(name: str | type) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": ref(name)}


def answer_schemas() -> dict[str, Schema]:
    """Return the schemas of all `ANSWERS`, and of what they are made of, by name."""
    _, found = msgspec.json.schema_components(ANSWERS, ref_template="#/components/schemas/{name}")
    return {name: _readable(_explained(schema)) for name, schema in found.items()}


def _readable(value: Any) -> Any:
    """Leave out ``items: false``, which says once more how long a tuple is, and which some generators cannot read."""
    if is_list(value):
        return [_readable(one) for one in value]
    if not is_object(value):
        return value
    return {name: _readable(one) for name, one in value.items() if not (name == "items" and one is False)}


def _explained(schema: Schema) -> Schema:
    """Move what a docstring says of a field to the field."""
    doc = inspect.cleandoc(schema.pop("description", ""))
    del schema["title"]  # it is the name once more
    sections = {found["name"]: found["text"] for found in _SECTION.finditer(doc)}
    for found in _ATTRIBUTE.finditer(sections.get("Attributes", "")):
        for name in found["names"].split(", "):
            if name in schema["properties"]:
                schema["properties"][name]["description"] = _sentence(found["text"])
    return {"description": " ".join(_SECTION.sub("", doc).split()), **schema}


def _sentence(text: str) -> str:
    """Return what follows a field's name in a docstring, on one line and with a capital letter."""
    line = " ".join(text.split())
    return line[:1].upper() + line[1:]
