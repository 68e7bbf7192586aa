"""What a client sees through a real proxy, from a real ``headrace serve`` and a scripted upstream.

Each question has a function that measures one proxy. Upstream and client have the same clock.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CREATED, ask, completed, delta, post_bytes, response_of
from kit.clients.raw import RawClient
from kit.deploy.proxy_settings import SILENT_LIMIT_S, Question, Trial
from kit.service.certificates import Certificate, issue
from kit.service.command import configured, headrace_serve
from kit.service.proxies import proxied
from kit.service.running import model
from kit.time.patience import patiently
from kit.upstreams.scripted import Connection, Exchange, end, json_answer, scripted_upstream, sse, sse_head

GAP_S = 0.05
EVENTS = 30
GOES_ON_S = 4.0
"""How long a stream goes on, or does not begin, after its client has left."""
SILENCE_S = SILENT_LIMIT_S + 1.5
BODY_BYTES = 25 * 1024 * 1024

Answer = Callable[[Exchange], Awaitable[None]]


class Upstream:
    """Answers each request as its trial says; a request's text names it."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []

    def expect(self, answer: Answer) -> str:
        """Have the request with the returned text answered so."""
        self._answers.append(answer)
        return f"request-{len(self._answers) - 1}."

    async def __call__(self, exchange: Exchange) -> None:
        named = re.search(rb"request-(\d+)\.", exchange.request.body)
        assert named is not None
        await self._answers[int(named[1])](exchange)


@dataclass(frozen=True)
class Site:
    """A proxy with headrace and an upstream behind it."""

    upstream: Upstream
    port: int
    certificate: Certificate
    folder: Path

    async def open(self) -> RawClient:
        """Return a connection to the proxy."""
        client = await RawClient.open(("127.0.0.1", self.port), tls=self.certificate.trusting)
        client.is_through_proxy = True
        return client

    async def post(self, answer: Answer, *, padding: str = "", stream: bool = True) -> RawClient:
        """Return a connection on which a request was sent that the upstream answers so."""
        client = await self.open()
        text = self.upstream.expect(answer)
        body = ask(input=f"{text}{padding}", stream=stream)
        try:
            await client.send(post_bytes(body, host="127.0.0.1"))
        except BaseException:
            client.close()
            raise
        return client


# --- buffering -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lag:
    """How much later than they were sent the events of a stream came, in milliseconds."""

    median_ms: float
    largest_ms: float

    @property
    def is_good(self) -> bool:
        """Whether they came as they were sent: if they come at the end, half of them are late by half of its length."""
        return self.median_ms < EVENTS * GAP_S * 1000 / 4

    def __str__(self) -> str:
        return f"largest lag {self.largest_ms:.0f} ms, median {self.median_ms:.0f} ms"


async def buffering(site: Site) -> Lag:
    """Compare when each event of a paced stream came with when it was sent."""
    sent: list[float] = []
    lags_ms: list[float] = []

    async def paced(exchange: Exchange) -> None:
        await exchange.send(sse_head())
        await exchange.send_chunk(sse(CREATED))
        for number in range(EVENTS):
            sent.append(trio.current_time())
            await exchange.send_chunk(sse(delta(f"token-{number}.")))
            await trio.sleep(GAP_S)
        await exchange.send_chunk(sse(completed(words)))
        await exchange.send(end())

    words = "".join(f"token-{number}." for number in range(EVENTS))
    async with await site.post(paced) as client:
        for number in range(EVENTS):
            await client.read_until(b"token-%d." % number)
            lags_ms.append((trio.current_time() - sent[number]) * 1000)
    return Lag(median(lags_ms), max(lags_ms))


# --- disconnect ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """How long after its client had left the upstream's connection was closed, in milliseconds; None: never.

    Attributes:
        streaming_ms: if the client leaves in mid-stream.
        waiting_ms: if it leaves before the answer begins.
    """

    streaming_ms: float | None
    waiting_ms: float | None

    @property
    def is_good(self) -> bool:
        """Whether the upstream was spared something in both cases."""
        return self.streaming_ms is not None and self.waiting_ms is not None

    def __str__(self) -> str:
        return f"in mid-stream {_noticed(self.streaming_ms)}, before the first byte {_noticed(self.waiting_ms)}"


def _noticed(after_ms: float | None) -> str:
    return "not noticed" if after_ms is None else f"{after_ms:.0f} ms"


async def disconnect(site: Site) -> Left:
    """Leave, and see whether the upstream could have spared the rest of its answer, and when it is told."""
    after_ms: list[float | None] = [None, None]

    async def leave(at: int, begins: bool) -> None:
        connections: list[Connection] = []
        has_begun, is_told = trio.Event(), trio.Event()

        async def long(exchange: Exchange) -> None:
            connections.append(exchange.request.connection)
            try:
                if begins:
                    await exchange.send(sse_head())
                    await exchange.send_chunk(sse(CREATED))
                has_begun.set()
                until = trio.current_time() + GOES_ON_S
                while trio.current_time() < until:
                    if begins:
                        await exchange.send_chunk(sse(delta("again ")))
                    await trio.sleep(GAP_S)
                if not begins:
                    await exchange.send(sse_head())
                is_told.set()
                await trio.sleep_forever()
            finally:
                is_told.set()

        async with await site.post(long) as client:
            with patiently():
                await has_begun.wait()
            if begins:
                await client.read_until(b"again ")
            left_at = trio.current_time()
        with patiently():
            await is_told.wait()
        if (closed_at := connections[0].closed_at) is not None:
            after_ms[at] = (closed_at - left_at) * 1000

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave, 0, True)
        nursery.start_soon(leave, 1, False)
    return Left(*after_ms)


# --- idle ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """How streams end that are silent for longer than the proxy's limit: "whole", or how they are cut.

    Attributes:
        waiting: one whose upstream is silent before its answer begins.
        streaming: one that is silent in mid-stream.
    """

    waiting: str
    streaming: str

    @property
    def is_good(self) -> bool:
        """Whether both were whole."""
        return self.waiting == self.streaming == WHOLE

    def __str__(self) -> str:
        if self.is_good:
            return f"whole after {SILENCE_S:g} s of silence, before the first byte and in mid-stream"
        return f"before the first byte {self.waiting}, in mid-stream {self.streaming}"


WHOLE = "whole"


async def idle(site: Site) -> Cut:
    """Be silent, before the answer begins and in mid-stream."""
    ends = ["", ""]

    async def silent(at: int, before_s: float, within_s: float) -> None:
        async def answer(exchange: Exchange) -> None:
            await trio.sleep(before_s)
            await exchange.send(sse_head())
            await exchange.send_chunk(sse(CREATED) + sse(delta("Hello, ")))
            await trio.sleep(within_s)
            await exchange.send_chunk(sse(delta("you")) + sse(completed("Hello, you")))
            await exchange.send(end())

        async with await site.post(answer) as client:
            began = trio.current_time()
            ends[at] = await end_of(client, "Hello, you")
            if ends[at] != WHOLE:
                ends[at] += f" after {trio.current_time() - began:.1f} s"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(silent, 0, SILENCE_S, 0)
        nursery.start_soon(silent, 1, 0, SILENCE_S)
    return Cut(*ends)


async def end_of(client: RawClient, words: str) -> str:
    """Return how a stream ended."""
    try:
        head = await client.read_head()
        if head.status != 200:
            return f"status {head.status}"
        folded = fold_stream(await client.read_chunks())
    except (AssertionError, trio.BrokenResourceError):
        return "cut"
    if folded.error is not None:
        return f"error {folded.error['code']}"
    return WHOLE if folded.is_done and folded.content == words else "not complete"


# --- large body ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Passed:
    """What became of a large body.

    Attributes:
        status: of the response; None if the connection was reset.
        after_s: when the upstream had all of it.
        in_files: bytes in files of the proxy at that time.
    """

    status: int | None
    after_s: float
    in_files: int

    @property
    def is_good(self) -> bool:
        """Whether it has passed, and nothing of it was written into files."""
        return self.status == 200 and self.in_files == 0

    def __str__(self) -> str:
        if self.status != 200:
            return "refused: connection reset" if self.status is None else f"refused: status {self.status}"
        files = f"{self.in_files / 2**20:.0f} MiB of it in" if self.in_files else "nothing in"
        return f"at the upstream after {self.after_s:.1f} s, {files} files of the proxy"


async def large_body(site: Site) -> Passed:
    """Send 25 MiB."""
    arrived_at, in_files = 0.0, 0

    async def small(exchange: Exchange) -> None:
        nonlocal arrived_at, in_files
        arrived_at = trio.current_time()
        assert len(exchange.request.body) > BODY_BYTES
        in_files = _bytes_in_files_of(site.folder)
        await exchange.send(json_answer(response_of("Hello")))

    began = trio.current_time()
    try:
        async with await site.post(small, padding="x" * BODY_BYTES, stream=False) as client:
            status = (await client.read_answer()).status
    except (AssertionError, trio.BrokenResourceError):
        return Passed(None, 0, 0)
    return Passed(status, arrived_at - began, in_files)


def _bytes_in_files_of(folder: Path) -> int:
    """Return the size of all files in a folder that a process has open; nginx deletes them when it creates them."""
    size = 0
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # closed meanwhile
            if os.readlink(fd).startswith(f"{folder}/client_body/"):
                size += fd.stat().st_size
    return size


# --- all -------------------------------------------------------------------------------------------------------------

Measured = Lag | Left | Cut | Passed
_MEASURES: dict[Question, Callable[[Site], Awaitable[Measured]]] = {
    "buffering": buffering,
    "disconnect": disconnect,
    "idle": idle,
    "large body": large_body,
}


async def measured(trials: Sequence[Trial], folder: Path) -> dict[Trial, Measured]:
    """Run trials at the same time, except those with large bodies; return what was measured."""
    found: dict[Trial, Measured] = {}

    async def run(trial: Trial, site: Site) -> None:
        found[trial] = await _MEASURES[trial.question](site)

    async with _sites(trials, folder) as sites, trio.open_nursery() as nursery:
        for trial, site in sites.items():
            if trial.question == "large body":
                await run(trial, site)
            else:
                nursery.start_soon(run, trial, site)
    return {trial: found[trial] for trial in trials}


@asynccontextmanager
async def _sites(trials: Sequence[Trial], folder: Path) -> AsyncIterator[dict[Trial, Site]]:
    """Run the proxy of each trial, and one headrace for those that have the same settings of it."""
    upstream, certificate = Upstream(), issue(folder)
    async with AsyncExitStack() as stack:
        models = model("up", (await stack.enter_async_context(scripted_upstream(upstream))).url)
        ports: dict[str, int] = {}
        sites: dict[Trial, Site] = {}
        for number, trial in enumerate(trials):
            own = folder / f"trial-{number}"
            own.mkdir()
            if (settings := trial.headrace) not in ports:
                running = headrace_serve(own, configured(models, settings), workers=1)
                ports[settings] = (await stack.enter_async_context(running)).port
            (own / "proxy").mkdir()
            proxy = proxied(trial.proxy, own / "proxy", certificate, [ports[settings]], trial.edits)
            sites[trial] = Site(upstream, await stack.enter_async_context(proxy), certificate, own / "proxy")
        yield sites
