"""What is measured with real proxies: each question, with the file of ``deploy/`` and with typical mistakes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from kit.service.proxies import CADDY, HAPROXY, NGINX, Edits, Proxy

Question = Literal["buffering", "disconnect", "idle", "large body", "drain"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
PROXIES = (NGINX, HAPROXY, CADDY)

SILENT_LIMIT_S = 3
"""The longest silence that the proxies allow in the trials of it, so that they take seconds."""
_COMMENTS = "keep_alive_interval_s: 0.5"
_NO_COMMENTS = "keep_alive_interval_s: 0"
_DELAY = "shutdown_delay_s: 6"
"""What the comments in ``deploy/`` say for several servers behind a proxy that checks /readyz."""


@dataclass(frozen=True)
class Trial:
    """A question to a proxy with one configuration.

    Attributes:
        question: what is measured.
        proxy: which one.
        setting: what its configuration is, for people.
        is_good: whether what is measured must be good.
        edits: of the file in ``deploy/``.
        headrace: in ``pipeline_settings``.
        restarts: of drains: whether all servers are restarted (SIGUSR1). Else one is stopped, and started again.
        servers: of drains: how many servers there are behind the proxy.
    """

    question: Question
    proxy: Proxy
    setting: str
    is_good: bool
    edits: Edits = field(default_factory=dict, hash=False)
    headrace: str = ""
    restarts: bool = False
    servers: int = 2

    def __str__(self) -> str:
        return f"{self.question}: {self.proxy.name}: {self.setting}"


def trials_of(question: Question) -> list[Trial]:
    """Return the trials of a question: for each proxy the good ones, then the bad ones."""
    return [trial for trial in _TRIALS if trial.question == question]


def _good(question: Question) -> tuple[Trial, ...]:
    return tuple(Trial(question, proxy, "as in deploy/", True) for proxy in PROXIES)


def _after(place: str, text: str) -> Edits:
    return {place: f"{place}{text}"}


_IN_LOCATION = "proxy_http_version 1.1;"
_IN_FRONTEND = "http-request set-header X-Forwarded-Proto https"
_IN_REVERSE_PROXY = "lb_policy least_conn"

_BUFFERING = (
    *_good("buffering"),
    Trial("buffering", NGINX, "no `proxy_buffering off`", True, {"proxy_buffering off;": ""}),
    Trial(
        "buffering",
        NGINX,
        "the same, and `proxy_ignore_headers X-Accel-Buffering`",
        False,
        {"proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;"},
    ),
    Trial(
        "buffering",
        HAPROXY,
        "`http-response wait-for-body time 10s`",
        False,
        _after(_IN_FRONTEND, "\n    http-response wait-for-body time 10s"),
    ),
    Trial("buffering", CADDY, "`buffer_responses`", False, _after(_IN_REVERSE_PROXY, "\n\t\tbuffer_responses")),
)

_DISCONNECT = (
    *_good("disconnect"),
    Trial(
        "disconnect",
        NGINX,
        "`proxy_ignore_client_abort on`",
        False,
        _after(_IN_LOCATION, " proxy_ignore_client_abort on;"),
    ),
    Trial("disconnect", HAPROXY, "no `option abortonclose`", False, {"option abortonclose": ""}),
    Trial("disconnect", CADDY, "`flush_interval -1`", False, _after(_IN_REVERSE_PROXY, "\n\t\tflush_interval -1")),
)

_SHORT = f"{SILENT_LIMIT_S}s"
_SILENCES: tuple[tuple[Proxy, str, Edits], ...] = (
    (NGINX, f"`proxy_read_timeout {_SHORT}`", {"proxy_read_timeout 600s": f"proxy_read_timeout {_SHORT}"}),
    (HAPROXY, f"`timeout server {_SHORT}`", {"timeout server 600s": f"timeout server {_SHORT}"}),
    (CADDY, f"`read_timeout {_SHORT}`", _after("dial_timeout 5s", f"\n\t\t\tread_timeout {_SHORT}")),
)
_IDLE = tuple(
    Trial("idle", proxy, f"{setting}, `{comments}`", is_good, edits, comments)
    for comments, is_good in ((_COMMENTS, True), (_NO_COMMENTS, False))
    for proxy, setting, edits in _SILENCES
)

_LARGE_BODY = (
    *_good("large body"),
    Trial("large body", NGINX, "no `client_max_body_size`", False, {"client_max_body_size 100m;": ""}),
    Trial("large body", NGINX, "no `proxy_request_buffering off`", False, {"proxy_request_buffering off;": ""}),
    Trial(
        "large body",
        HAPROXY,
        "`http-request deny deny_status 413 if { req.body_size gt 1048576 }`",
        False,
        _after(_IN_FRONTEND, "\n    http-request deny deny_status 413 if { req.body_size gt 1048576 }"),
    ),
    Trial("large body", CADDY, "`request_body { max_size 1MB }`", False, {"max_size 100MB": "max_size 1MB"}),
)

_NO_CHECKS: Edits = {"health_uri /readyz": "", "health_interval 2s": "", "health_timeout 2s": ""}
_DRAIN = (
    *(Trial("drain", proxy, "as in deploy/, one server, SIGUSR1", True, restarts=True, servers=1) for proxy in PROXIES),
    Trial("drain", NGINX, "as in deploy/, two servers, SIGUSR1", True, restarts=True),
    Trial("drain", NGINX, "as in deploy/, one of two stops", True),
    *(
        Trial("drain", proxy, f"as in deploy/, one of two stops, `{_DELAY}`", True, headrace=_DELAY)
        for proxy in (HAPROXY, CADDY)
    ),
    Trial(
        "drain",
        NGINX,
        "`proxy_next_upstream off`, one of two stops",
        False,
        {"proxy_next_upstream error timeout": "proxy_next_upstream off"},
    ),
    Trial(
        "drain",
        HAPROXY,
        f"no `check`, `retries 0`, no `option redispatch`, one of two stops, `{_DELAY}`",
        False,
        {" check\n": "\n", "retries 2": "retries 0", "option redispatch": ""},
        _DELAY,
    ),
    Trial("drain", CADDY, f"no `health_uri`, one of two stops, `{_DELAY}`", False, _NO_CHECKS, _DELAY),
)

_TRIALS: tuple[Trial, ...] = (*_BUFFERING, *_DISCONNECT, *_IDLE, *_LARGE_BODY, *_DRAIN)
