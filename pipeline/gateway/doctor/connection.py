"""The way to the server: its name, its addresses, its certificate, and who answers first."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import trio

from pipeline.gateway.doctor.client import CONNECT_LIMIT_S, failure_text, hidden_group
from pipeline.gateway.doctor.findings import Finding, ok, problem, warning
from pipeline.gateway.doctor.proxies import NOT_HTTP
from pipeline.gateway.doctor.target import Target

SOON_DAYS: Final = 14
"""A certificate that ends within so many days is worth a warning: Let's Encrypt's are renewed 30 days before."""
_ANSWER_LIMIT_S: Final = 3.0
_LOCAL: Final = (".local", ".localhost", ".internal", ".lan", ".home.arpa")

_NO_NAME: Final = "check how the URL is spelled, and the DNS record of the name"

TUNNEL: Final = (
    "Cursor calls from its own servers: put a tunnel or a proxy with a public name in front (docs/cursor.md), and type "
    "its address"
)


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a name, without those that repeat.

    Raises:
        OSError: if it has none.
    """
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def judge_address(host: str, addresses: Sequence[str]) -> Finding:
    """Return whether Cursor's servers can call an address, as far as it can be told from here."""
    inner = [address for address in addresses if not ipaddress.ip_address(address.partition("%")[0]).is_global]
    shown = ", ".join(addresses)
    subject = host if shown == host else f"{host} is {shown}"
    if inner and len(inner) == len(addresses):
        return problem("address", f"{subject}: private, which Cursor refuses (ssrf_blocked)", TUNNEL)
    if host.lower().endswith(_LOCAL) or ("." not in host and ":" not in host):
        return problem("address", f"{host} is a name of this network only", TUNNEL)
    if inner:
        return warning(
            "address",
            f"{host} is {shown}: {', '.join(inner)} is private, and Cursor refuses it if its servers see it, too",
            "remove the private address from the public DNS, or check that only this network's DNS has it",
        )
    return ok(
        "address",
        f"{subject}: public; whether Cursor's servers reach it through firewalls cannot be told from here",
    )


async def see_address(target: Target) -> tuple[Finding, bool | None]:
    """Look up the name; return the finding, and whether all addresses are loopback ones, or None if there are none."""
    host = target.base.host
    try:
        with trio.fail_after(CONNECT_LIMIT_S):
            addresses = await addresses_of(host, _port(target))
    except (OSError, UnicodeError, trio.TooSlowError):
        return problem("address", f"{host} has no address in the DNS that this machine asks", _NO_NAME), None
    is_loopback = all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
    return judge_address(host, addresses), is_loopback


def end_of(certificate: dict[str, object] | None) -> datetime | None:
    """Return when a certificate, as `ssl` describes it, ends."""
    text = (certificate or {}).get("notAfter")
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC) if isinstance(text, str) else None


def ends_text(end: datetime, now: datetime) -> tuple[str, bool]:
    """Return when a certificate ends, in words, and whether that is soon."""
    days = (end - now).days
    return f"certificate until {end:%Y-%m-%d} ({days} {'day' if days == 1 else 'days'})", days < SOON_DAYS


def judge_https(certificate: dict[str, object] | None, version: str | None, now: datetime) -> Finding:
    """Return what a certificate that was accepted says of its end."""
    end = end_of(certificate)
    if end is None:
        return ok("https", f"{version}, the certificate is accepted")
    text, is_soon = ends_text(end, now)
    if is_soon:
        return warning("https", f"{version}, {text}", "renew it now, and see why that was not done by itself")
    return ok("https", f"{version}, {text}")


async def see_server(target: Target, now: datetime, *, may_be_plain: bool) -> tuple[Finding, bytes | None]:
    """Connect once; return the finding about encryption, and what the outermost server says to what is not HTTP.

    The second is None if no request may be sent: the connection fails, or would show the key to others.
    """
    is_plain = target.base.scheme == "http"
    if is_plain and not may_be_plain:
        return problem("https", "http: keys and prompts would be readable on the way; none was sent", _TYPE_HTTPS), None
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] | None = None
    try:
        with trio.fail_after(CONNECT_LIMIT_S), hidden_group():
            stream = await trio.open_tcp_stream(target.base.host, _port(target))
            if is_plain:
                finding = problem("https", "http, and Cursor needs https", _TYPE_HTTPS)
            else:
                stream = trio.SSLStream(stream, target.tls, server_hostname=target.base.host, https_compatible=True)
                await stream.do_handshake()
                finding = judge_https(stream.getpeercert(), stream.version(), now)
        return finding, await _answer_to_nonsense(stream)
    except trio.TooSlowError:
        return problem("https", f"no connection to port {_port(target)} within {CONNECT_LIMIT_S:g} s", _START), None
    except (OSError, trio.BrokenResourceError) as error:
        why = failure_text(error)
        if "certificate" in why:
            return problem("https", why, _certificate_remedy(why)), None
        return problem("https", f"port {_port(target)}: {why}", _START), None
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _certificate_remedy(why: str) -> str:
    """Return what to do, by OpenSSL's words."""
    if "expired" in why:
        return "renew it, and reload the proxy; see why that was not done by itself"
    if "mismatch" in why:
        return "type a name that the certificate has, or get one for this name"
    return "use one of a public authority, such as Let's Encrypt, with its chain"


_TYPE_HTTPS: Final = "let a proxy or a tunnel speak https in front of headrace, and type https://"
_START: Final = (
    "start the proxy or the tunnel, and open its port to the internet; the port must speak what the URL says"
)


async def _answer_to_nonsense(stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> bytes:
    answer = b""
    try:
        with trio.move_on_after(_ANSWER_LIMIT_S):
            await stream.send_all(NOT_HTTP)
            while len(answer) < 4096 and (data := await stream.receive_some(4096)):
                answer += data
    except trio.BrokenResourceError:
        pass
    return answer


def _port(target: Target) -> int:
    return target.base.port or (443 if target.base.scheme == "https" else 80)


def date_of(text: str) -> datetime | None:
    """Return the time in a header ``Date``; None if there is none that can be read."""
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
