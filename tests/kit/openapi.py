"""Hold requests and answers to ``/openapi.json``, as a client that knows nothing else would.

What is answered is held to the document *closed*: a field that it does not name is an error. For clients it is open.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from pipeline.gateway.openapi.document import published

Json = dict[str, Any]

_URI = "urn:headrace"
_SLASHES = re.compile("/{2,}")
_NAMED = re.compile(r"\\\{\w+\\\}")


@cache
def document() -> Json:
    """Return the document, as clients get it."""
    made: Json = json.loads(published().body)
    return made


def closed(value: Any) -> Any:
    """Return schemas in which each object has only the fields that it names, unless it says otherwise."""
    if isinstance(value, list):
        return [closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: closed(one) for name, one in value.items()}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found


@cache
def validator(*path: str) -> Draft202012Validator:
    """Return what validates values by the schema at a path in the closed document."""
    pointer = "/".join(name.replace("~", "~0").replace("/", "~1") for name in path)
    return Draft202012Validator({"$ref": f"{_URI}#/{pointer}"}, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    resource = Resource[Any].from_contents(closed(document()), default_specification=DRAFT202012)
    registry: Registry[Any] = Registry[Any]().with_resource(_URI, resource)
    return registry


def template_of(target: str) -> str | None:
    """Return the path of the document that a request's target is one of; None if there is none."""
    path = _SLASHES.sub("/", target.partition("?")[0])
    path = path if path in _patterns() or len(path) == 1 else path.removesuffix("/")
    # A base URL is served without its slash, too.
    found = [template for template, pattern in _patterns().items() if pattern.fullmatch(path)]
    if not found and _patterns()["/"].fullmatch(f"{path}/"):
        return "/"
    return min(found, key=_parameters, default=None)


def _parameters(template: str) -> int:
    return template.count("{")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {template: _pattern(template, item) for template, item in document()["paths"].items()}


def _pattern(template: str, item: Json) -> re.Pattern[str]:
    servers: list[Json] = item["servers"] if "servers" in item else document()["servers"]
    bases = [server["url"].rstrip("/") for server in servers]
    rest = _NAMED.sub(lambda _: "(.+)" if "model" in template else "([^/]+)", re.escape(template))
    return re.compile(f"(?:{'|'.join(map(re.escape, bases))}){rest}")


def check_request(target: str, body: Any) -> None:
    """Raise `jsonschema.ValidationError` if the body of a chat is not as the document says."""
    template = template_of(target)
    assert template is not None, target
    schema = ("paths", template, "post", "requestBody", "content", "application/json", "schema")
    validator(*schema).validate(body)


def check_answer(answer: httpx.Response) -> None:
    """Raise an error if a whole answer is not as the document says.

    Its status must list the error's code, unless the client may be taken for Cursor, whose errors have another status.
    """
    is_cursor = not answer.request.headers.get("user-agent", "").startswith("OpenAI")
    template = template_of(answer.request.url.raw_path.decode())
    method, status = answer.request.method.lower(), str(answer.status_code)
    if template is None or method not in document()["paths"][template]:
        if method not in ("head", "options"):
            assert answer.status_code >= 400, f"{method} {answer.request.url} is not in the document"
            validator("components", "schemas", "ErrorDocument").validate(answer.json())
        return
    responses = document()["paths"][template][method]["responses"]
    key = next(key for key in (status, f"{status[0]}XX", "default") if key in responses)
    place: tuple[str, ...] = ("paths", template, method, "responses", key)
    response = responses[key]
    if "$ref" in response:
        place = tuple(response["$ref"].removeprefix("#/").split("/"))
        response = document()[place[0]][place[1]][place[2]]
    for name in response.get("headers", {}):
        if name in answer.headers and document()["components"]["headers"][name]["schema"]["type"] == "integer":
            assert answer.headers[name].isdecimal(), (name, answer.headers[name])
    if not is_cursor:
        told = {name for name in ("www-authenticate", "retry-after") if name in answer.headers}
        assert told <= set(response.get("headers", {})), (told, status)
    if "content" not in response:
        assert not answer.content
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    content = response["content"]
    kind = media_type if media_type in content else "*/*"
    schema = validator(*place, "content", kind, "schema") if "schema" in content[kind] else None
    for value in _values(media_type, answer):
        if schema is not None:
            schema.validate(value)
        if answer.status_code >= 400 and isinstance(value, dict) and "error" in value and not is_cursor:
            assert f"`{value['error']['code']}`" in response["description"], value


def _values(media_type: str, answer: httpx.Response) -> list[Any]:
    """Return what the schema is about: the data of each event, each line, or the whole."""
    match media_type:
        case "application/json":
            return [answer.json()]
        case "application/jsonl":
            return [json.loads(line) for line in answer.text.splitlines()]
        case "text/event-stream":
            events = [event for event in answer.text.split("\n\n") if event and not event.startswith(":")]
            data = [event.removeprefix("data: ") for event in events]
            return [json.loads(one) for one in data if one != "[DONE]"]
        case _:
            return [answer.text]
