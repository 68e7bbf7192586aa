"""Which proxy is in front of a server, and the line of its configuration that mends a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SERVERS: Final = {
    "nginx": "nginx",
    "openresty": "nginx",
    "tengine": "nginx",
    "caddy": "Caddy",
    "haproxy": "HAProxy",
    "cloudflare": "Cloudflare",
    "envoy": "Envoy",
    "istio-envoy": "Envoy",
    "apache": "Apache",
    "awselb": "AWS ELB",
    "fly": "Fly.io",
    "vercel": "Vercel",
    "ngrok": "ngrok",
}
"""How the values of the headers Server and Via begin, in lower case."""

_HAPROXY_PAGE: Final = b"Your browser sent an invalid request."
"""In HAProxy's answer to what is not HTTP; it sends no Server header. Source: HAProxy 2.6, src/http.c."""
_GO_PAGE: Final = b"\r\n\r\n400 Bad Request"
"""The end of the answer of Go's net/http, which Caddy and Traefik are made of. Source: Go 1.19, net/http/server.go."""

NOT_HTTP: Final = b"HEADRACE-DOCTOR\r\n\r\n"
"""Is answered by the outermost server itself, whatever it forwards."""

REMEDIES: Final[dict[str, dict[str, str]]] = {
    "http version": {"nginx": 'proxy_http_version 1.1; proxy_set_header Connection "";'},
    "underscores": {
        "nginx": "underscores_in_headers on; (in http or server)",
        "HAProxy": "delete the lines `option http-restrict-req-hdr-names delete`, `... reject`",
    },
    "client address": {
        "nginx": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "HAProxy": "option forwardfor",
        "Caddy": "delete `header_up -X-Forwarded-For`",
    },
    "authorization": {
        "nginx": "delete `proxy_set_header Authorization ...` and `auth_basic`",
        "HAProxy": "delete `http-request set-header Authorization ...` and `http-request auth`",
        "Caddy": "delete `header_up Authorization ...` and `basicauth`",
    },
    "stream": {
        "nginx": "proxy_buffering off; and no `proxy_ignore_headers X-Accel-Buffering`",
        "HAProxy": "delete `http-response wait-for-body`, and `compression` or the type text/event-stream in it",
        "Caddy": "delete `response_buffers` or `buffer_responses`: event streams are sent at once by default",
        "Apache": "SetEnv proxy-sendchunked 1, ProxyPass ... flushpackets=on",
        "Cloudflare": "no Rules that buffer or transform responses for this host",
    },
    "compression": {
        "nginx": "gzip_types without text/event-stream (and without *), or `gzip off;` in the location",
        "HAProxy": "`compression type` without text/event-stream",
        "Caddy": "`encode` with `match { header Content-Type application/json* }`",
    },
    "idle": {
        "nginx": "proxy_read_timeout 600s",
        "HAProxy": "timeout server 600s and timeout client 600s",
        "Caddy": "no `read_timeout` or `response_header_timeout` below 600s in `transport http`",
        "Cloudflare": "nothing to set (120 s are fixed): headrace's comments must come more often",
    },
    "leaving": {
        "nginx": "delete `proxy_ignore_client_abort on;`",
        "HAProxy": "option abortonclose",
        "Caddy": "delete `flush_interval -1`: event streams are sent at once by default, and with it Caddy 2.6 reads "
        "on after a client has left",
    },
    "azure": {
        "nginx": "location /openai/deployments/ { proxy_pass ...; } as for /cursor/",
        "HAProxy": "the acl of the backend must also have `path_beg /openai/deployments/`",
        "Caddy": "the matcher of reverse_proxy must also have /openai/deployments/*",
    },
    "large body": {
        "nginx": "client_max_body_size 100m;",
        "HAProxy": "no rule that denies by `req.body_size` or Content-Length below 100 MiB",
        "Caddy": "request_body { max_size 100MB }",
        "Cloudflare": "the limit is that of the plan: 100 MB in Free and Pro",
    },
}
"""By check or topic, and proxy."""


def proxy_of(headers: Mapping[str, str], answer: bytes = b"") -> str | None:
    """Return the name of what is in front of headrace, as far as it says so.

    Args:
        headers: of an answer, names in lower case.
        answer: to `NOT_HTTP`.
    """
    if "cf-ray" in headers:
        return "Cloudflare"
    given = [headers.get("server", ""), *(via.strip().partition(" ")[2] for via in headers.get("via", "").split(","))]
    for value in given:
        for start, name in _SERVERS.items():
            if value.lower().startswith(start):
                return name
    if _HAPROXY_PAGE in answer:
        return "HAProxy"
    lines = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    inner = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if inner.get("server"):
        return proxy_of(inner)
    return "Caddy" if _GO_PAGE in answer else None


def remedy_for(topic: str, proxy: str | None) -> str:
    """Return what to write into the configuration of the proxy; for all that are known if it is not known."""
    known = REMEDIES[topic]
    if proxy in known:
        return f"{proxy}: {known[proxy]}"
    return "; ".join(f"{name}: {known[name]}" for name in ("nginx", "HAProxy", "Caddy") if name in known)
