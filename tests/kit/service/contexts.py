"""Requests that have passed the first stages, for tests of single stages."""

from __future__ import annotations

from typing import Any

from pipeline import RequestContext
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import CALL, HEAD, PRINCIPAL, PROFILE, RESPONSE, ReceivedHead
from stages.upstreams import Deployment, UpstreamCall
from stages.wire.downstream.profiles import OPENAI, Profile

RECEIVED_S = 1_790_000_000


def deployment(model_name: str = "gpt-5", model: str = "gpt-5", **fields: Any) -> Deployment:
    """Return a deployment for ``model_name``."""
    settings = {"id": f"{model_name}-1", "provider": "openai", "kind": "responses", "url": "http://up/v1/responses"}
    return Deployment(model_name=model_name, model=model, **{**settings, **fields})


def request(model: str = "gpt-5", **fields: Any) -> ResponsesRequest:
    """Return a streaming request that asks for usage."""
    settings: dict[str, Any] = {"stream": True, "include_usage": True, "body": {"input": "hi"}}
    return ResponsesRequest(model=model, **{**settings, **fields})


def call(**fields: Any) -> UpstreamCall:
    """Return a request whose deployment is chosen."""
    return UpstreamCall(request=request(**fields), deployment=deployment(), model="gpt-5")


class FakeResponse:
    """A client that accepts everything at once."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.writes: list[bytes] = []
        self.ended = False

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        assert self.status is None, "a response starts once"
        self.status, self.headers = status, dict(headers)

    async def write(self, data: bytes, *, last: bool = False) -> None:
        assert self.status is not None, "a response starts before its body"
        assert not self.ended, "nothing comes after the end"
        self.writes.append(data)
        self.body += data
        self.ended = last


def context(
    headers: dict[bytes, bytes] | None = None,
    *,
    profile: Profile = OPENAI,
    asked: UpstreamCall | None = None,
    response: FakeResponse | None = None,
    principal: Principal | None = None,
    model_in_path: str | None = None,
) -> RequestContext:
    """Return the context of a request whose upstream call is decided, unless an argument says otherwise."""
    ctx = RequestContext("test-1")
    ctx[HEAD] = ReceivedHead(headers or {}, RECEIVED_S, model_in_path)
    ctx[PROFILE] = profile
    ctx[PRINCIPAL] = principal or Principal("anna")
    ctx[CALL] = asked or call()
    ctx[RESPONSE] = response or FakeResponse()
    return ctx
