"""The address that was typed into Cursor, and what the probes of it share."""

from __future__ import annotations

import os
import ssl
from typing import Final

import httpx
from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.pipeline_section import LAST_PORT
from pipeline.gateway.doctor.server_page import ServerPage
from stages.upstreams.canned.probes import PROBE

USER_AGENT: Final = "Cursor/1.0"
"""Cursor's own (docs/facts/cursor.md)."""
WRONG_KEY: Final = "sk-headrace-doctor-wrong-key"


class Plan(Struct, frozen=True, kw_only=True):
    """How much is asked, and for how long.

    Attributes:
        tokens, gap_s: the stream that is timed.
        late_s: what of it is held back for longer is worth a warning: a network seldom does that.
        idle_s: for how long a stream is silent; 0 to leave that out.
        body_bytes: the size of the large body; 0 to leave that out.
        leave_s: how long is waited until headrace has noticed that a client has left.
        limit_s: for each probe, besides the time that it takes by itself.
        model: the real model that is asked; None for the first one that the server lists.
        asks_models: whether a real model is asked.
    """

    tokens: int = 12
    gap_s: float = 0.25
    late_s: float = 0.5
    idle_s: float = 75.0
    body_bytes: int = 25 * 1024 * 1024
    leave_s: float = 6.0
    limit_s: float = 60.0
    model: str | None = None
    asks_models: bool = True

    @property
    def span_s(self) -> float:
        """From the first token of the timed stream to its last."""
        return (self.tokens - 1) * self.gap_s


class Target(Struct, frozen=True, kw_only=True):
    """Where requests are sent, and with which key.

    Attributes:
        base: the base URL as it was typed, without a slash at its end.
        key: for the server; empty if none is known.
        tls: how certificates are checked.
    """

    base: httpx.URL
    key: str
    tls: ssl.SSLContext

    def url(self, path: str) -> str:
        """Return the address of a path below the base URL, as Cursor makes it."""
        return f"{self.base}{path}"

    @property
    def root(self) -> str:
        """The base URL without ``/cursor`` or ``/v1``: what Cursor's Azure settings take."""
        root = str(self.base)
        for end in ("/v1", "/cursor"):
            root = root.removesuffix(end)
        return root

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Return the headers of a request as Cursor sends them."""
        shown = self.key if key is None else key
        own = {"user-agent": USER_AGENT, "content-type": "application/json"}
        return {**own, "authorization": f"Bearer {shown}"} if shown else own

    def hide_key(self, text: str) -> str:
        """Return text of the server as it may be shown: on one line, not long, and without the key."""
        shown = " ".join(text.split())[:300]
        return shown.replace(self.key, "[redacted]") if self.key else shown

    def __repr__(self) -> str:
        """Return the address without the key."""
        return f"<Target {self.base}>"


class Visit(Struct, frozen=True, kw_only=True):
    """What is known of a server after the first requests.

    Attributes:
        target: where it is.
        client: sends the requests.
        plan: how much is asked.
        proxy: what is in front of it, if it says so.
        page: how headrace has seen a request; None if it is not headrace, or the key is not its master key.
        models: the names that it lists.
    """

    target: Target
    client: httpx.AsyncClient
    plan: Plan
    proxy: str | None = None
    page: ServerPage | None = None
    models: tuple[str, ...] = ()

    def probe_model(self, script: str) -> str:
        """Return the name of a model that answers by a script; only with a ``page``."""
        return f"{PROBE}:{script}"


def read_target(text: str, key: str, tls: ssl.SSLContext) -> Target:
    """Return the address that was typed; without a scheme it is https.

    Raises:
        CommandError: if it is not a URL.
    """
    try:
        url = httpx.URL(text if "://" in text else f"https://{text}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if "://" not in text and os.path.isfile(text):
        raise CommandError(f"{text} is a file: write --config {text}; what stands alone is the URL of a server")
    if url.port is not None and url.port > LAST_PORT:
        raise CommandError(f"URL has a port that does not exist: the last one is {LAST_PORT}")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise CommandError(
            "URL is not a base URL: write what is in Cursor's field Override OpenAI Base URL, such as "
            "https://gateway.example.com/cursor"
        )
    return Target(base=httpx.URL(str(url).rstrip("/")), key=key, tls=tls)
