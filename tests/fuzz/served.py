"""The pipelines of the service, as they are assembled for it, with an upstream that answers with given bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any, Final

import httpx
from kit.service.contexts import RECEIVED_S, FakeResponse

from pipeline import ClientFault, RequestContext
from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.failures import TABLE
from stages.choose_deployment import Deployments
from stages.principal import Principal
from stages.slots import CALL, HEAD, PRINCIPAL, PROFILE, RESPONSE, ReceivedHead
from stages.upstreams import Deployment, Mark, UpstreamCall
from stages.upstreams.apis import APIS
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.profiles import CURSOR, OPENAI

_ROW: Final = '- {{model_name: "{name}", litellm_params: {{model: "{model}", api_key: sk-fuzz, api_base: "http://up.test/v1"}}}}\n'
_MODELS: Final = (
    *("openai/gpt-5.4", "openai/gpt-4.1", "azure_ai/gpt-5.1", "openai/chat_completions/gpt-4.1"),
    *("openai/chat_completions/gpt-5.1", "deepseek/deepseek-chat", "gemini/gemini-3.1-pro", "xai/grok-4"),
    *("openrouter/anthropic/claude-sonnet-5", "hosted_vllm/Qwen/Qwen3.5-8B", "mistral/mistral-large-latest"),
    *(
        "anthropic/claude-opus-5-5",
        "anthropic/claude-sonnet-4-5",
        "anthropic/claude-haiku-5-5",
        "anthropic/claude-opus-4-7",
    ),
    "anthropic/claude-3-5-haiku-latest",
)


def _deployments() -> tuple[Deployment, ...]:
    rows = "".join(_ROW.format(name=model.replace("/", "."), model=model) for model in (*_MODELS,))
    text = f"model_list:\n{rows}" + _ROW.format(name="*", model="openai/*")
    return parse_settings(
        text, source="fuzz.yaml", environ={"HEADRACE_MASTER_KEY": "sk-fuzz-0123456789abcdef"}
    ).deployments


DEPLOYMENTS: Final = _deployments()
BY_KIND: Final[Mapping[str, Sequence[Deployment]]] = {
    kind: [one for one in DEPLOYMENTS if one.kind == kind and "*" not in one.model] for kind in APIS
}
"""Deployments whose quirks differ, by the API that they speak."""


class GivenAnswer:
    """An `UpstreamAnswer` that has all of its reads already."""

    arrived_ns = 0
    is_backing_off = False

    def __init__(self, given: list[bytes], *, is_stream: bool) -> None:
        self._left = given[::-1]
        self.is_stream = is_stream

    async def back_off(self) -> None: ...

    async def receive(self) -> bytes:
        return self._left.pop() if self._left else b""

    async def aclose(self, *, is_answered: bool = False) -> None: ...


class GivenUpstream:
    """An `Upstream` that answers with ``given``."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.is_stream = True

    def prepare(self, call: UpstreamCall, /) -> UpstreamCall:
        return call

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> GivenAnswer:
        mark("upstream_head")
        return GivenAnswer(self.given, is_stream=self.is_stream)


class _NoKeys:
    def authenticate(self, presented: bytes) -> Principal | None:
        return None


def _no_transport(_: Deployment) -> httpx.AsyncBaseTransport:
    raise AssertionError("nothing is sent here")


class Service:
    """The pipelines.

    Attributes:
        upstream: what is answered.
    """

    def __init__(self) -> None:
        self.upstream = GivenUpstream()
        self._preparing = {name: HttpUpstream(api, _no_transport) for name, api in APIS.items()}
        self._assembly = Assembly(
            Parts(
                keys=_NoKeys(),
                anonymous=Principal("fuzz"),
                deployments=Deployments(DEPLOYMENTS),
                upstreams=dict.fromkeys(APIS, self.upstream),
                max_body_bytes=64 << 20,
                keep_alive_interval_s=0,
                execution="fused",
            )
        )

    def context(self, rng: Random) -> RequestContext:
        """Return the context of a new request, of a client of either kind."""
        ctx = RequestContext("fuzz-1")
        ctx[HEAD] = ReceivedHead({b"user-agent": b"fuzz"}, RECEIVED_S)
        ctx[PROFILE] = rng.choice((OPENAI, CURSOR))
        ctx[RESPONSE] = FakeResponse()
        return ctx

    async def accepted(self, body: list[bytes], ctx: RequestContext) -> UpstreamCall:
        """Return what is to be asked of the upstream, or raise the refusal."""
        [call] = await self._assembly.accept(_each(body), ctx)
        return call

    def prepared(self, call: UpstreamCall) -> bytes:
        """Return the body for the upstream."""
        return bytes(self._preparing[call.deployment.kind].prepare(call).body)

    async def answered(
        self, call: UpstreamCall, ctx: RequestContext, given: list[bytes], *, is_stream: bool
    ) -> FakeResponse:
        """Return what the client gets if the upstream answers with ``given``."""
        self.upstream.given, self.upstream.is_stream = given, is_stream
        ctx[CALL], ctx[PRINCIPAL] = call, Principal("fuzz")
        await self._assembly.answer(call, ctx).run([[call]], ctx)
        response = ctx[RESPONSE]
        assert isinstance(response, FakeResponse)
        return response


async def _each(body: list[bytes]) -> AsyncIterator[list[bytes]]:
    for part in body:
        yield [part]


def check_refusal(fault: ClientFault) -> None:
    """Check that a client is told what is wrong, in a 4xx."""
    assert 400 <= TABLE[fault.code].status < 500, fault.code
    assert 0 < len(fault.public) < 1000, "a sentence, not a quotation"
    fault.public.encode()


def strict_json(data: bytes) -> Any:
    """Read JSON that any parser reads: UTF-8 without lone surrogates, and only finite numbers."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    value = json.loads(data.decode("utf-8"), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return value
