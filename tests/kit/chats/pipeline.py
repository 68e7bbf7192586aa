"""The whole chat route without sockets: the real configuration, stages and builders, and a double for the network."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import msgspec
import trio
import trio.testing
from kit.clients.chat_posts import CURSOR
from kit.service.bridges import Browser
from kit.service.running import CONFIG, KEY
from kit.vendors.double import Answer, Double
from kit.vendors.vendors import Vendor

from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.config.keys import KeyStore
from pipeline.gateway.config.load import parse_settings
from stages.choose_deployment import Deployments
from stages.reasoning.store import MemoryStore
from stages.upstreams.apis import APIS
from stages.upstreams.http import HttpUpstream
from stages.wire.downstream.profiles import CURSOR as CURSOR_PROFILE

ALIASES = ("work-a", "work-b")


def models_of(vendor: Vendor, url: str | None = None) -> str:
    """Return the configuration of both models of a vendor, at its own address or at ``url``."""
    rows = ""
    for alias, name in zip(ALIASES, vendor.models, strict=True):
        params: dict[str, object] = {"model": f"{vendor.prefix}/{name}", "api_key": "sk-upstream-secret-0123456789"}
        if url is not None or vendor.base:
            params["api_base"] = (url or "http://upstream.test") + vendor.base
        if vendor.kind == "chat":
            params["use_chat_completions_api"] = True
        rows += f"  - model_name: {alias}\n    litellm_params: {json.dumps(params)}\n"
    return rows


class DoubleTransport(httpx.AsyncBaseTransport):
    """A network that ends at a double.

    Attributes:
        stops_after: how many frames of the next answer are sent; after them nothing comes until the call is cancelled.
    """

    def __init__(self, double: Double) -> None:
        self._double = double
        self.stops_after: int | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self._double(request.method, request.url.raw_path.decode(), headers, await request.aread())
        stream = _Frames(self._double, answer, self.stops_after if answer.status == 200 else None)
        return httpx.Response(answer.status, headers={"content-type": answer.content_type}, stream=stream)


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
    """The chat route in front of one double.

    Args:
        vendor: says how its deployments are configured.
        double: answers.
        remembers: whether reasoning is kept between turns.
    """

    def __init__(self, vendor: Vendor, double: Double, *, remembers: bool = True) -> None:
        settings = parse_settings(
            CONFIG.format(models=models_of(vendor), pipeline="", key=KEY), source="test", environ={}
        )
        self._network = DoubleTransport(double)
        own = settings.pipeline
        parts = Parts(
            keys=KeyStore(KEY, ()),
            deployments=Deployments(settings.deployments),
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
        )

    async def ask(self, body: object, *, stops_after: int | None = None) -> tuple[int, bytes]:
        """Post a body; return the status and what came back. After ``stops_after`` frames the client disconnects."""
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
