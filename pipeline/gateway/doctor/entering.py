"""The first requests: the list of models, with the key and with a wrong one, and headrace's own view of a request."""

from __future__ import annotations

from typing import Final

import httpx
import msgspec
from msgspec import Struct

from pipeline.gateway.doctor.client import error_of, failure_text
from pipeline.gateway.doctor.findings import Finding, ok, problem, untested, warning
from pipeline.gateway.doctor.proxies import proxy_of, remedy_for
from pipeline.gateway.doctor.server_page import ServerPage
from pipeline.gateway.doctor.target import WRONG_KEY, Target, Visit

MODELS: Final = "/models"
HEADERS_SENT: Final[dict[str, str]] = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "x-cursor-conversation-id": "headrace-doctor",
    "x-cursor-request-id": "headrace-doctor",
    "x-headrace-doctor": "1",
    "x_headrace_doctor": "1",
}
"""What Cursor may send, and what an operator may want to come through."""


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


class FirstAnswer(Struct, frozen=True):
    """What the first request has shown.

    Attributes:
        findings: what was found.
        models: the names that are listed; None if nothing further can be asked.
        proxy: what is in front of the server, if it says so.
        page: how headrace sees a request; None if it does not say so.
    """

    findings: list[Finding]
    models: tuple[str, ...] | None = None
    proxy: str | None = None
    page: ServerPage | None = None


async def enter(client: httpx.AsyncClient, target: Target, nonsense: bytes) -> FirstAnswer:
    """List the models, and look at how requests arrive.

    Args:
        client: asks.
        target: is asked.
        nonsense: what was answered to what is not HTTP.
    """
    try:
        response = await client.get(target.url(MODELS), headers=target.headers())
    except httpx.HTTPError as error:
        found = problem("key", f"GET {target.url(MODELS)}: {failure_text(error)}", "see the log of the proxy")
        return FirstAnswer([found])
    if response.is_redirect:
        return FirstAnswer([_redirect(target, response)])
    proxy = proxy_of(dict(response.headers), nonsense)
    found = ok("redirect", f"{target.url(MODELS)} answers where it was asked")
    if response.status_code in (401, 403):
        return FirstAnswer([found, await _refused(client, target, response, proxy)])
    try:
        names = tuple(one.id for one in msgspec.json.decode(response.content, type=_Models).data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        names = None
    if response.status_code != 200 or names is None:
        said = error_of(response.content)
        why = f": {target.hide_key(said.message)}" if said else ", without a list of models"
        return FirstAnswer(
            [
                found,
                problem(
                    "key", f"GET {target.url(MODELS)}: status {response.status_code}{why}", _PATH if said else _PASS_ON
                ),
            ]
        )
    page = await _page(client, target)
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    key = ok("key", f"accepted; {len(names)} {'model' if len(names) == 1 else 'models'}: {shown}")
    if not names:
        key = warning("key", "accepted, but no model may be used with it", "see the key's `models`")
    return FirstAnswer([found, key], names, proxy, page)


_PATH: Final = (
    "type a base URL that ends in /cursor; if the proxy serves headrace below a path of its own, it must remove that "
    "path (nginx: `proxy_pass http://headrace/;`, with a slash)"
)
_PASS_ON: Final = (
    "is headrace up, and does the proxy send this path to it as it is? The base URL of headrace ends in /cursor"
)


def _redirect(target: Target, response: httpx.Response) -> Finding:
    location = str(target.base.join(response.headers.get("location", "")).copy_with(query=None))
    meant = location.removesuffix(MODELS)
    return problem(
        "redirect",
        f"{target.url(MODELS)} is redirected ({response.status_code}) to {location}: Cursor's POST would be lost",
        f"type {meant} into Cursor, and run doctor with it",
    )


async def _refused(client: httpx.AsyncClient, target: Target, response: httpx.Response, proxy: str | None) -> Finding:
    if not target.key:
        remedy = "write it after --key, or set the variable HEADRACE_MASTER_KEY"
        return problem("key", f"status {response.status_code}: none was sent, because none is known here", remedy)
    other = target.headers() | {"x-litellm-api-key": target.key}  # headrace prefers this one
    try:
        by_other = (await client.get(target.url(MODELS), headers=other)).status_code
    except httpx.HTTPError:
        by_other = 0
    if by_other == 200:
        return problem(
            "key",
            f"refused ({response.status_code}) in `Authorization`, but accepted in `x-litellm-api-key`: something on "
            "the way replaces or removes `Authorization`",
            remedy_for("authorization", proxy),
        )
    if error_of(response.content) is None:
        text = f"refused with status {response.status_code}, by what is not headrace (the answer is not its JSON)"
        return problem("key", text, remedy_for("authorization", proxy))
    return problem(
        "key",
        f"refused with status {response.status_code}",
        "use a key of the running configuration (reload after a change); a proxy must not replace `Authorization`",
    )


async def _page(client: httpx.AsyncClient, target: Target) -> ServerPage | None:
    """Return how headrace sees a request; None if it does not say so."""
    try:
        response = await client.get(target.url("/doctor"), headers=target.headers() | HEADERS_SENT)
        return msgspec.json.decode(response.content, type=ServerPage) if response.status_code == 200 else None
    except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError):
        return None


async def probe_wrong_key(visit: Visit) -> list[Finding]:
    """Ask with a key that nobody has."""
    target = visit.target
    response = await visit.client.get(target.url(MODELS), headers=target.headers(WRONG_KEY))
    return [judge_wrong_key(response.status_code, visit.page, visit.proxy)]


def judge_wrong_key(status: int, page: ServerPage | None, proxy: str | None) -> Finding:
    """Return whether a key that nobody has was refused."""
    if status in (401, 403):
        return ok("wrong key", f"refused with status {status}")
    if status != 200:
        return warning("wrong key", f"status {status}, not 401", "see the log of the proxy")
    if page is not None and page.allow_anonymous:
        return warning(
            "wrong key",
            "accepted, as everybody is: allow_anonymous is on",
            "set pipeline_settings.allow_anonymous: false before others can reach it",
        )
    return problem(
        "wrong key",
        "accepted: anyone can use the models, because a proxy puts a key of its own into the requests, or the server "
        "has no keys",
        remedy_for("authorization", proxy),
    )


NO_PAGE: Final = "only with the master key, and where GET /cursor/doctor is answered by headrace"


def judge_arrival(page: ServerPage | None, proxy: str | None) -> list[Finding]:
    """Return what headrace's view of a request says of the way.

    Args:
        page: the view; None if there is none.
        proxy: what is in front of it, if it says so.
    """
    if page is None:
        return [untested(check, NO_PAGE) for check in ("server", "http version", "headers", "client address")]
    return [
        ok("server", f"headrace {page.headrace}" + (f" behind {proxy}" if proxy else "")),
        _http_version(page, proxy),
        _headers(page, proxy),
        _client(page, proxy),
    ]


def _http_version(page: ServerPage, proxy: str | None) -> Finding:
    if page.http_version == "1.0":
        return warning(
            "http version",
            "requests reach headrace in HTTP/1.0: each needs a new connection, and a stream that is cut off looks "
            "complete",
            remedy_for("http version", proxy),
        )
    return ok("http version", f"requests reach headrace in HTTP/{page.http_version}")


def _headers(page: ServerPage, proxy: str | None) -> Finding:
    lost = [name for name in ("authorization", "user-agent", *HEADERS_SENT) if name not in page.headers]
    if lost == ["x_headrace_doctor"]:
        remedy = remedy_for("underscores", proxy)
        return warning(
            "headers",
            "headers with an underscore in their name are lost on the way",
            f"nothing, unless key_header or a client needs one; {remedy}",
        )
    if lost:
        return warning("headers", f"lost on the way: {', '.join(lost)}", "let the proxy pass them on unchanged")
    return ok("headers", f"all {len(HEADERS_SENT) + 2} have arrived")


def _client(page: ServerPage, proxy: str | None) -> Finding:
    names = [name for name in ("x-forwarded-for", "forwarded") if name in page.headers]
    if not names:
        if proxy is None:
            return ok("client address", "no proxy reports one, and none is known of")
        return warning(
            "client address",
            f"{proxy} does not report the address of its client: the log has the proxy's, and wrong keys of one "
            "client delay all",
            remedy_for("client address", proxy),
        )
    if not page.is_peer_trusted:
        return warning(
            "client address",
            f"{names[0]} comes from {page.peer}, which is not trusted: the log has the proxy's address, and wrong keys "
            "of one client delay all",
            f'pipeline_settings.forwarded_allow_ips: ["{page.peer}"]',
        )
    return ok("client address", f"{names[0]} comes from {page.peer}, which is trusted")
