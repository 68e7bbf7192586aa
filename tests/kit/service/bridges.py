"""The bridge on any other ASGI server than ours, in virtual time: only ``receive``, ``send`` and a clock."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from kit.clients.chat_posts import CURSOR, OPENAI_LIKE
from kit.service.running import KEY, Logged, as_logged
from kit.upstreams.fake_answer import FakeAnswer

from pipeline import Plugin
from pipeline.gateway.admission import admission_of, quotas_of
from pipeline.gateway.asgi_client import AsgiClient
from pipeline.gateway.assembly import Assembly, Parts
from pipeline.gateway.bridge import Bridge
from pipeline.gateway.config.keys import KeySettings, KeyStore
from pipeline.gateway.config.settings import Execution, PipelineSettings, Settings, StageSettings
from pipeline.gateway.http.asgi import REQUEST_CYCLE, Message, Receive, Scope, Send
from pipeline.gateway.insertions import plan
from pipeline.gateway.open_plugins import OpenPlugins
from pipeline.gateway.upload_budget import UploadBudget
from pipeline.registry import NoOptions
from pipeline.testing import virtual_ns
from stages.admission.counts import Counts
from stages.choose_deployment import Deployments
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Mark, Upstream, UpstreamAnswer, UpstreamCall
from stages.wire.downstream.profiles import CURSOR as CURSOR_PROFILE
from stages.wire.downstream.profiles import OPENAI as OPENAI_PROFILE

KEEP_ALIVE_S = 15.0
COMMENT = b": keepalive\n\n"
MAX_BODY_BYTES = 4 << 20
QUEUE_SETTINGS = {"max_requests_in_flight", "max_queued_requests", "queue_timeout_s"}

Step = bytes | float | Exception
Insertion = tuple[str | None, Plugin[NoOptions]]
"""The built-in stage behind which a plugin stands, if it stands in a place."""


class FakeUpstream:
    """Sends bytes, sleeps for numbers, raises exceptions; the steps of ``before_head`` happen before its head."""

    def __init__(self, *script: Step, before_head: tuple[Step, ...] = (), is_stream: bool = True) -> None:
        self._script = script
        self._before_head = before_head
        self._is_stream = is_stream
        self.calls: list[UpstreamCall] = []
        self.open = 0

    async def __call__(self, call: UpstreamCall) -> UpstreamAnswer:
        self.calls.append(call)
        self.open += 1
        try:
            for step in self._before_head:
                await self._play(step)
        except BaseException:
            self.open -= 1
            raise
        return ScriptedAnswer(self)

    async def _play(self, step: Step) -> bytes:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            await trio.lowlevel.checkpoint()
            return step
        await trio.sleep(step)
        return b""


class ScriptedAnswer(FakeAnswer):
    def __init__(self, upstream: FakeUpstream) -> None:
        super().__init__(is_stream=upstream._is_stream)
        self._upstream = upstream
        self._steps = iter(upstream._script)

    async def receive(self) -> bytes:
        for step in self._steps:
            if got := await self._upstream._play(step):
                return got
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self, *, is_answered: bool = False) -> None:
        self._upstream.open -= 1


class Opens:
    """An `Upstream` made of a function."""

    def __init__(self, answer: Callable[[UpstreamCall], Awaitable[UpstreamAnswer]]) -> None:
        self._answer = answer

    def prepare(self, call: UpstreamCall, /) -> UpstreamCall:
        return call

    async def open(self, prepared: UpstreamCall, mark: Mark, /) -> UpstreamAnswer:
        mark("upstream_sent")
        answer = await self._answer(prepared)
        mark("upstream_head")
        return answer


class Arrived(AsgiClient):
    """A client of a server that knows, as ours does, when a request arrived."""

    def __init__(
        self, receive: Receive, send: Send, arrived_ns: int, first_read_ns: int, last_read_ns: int, *, is_let_in: bool
    ) -> None:
        super().__init__(receive, send)
        self.is_let_in = is_let_in
        self.arrived_ns, self.first_read_ns, self.last_read_ns = arrived_ns, first_read_ns, last_read_ns


class Browser:
    """The other side of ASGI: a client and its server.

    Args:
        bridge: serves the request.
        body: of the request.
        agent: the client's name.
        pieces: in how many parts the body comes.
        gap_s: the time before each of them.
        read_ns: when the request's head reached the kernel, when it was first read and when last, if that is known.
        is_let_in: whether the server has decided already that it is not to be refused; only with ``read_ns``.
        headers: more headers.
    """

    def __init__(
        self,
        bridge: Bridge,
        body: Any,
        *,
        agent: str = OPENAI_LIKE,
        pieces: int = 1,
        gap_s: float = 0,
        read_ns: tuple[int, int, int] | None = None,
        is_let_in: bool = False,
        **headers: str,
    ) -> None:
        self._bridge = bridge
        self._gap_s = gap_s
        self._read_ns = read_ns
        self._is_let_in = is_let_in
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        size = -(-len(content) // pieces)
        self._parts = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
        self._headers = {"authorization": f"Bearer {KEY}", "user-agent": agent, **headers}
        self.disconnected = trio.Event()
        self.disconnect_reason: str | None = None
        self.stuck: Callable[[], Awaitable[None]] | None = None
        """Runs within every send, as if the socket were full."""
        self.started: Message | None = None
        self.sent: list[tuple[float, bytes]] = []
        self.ended = False
        self.upload_stops = False

    async def _receive(self) -> Message:
        if self._parts:
            part = self._parts.pop(0)
            await trio.sleep(self._gap_s)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts) or self.upload_stops}
        await self.disconnected.wait()
        reason = {} if self.disconnect_reason is None else {"reason": self.disconnect_reason}
        return {"type": "http.disconnect", **reason}

    async def _send(self, message: Message) -> None:
        if self.stuck is not None:
            await self.stuck()
        else:
            await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            assert self.started is None
            self.started = message
            return
        assert self.started is not None
        assert not self.ended
        if message["body"]:
            self.sent.append((trio.current_time(), message["body"]))
        self.ended = not message["more_body"]

    async def ask(self) -> None:
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in self._headers.items()],
        }
        if self._read_ns is not None:
            scope["extensions"] = {
                REQUEST_CYCLE: Arrived(self._receive, self._send, *self._read_ns, is_let_in=self._is_let_in)
            }
        await self._bridge(scope, self._receive, self._send)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return {} if self.started is None else dict(self.started["headers"])

    @property
    def status(self) -> int | None:
        return None if self.started is None else self.started["status"]

    @property
    def body(self) -> bytes:
        return b"".join(part for _, part in self.sent)

    @property
    def error(self) -> dict[str, Any]:
        details: dict[str, Any] = json.loads(self.body)["error"]
        return details


def bridge_to(
    upstream: FakeUpstream | Upstream[Any],
    *,
    insertion: Insertion | list[Insertion] | None = None,
    keep_alive_interval_s: float = KEEP_ALIVE_S,
    kind: str = "responses",
    execution: Execution = "fused",
    retries: int = 0,
    deployments: Sequence[Deployment] = (),
    routing: RoutingSettings | None = None,
    count: int = 1,
    keys: Sequence[KeySettings] = (),
    counts: Counts | None = None,
    **settings: Any,
) -> tuple[Bridge, list[Logged]]:
    """Return a bridge whose model ``up`` is ``upstream``, of this kind, and the list of its records.

    The model has ``count`` deployments, ``up-1`` and so on, or else ``deployments``, all of them at ``upstream``. The
    limits of ``keys`` and deployments, and those among the ``settings``, are counted in ``counts``.
    """
    defaults = PipelineSettings()
    limits = {
        "request_timeout_s": defaults.request_timeout_s,
        "body_timeout_s": defaults.body_timeout_s,
        "uploads": UploadBudget(1 << 30, max_body_bytes=MAX_BODY_BYTES),
    }
    deployments = deployments or [
        Deployment(id=f"up-{n + 1}", model_name="up", model="gpt-5", provider="openai", kind=kind, url="http://up")
        for n in range(count)
    ]
    added = [] if insertion is None else insertion if isinstance(insertion, list) else [insertion]
    plugins = {plugin.name: plugin for _, plugin in added}
    insertions = [StageSettings(use=plugin.name, after=after, where="here") for after, plugin in added]
    records: list[Logged] = []
    limited = Settings(
        deployments=tuple(deployments),
        keys=tuple(keys),
        pipeline=PipelineSettings(**{name: settings.pop(name) for name in QUEUE_SETTINGS & settings.keys()}),
    )
    counts = counts or Counts(clock=trio.current_time)
    routed = Deployments(deployments, routing or RoutingSettings(num_retries=retries))
    routed.router.quotas = quotas_of(limited, counts)
    bridge = Bridge(
        Assembly(
            Parts(
                keys=KeyStore(KEY, keys),
                deployments=routed,
                upstreams={kind: Opens(upstream) if isinstance(upstream, FakeUpstream) else upstream},
                max_body_bytes=MAX_BODY_BYTES,
                keep_alive_interval_s=keep_alive_interval_s,
                execution=execution,
                admission=admission_of(limited, counts),
            ),
            OpenPlugins(plan(insertions, plugins), deployments={one.id: one for one in deployments}).made(),
        ),
        profile_of=lambda headers: CURSOR_PROFILE if headers[b"user-agent"] == CURSOR.encode() else OPENAI_PROFILE,
        on_end=lambda finished: records.append(as_logged(finished())),
        clock=virtual_ns,
        **{**limits, **settings},
    )
    return bridge, records
