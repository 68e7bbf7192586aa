"""The whole service in a test, on a real socket, in the test's own trio loop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio
from kit.openapi import check_answer
from kit.service.certificates import Certificate

from pipeline.gateway.app import Application
from pipeline.gateway.config.load import Settings, parse_settings
from pipeline.gateway.event_log import fold
from pipeline.gateway.failures import refusal
from pipeline.gateway.generation import Generation
from pipeline.gateway.http.asgi import App
from pipeline.gateway.http.server import hypercorn_config, serve
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.request_record import FinishedRequest, as_recorded, request_record
from pipeline.gateway.service import server_settings
from pipeline.observe import Observed
from pipeline.registry import AnyPlugin
from pipeline.segments import SegmentFile

Logged = dict[str, Any]
"""The record of a request, as the JSON log has it."""

KEY = "sk-test-master-key-0123456789"
PLAIN = False
"""httpx's ``verify``: the service speaks plain HTTP, and loading certificates would take 30 ms for each client."""
CONFIG = """\
model_list:
  - model_name: echo
    litellm_params: {{model: canned/echo}}
  - model_name: story
    litellm_params: {{model: canned/story}}
  - model_name: agent
    litellm_params: {{model: canned/agent}}
{models}
general_settings: {{master_key: {key}}}
router_settings: {{num_retries: 0}}
pipeline_settings:
  keys:
    - {{name: limited, key: sk-limited-key-0123456789, models: [echo, "team/*"]}}
{pipeline}
"""


def routed(settings: str) -> str:
    """Return the configuration with these ``router_settings``."""
    return CONFIG.replace("{{num_retries: 0}}", settings.replace("{", "{{").replace("}", "}}"))


@dataclass
class Service:
    """A running service and the records of its requests.

    Attributes:
        answers_alone: no application around it answers in its place.
    """

    url: str
    application: Application
    shutdown: trio.Event
    hard_stop: trio.Event
    ended: trio.Event = field(default_factory=trio.Event)
    records: list[Logged] = field(default_factory=list)
    recorded: trio.Event = field(default_factory=trio.Event)
    answers_alone: bool = True

    @property
    def app(self) -> Generation:
        """The current generation."""
        return self.application.generations.current

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def add_record(self, record: Logged) -> None:
        self.records.append(record)
        self.recorded.set()
        self.recorded = trio.Event()

    async def record(self, number: int = 0) -> Logged:
        """Wait for the record of the request with this number."""
        while len(self.records) <= number:
            await self.recorded.wait()
        return self.records[number]

    async def reload(
        self,
        models: str = "",
        pipeline: str = "",
        *,
        plugins: Mapping[str, AnyPlugin] | None = None,
        config: str = CONFIG,
    ) -> None:
        """Reload with another configuration, which is made as in `serving`."""
        settings = parse_settings(
            config.format(models=models, pipeline=pipeline, key=KEY), source="test.yaml", environ={}
        )
        await self.application.generations.reload(settings, plugins or {})

    async def post(
        self, body: Any, *, path: str = "/cursor/chat/completions", key: str | None = KEY, **headers: str
    ) -> httpx.Response:
        """Post a body (bytes as they are, anything else as JSON) and read the whole response.

        It is held to ``/openapi.json``, and so is that of `get`, unless another application may have answered.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, verify=PLAIN) as client:
            return self._checked(await client.post(path, content=content, headers=_encoded(headers, key)))

    async def get(self, path: str, *, method: str = "GET", key: str | None = KEY, **headers: str) -> httpx.Response:
        """Request a page."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30, trust_env=False, verify=PLAIN) as client:
            return self._checked(await client.request(method, path, headers=_encoded(headers, key)))

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if self.answers_alone:
            check_answer(answer)
        return answer


def _encoded(headers: dict[str, str], key: str | None) -> list[tuple[bytes, bytes]]:
    """Return the headers as bytes, so that httpx does not choose their encoding."""
    sent = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    if key is not None:
        sent[b"authorization"] = f"Bearer {key}".encode("latin-1")
    return list(sent.items())


def as_logged(finished: FinishedRequest) -> Logged:
    """Return the record of a request as the JSON log has it."""
    logged: Logged = json.loads(msgspec.json.encode(request_record(finished)))
    return logged


def as_kept(finished: FinishedRequest) -> Logged:
    """Return the same as recordings have it: with its batches, if it was traced."""
    record = request_record(finished)
    kept: Logged = json.loads(as_recorded(record, msgspec.json.encode(record), finished)[1])
    return kept


def model(name: str, url: str, *, upstream: str = "openai/gpt-5", **params: Any) -> str:
    """Return the configuration of one deployment."""
    given = {"model": upstream, "api_base": url, "api_key": "sk-upstream-secret-0123456789", **params}
    return f"  - model_name: {json.dumps(name)}\n    litellm_params: {json.dumps(given)}\n"


def replay(path: Path) -> str:
    """Return the configuration of one deployment that replays a recording and is named after its file."""
    params = {"model": f"canned/replay:{path}"}
    return f"  - model_name: {json.dumps(path.name)}\n    litellm_params: {json.dumps(params)}\n"


@asynccontextmanager
async def serving(
    models: str = "",
    pipeline: str = "",
    *,
    plugins: Mapping[str, AnyPlugin] | None = None,
    config: str = CONFIG,
    certificate: Certificate | None = None,
    change: Callable[[Settings], Settings] = lambda settings: settings,
    around: Callable[[App], App] = lambda app: app,
    is_measured: bool = False,
) -> AsyncIterator[Service]:
    """Run the service with the embedded models, ``models``, and ``pipeline`` added to ``pipeline_settings``.

    With a ``certificate`` it speaks TLS. ``change`` is applied to what the configuration was parsed to, ``around`` to
    the application. If it ``is_measured``, its requests are added up, which takes a dozen descriptors for as long as
    the garbage collector leaves them.
    """
    text = config.format(models=models, pipeline=pipeline, key=KEY)
    settings = change(parse_settings(text, source="test.yaml", environ={}))
    services: list[Service] = []
    measurements = SegmentFile.create(ring_bytes=0) if is_measured else None
    observed = Observed(measurements.claim(1)) if measurements is not None else None

    def note_end(finish: Callable[[], FinishedRequest]) -> None:
        finished = finish()
        if observed is not None:
            observed.end(finished.end)
            fold(finished, observed)
            observed.publish()
        services[0].add_record(as_logged(finished))

    app = Application(settings, plugins=plugins or {}, on_end=note_end, observed=observed, measurements=measurements)
    listener = bind_socket("127.0.0.1", 0)
    scheme, tls = "http", dict[str, str]()
    if certificate is not None:
        scheme, tls = "https", {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    outermost = around(app)
    url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    service = Service(url, app, trio.Event(), trio.Event(), answers_alone=outermost is app)
    services.append(service)
    limits = server_settings(settings.pipeline)

    async def run(task_status: trio.TaskStatus[list[str]]) -> None:
        await serve(
            outermost,
            hypercorn_config(limits, **tls),
            [listener],
            limits,
            make_refusal=refusal,
            answers=app.answers,
            shed=app.shed,
            shutdown=service.shutdown,
            hard_stop=service.hard_stop,
            on_shutdown=app.generations.drain,
            on_drain_deadline=app.generations.cut_off,
            task_status=task_status,
        )
        service.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        try:
            yield service
        finally:
            service.shutdown.set()
            service.hard_stop.set()
