"""``headrace study --upstream URL``: a proxy in front of one upstream that says where the time of each request goes.

It is the service itself with one deployment, made in code: any model, any key, and each client's own headers passed on
(`Deployment.is_transparent`). Nothing is repeated, ejected, limited or refused: what the client would have seen of the
upstream it sees here too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.settings import PipelineSettings, Settings
from pipeline.gateway.config.urls import base_problem, endpoint_url
from pipeline.gateway.event_log import RecordLog
from pipeline.gateway.http.sockets import bind_socket
from pipeline.gateway.line_sink import LineSink
from pipeline.gateway.logs import Log, StallRecord
from pipeline.gateway.new_key import new_key
from pipeline.gateway.passing_on import LOOPBACK, PassingOn
from pipeline.gateway.request_record import RequestRecord
from pipeline.gateway.upstream_clients import proxy_in_environment
from pipeline.study.brief_line import brief_line, stall_line
from pipeline.study.recording import StudyError, header_now, new_file
from pipeline.study.tables import has_colour
from stages.routing.settings import RoutingSettings
from stages.upstreams import Deployment, Timeouts
from stages.upstreams.apis import APIS
from stages.upstreams.providers import PROVIDERS

HINT: Final = """\
headrace study passes {url}/v1 on to {upstream}, with each client's own key.
  client: OPENAI_BASE_URL={url}/v1
  page:   {url}/latency#key={key}
  why:    headrace why --slowest --url {url} --key {key}
"""
MAX_CONNECTIONS: Final = 1000
GRACEFUL_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 600.0
"""A client that does not read for so long is cut off. The usual limit is for servers, which many such clients fill."""


def study_upstream(
    upstream: str,
    *,
    api: str = "chat",
    host: str = "127.0.0.1",
    port: int | None = None,
    file: str | None = None,
    is_json: bool = False,
) -> int:
    """Serve until a signal ends it; return the exit status.

    Args:
        upstream: its address, with or without the version and the endpoint.
        api: the API that is spoken with it, one of `APIS`.
        host: the address to listen on.
        port: the port; None for the usual one, or any free one if that is taken.
        file: where a recording is written; None for none.
        is_json: whether records are printed as JSON lines.

    Raises:
        CommandError: if the address of the upstream cannot be used, or the file exists.
        OSError: if the file cannot be written, or the address cannot be bound.
    """
    from pipeline.gateway.service import serve  # here because it takes half a second

    deployment = deployment_of(upstream, api)
    key = new_key()
    settings = settings_of(deployment, key=key, host=host, port=_free_port(host) if port is None else port)
    with ExitStack() as opened:
        logs: list[RecordLog] = [_printed(is_json=is_json)]
        if file is not None:
            recording = opened.enter_context(_new_file(file))
            logs.append(_recording(recording, deployment))

        def hint(host: str, port: int) -> None:
            shown = f"[{host}]" if ":" in host else host
            base = deployment.url.partition("?")[0].removesuffix(APIS[api].endpoint)
            sys.stderr.write(HINT.format(url=f"http://{shown}:{port}", upstream=base, key=key))
            if host not in LOOPBACK:
                sys.stderr.write("  others can reach this address, and use the upstream if it asks for no key\n")
            sys.stderr.flush()

        return serve(
            settings,
            plugins={},
            on_listening=hint,
            records=RecordLogs(logs),
            around=partial(PassingOn, upstream=deployment, proxy=settings.pipeline.proxy),
        )


def deployment_of(upstream: str, api: str) -> Deployment:
    """Return the only deployment: whatever model is asked for, at this upstream.

    Raises:
        CommandError: if the address cannot be used.
    """
    if "://" not in upstream:  # `localhost:8000`, as people write it
        is_local = urlsplit(f"//{upstream}").hostname in LOOPBACK
        upstream = f"{'http' if is_local else 'https'}://{upstream}"
    if (problem := base_problem(upstream)) is not None:
        problem = problem.replace("remove it, and set the key as api_key", "remove it: the client sends the key")
        raise CommandError(f"--upstream: {problem}")
    # By the host it is known whether `openai` is OpenAI itself (`providers.quirks_of`).
    provider = "anthropic" if api == "anthropic" else "openai"
    return Deployment(
        id="upstream",
        model_name="*",
        model="*",
        provider=provider,
        kind=api,
        url=endpoint_url(upstream, PROVIDERS[provider], APIS[api]),
        headers=APIS[api].headers,
        timeouts=Timeouts(headers_s=None, first_event_s=None, idle_s=None),
        is_chat=True,
        is_transparent=True,
    )


def settings_of(deployment: Deployment, *, key: str, host: str, port: int) -> Settings:
    """Return the settings of the proxy, in which nothing is between the client and its upstream.

    Args:
        deployment: the upstream.
        key: for the pages about the figures.
        host, port: where to listen.
    """
    own = PipelineSettings(
        host=host,
        port=port,
        proxy=_proxy_to(deployment),
        max_connections=MAX_CONNECTIONS,
        allow_anonymous=True,
        key_header="authorization",
        allowed_origins=(),
        restore_reasoning=False,
        keep_alive_interval_s=0.0,
        max_lag_ms=0.0,
        write_timeout_s=WRITE_TIMEOUT_S,
        graceful_timeout_s=GRACEFUL_S,
        trace_one_in=1,
        log_format="text",
        log_level="error",  # stalls, which are warnings, are among the lines
    )
    return Settings(
        deployments=(deployment,),
        master_key=key,
        pipeline=own,
        routing=RoutingSettings(num_retries=0, has_cooldowns=False),
        source="headrace study",
    )


def _proxy_to(deployment: Deployment) -> str | None:
    """Return the proxy that the client would use to call the upstream itself."""
    url = httpx.URL(deployment.url)
    return None if url.host in LOOPBACK else proxy_in_environment(url)


class RecordLogs:
    """Several logs of records as one."""

    def __init__(self, logs: Sequence[RecordLog]) -> None:
        self._logs = tuple(logs)

    def requests(self, records: Sequence[RequestRecord], ended_s: Sequence[float], lines: Sequence[bytes]) -> None:
        """Write finished requests to each."""
        for log in self._logs:
            log.requests(records, ended_s, lines)

    def stall(self, record: StallRecord, noted_s: float) -> None:
        """Write a stall to each."""
        for log in self._logs:
            log.stall(record, noted_s)


class BriefLog:
    """Writes a line for people for each request and each stall.

    Args:
        sink: takes the lines.
        has_colour: whether a terminal shows them.
    """

    def __init__(self, sink: LineSink, *, has_colour: bool) -> None:
        self._sink = sink
        self._has_colour = has_colour

    def requests(self, records: Sequence[RequestRecord], ended_s: Sequence[float], lines: Sequence[bytes]) -> None:
        """Write finished requests."""
        self._sink.write(
            [
                _encoded(brief_line(msgspec.to_builtins(record), at_s, has_colour=self._has_colour))
                for record, at_s in zip(records, ended_s, strict=True)
            ]
        )

    def stall(self, record: StallRecord, noted_s: float) -> None:
        """Write a stall."""
        self._sink.write([_encoded(stall_line(msgspec.to_builtins(record), noted_s, has_colour=self._has_colour))])


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


def _printed(*, is_json: bool) -> RecordLog:
    sink = LineSink(sys.stdout.fileno())
    if is_json:
        return Log(sink, "json", "info")
    return BriefLog(sink, has_colour=has_colour(is_terminal=sys.stdout.isatty()))


def _recording(fd: int, deployment: Deployment) -> RecordLog:
    """Begin a recording in an empty file."""
    sink = LineSink(fd)
    sink.write([msgspec.json.encode(header_now(deployment.url.partition("?")[0], headrace=version("headrace")))])
    return Log(sink, "json", "info")


@contextmanager
def _new_file(name: str) -> Generator[int]:
    """Open a new file to write to.

    Raises:
        CommandError: if it exists or cannot be written.
    """
    if name.endswith((".zst", ".gz")):
        raise CommandError(f"--record {name}: a recording is written as it is; compress it when it is complete")
    try:
        fd = new_file(name)
    except StudyError as error:
        raise CommandError(f"--record: {error}") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _free_port(host: str) -> int:
    """Return the usual port, or 0, which stands for any free one, if somebody has that."""
    usual = PipelineSettings().port
    try:
        bind_socket(host, usual).close()
    except OSError:
        return 0
    return usual
