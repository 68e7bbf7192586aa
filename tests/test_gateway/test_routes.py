"""What a path means, without a service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.no_route import MAX_SHOWN_CHARS, no_route
from pipeline.gateway.routes import BASES, METHODS, ServedPath, raw_path_of, served_path_of

CHAT, MODELS = ServedPath("chat"), ServedPath("models")


@pytest.mark.parametrize("base", BASES)
def test_every_base_url_has_the_chat_and_the_models(base: str) -> None:
    for slashes in (base, f"{base}/", base.replace("/", "//")):
        assert served_path_of(f"{slashes}/chat/completions".encode()) == CHAT
        assert served_path_of(f"{slashes}/models/".encode()) == MODELS
        assert served_path_of(f"{slashes}/models/gpt".encode()) == ServedPath("model", "gpt")
    assert served_path_of((base or "/").encode()) == served_path_of(f"{base}/".encode()) == ServedPath("base")


@pytest.mark.parametrize(
    ("path", "kind", "model"),
    [
        ("/openai/deployments/gpt/chat/completions", "chat", "gpt"),
        ("/cursor/openai/deployments/gpt/chat/completions/", "chat", "gpt"),
        ("/cursor/v1/openai/deployments/gpt/chat/completions", "chat", "gpt"),
        ("/openai/deployments/org/name:free/chat/completions", "chat", "org/name:free"),
        ("/openai/deployments/org%2Fname%3Afree/chat/completions", "chat", "org/name:free"),
        ("/openai/deployments/a%2Fchat%2Fcompletions/chat/completions", "chat", "a/chat/completions"),
        ("/engines/gpt/chat/completions", "chat", "gpt"),
        ("/v1/models/org/name:free", "model", "org/name:free"),
        ("/v1/models/org%2Fna%C3%AFve", "model", "org/naïve"),
        ("/v1//models//gpt//", "model", "gpt"),
        ("/models/chat/completions", "model", "chat/completions"),
    ],
)
def test_a_path_may_name_the_model(path: str, kind: str, model: str) -> None:
    assert served_path_of(path.encode()) == (kind, model)


@pytest.mark.parametrize(
    "path",
    [
        *("", "*", "/nope", "/v1/chat", "/v1/chat/completion", "/v1/v1/chat/completions", "/V1/chat/completions"),
        *("/v1/responses", "/openai/deployments/gpt", "/openai/deployments/chat/completions", "/engines//chat"),
        *("/v1%2Fchat%2Fcompletions", "/v1/%63hat/completions", "/openai%2Fdeployments/gpt/chat/completions"),
        *("/v1/../chat/completions", "/v1/./models", "/cursor\\models"),
    ],
)
def test_other_paths_mean_nothing(path: str) -> None:
    assert served_path_of(path.encode()) is None


@pytest.mark.parametrize("path", ["/latency", "/latency/", "/latency/now", "/latency/requests/a%3Ab/trace", "/metrics"])
def test_the_admin_paths_are_found(path: str) -> None:
    assert served_path_of(path.encode()) == ServedPath("admin")


@pytest.mark.parametrize(
    "path",
    [
        *("/latencies", "/v1/latency", "//latency", "/latency%2Fnow", "/%6Catency", "/./latency", "/x/../latency"),
        *("/metrics/", "/metrics/x", "//metrics", "/%6Detrics", "/cursor/metrics", "/METRICS"),
        *("/health/", "//health", "/cursor/health", "/livez/"),
        *("/openapi.json/", "//openapi.json", "/v1/openapi.json", "/openapi%2Ejson", "/OpenAPI.json"),
    ],
)
def test_what_a_proxy_in_front_may_deny_has_no_alias(path: str) -> None:
    assert served_path_of(path.encode()) is None


def test_a_server_that_leaves_out_the_raw_path_gets_the_same() -> None:
    assert raw_path_of({"path": "/v1/models/a b"}) == b"/v1/models/a%20b"
    assert raw_path_of({"path": "/x", "raw_path": None}) == b"/x"
    assert raw_path_of({"path": "/a/b", "raw_path": b"/a%2Fb"}) == b"/a%2Fb"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=60))
def test_any_path_is_read_without_a_failure_and_a_missing_one_is_explained(rest: str) -> None:
    head = RequestHead(f"GET /{rest} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
    served = served_path_of(head.raw_path)
    if served is None:
        assert no_route(head.path).public.startswith("there is no path ")
    else:
        assert (served.model is None) == (served.kind not in ("chat", "model") or served == CHAT)
        assert METHODS[served.kind]


@given(st.lists(st.sampled_from(["/", "//", "cursor", "openai", "v1", "models", "chat", "completions", "x", "%2F"])))
def test_more_slashes_change_nothing(parts: list[str]) -> None:
    path = "/" + "/".join(part.strip("/") or "x" for part in parts)
    once, twice = served_path_of(path.encode()), served_path_of(path.replace("/", "//").encode())
    assert once == twice


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/chat/completion", "did you mean POST /v1/chat/completions?"),
        ("/cursor/chat/complete", "did you mean POST /cursor/chat/completions?"),
        ("/v1/model", "did you mean GET /v1/models?"),
        ("//latency", "did you mean GET /latency?"),
        ("/healthz", "did you mean GET /health?"),
        ("/v1/v1/chat/completions", "it is POST /v1/chat/completions. Cursor's base URL must end in /cursor"),
        ("/cursor/chat/completions/chat/completions", "it is POST /cursor/chat/completions. Cursor's base URL"),
        ("/api/models", "it is GET /v1/models"),
        ("/v1/responses", "POST /v1/chat/completions reads its bodies too"),
        ("/cursor/responses", "POST /cursor/chat/completions reads its bodies too"),
        ("/openai/responses", "POST /v1/chat/completions reads its bodies too"),
        ("/v1/messages", "Anthropic's Messages API is not served"),
        ("/v1/messages/count_tokens", "Anthropic's Messages API is not served"),
        ("/v1/completions", "text completions are not served, only chat completions: POST /v1/chat/completions"),
        ("/v1/embeddings", "this gateway serves chat models only"),
        ("/openai/deployments/ada/embeddings", "this gateway serves chat models only"),
        ("/v1/audio/speech", "this gateway serves chat models only"),
        ("/key/generate", "no management API"),
        ("/nope", "there are POST /v1/chat/completions and GET /v1/models"),
    ],
)
def test_a_404_says_what_there_is_instead(path: str, says: str) -> None:
    message = no_route(path).public
    assert message.startswith(f"there is no path {path}: ")
    assert says in message


def test_a_long_path_is_cut() -> None:
    assert len(no_route("/" + "x" * 16_000).public) < MAX_SHOWN_CHARS + 200
