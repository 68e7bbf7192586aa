"""How doctor asks over HTTP: nothing leads it elsewhere, and whatever fails has a sentence without secrets."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Self

import httpx
import msgspec
from msgspec import Struct

CONNECT_LIMIT_S: Final = 10.0


def make_client(tls: ssl.SSLContext) -> httpx.AsyncClient:
    """Return a client that is not sent elsewhere: by no redirect and by no proxy of the environment."""
    return httpx.AsyncClient(
        verify=tls,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=CONNECT_LIMIT_S),
        headers={"accept-encoding": "gzip, deflate"},
    )


class _BodyInPieces(httpx.AsyncByteStream):
    """A body in pieces; no async generator, as httpx's own is, which a request that ends early leaves unfinished."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._left = iter(pieces)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._left:
            return piece
        raise StopAsyncIteration


@asynccontextmanager
async def posting(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], pieces: Iterable[bytes], size: int
) -> AsyncGenerator[httpx.Response]:
    """Send a body of ``size`` bytes; yield the answer, of which only the head has been read.

    Raises:
        httpx.HTTPError: if the connection fails.
    """
    request = client.build_request("POST", url, headers={**headers, "content-length": str(size)})
    request.stream = _BodyInPieces(pieces)
    response = await client.send(request, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


class ErrorOf(Struct, frozen=True):
    """The parts of an error document that are read."""

    message: str = ""
    code: str | None = None


class _ErrorDocument(Struct):
    error: ErrorOf


def error_of(body: bytes) -> ErrorOf | None:
    """Return the error in the shape of OpenAI's; None if it is something else, such as a proxy's page."""
    try:
        return msgspec.json.decode(body, type=_ErrorDocument).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def failure_text(error: Exception) -> str:
    """Return why a request has failed, in words that hold no address and no key."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not accepted: {one.verify_message}"
        if isinstance(one, ssl.SSLError):  # its number is not one of the system's
            return "the TLS handshake failed: this port may not speak TLS"
        if isinstance(one, socket.gaierror):
            return "the name has no address"
        if isinstance(one, OSError) and one.errno:
            return os.strerror(one.errno).lower()
    known: Mapping[type[Exception], str] = {
        httpx.ConnectTimeout: f"no connection within {CONNECT_LIMIT_S:g} s",
        httpx.ConnectError: "no connection",
        httpx.RemoteProtocolError: "the connection was closed before the answer was complete",
        httpx.ReadError: "the connection was reset",
        httpx.WriteError: "the connection was closed while the request was sent",
    }
    return known.get(type(error), type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        of_group: tuple[BaseException, ...] = getattr(error, "exceptions", ())
        error = of_group[0] if of_group else error.__cause__ or error.__context__


@contextmanager
def hidden_group() -> Generator[None]:
    """Raise the one exception of a group that happy eyeballs or a nursery has made, without the group."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group
        raise
