"""What a service says of itself when it is ready: what it serves and where, and what to click in Cursor."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from pipeline.gateway.config.settings import Settings
from pipeline.gateway.help_text import program_name
from pipeline.gateway.logs import Log, TextStyle, timestamp
from pipeline.study.tables import printable

SHOWN_MODELS: Final = 10
CURSOR_BASE_URL: Final = "https://YOUR-HOST/cursor"
_EVERYWHERE: Final = ("", "0.0.0.0", "::")
_NAME_COLUMNS: Final = 10


class Banner(Struct, frozen=True, kw_only=True):
    """The facts. None of them is a secret.

    Attributes:
        config: the configuration's file.
        models: the first names that clients can ask for.
        model_count: how many there are.
        warnings: how many warnings the configuration has, which the log has one by one.
        left_out: how many of them are about models that are left out.
        check: the command that shows them.
        workers: the processes that serve.
        cursor_base_url: what Cursor needs; its host is for the reader to fill in.
        sdk_base_url: what SDKs on this machine need.
        latency_page: where the time goes; None without a master key.
        has_keys: whether requests need a key.
    """

    config: str
    models: tuple[str, ...]
    model_count: int
    warnings: int
    left_out: int
    check: str
    workers: int
    cursor_base_url: str
    sdk_base_url: str
    latency_page: str | None
    has_keys: bool


def banner_of(settings: Settings, port: int) -> Banner:
    """Return what is to be said of a service that listens on a port."""
    own = settings.pipeline
    names = list(dict.fromkeys(deployment.model_name for deployment in settings.deployments))
    url = local_url(own.host, port, is_tls=own.tls_certfile is not None)
    return Banner(
        config=settings.source,
        models=tuple(names[:SHOWN_MODELS]),
        model_count=len(names),
        warnings=len(settings.warnings),
        left_out=sum("left out" in warning for warning in settings.warnings),
        check=f"{program_name()} check-config {shlex.quote(settings.source)}",
        workers=own.workers,
        cursor_base_url=CURSOR_BASE_URL,
        sdk_base_url=f"{url}/v1",
        latency_page=f"{url}/latency" if settings.master_key is not None else None,
        has_keys=settings.master_key is not None or bool(settings.keys),
    )


def local_url(host: str, port: int, *, is_tls: bool = False) -> str:
    """Return an address by which this machine reaches what listens on a host and a port."""
    if host in _EVERYWHERE:
        host = "127.0.0.1"
    return f"http{'s' * is_tls}://{f'[{host}]' if ':' in host else host}:{port}"


def write_banner(banner: Banner, log: Log) -> None:
    """Write it to a log: lines for people, or one record with ``"event": "serving"``."""
    if not log.writes_requests:
        return
    if log.is_json:
        head = f'{{"ts":"{timestamp(datetime.now(UTC).timestamp())}","event":"serving",'.encode()
        log.sink.write([head + msgspec.json.encode(banner)[1:]])
    else:
        log.sink.write(
            [line.encode("utf-8", "backslashreplace") for line in ("", *banner_lines(banner, log.style), "")]
        )


def banner_lines(banner: Banner, style: TextStyle) -> Iterator[str]:
    """Yield the lines for people."""
    workers = "" if banner.workers == 1 else f", {banner.workers} workers"
    yield style.paint(f"headrace is ready{workers}", "bold")
    yield _row("config", banner.config, style)
    more = banner.model_count - len(banner.models)
    models = ", ".join(map(printable, banner.models)) + (f" and {more} more" if more else "")
    yield _row("models", f"{banner.model_count}: {models}" if banner.model_count else "none", style)
    if banner.warnings:
        count = "1 warning" if banner.warnings == 1 else f"{banner.warnings} warnings"
        left_out = f", {banner.left_out} about models that are left out" if banner.left_out else ""
        yield _row("warnings", style.paint(f"{count}{left_out}", "ours") + f": {banner.check}", style)
    yield _row("SDKs", banner.sdk_base_url, style)
    if banner.latency_page is not None:
        yield _row("latency", f"{banner.latency_page} (asks for the master key)", style)
    yield ""
    yield from cursor_lines(
        banner.models, "the master key, or a key of pipeline_settings.keys" if banner.has_keys else None
    )


def cursor_lines(models: Sequence[str], key: str | None, *, doctor: str = "") -> Iterator[str]:
    """Yield what to click in Cursor.

    Args:
        models: names that clients can ask for; those with a * are left out.
        key: words for the key; None if any will do.
        doctor: arguments that ``headrace doctor`` needs as well.
    """
    names = [printable(name) for name in models if "*" not in name]
    yield "In Cursor (Settings > Models):"
    yield f"  OpenAI API Key            {key or 'any text, since requests need no key'}"
    yield f"  Override OpenAI Base URL  {CURSOR_BASE_URL}"
    yield f"  Add custom model          {', '.join(names) or 'a name that your configuration has'}"
    yield "Where Cursor does not offer that URL: Azure OpenAI, with Base URL https://YOUR-HOST, the same key, and as"
    yield f"Deployment Name one of these models{f', such as {names[0]}' if names else ''}."
    yield "Cursor calls from its own servers: YOUR-HOST must be reachable from the internet by https, through a tunnel"
    yield f"or a proxy in front of this port. `{program_name()} doctor https://YOUR-HOST{doctor}` checks that."


def _row(name: str, words: str, style: TextStyle) -> str:
    return f"  {style.paint(f'{name:{_NAME_COLUMNS}}', 'dim')}{words}"
