"""The document as a whole, and as what is answered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import metadata
from typing import Final, NamedTuple

import msgspec

from pipeline.gateway.failures import TABLE, Row
from pipeline.gateway.openapi.examples import ANSWER, CHUNKS, ERROR, REQUESTS
from pipeline.gateway.openapi.headers import OF_STATUS, header_components, headers_of, security_schemes
from pipeline.gateway.openapi.operation import EVERYWHERE, JSON, TAGS, Operation
from pipeline.gateway.openapi.operations import OPERATIONS, PATH_PARAMETERS
from pipeline.gateway.openapi.requests import body_of, request_schemas
from pipeline.gateway.openapi.schemas import Schema, answer_schemas, ref
from pipeline.gateway.routes import METHODS, NO_BASE, TEMPLATES, PathTemplate
from stages.wire.downstream.chat_shapes import ErrorDocument

_ANY_ERROR: Final = "AnyError"
_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_INTRODUCTION: Final = """\
{summary}

Chats and models have the same paths below each of their `servers`: `/cursor` is for Cursor, `/v1` for SDKs. GET paths
answer HEAD, too, and all paths but `/metrics` and those of `/latency` OPTIONS. Fields of a request that are not listed
are passed on or ignored. Responses may get more fields.

Errors have OpenAI's shape; what each code means is in [docs/errors.md]({docs}/errors.md). Cursor shows the text of 400
responses only, so Cursor gets each error of a chat as a 400, except 401, 403 and 404.
"""


class Published(NamedTuple):
    """The document as JSON, and its tag."""

    body: bytes
    etag: str


@cache
def published() -> Published:
    """Return it; the first call makes it, in about 20 ms."""
    body = msgspec.json.encode(openapi_document())
    return Published(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def openapi_document() -> Schema:
    """Return the document."""
    about = metadata("headrace")
    urls = dict(line.split(", ", 1) for line in about.get_all("Project-URL") or ())
    docs = urls["Documentation"].rpartition("/")[0]
    schemas = {**answer_schemas(), **request_schemas()}
    for name, examples in {"ChatCompletion": [ANSWER], "ChatCompletionChunk": CHUNKS, "ErrorDocument": [ERROR]}.items():
        schemas[name]["examples"] = examples
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "headrace",
            "version": about["Version"],
            "description": _INTRODUCTION.format(summary=about["Summary"], docs=docs),
            "license": {"name": about["License-Expression"], "identifier": about["License-Expression"]},
        },
        "externalDocs": {"url": urls["Documentation"]},
        "servers": [_server("")],
        "tags": [{"name": name, "description": what} for name, what in TAGS.items()],
        "security": [{name: []} for name in security_schemes()],
        "paths": {template.path: _path(template) for template in TEMPLATES},
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": {_ANY_ERROR: _error(None, {code: TABLE[code] for code in EVERYWHERE})},
            "headers": header_components(),
            "securitySchemes": security_schemes(),
        },
    }


def _server(base: str) -> Schema:
    return {"url": base or "/"}


def _path(template: PathTemplate) -> Schema:
    names = _PARAMETER.findall(template.path)
    item: Schema = {} if template.bases is NO_BASE else {"servers": [_server(base) for base in template.bases]}
    if names:
        item["parameters"] = [_parameter("path", name, PATH_PARAMETERS[name], {"type": "string"}) for name in names]
    for method in METHODS[template.kind]:
        if method != "HEAD":
            item[method.lower()] = _operation(OPERATIONS[template.path])
        if method == "POST":
            item["post"]["requestBody"] = body_of(names_model="model" in names, examples=REQUESTS)
    return item


def _operation(operation: Operation) -> Schema:
    found: Schema = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        found["description"] = operation.description
    if not operation.needs_key:
        found["security"] = []
    if operation.query:
        found["parameters"] = [_parameter("query", query.name, query.what, query.schema) for query in operation.query]
    content = {media_type: {"schema": schema} for media_type, schema in operation.content.items()}
    found["responses"] = {
        "200": {"description": "The answer.", **headers_of(operation.headers), "content": content},
        **operation.also,
        **{str(status): _error(status, rows) for status, rows in _by_status(operation.codes).items()},
        "default": {"$ref": f"#/components/responses/{_ANY_ERROR}"},
    }
    return found


def _parameter(where: str, name: str, what: str, schema: Schema) -> Schema:
    return {"name": name, "in": where, "required": where == "path", "description": what, "schema": schema}


def _by_status(codes: Iterable[str]) -> dict[int, dict[str, Row]]:
    found: dict[int, dict[str, Row]] = {}
    for code in codes:
        found.setdefault(TABLE[code].status, {})[code] = TABLE[code]
    return dict(sorted(found.items()))


def _error(status: int | None, rows: dict[str, Row]) -> Schema:
    """Return a response with an error; ``status`` is None if it may have several."""
    shown = [f"`{code}`{f' ({row.status})' if status is None else ''}: {row.meaning}" for code, row in rows.items()]
    return {
        "description": "\n\n".join(shown),
        **headers_of(OF_STATUS.get(status, ())),
        "content": {JSON: {"schema": ref(ErrorDocument)}},
    }
