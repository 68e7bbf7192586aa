"""The ASGI application: the chat routes go to a bridge, everything else to the admin paths or the pages.

It is a plain ASGI application that any server can run; our own (`pipeline.gateway.http.server`) runs it fastest. What
answers a request is made of the configuration, and belongs to the generation that is current when the request comes
(`pipeline.gateway.generations`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import trio

from pipeline.gateway.admin.dispatch import Admin
from pipeline.gateway.bridge import OnEnd
from pipeline.gateway.config.settings import Settings
from pipeline.gateway.generations import Generations
from pipeline.gateway.http.asgi import Receive, Scope, Send
from pipeline.gateway.http.door import Answers, OwnAnswer
from pipeline.gateway.http.http1 import RequestHead
from pipeline.gateway.page_shapes import Readiness
from pipeline.gateway.pages import Pages, access_of
from pipeline.gateway.routes import ALIVE_PATHS, READY_PATHS, raw_path_of, served_path_of
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from pipeline.segments import SegmentFile
from stages.admission.counts import Counts


class Application:
    """The whole service as an ASGI application.

    Args:
        settings: the configuration, resolved.
        plugins: the stages that are installed, by name.
        on_end: called at the end of each request with what makes a `FinishedRequest` of it.
        counts: where limits are counted together with other processes; None to count here only.
        observed: counts the requests of this process; None if nobody does.
        measurements: what all processes have counted, for ``/metrics`` and ``/latency``; None not to serve them.

    Attributes:
        generations: what answers requests.
        answers: the answers to health checks, by path: our own server gives them without the application.

    Raises:
        PluginError: if a configured stage does not exist or does not fit in its place.
        ConfigError: if there are more limits than can be counted.
        OSError: if ``ca_file`` cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        plugins: Mapping[str, AnyPlugin],
        on_end: OnEnd,
        counts: Counts | None = None,
        observed: Observed | None = None,
        measurements: SegmentFile | None = None,
    ) -> None:
        self.generations = Generations(settings, plugins=plugins, on_end=on_end, counts=counts, observed=observed)
        self.answers: Answers = {
            **dict.fromkeys(ALIVE_PATHS, self._alive),
            **dict.fromkeys(READY_PATHS, self._ready),
        }
        self._pages = Pages(self.answers)
        self._admin = None if measurements is None else Admin(measurements, lambda: access_of(self.generations.current))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch by path; the lifespan opens and closes what the generations need."""
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        served, generation = served_path_of(raw_path_of(scope)), self.generations.current
        if served is not None and served.kind == "chat" and scope["method"] == "POST":
            return await generation.bridge(scope, receive, send, model_in_path=served.model)
        if served is not None and served.kind == "admin":
            if self._admin is not None:
                return await self._admin(scope, receive, send)
            served = None
        await self._pages(served, generation, scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open what requests need, and close it when the server ends."""
        await receive()
        try:
            await self.generations.open()
        except Exception as error:  # of a plugin, a store or a library: the server says so and ends
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        try:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        finally:
            with trio.CancelScope(shield=True):  # all that it closes has a time limit
                await self.generations.close()
        await send({"type": "lifespan.shutdown.complete"})

    def shed(self, head: RequestHead) -> OwnAnswer | None:
        """Return how a chat request is refused while the loop is overloaded; None for any other request."""
        if head.method != "POST" or (served := served_path_of(head.raw_path)) is None or served.kind != "chat":
            return None
        return self.generations.current.bridge.shed(dict(head.headers))

    def _alive(self) -> OwnAnswer:
        return _ALIVE

    def _ready(self) -> OwnAnswer:
        if self.generations.is_draining:
            return _DRAINING
        return _READY if self.generations.is_open else _STARTING


def _answer(value: object, status: int = 200) -> OwnAnswer:
    body = msgspec.json.encode(value)
    return OwnAnswer(status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))], body)


_ALIVE = _answer("I'm alive!")
_READY = _answer(Readiness(status="healthy", db="Not connected"))
_STARTING = _answer(Readiness(status="starting"), 503)
_DRAINING = _answer(Readiness(status="draining"), 503)
