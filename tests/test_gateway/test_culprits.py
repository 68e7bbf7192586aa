"""Whose fault was it that a request took long? Five situations, and a rule of ten lines that reads it from the records.

Once in real time, against the service as a process of its own, and once on a clock that only the situations move.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import trio
import trio.testing
from hold_loop import make_hold_loop
from kit.service.plugins import describe
from kit.service.records import assert_sums
from kit.service.running import CONFIG, KEY, as_logged, model
from kit.study.made import timestamp
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import Exchange, end, scripted_upstream, sse, sse_head
from msgspec import convert

from pipeline.gateway.asgi_client import AsgiClient
from pipeline.gateway.config.load import parse_settings
from pipeline.gateway.generation import Generation
from pipeline.gateway.http.asgi import REQUEST_CYCLE
from pipeline.gateway.request_record import FinishedRequest
from pipeline.gateway.upstream_clients import UpstreamClients
from pipeline.loop import Stall, watch_loop
from pipeline.registry import NoOptions, Plugin
from pipeline.study.records import RecordedRequest, RecordedStall
from pipeline.study.why import CulpritKind, explained

PLUGIN = Path(__file__).parents[1] / "data" / "plugin_that_holds"

Execution = Literal["fused", "tasks"]
Record = Mapping[str, Any]

HEAD_MS, TOKENS, TOKEN_MS, PAUSE_MS, BURN_MS, BURNS, HOLD_MS = 500, 20, 50, 1500, 20, 25, 600


def culprit(record: Record, stalls: Sequence[Record]) -> tuple[str, float]:
    """Return who cost this request the most, and how many ms; ``stalls`` are those of its time."""
    others = [stall for stall in stalls if stall["request_id"] != record["request_id"]]
    if (held_ms := sum(stall["ms"] for stall in others)) > record["total_ms"] / 2:
        return f"{others[0]['stage']} of {others[0]['request_id']}", held_ms
    party, ms = max(record["party_ms"].items(), key=lambda item: item[1])
    if party == "upstream":
        points_ms = record["points_ms"]
        head_ms = points_ms["upstream_head"] - points_ms.get("upstream_sent", points_ms["routed"])
        return ("upstream, its head", head_ms) if head_ms > ms / 2 else ("upstream, its tokens", ms - head_ms)
    if party == "client":
        return "client", ms
    return max(((name, s["busy_ms"] + s["flush_ms"]) for name, s in record["stages"].items()), key=lambda s: s[1])


def chunk(text: str) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]})


FINISH = sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = b"data: [DONE]\n\n"
MEGABYTE = chunk("x" * (1 << 20))
"""Much more than the sockets between us and a client hold."""


async def situation(
    name: str, send: Callable[[bytes], Awaitable[None]], sleep: Callable[[float], Awaitable[None]], gap_s: float
) -> None:
    """Be the upstream of one situation, up to the last text; ``gap_s`` after each text that holds the loop."""
    if name == "slow-head":
        await sleep(HEAD_MS / 1000)
    await send(b"")
    if name == "slow-tokens":
        for _ in range(TOKENS):
            await sleep(TOKEN_MS / 1000)
            await send(chunk("token "))
    elif name == "paused-client":
        for _ in range(16):
            await send(MEGABYTE)
    elif name == "burning-stage":
        for _ in range(BURNS):
            await send(chunk(f"hold {BURN_MS}"))
            await sleep(gap_s)
    elif name == "blocked-loop":
        await send(chunk(f"hold {HOLD_MS}"))
    await send(chunk("hello"))


WANTED = {
    "slow-head": ("upstream, its head", HEAD_MS),
    "slow-tokens": ("upstream, its tokens", TOKENS * TOKEN_MS),
    "paused-client": ("client", PAUSE_MS),
    "burning-stage": ("hold_loop", BURNS * BURN_MS),
    "victim": ("hold_loop of blocked-loop", HOLD_MS),
}


KINDS: Mapping[str, CulpritKind] = {
    "slow-head": "head",
    "slow-tokens": "tokens",
    "paused-client": "reading",
    "burning-stage": "stage",
    "victim": "blocked_loop",
}
"""What `headrace why` calls them."""


def assert_blamed(records: Mapping[str, Record], stalls: Sequence[Record], injected: Mapping[str, float]) -> None:
    """Check all situations; ``injected`` has the ms that really passed, where they are not those of `WANTED`."""
    for name, (who, wanted_ms) in WANTED.items():
        record, injected_ms = records[name], injected.get(name, wanted_ms)
        named, ms = culprit(record, [stall for stall in stalls if name == "victim"])
        assert named == who, f"{name}: {named} was blamed with {ms} ms: {json.dumps(record, indent=1)}"
        assert ms == pytest.approx(injected_ms, rel=0.05), f"{name}: {ms} ms: {json.dumps(record, indent=1)}"
        assert_sums(record)
        why = explained(convert(record, RecordedRequest), [convert(stall, RecordedStall) for stall in stalls])
        assert why.culprit.kind == KINDS[name], why.sentence
        assert why.culprit.ms == pytest.approx(injected_ms, rel=0.05), why.sentence
        if name in ("burning-stage", "victim"):
            assert why.culprit.stage == "hold_loop", why.sentence


# --- in real time ----------------------------------------------------------------------------------------------------


class Program:
    """The service as a process, and what it has logged."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def held_ms(self, ms: int) -> float:
        """Return how long the plugin has held the loop in its turns of ``ms``."""
        turns = (line.split() for line in self._log.with_name("held").read_text().splitlines())
        return sum(float(really) for wanted, really in turns if float(wanted) == ms)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self._log.read_text().splitlines())
        return [line for line in lines if line.get("event") == name]

    async def stalls(self, ms: float) -> list[dict[str, Any]]:
        """Wait until a stall of over ``ms`` is in the log, which may be a second later; return all such."""
        with patiently_with_processes():
            while not (found := [stall for stall in self.events("stall") if stall["ms"] > ms]):
                await trio.sleep(0.01)
        return found

    async def records(self, count: int) -> dict[str, Record]:
        """Wait until so many requests have ended; return their records by the request's id."""
        with patiently_with_processes():
            while len(found := self.events("request")) < count:
                await trio.sleep(0.01)
        return {record["request_id"]: record for record in found}


@asynccontextmanager
async def program(folder: Path, upstream_url: str, execution: Execution) -> AsyncIterator[Program]:
    """Run ``headrace serve`` with the plugin that holds the loop."""
    describe(folder, PLUGIN)
    config, log = folder / "config.yaml", folder / "log"
    names = [*WANTED, "blocked-loop"]
    models = "".join(model(name, upstream_url, upstream=f"deepseek/{name}") for name in names)
    added = f"  execution: {execution}\n  port: 0\n  stages:\n    - {{use: hold_loop, after: decode_events}}\n"
    config.write_text(CONFIG.format(models=models, pipeline=added, key=KEY))
    command = [sys.executable, "-m", "pipeline.gateway", "serve", "--config", str(config)]
    environment = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{folder}:{PLUGIN}", "HELD_FILE": str(folder / "held")}
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(command, stderr=stderr, env=environment)
    try:
        with patiently_with_processes():
            while "serving http" not in log.read_text():
                assert process.returncode is None, log.read_text()
                await trio.sleep(0.01)
        yield Program(log.read_text().partition("serving ")[2].partition('"')[0].strip(), log)
    finally:
        process.kill()
        await process.wait()


def body(name: str) -> bytes:
    return json.dumps({"model": name, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("execution", ["fused", "tasks"])
async def test_the_records_of_a_process_name_the_culprit(tmp_path: Path, execution: Execution) -> None:
    is_held = trio.Event()
    injected: dict[str, float] = defaultdict(float)

    async def answer(exchange: Exchange) -> None:
        name = exchange.request.json()["model"]
        has_begun = False

        async def send(data: bytes) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                await exchange.send(sse_head())
            if data:
                await exchange.send_chunk(data)
            if data.startswith(chunk(f"hold {HOLD_MS}")[:-4]):
                await trio.sleep(0.02)
                is_held.set()

        async def sleep(seconds: float) -> None:
            since = trio.current_time()
            await trio.sleep(seconds)
            injected[name] += (trio.current_time() - since) * 1000

        await situation(name, send, sleep, gap_s=(BURN_MS + 5) / 1000)  # so that each text is a batch
        await exchange.send_chunk(FINISH + DONE)
        await exchange.send(end())

    async with scripted_upstream(answer) as up, program(tmp_path, up.url, execution) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False) as client:

            async def post(name: str) -> None:
                headers = {"authorization": f"Bearer {KEY}", "x-request-id": name}
                response = await client.post("/v1/chat/completions", content=body(name), headers=headers)
                assert response.status_code == 200

            for name in ("slow-head", "slow-tokens", "burning-stage"):
                await post(name)
            injected["paused-client"] = await pause(service.url)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(post, "blocked-loop")
                await is_held.wait()
                nursery.start_soon(post, "victim")
        records = await service.records(6)
        stalls = await service.stalls(HOLD_MS / 2)
        injected["burning-stage"], injected["victim"] = service.held_ms(BURN_MS), service.held_ms(HOLD_MS)
    assert_blamed(records, stalls, injected)


async def pause(url: str) -> float:
    """Read nothing of an answer for a while; return how many ms that was."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    stream = await trio.open_tcp_stream(host, port or 0)
    async with stream:
        content = body("paused-client")
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
            f"x-request-id: paused-client\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        await stream.send_all(head.encode() + content)
        since = trio.current_time()
        await trio.sleep(PAUSE_MS / 1000)
        paused_ms = (trio.current_time() - since) * 1000
        async for _ in stream:
            pass
    return paused_ms


# --- on a clock that only the situations move ------------------------------------------------------------------------


class HandClock:
    """Follows trio's clock, and is moved by who holds the loop."""

    def __init__(self) -> None:
        self.held_ns = 0

    def __call__(self) -> int:
        return round(trio.current_time() * 1e9) + self.held_ns

    def hold(self, seconds: float) -> None:
        self.held_ns += round(seconds * 1e9)


class Upstream(httpx.AsyncBaseTransport):
    """Plays the situations in memory."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = json.loads(await request.aread())["model"]
        to_us, from_upstream = trio.open_memory_channel[bytes](100)
        has_begun = trio.Event()

        async def send(data: bytes) -> None:
            has_begun.set()
            if data:
                await to_us.send(data)

        async def play() -> None:
            await situation(name, send, trio.sleep, gap_s=0.005)  # the stage does not move this clock
            await send(FINISH + DONE)
            to_us.close()

        trio.lowlevel.spawn_system_task(play)
        await has_begun.wait()
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Body(from_upstream))


class _Body(httpx.AsyncByteStream):
    def __init__(self, received: trio.MemoryReceiveChannel[bytes]) -> None:
        self._received = received

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._received.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self._received.close()


class Client(AsgiClient):
    """Sends one request; it pauses once before it takes the first of the answer, if it is the one that does.

    Args:
        name: of the situation, and of the request.
        arrived_ns: when the kernel received it.
    """

    def __init__(self, name: str, clock: HandClock, arrived_ns: int) -> None:
        super().__init__(self._next, self._take)
        self.arrived_ns = arrived_ns
        self.first_read_ns = self.last_read_ns = clock()
        self._name = name
        self._messages = [{"type": "http.request", "body": body(name), "more_body": False}]

    async def _next(self) -> Any:
        if not self._messages:
            await trio.sleep_forever()
        return self._messages.pop()

    async def _take(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        if self._name == "paused-client" and message["type"] == "http.response.start":
            await trio.sleep(PAUSE_MS / 1000)

    @property
    def scope(self) -> dict[str, Any]:
        headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"x-request-id", self._name.encode())]
        return {"headers": headers, "extensions": {REQUEST_CYCLE: self}}


@pytest.mark.parametrize("execution", ["fused", "tasks"])
def test_the_records_name_the_culprit_when_nothing_else_takes_time(
    monkeypatch: pytest.MonkeyPatch, execution: Execution
) -> None:
    upstream = Upstream()
    monkeypatch.setattr(UpstreamClients, "transport_for", lambda clients, deployment: upstream)
    clock, records, stalls = HandClock(), dict[str, Record](), list[Record]()

    def add(finished: Callable[[], FinishedRequest]) -> None:
        fields = as_logged(finished())
        records[fields["request_id"]] = {**fields, "ts": timestamp(clock() / 1e9)}

    async def main() -> None:
        added = f"  execution: {execution}\n  stages:\n    - {{use: hold_loop, after: decode_events}}\n"
        models = "".join(model(name, "http://up", upstream=f"deepseek/{name}") for name in [*WANTED, "blocked-loop"])
        settings = parse_settings(CONFIG.format(models=models, pipeline=added, key=KEY), source="test", environ={})
        hold_loop = Plugin("hold_loop", lambda _: make_hold_loop(clock.hold), NoOptions)
        app = Generation(settings, plugins={"hold_loop": hold_loop}, on_end=add)
        app.bridge.clock = clock

        async def post(name: str, arrived_ns: int = 0) -> None:
            client = Client(name, clock, arrived_ns or clock())
            await app.bridge(client.scope, client._next, client._take)

        def note(stall: Stall) -> None:
            figures = {"stage": stall.stage, "request_id": stall.request_id, "ms": stall.ns / 1e6}
            stalls.append({**figures, "ts": timestamp(clock() / 1e9)})

        with watch_loop(note, clock):
            for name in ("slow-head", "slow-tokens", "paused-client", "burning-stage"):
                await post(name)
            await trio.lowlevel.checkpoint()
            stalls.clear()
            arrives_ns = clock() + 10_000_000
            await post("blocked-loop")
            await post("victim", arrives_ns)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert_blamed(records, [stall for stall in stalls if stall["stage"]], {})
