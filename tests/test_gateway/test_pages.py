"""Paths and methods on the running service: models one by one, base URLs in a browser, what is refused and how."""

from __future__ import annotations

import json

import pytest
import trio
from kit.clients.raw import RawClient
from kit.service.running import KEY, routed, serving

from pipeline.gateway.http.asgi import Message
from pipeline.gateway.http.door import OwnAnswer
from pipeline.gateway.pages import Pages
from pipeline.gateway.routes import ServedPath

LIMITED = "sk-limited-key-0123456789"
WITH_ALIAS = routed("{num_retries: 0, model_group_alias: {gpt-3.5-turbo: {model: echo, hidden: true}}}")
MORE = """\
  - model_name: org/name:free
    litellm_params: {model: canned/echo}
  - model_name: team/*
    litellm_params: {model: canned/echo}
"""
ERROR = {"message", "type", "param", "code"}


@pytest.mark.parametrize("base", ["/v1", "/cursor", "", "/cursor/v1", "/openai", "/cursor//"])
async def test_a_model_is_found_at_every_path_of_the_models(base: str) -> None:
    async with serving() as service:
        [listed] = [one for one in (await service.get(f"{base}/models")).json()["data"] if one["id"] == "story"]
        answer = await service.get(f"{base}/models/story")
        assert (answer.status_code, answer.json()) == (200, listed)
        assert set(listed) == {"id", "object", "created", "owned_by"}
        missing = await service.get(f"{base}/models/nope")
        error = missing.json()["error"]
        assert (missing.status_code, set(error)) == (404, ERROR)
        assert (error["code"], error["type"], error["param"]) == ("model_not_found", "invalid_request_error", "model")
        assert "this API key may use 'echo', 'story', 'agent'" in error["message"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org/name:free", "org/name:free"),
        ("org%2Fname%3Afree", "org/name:free"),
        ("team/echo", "team/echo"),  # it is not listed, but it can be used
        ("echo-fast", "echo-fast"),
        ("gpt-3.5-turbo", "gpt-3.5-turbo"),
    ],
)
async def test_a_model_that_can_be_used_is_found_whatever_its_name(path: str, name: str) -> None:
    async with serving(MORE, config=WITH_ALIAS) as service:
        answer = await service.get(f"/v1/models/{path}")
        assert (answer.status_code, answer.json().get("id")) == (200, name)
        body = {"model": name, "input": "hi"}
        assert (await service.post(body)).status_code == 200


async def test_a_key_finds_its_own_models_only() -> None:
    async with serving(MORE) as service:
        for name, status in {"echo": 200, "team/echo": 200, "story": 404, "org/name:free": 404}.items():
            assert (await service.get(f"/v1/models/{name}", key=LIMITED)).status_code == status
        hidden = (await service.get("/v1/models/story", key=LIMITED)).json()["error"]
        unknown = (await service.get("/v1/models/nopes", key=LIMITED)).json()["error"]
        assert hidden["message"].replace("story", "nopes") == unknown["message"]
        assert "agent" not in hidden["message"]
        assert (await service.get("/v1/models/echo", key=None)).status_code == 401
        assert (await service.get("/v1/models/echo", key="sk-wrong")).json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/echo", "/", "/cursor", "/health", "/livez", "/readyz"])
async def test_head_is_answered_as_get_without_the_body(path: str) -> None:
    async with serving() as service:
        whole, head = await service.get(path), await service.get(path, method="HEAD")
        assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert int(head.headers["content-length"]) == len(whole.content)
        missing = await service.get("/v1/models/nope", method="HEAD")
        assert (missing.status_code, missing.content) == (404, b"")


@pytest.mark.parametrize("path", ["/", "/cursor", "/cursor/", "/v1", "/openai", "/cursor/openai/v1/"])
async def test_a_base_url_in_a_browser_says_what_to_do_with_it(path: str) -> None:
    async with serving() as service:
        answer = await service.get(path, key=None, accept="text/html")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        page = answer.json()
        assert page["name"] == "headrace"
        assert "Override OpenAI Base URL: https://YOUR-HOST/cursor" in page["cursor"]
        assert "sk-" not in answer.text
        assert "echo" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/cursor/chat/completions", "POST, OPTIONS"),
        ("HEAD", "/v1/chat/completions", "POST, OPTIONS"),
        ("DELETE", "/v1/chat/completions", "POST, OPTIONS"),
        ("TRACE", "/chat/completions/", "POST, OPTIONS"),
        ("PROPFIND", "/v1//chat/completions", "POST, OPTIONS"),
        ("GET", "/openai/deployments/echo/chat/completions", "POST, OPTIONS"),
        ("PUT", "/engines/echo/chat/completions", "POST, OPTIONS"),
        ("POST", "/v1/models", "GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/echo", "GET, HEAD, OPTIONS"),
        ("POST", "/cursor", "GET, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_405_says_which_methods_there_are(method: str, path: str, allow: str) -> None:
    async with serving() as service:
        answer = await service.get(path, method=method)
        assert (answer.status_code, answer.headers["allow"]) == (405, allow)
        assert len(answer.headers["x-request-id"]) == 24
        if method != "HEAD":
            error = answer.json()["error"]
            assert (set(error), error["code"]) == (ERROR, "method_not_allowed")
            assert error["message"].startswith(f"{path} does not accept {method}: use {allow.partition(',')[0]}")


async def test_a_post_to_a_base_url_is_told_the_path() -> None:
    async with serving() as service:
        for path, chat in {"/cursor": "POST /cursor/chat/completions", "/v1/": "POST /v1/chat/completions"}.items():
            message = (await service.post({"model": "echo", "input": "hi"}, path=path)).json()["error"]["message"]
            assert message.endswith(chat)


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/nope", "there are POST /v1/chat/completions and GET /v1/models"),
        ("POST", "/v1/responses", "POST /v1/chat/completions reads its bodies too"),
        ("POST", "/v1/chat/completion", "did you mean POST /v1/chat/completions?"),
        ("POST", "/v1/embeddings", "chat models only"),
        ("POST", "/%6Catency", "/latency"),
        ("POST", "/v1%2Fchat%2Fcompletions", "/v1/chat/completions"),
    ],
)
async def test_other_paths_are_refused_in_openais_shape(method: str, path: str, says: str) -> None:
    async with serving() as service:
        answer = await service.get(path, method=method, key=None)
        error = answer.json()["error"]
        assert (answer.status_code, set(error), error["code"]) == (404, ERROR, "route_not_found")
        assert says in error["message"]
        assert len(answer.headers["x-request-id"]) == 24


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/cursor//chat/completions", "POST, OPTIONS"),
        ("/openai/deployments/echo/chat/completions", "POST, OPTIONS"),
        ("/v1/models/echo", "GET, HEAD, OPTIONS"),
        ("/nope", None),
    ],
)
async def test_options_is_answered_at_every_path(path: str, allow: str | None) -> None:
    async with serving() as service:
        answer = await service.get(path, method="OPTIONS", key=None, origin="vscode-file://vscode-app")
        assert (answer.status_code, answer.headers.get("allow")) == (204, allow)
        assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"


async def test_the_admin_paths_and_the_health_checks_have_no_other_spelling() -> None:
    async with serving(is_measured=True) as service:
        for path in ("//latency", "/latency%2Fnow", "//metrics", "/metrics/", "/x/../metrics"):
            status, body = await raw_get(service.port, path)
            message = json.loads(body)["error"]["message"]
            assert status == 404
            assert message.startswith(f"there is no path {path}: ")
        for path in ("/%6Catency", "/%6Civez", "/health%2Freadiness"):
            assert (await raw_get(service.port, path))[0] == 404
        for path in ("/latency", "/livez", "/health/readiness"):
            assert (await raw_get(service.port, path))[0] == 200


async def raw_get(port: int, path: str) -> tuple[int, bytes]:
    """Return the status and the body for a path as it is: httpx would resolve its dots."""
    async with await RawClient.open(("127.0.0.1", port)) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        answer = await client.read_answer()
        return answer.status, answer.body


async def test_a_bug_is_a_500_and_not_a_missing_path(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> OwnAnswer:
        raise RuntimeError("a bug")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async with serving() as service:
        pages = Pages({"/livez": fail})
        scope = {"type": "http", "method": "GET", "path": "/livez", "raw_path": b"/livez", "query_string": b""}
        scope |= {"headers": [(b"host", b"t")], "http_version": "1.1", "scheme": "http", "root_path": ""}
        await pages(ServedPath("live"), service.app, scope, trio.sleep_forever, send)
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["code"] == "internal_error"
    assert "a bug" in caplog.text
    assert b"a bug" not in sent[1]["body"]


async def test_a_path_that_does_not_exist_is_shown_as_it_was_sent() -> None:
    async with serving() as service:
        answer = await service.get("/cursor%2Fmodels")
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert message.startswith("there is no path /cursor%2Fmodels: it is GET /cursor/models")
