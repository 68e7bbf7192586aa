"""What clients lose through a real proxy when a headrace behind it is stopped or restarted, and started again."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import trio
from kit.clients.chat_posts import CREATED, completed, delta
from kit.clients.short_requests import ShortRequests
from kit.deploy.proxy_settings import Trial
from kit.deploy.proxy_trials import WHOLE, Site, Upstream, end_of
from kit.service.certificates import issue
from kit.service.command import Command, configured, headrace_serve
from kit.service.proxies import proxied
from kit.service.running import model
from kit.time.patience import patiently_with_processes
from kit.upstreams.scripted import Exchange, end, scripted_upstream, sse, sse_head

STREAMS, KEPT, NEW = 3, 2, 1
"""Clients of each proxy: of long streams, and of short requests on connections that they keep or on new ones."""
SHORT_PAUSE_S = 0.2
EVENTS, GAP_S = 20, 0.1
"""Of a long stream."""
WORDS = "again " * EVENTS
SOME = 10
"""So many short requests show that a proxy passes requests on."""
AGAIN = "again"
CANNED = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"


@dataclass(frozen=True)
class Drained:
    """What became of the requests.

    Attributes:
        streams: how many long streams were whole.
        answered: how many short requests were answered.
        lost: what became of each of the others, and how many.
        slowest_s: the longest short request.
    """

    streams: int
    answered: int
    lost: Counter[str]
    slowest_s: float

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost

    def __str__(self) -> str:
        total = self.streams + self.answered + self.lost.total()
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.lost.items()))
        lost = f"{self.lost.total()} lost ({reasons})" if reasons else "0 lost"
        slowest = f"the slowest short one {self.slowest_s:.1f} s"
        return f"{total} requests, {self.streams} of them long streams: {lost}; {slowest}"


class Load:
    """All clients of one proxy."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.short = ShortRequests(site.open, pause_s=SHORT_PAUSE_S)
        self.streams = 0
        self.lost: list[str] = []
        self.begun: Counter[str] = Counter()
        """Streams that have reached the upstream, by the server that they came from."""
        self._ended = trio.Event()

    async def run(self) -> None:
        """Run all clients until `stop`."""
        async with trio.open_nursery() as nursery:
            for _ in range(KEPT):
                nursery.start_soon(self.short.send_on)
            for _ in range(NEW):
                nursery.start_soon(self.short.send_anew)
            for number in range(STREAMS):
                nursery.start_soon(self._stream_on, number)
        self._ended.set()

    async def stop(self) -> None:
        """Begin nothing anymore, and wait for the end of what has begun."""
        self.short.is_over = True
        with patiently_with_processes():
            await self._ended.wait()

    def drained(self) -> Drained:
        """Return what has become of all requests."""
        lost = [f"short: {one}" for one in self.short.lost] + [f"stream: {one}" for one in self.lost]
        return Drained(self.streams, self.short.answered, Counter(lost), self.short.slowest_s)

    async def _stream_on(self, number: int) -> None:
        await trio.sleep(EVENTS * GAP_S * number / STREAMS)
        while not self.short.is_over:
            async with await self._site.post(self._long) as client:
                if (ended := await end_of(client, WORDS)) == WHOLE:
                    self.streams += 1
                else:
                    self.lost.append(ended)
                    await trio.sleep(SHORT_PAUSE_S)  # else it would be in a loop

    async def _long(self, exchange: Exchange) -> None:
        self.begun[exchange.request.path.split("/")[1]] += 1
        await exchange.send(sse_head())
        await exchange.send_chunk(sse(CREATED))
        for _ in range(EVENTS):
            await trio.sleep(GAP_S)
            await exchange.send_chunk(sse(delta("again ")))
        await exchange.send_chunk(sse(completed(WORDS)))
        await exchange.send(end())


async def drains(trials: Sequence[Trial], folder: Path) -> dict[Trial, Drained]:
    """Run trials at the same time; those for which the same happens to the servers share them."""
    pairs: dict[tuple[str, bool], list[Trial]] = {}
    for trial in trials:
        pairs.setdefault((trial.headrace, trial.restarts), []).append(trial)
    found: dict[Trial, Drained] = {}

    async def run(number: int, together: Sequence[Trial]) -> None:
        own = folder / f"pair-{number}"
        own.mkdir()
        found.update(await _Pair(together, own).run())

    async with trio.open_nursery() as nursery:
        for number, together in enumerate(pairs.values()):
            nursery.start_soon(run, number, together)
    return {trial: found[trial] for trial in trials}


class _Pair:
    """Two servers, the proxies of some trials in front of them, and their loads."""

    def __init__(self, trials: Sequence[Trial], folder: Path) -> None:
        self._trials = trials
        self._folder = folder
        self._loads: dict[Trial, Load] = {}

    async def run(self) -> dict[Trial, Drained]:
        """Stop the first server and start it again, or restart both, under load."""
        upstream, certificate = Upstream(), issue(self._folder)
        async with AsyncExitStack() as stack:
            url = (await stack.enter_async_context(scripted_upstream(upstream))).url
            servers = [await stack.enter_async_context(self._server(url, name)) for name in ("first", "second")]
            ports = [server.port for server in servers]
            for number, trial in enumerate(self._trials):
                folder = self._folder / f"proxy-{number}"
                folder.mkdir()
                proxy = proxied(trial.proxy, folder, certificate, ports[-trial.servers :], trial.edits)
                port = await stack.enter_async_context(proxy)
                self._loads[trial] = Load(Site(upstream, port, certificate, folder))
            async with trio.open_nursery() as nursery:
                for load in self._loads.values():
                    nursery.start_soon(load.run)
                await self._until(lambda load: load.begun.total() >= STREAMS and load.short.answered >= SOME)
                if self._trials[0].restarts:
                    await self._restart(servers)
                else:
                    await self._stop_and_start(servers[0], url)
        return {trial: load.drained() for trial, load in self._loads.items()}

    def _server(self, url: str, name: str, *options: str) -> AbstractAsyncContextManager[Command]:
        folder = self._folder / name
        folder.mkdir()
        text = configured(CANNED + model("up", f"{url}/{name}"), self._trials[0].headrace)
        return headrace_serve(folder, text, workers=1, command=("serve", *options))

    async def _restart(self, servers: Sequence[Command]) -> None:
        for server in servers:
            server.process.send_signal(signal.SIGUSR1)
        for server in servers:
            await server.logged(b"drained in")
        await self._end()

    async def _stop_and_start(self, server: Command, url: str) -> None:
        server.process.send_signal(signal.SIGTERM)
        assert await server.exit() == 0
        await self._progress()
        async with self._server(url, AGAIN, "--port", str(server.port)):
            await self._until(lambda load: load.begun[AGAIN] > 0)
            await self._end()

    async def _end(self) -> None:
        async with trio.open_nursery() as nursery:
            for load in self._loads.values():
                nursery.start_soon(load.stop)

    async def _progress(self) -> None:
        """Wait until each proxy has passed on some more requests."""
        before = {id(load): load.short.answered for load in self._loads.values()}
        await self._until(lambda load: load.short.answered >= before[id(load)] + SOME)

    async def _until(self, is_reached: Callable[[Load], bool]) -> None:
        with patiently_with_processes():
            while not all(map(is_reached, self._loads.values())):
                await trio.sleep(0.05)
