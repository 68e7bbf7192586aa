"""Requests on their way through the pipeline, for tests of single stages."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import trio

from pipeline import RequestContext
from pipeline.kernel_time import Clock
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import CALL, HEAD, IS_STREAM, PRINCIPAL, PROFILE, RESPONSE, ReceivedHead
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
    return ResponsesRequest(requested_model=model, **{**settings, **fields})


def call(**fields: Any) -> UpstreamCall:
    """Return a request with its deployment."""
    return UpstreamCall(request=request(**fields), deployment=deployment(), model="gpt-5")


class FakeResponse:
    """A client that accepts everything at once; or only in `drain`, ``drain_s`` later, if it ``is_slow``.

    With ``takes_some`` its socket accepts a part of every write at once, however slow it is.
    """

    def __init__(self, *, is_slow: bool = False, takes_some: bool = False, drain_s: float = 0) -> None:
        self._is_slow = is_slow
        self._takes_some = takes_some
        self._drain_s = drain_s
        self._is_drained = True
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.writes: list[bytes] = []
        self.ended = False
        self.drains = 0

    def answered_by(self, deployment: str, attempts: int) -> None: ...

    def start(self, status: int, headers: list[tuple[bytes, bytes]], *, is_whole: bool = False) -> None:
        assert self.status is None, "a response starts once"
        self.status, self.headers = status, dict(headers)

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        assert self.status is not None, "a response starts before its body"
        assert not self.ended, "nothing may follow the end"
        assert self._is_drained, "a drain follows a write that has not been accepted"
        self.writes.append(data)
        self.body += data
        self.ended = last
        self._is_drained = not self._is_slow
        return self._is_drained

    @property
    def took_some(self) -> bool:
        assert not self._is_drained, "it is asked only after a write that has not been accepted"
        return self._takes_some

    async def drain(self) -> None:
        await trio.sleep(self._drain_s)
        self.drains += 1
        self._is_drained = True


def context(
    headers: dict[bytes, bytes] | None = None,
    *,
    profile: Profile = OPENAI,
    upstream_call: UpstreamCall | None = None,
    response: FakeResponse | None = None,
    principal: Principal | None = None,
    model_in_path: str | None = None,
    differing: frozenset[bytes] = frozenset(),
    is_stream: bool = True,
    clock: Clock = perf_counter_ns,
) -> RequestContext:
    """Return the context of a request whose upstream has begun to answer, with a stream unless it is said not to."""
    ctx = RequestContext("test-1", clock=clock)
    ctx[HEAD] = ReceivedHead(headers or {}, RECEIVED_S, model_in_path, differing=differing)
    ctx[PROFILE] = profile
    ctx[PRINCIPAL] = principal or Principal("somebody")
    ctx[CALL] = upstream_call or call()
    ctx[RESPONSE] = response or FakeResponse()
    ctx[IS_STREAM] = is_stream
    return ctx
