"""The whole chat route without sockets: the real configuration, stages and builders, and a double for the network."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from typing import Final

import httpx
import msgspec
import trio
import trio.testing
from kit.clients.chat_posts import CURSOR
from kit.service.bridges import Browser
from kit.service.running import CONFIG, KEY, routed
from kit.vendors.accounts import LATE_S, SLOW_S, STATUSES, Accounts, Trouble
from kit.vendors.double import Answer, Double
from kit.vendors.vendors import Vendor

from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.upload_budget import UploadBudget
from pipeline.testing import virtual_ns
from stages.choose_deployment import Deployments
from stages.reasoning.store import MemoryStore
from stages.routing.router import Candidate, Router
from stages.upstreams.apis import APIS
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.profiles import CURSOR as CURSOR_PROFILE

ALIASES: Final = ("work-a", "work-b")
PAUSE_S: Final = 20.0
"""Between two turns of a chat with several accounts, on average; in virtual time."""


def models_of(vendor: Vendor, url: str | None = None, accounts: Sequence[str] = ("account-1",)) -> str:
    """Return the configuration of both models of a vendor, at its own address or at ``url``, for each account."""
    rows = ""
    for alias, name in zip(ALIASES, vendor.models, strict=True):
        for account in accounts:
            key = f"sk-{account}-secret-0123456789"
            params: dict[str, object] = {"model": f"{vendor.prefix}/{name}", "api_key": key}
            if len(accounts) > 1:
                params["timeout"] = LATE_S
            if url is not None or vendor.base:
                params["api_base"] = (url or "http://upstream.test") + vendor.base
            if vendor.kind == "chat":
                params["use_chat_completions_api"] = True
            rows += f"  - model_name: {alias}\n    litellm_params: {json.dumps(params)}\n"
    return rows


class AtRandom(Router):
    """Routing without affinity: each request asks any of its deployments first."""

    def ordered(self, candidates: Sequence[Candidate], conversation: str) -> list[Candidate]:
        return sorted(candidates, key=lambda one: self.draw())


class DoubleTransport(httpx.AsyncBaseTransport):
    """A network that ends at a double.

    Args:
        double: answers.
        accounts: whose request it is, and in what trouble they are; None if there is one account, always in order.

    Attributes:
        stops_after: how many frames of the next answer are sent; after them nothing comes until the call is cancelled.
    """

    def __init__(self, double: Double, accounts: Accounts | None = None) -> None:
        self._double = double
        self._accounts = accounts
        self.stops_after: int | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = await request.aread()
        if self._accounts is not None and (trouble := self._accounts.enter(headers)) is not None:
            response = await _in_trouble(trouble, self._accounts.now_s, request.extensions["timeout"])
            if response is not None:
                return response
        answer = self._double(request.method, request.url.raw_path.decode(), headers, body)
        stream = _Frames(self._double, answer, self.stops_after if answer.status == 200 else None)
        return httpx.Response(answer.status, headers={"content-type": answer.content_type}, stream=stream)


async def _in_trouble(trouble: Trouble, now_s: float, timeouts: dict[str, float]) -> httpx.Response | None:
    """Do what an account in trouble does; return None if it answers all the same."""
    match trouble.kind:
        case "refusing":
            raise httpx.ConnectError("refused") from ConnectionRefusedError()
        case "resetting":
            raise httpx.ReadError("reset")
        case "slow":
            await trio.sleep(SLOW_S)
            return None
        case "late":
            await trio.sleep(timeouts["read"])
            raise httpx.ReadTimeout("late")
        case "silent":
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Nothing(timeouts))
        case kind:
            wait_s = trouble.until_s - now_s
            headers = {"retry-after": f"{wait_s:.0f}"} if kind == "limited until" else {}
            return httpx.Response(STATUSES[kind], headers=headers, stream=_Nothing())


class _Nothing(httpx.AsyncByteStream):
    """A body that ends at once, or does not come in time."""

    def __init__(self, timeouts: dict[str, float] | None = None) -> None:
        self._timeouts = timeouts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._timeouts is None:
            raise StopAsyncIteration
        await trio.sleep(self._timeouts["read"])
        raise httpx.ReadTimeout("silent")


class _Frames(httpx.AsyncByteStream):
    def __init__(self, double: Double, answer: Answer, stops_after: int | None) -> None:
        self._double = double
        self._answer = answer
        self._stops_after = stops_after

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, frame in enumerate(self._answer.frames):
            await trio.lowlevel.checkpoint()
            if number == self._stops_after:
                await trio.sleep_forever()
            self._double.sent(frame)
            yield frame.data


class Way:
    """The chat route in front of one double. With several accounts time passes between the turns: use virtual time.

    Args:
        vendor: says how its deployments are configured.
        double: answers.
        remembers: whether reasoning is kept between turns.
        accounts: those behind each model, if there is more than one.
        has_affinity: whether a conversation keeps its account.
        seed: of the routing.
        routing: more ``router_settings``.
    """

    def __init__(
        self,
        vendor: Vendor,
        double: Double,
        *,
        remembers: bool = True,
        accounts: Accounts | None = None,
        has_affinity: bool = True,
        seed: int = 0,
        routing: str = "{}",
    ) -> None:
        names = ("account-1",) if accounts is None else accounts.names
        text = (CONFIG if accounts is None else routed(routing)).format(
            models=models_of(vendor, accounts=names), pipeline="", key=KEY
        )
        settings = parse_settings(text, source="test", environ={})
        self._network = DoubleTransport(double, accounts)
        self._has_accounts = accounts is not None
        self._rng = random.Random(seed)
        deployments = Deployments(settings.deployments, settings.routing)
        router = Router if has_affinity else AtRandom
        deployments.router = router(settings.routing, settings.deployments, draw=random.Random(seed).random)
        own = settings.pipeline
        parts = Parts(
            keys=KeyStore(KEY, ()),
            deployments=deployments,
            upstreams={name: HttpUpstream(api, lambda deployment: self._network) for name, api in APIS.items()},
            max_body_bytes=own.max_body_bytes,
            keep_alive_interval_s=0,
            execution=own.execution,
            reasoning=MemoryStore() if remembers else None,
        )
        self._bridge = Bridge(
            Assembly(parts),
            profile_of=lambda headers: CURSOR_PROFILE,
            on_end=lambda finished: None,
            request_timeout_s=own.request_timeout_s,
            body_timeout_s=own.body_timeout_s,
            uploads=UploadBudget(1 << 30, max_body_bytes=own.max_body_bytes),
            clock=virtual_ns,
        )

    async def ask(self, body: object, *, stops_after: int | None = None) -> tuple[int, bytes]:
        """Post a body; return the status and what came back. After ``stops_after`` frames the client disconnects."""
        if self._has_accounts:
            await trio.sleep(self._rng.expovariate(1 / PAUSE_S))
        self._network.stops_after = stops_after
        browser = Browser(self._bridge, json.dumps(body).encode(), agent=CURSOR)
        if stops_after is None:
            await browser.ask()
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(browser.ask)
                await trio.testing.wait_all_tasks_blocked()
                browser.disconnected.set()
        assert browser.status is not None or stops_after is not None
        return browser.status or 200, browser.body


def error_of(body: bytes) -> dict[str, object]:
    """Return the error of a refusal."""
    found: dict[str, object] = msgspec.json.decode(body)["error"]
    return found
