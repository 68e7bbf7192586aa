"""What ``headrace doctor`` has found: one sentence for each check, and what to do unless all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

Status: TypeAlias = Literal["ok", "warning", "problem", "not tested"]

CHECKS: Final[dict[str, str]] = {
    "configuration": "the file can be used, and what it asks for and does not get",
    "keys": "there is a master key, and none of the keys can be guessed",
    "packages": "the extras that the configuration needs are installed",
    "open files": "the limit of descriptors against max_connections",
    "port": "it is free, or a headrace answers there",
    "workers": "as many as cores, or fewer",
    "memory": "what is configured against what this machine or container has",
    "disk": "the folder of the store of reasoning can be written and has room",
    "upstream": "the name of each upstream, the connection to it, and its certificate",
    "clock": "ours against the upstreams'",
    "model": "each deployment answers the shortest possible chat: its key is accepted and its model is known",
    "address": "the name that was typed into Cursor has public addresses",
    "https": "encryption, and the certificate",
    "redirect": "a request is answered where it is sent",
    "key": "GET /cursor/models with the key",
    "wrong key": "a key that nobody has is refused",
    "server": "what answers: headrace, and what is in front of it",
    "http version": "that of the proxy's requests to headrace",
    "headers": "those of a request arrive, none is lost",
    "client address": "headrace is told who the proxy's client is",
    "stream": "the parts of a stream arrive when they are sent: nothing buffers it",
    "compression": "nobody compresses the stream",
    "idle": "a stream on which only comments come survives",
    "leaving": "headrace notices when a client leaves",
    "cursor request": "a streamed request with Cursor's tools, to a real model",
    "azure": "the path and the header of Cursor's Azure settings",
    "large body": "a chat with images: 25 MiB",
    "double slash": "a base URL with a slash at its end",
}
"""All checks, in the order in which they are explained."""


class Finding(Struct, frozen=True, kw_only=True):
    """The result of one check.

    Attributes:
        check: one of `CHECKS`.
        status: of the check.
        about: which one, if there are several: a deployment, or the host of an upstream.
        measured: what was seen, with figures.
        remedy: what to do; empty if the status is ok.
    """

    check: str
    status: Status
    measured: str
    remedy: str = ""
    about: str = ""


Report = Callable[[Finding], object]
"""Called with each finding as soon as there is one."""


def ok(check: str, measured: str, *, about: str = "") -> Finding:
    """Return the finding of a check that has passed."""
    return Finding(check=check, status="ok", measured=measured, about=about)


def warning(check: str, measured: str, remedy: str, *, about: str = "") -> Finding:
    """Return the finding of a check that has found what can be lived with."""
    return Finding(check=check, status="warning", measured=measured, remedy=remedy, about=about)


def problem(check: str, measured: str, remedy: str, *, about: str = "") -> Finding:
    """Return the finding of a check that has found what must be mended."""
    return Finding(check=check, status="problem", measured=measured, remedy=remedy, about=about)


def untested(check: str, why: str, remedy: str = "", *, about: str = "") -> Finding:
    """Return the finding of a check that could not be made, and how it could."""
    return Finding(check=check, status="not tested", measured=why, remedy=remedy, about=about)


def exit_status(findings: Iterable[Finding]) -> int:
    """Return that of the command: 1 if there is a problem, else 0."""
    return int(any(finding.status == "problem" for finding in findings))
