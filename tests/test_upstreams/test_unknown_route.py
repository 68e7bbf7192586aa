"""Which failures say that a server does not know the API that it was asked by."""

from __future__ import annotations

import json

import httpx
import pytest

from pipeline import ClientFault, Overloaded, PipelineError, UpstreamFault
from stages.upstreams.faults import fault_of_status
from stages.upstreams.unknown_route import is_unknown_route, with_remedy


def fault(status: int, body: object) -> UpstreamFault:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return fault_of_status(status, httpx.Headers(), content, "the upstream", ())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, {"detail": "Not Found"}),
        (404, b"404 page not found"),
        (404, b"<html><head><title>404 Not Found</title></head></html>"),
        (404, {"error": {"message": "Invalid URL (POST /v1/responses)", "type": "invalid_request_error"}}),
        (404, {"error": {"message": "Unknown request URL: POST /v1/responses.", "code": "unknown_url"}}),
        (404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}),
        (404, {"code": 5, "error": "url.not_found", "message": "no such object", "url": "/v1/responses"}),
        (404, {"message": "no Route matched with those values"}),
        (404, {"message": "Route POST:/models/v1/responses not found"}),
        (404, b"Cannot POST /engines/v1/responses"),
        (404, b"Not found: /model-server/v1/responses"),
        (405, {"detail": "Method Not Allowed"}),
        (405, {"error": {"message": "this model does not allow it"}}),
        (501, b""),
        (400, {"error": {"message": "Invalid URL (POST /v1/responses)"}}),
        (400, {"error": {"message": "Unsupported endpoint"}}),
        (400, {"object": "error", "message": "The model does not support Responses API", "code": 400}),
        (500, {"error": {"message": "Responses API is not supported"}}),
    ],
)
def test_these_say_that_the_route_is_unknown(status: int, body: object) -> None:
    assert is_unknown_route(fault(status, body))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"message": "The model `gpt-9` does not exist", "code": "model_not_found"}}),
        (404, {"error": {"message": "No.", "code": "model_not_found"}}),
        (404, {"error": {"message": "No.", "type": "ModelNotFoundError"}}),
        (404, {"error": "model 'qwen3' not found"}),
        (
            404,
            {"error": {"message": "Not found the model kimi or Permission denied", "type": "resource_not_found_error"}},
        ),
        (
            404,
            {"error": {"message": "The model or endpoint m does not exist", "code": "InvalidEndpointOrModel.NotFound"}},
        ),
        (404, {"error": {"message": "No endpoints found that support tool use.", "code": 404}}),
        (404, {"error": {"message": "The API deployment for this resource does not exist."}}),
        (404, {"status": 404, "title": "Not Found", "detail": "Function '1-2': Not found for account 'a'"}),
        (404, {"error": {"message": "Previous response with id 'resp_1' not found.", "code": None}}),
        (404, {"error": {"message": "Response with id 'resp_1' not found."}}),
        (404, {"error": {"message": "Item with id 'rs_1' not found."}}),
        (404, {"error": {"message": "No such File object: file-1"}}),
        (404, {"error": {"message": "Your plan's limit is 8000 tokens"}}),
        (400, {"error": {"message": "Invalid URL: expected an image"}}),
        (400, {"error": {"message": "input: cannot read 'Cannot POST /v1/responses'"}}),
        (400, b""),
        (401, b""),
        (429, b""),
        (500, b""),
        (503, {"error": {"message": "Not Found"}}),
    ],
)
def test_these_are_about_something_else(status: int, body: object) -> None:
    assert not is_unknown_route(fault(status, body))


def test_lm_studio_says_it_with_status_200() -> None:
    assert is_unknown_route(UpstreamFault("Unexpected endpoint or method. (POST /v1/responses)"))


@pytest.mark.parametrize("own", [ClientFault("cannot post /"), Overloaded("cannot post /")])
def test_our_own_failures_never_do(own: PipelineError) -> None:
    assert not is_unknown_route(own)


def test_a_remedy_is_added_to_the_message_and_nothing_else_changes() -> None:
    first = fault(404, {"error": {"message": "Not Found.", "code": "c", "param": "p"}})
    first.stage = "call_upstream"
    more = with_remedy(first, "do this")
    assert more.public == "upstream answered 404: Not Found; do this"
    fields = ("code", "param", "retry_after_s", "status_hint", "upstream_code", "stage")
    assert [getattr(more, name) for name in fields] == [getattr(first, name) for name in fields]
