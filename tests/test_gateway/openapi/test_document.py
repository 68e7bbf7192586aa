"""The document at /openapi.json: valid, complete, and as clients load it."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from kit.openapi import check_request, document, template_of, validator
from kit.recordings import Json, payloads
from kit.service.running import KEY, serving
from openapi_spec_validator import OpenAPIV31SpecValidator

from pipeline.gateway import cli
from pipeline.gateway.cors import EXPOSED
from pipeline.gateway.failures import TABLE
from pipeline.gateway.http.refusals import RefusalCode
from pipeline.gateway.openapi.document import openapi_document, published
from pipeline.gateway.openapi.headers import header_components, security_schemes
from pipeline.gateway.openapi.operation import EVERYWHERE
from pipeline.gateway.openapi.operations import OPERATIONS
from pipeline.gateway.routes import METHODS, TEMPLATES, served_path_of
from stages.authenticate import AUTHORIZATION, GATEWAY_KEY, KEY_HEADERS
from stages.wire.downstream.parameters import expected_type, parameter_schemas

_NAMES = {"model": "gpt", "file": "app.js", "request_id": "r1"}


def test_it_is_a_valid_document_of_openapi() -> None:
    assert document()["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document()).validate()


def test_it_has_each_path_that_is_served_with_its_methods_and_no_other() -> None:
    assert list(OPERATIONS) == list(document()["paths"]) == [template.path for template in TEMPLATES]
    for template in TEMPLATES:
        item = document()["paths"][template.path]
        documented = {method.upper() for method in item if method not in ("servers", "parameters")}
        assert documented == set(METHODS[template.kind]) - {"HEAD"}
        servers = item.get("servers", document()["servers"])
        assert [server["url"] for server in servers] == [base or "/" for base in template.bases]
        for base in template.bases:
            path = base + template.path.format(**_NAMES)
            served = served_path_of(path.encode())
            assert served is not None, path
            assert served.kind == template.kind
            assert template_of(path) == template.path


def test_each_operation_has_a_name_of_its_own() -> None:
    ids = [operation.id for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z_]+", id) for id in ids)


def test_each_error_is_documented_with_its_status() -> None:
    assert set(get_args(RefusalCode)) <= set(EVERYWHERE)
    listed = {code for operation in OPERATIONS.values() for code in operation.codes}
    assert listed | set(EVERYWHERE) == set(TABLE)
    for path, operation in OPERATIONS.items():
        for code in operation.codes:
            item = document()["paths"][path]
            responses = item.get("post", item.get("get"))["responses"]
            assert f"`{code}`" in responses[str(TABLE[code].status)]["description"]


def test_each_header_that_a_page_may_read_and_each_way_to_send_a_key_is_documented() -> None:
    assert set(EXPOSED) <= set(header_components())
    names = {scheme.get("name", "authorization") for scheme in security_schemes().values()}
    assert names == {name.decode() for name in (*KEY_HEADERS, GATEWAY_KEY)}
    assert AUTHORIZATION in KEY_HEADERS
    assert document()["security"] == [{name: []} for name in document()["components"]["securitySchemes"]]


def test_whoever_generates_it_again_gets_the_same() -> None:
    assert openapi_document() == openapi_document()
    assert len(published().body) < 100_000


def test_all_of_its_examples_are_valid() -> None:
    for name, schema in document()["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            validator("components", "schemas", name).validate(example)
    for path, item in document()["paths"].items():
        if "post" in item:
            for example in item["post"]["requestBody"]["content"]["application/json"]["examples"].values():
                check_request(path, example["value"])


@pytest.mark.parametrize("payload", payloads())
def test_what_cursor_sends_is_a_request_of_the_document(payload: Json) -> None:
    request = payload["request"]
    check_request(request["path"], request["body"])


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        ({"model": "m", "input": "hi", "of_another_api": [1]}, True),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, True),
        ({"model": "m", "input": "hi", "temperature": None, "tools": None}, True),
        ({"model": "m", "input": [{"role": "user", "content": "hi"}], "messages": []}, True),
        ({"model": "m"}, False),
        ({"model": "m", "input": []}, False),
        ({"model": "", "input": "hi"}, False),
        ({"input": "hi"}, False),
        ({"model": "m", "input": "hi", "temperature": "hot"}, False),
        ({"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2}, False),
    ],
)
async def test_the_server_accepts_what_the_document_does(body: Json, is_valid: bool) -> None:
    schema = ("paths", "/chat/completions", "post", "requestBody", "content", "application/json", "schema")
    assert validator(*schema).is_valid(body) == is_valid
    async with serving() as service:
        answer = await service.post({**body, "model": "echo"} if body.get("model") else body)
        assert answer.status_code == (200 if is_valid else 400)


def test_a_path_that_names_the_model_needs_none_in_the_body() -> None:
    check_request("/openai/deployments/m/chat/completions", {"input": "hi"})
    check_request("/cursor/engines/m/chat/completions", {"model": "", "messages": [{"role": "user", "content": "hi"}]})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(st.sampled_from(sorted(parameter_schemas())), _JSON)
def test_the_schema_of_a_parameter_says_what_is_checked(name: str, value: Any) -> None:
    check_parameter(name, value)


@pytest.mark.parametrize("name", parameter_schemas())
def test_the_schema_of_a_parameter_says_what_is_checked_at_its_limits(name: str) -> None:
    values: list[Any] = [-1, 0, 1, 2, 0.5, True, "", "a", [], ["a"], [1], {}]
    for value in values:
        check_parameter(name, value)


def check_parameter(name: str, value: Any) -> None:
    is_valid = Draft202012Validator(parameter_schemas()[name]).is_valid(value)
    is_accepted = expected_type(name, value) is None
    if isinstance(value, float) and value.is_integer():  # an integer of JSON Schema
        return
    # The fields of objects are checked later.
    assert is_valid == is_accepted or (is_accepted and isinstance(value, dict))


async def test_it_needs_no_key_and_says_nothing_of_the_configuration() -> None:
    async with serving("  - {model_name: my-own, litellm_params: {model: canned/echo}}\n") as service:
        answer = await service.get("/openapi.json", key=None)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.content == published().body
        assert KEY not in answer.text
        assert "my-own" not in answer.text


def test_a_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["openapi"]) == 0
    assert capsys.readouterr().out.encode() == published().body + b"\n"


async def test_a_client_that_has_it_is_not_sent_it_again() -> None:
    async with serving() as service:
        answer = await service.get("/openapi.json", key=None)
        again = await service.get("/openapi.json", key=None, if_none_match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
        assert not {"content-type", "content-length"} & set(again.headers)
        etag = answer.headers["etag"]
        for tags, status in ((f'"x", W/{etag}', 304), (etag.strip('"'), 200), ('"x"', 200)):
            assert (await service.get("/openapi.json", key=None, if_none_match=tags)).status_code == status
        head = await service.get("/openapi.json", method="HEAD", key=None)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["etag"] == again.headers["etag"] == answer.headers["etag"]
        assert answer.headers["access-control-allow-origin"] == "*"
        preflight = await service.get("/openapi.json", method="OPTIONS", key=None, origin="https://a.example")
        assert (preflight.status_code, preflight.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert (await service.get("/openapi.json", method="POST")).status_code == 405
