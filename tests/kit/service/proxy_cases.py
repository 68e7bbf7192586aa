"""What is wrong with a proxy, as one edit of its configuration in ``deploy/``, and what doctor must find."""

from __future__ import annotations

import ssl
from collections.abc import Container, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kit.service.proxies import CADDY, HAPROXY, NGINX, Edits, Proxy, headrace_for_tests
from kit.service.running import KEY

from pipeline.gateway.doctor.findings import CHECKS, Finding
from pipeline.gateway.doctor.target import Plan, read_target
from pipeline.gateway.doctor.visit import visit

OTHER_KEY = "Bearer sk-another-key-0123456789"
_IN_LOCATION = "proxy_http_version 1.1;"
_IN_FRONTEND = "    http-request set-header X-Forwarded-Proto https\n"
_IN_SITE = "\trequest_body {"
_IN_REVERSE_PROXY = "\t\tlb_policy least_conn\n"
_ENCODE = """\
	encode {
		gzip
		minimum_length 1
		match {
			header Content-Type text/event-stream*
		}
	}
"""
_IN_TRANSPORT = "\t\t\tdial_timeout 5s\n"


@dataclass(frozen=True)
class Case:
    """A proxy that is configured badly.

    Attributes:
        proxy: which one.
        name: what is wrong.
        check, status: the finding.
        edits: of its configuration.
        scheme: of the URL that was typed.
        is_trusted: whether its certificate is one of a known authority.
        figure: text that must be in the finding.
    """

    proxy: Proxy
    name: str
    check: str
    status: str = "problem"
    edits: Edits = field(default_factory=dict)
    scheme: str = "https"
    is_trusted: bool = True
    figure: str = ""

    def __str__(self) -> str:
        return f"{self.proxy.name}: {self.name}"


def _added(place: str, text: str) -> Edits:
    return {place: f"{place} {text}" if not place.endswith("\n") else f"{place}{text}\n"}


CASES = (
    # nginx
    Case(
        NGINX,
        "`proxy_buffering on`, `proxy_ignore_headers X-Accel-Buffering`",
        "stream",
        edits={"proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"},
        figure="buffered",
    ),
    Case(
        NGINX,
        "`gzip on; gzip_types *`",
        "compression",
        "warning",
        {"gzip off;": "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;"},
        figure="gzip",
    ),
    Case(
        NGINX,
        "`proxy_read_timeout` shorter than the time between comments",
        "idle",
        edits={"proxy_read_timeout 600s;": "proxy_read_timeout 1500ms;"},
        figure="silent",
    ),
    Case(
        NGINX,
        "`client_max_body_size 1m`",
        "large body",
        edits={"client_max_body_size 100m;": "client_max_body_size 1m;"},
    ),
    Case(NGINX, "no `underscores_in_headers on`", "headers", "warning", {"underscores_in_headers on;": ""}),
    Case(
        NGINX,
        "`//` is refused",
        "double slash",
        "warning",
        _added(_IN_LOCATION, 'if ($request_uri ~ "//") { return 404; }'),
    ),
    Case(NGINX, "only `/cursor/` is routed", "azure", "warning", {"location / {": "location /cursor/ {"}),
    Case(NGINX, "plain http", "https", edits={" ssl;": ";"}, scheme="http"),
    Case(
        NGINX,
        "http is redirected to https, and http was typed",
        "redirect",
        edits={" ssl;": "; return 301 https://$host$request_uri;"},
        scheme="http",
    ),
    Case(NGINX, "a certificate of one's own", "https", is_trusted=False, figure="certificate"),
    Case(
        NGINX,
        "puts another `Authorization` into requests",
        "key",
        edits=_added(_IN_LOCATION, f'proxy_set_header Authorization "{OTHER_KEY}";'),
    ),
    Case(
        NGINX,
        "puts the master key into requests",
        "wrong key",
        edits=_added(_IN_LOCATION, f'proxy_set_header Authorization "Bearer {KEY}";'),
    ),
    Case(NGINX, "no `proxy_http_version 1.1`", "http version", "warning", {"proxy_http_version 1.1;": ""}),
    Case(
        NGINX,
        "no `X-Forwarded-For`",
        "client address",
        "warning",
        {"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;": ""},
    ),
    Case(
        NGINX,
        "`proxy_ignore_client_abort on`",
        "leaving",
        edits=_added(_IN_LOCATION, "proxy_ignore_client_abort on;"),
    ),
    Case(
        NGINX, "forwards to a port where nothing listens", "key", edits={"server 127.0.0.1:": "server 127.0.0.1:9; #"}
    ),
    # HAProxy
    Case(
        HAPROXY,
        "`http-response wait-for-body`",
        "stream",
        edits=_added(_IN_FRONTEND, "    http-response wait-for-body time 10s"),
        figure="buffered",
    ),
    Case(
        HAPROXY,
        "`compression type text/event-stream`",
        "compression",
        "warning",
        _added(_IN_FRONTEND, "    compression algo gzip\n    compression type text/event-stream"),
        figure="gzip",
    ),
    Case(
        HAPROXY,
        "`timeout server` shorter than the time between comments",
        "idle",
        edits={"timeout server 600s": "timeout server 1500ms"},
        figure="silent",
    ),
    Case(
        HAPROXY,
        "refuses bodies above 1 MiB",
        "large body",
        edits=_added(
            _IN_FRONTEND, "    http-request deny deny_status 413 if { req.hdr(content-length) -m int gt 1048576 }"
        ),
    ),
    Case(
        HAPROXY,
        "`option http-restrict-req-hdr-names delete`",
        "headers",
        "warning",
        _added(_IN_FRONTEND, "    option http-restrict-req-hdr-names delete"),
    ),
    Case(
        HAPROXY,
        "`//` is refused",
        "double slash",
        "warning",
        _added(_IN_FRONTEND, "    http-request deny deny_status 404 if { path -m sub // }"),
    ),
    Case(
        HAPROXY,
        "only `/cursor/` is routed",
        "azure",
        "warning",
        _added(_IN_FRONTEND, "    http-request deny deny_status 404 unless { path_beg /cursor/ }"),
    ),
    Case(HAPROXY, "plain http", "https", edits={" ssl crt": "  #"}, scheme="http"),
    Case(
        HAPROXY,
        "http is redirected to https, and http was typed",
        "redirect",
        edits={
            " ssl crt": "  #",
            **_added(_IN_FRONTEND, "    http-request redirect scheme https code 301"),
        },
        scheme="http",
    ),
    Case(HAPROXY, "a certificate of one's own", "https", is_trusted=False, figure="certificate"),
    Case(
        HAPROXY,
        "puts another `Authorization` into requests",
        "key",
        edits=_added(_IN_FRONTEND, f'    http-request set-header Authorization "{OTHER_KEY}"'),
    ),
    Case(HAPROXY, "no `option abortonclose`", "leaving", edits={"option abortonclose": ""}),
    Case(HAPROXY, "no `option forwardfor`", "client address", "warning", {"option forwardfor": ""}),
    # Caddy
    Case(
        CADDY,
        "`buffer_responses`",
        "stream",
        edits=_added(_IN_REVERSE_PROXY, "\t\tbuffer_responses"),
        figure="buffered",
    ),
    Case(
        CADDY,
        "`encode gzip` of event streams",
        "compression",
        "warning",
        {_IN_SITE: f"{_ENCODE}{_IN_SITE}"},
        figure="gzip",
    ),
    Case(
        CADDY,
        "`read_timeout` shorter than the time between comments",
        "idle",
        edits=_added(_IN_TRANSPORT, "\t\t\tread_timeout 1500ms"),
        figure="silent",
    ),
    Case(CADDY, "`request_body max_size 1MB`", "large body", edits={"max_size 100MB": "max_size 1MB"}),
    Case(
        CADDY,
        "`//` is refused",
        "double slash",
        "warning",
        {_IN_SITE: f'\t@twice expression {{uri}}.contains("//")\n\trespond @twice 404\n{_IN_SITE}'},
    ),
    Case(CADDY, "only `/cursor/` is routed", "azure", "warning", {"reverse_proxy 127": "reverse_proxy /cursor/* 127"}),
    Case(CADDY, "plain http", "https", edits={"https://127": "http://127", "\ttls ": "\t# tls "}, scheme="http"),
    Case(CADDY, "a certificate of one's own", "https", is_trusted=False, figure="certificate"),
    Case(
        CADDY,
        "puts another `Authorization` into requests",
        "key",
        edits=_added(_IN_REVERSE_PROXY, f'\t\theader_up Authorization "{OTHER_KEY}"'),
    ),
    Case(
        CADDY,
        "`header_up -X-Forwarded-For`",
        "client address",
        "warning",
        _added(_IN_REVERSE_PROXY, "\t\theader_up -X-Forwarded-For"),
    ),
    Case(CADDY, "`flush_interval -1`", "leaving", edits=_added(_IN_REVERSE_PROXY, "\t\tflush_interval -1")),
)

COMMENTS_S = 4.0
PLAN = Plan(
    tokens=6, gap_s=0.2, late_s=1.0, idle_s=COMMENTS_S + 1.5, body_bytes=2 * 1024 * 1024, leave_s=3.0, limit_s=20.0
)
"""As short as a busy machine allows. One comment comes in the silence; until then only the proxy can notice that a
client has left."""


@contextmanager
def headrace_for_doctor(folder: Path) -> Generator[int]:
    """Run a headrace that trusts the proxies of this machine; return its port."""
    settings = f"keep_alive_interval_s: {COMMENTS_S}, forwarded_allow_ips: [127.0.0.1]"
    models = "  - {model_name: agent, litellm_params: {model: canned/agent}}\n"
    with headrace_for_tests(folder, models, settings) as port:
        yield port


async def looked_at(url: str, tls: ssl.SSLContext, *, only: Container[str] = CHECKS) -> list[Finding]:
    """Return what doctor finds at an address, with the master key."""
    findings: list[Finding] = []
    await visit(read_target(url, KEY, tls), PLAN, datetime.now(UTC), findings.append, only=only)
    return findings
