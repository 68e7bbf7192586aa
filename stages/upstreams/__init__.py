"""Network IO to models: what a deployment is, and what every kind of upstream offers to ``call_upstream``."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from stages.request import ResponsesRequest

UpstreamKind: TypeAlias = str
"""The name of an upstream API (`stages.upstreams.apis`), or ``canned`` for the embedded upstream."""

Transport = Literal["headrace", "httpx"]
DEFAULT_TRANSPORT: Final[Transport] = "headrace"


class Timeouts(Struct, frozen=True, kw_only=True):
    """The limits of a call's waits, in seconds; None means no limit."""

    connect_s: float = 10.0
    headers_s: float | None = 600.0
    """From the request's last byte to the end of the response's head."""
    first_event_s: float | None = 600.0
    """From the response's head to the first byte of its body."""
    idle_s: float | None = 600.0
    """Between two reads of the body."""
    total_s: float | None = None
    """The whole call."""


class Deployment(Struct, frozen=True, kw_only=True):
    """One entry of ``model_list``: a name that clients use, and the model that answers."""

    id: str
    """Unique in the configuration; a metric label."""
    model_name: str
    """The name that clients use; may contain one ``*``."""
    model: str
    """The upstream's name for the model; a ``*`` is replaced by what matched in ``model_name``."""
    provider: str
    """The prefix of ``litellm_params.model``: ``openai``, ``azure``, ``canned`` ..."""
    kind: UpstreamKind
    url: str
    """The complete URL to post to: ``https://api.example.com/v1/responses``. Empty for ``canned``."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request, including credentials: never logged or shown."""
    timeouts: Timeouts = Timeouts()
    transport: Transport = DEFAULT_TRANSPORT

    def __repr__(self) -> str:
        """Describe the deployment without its headers, which hold the key."""
        return f"<Deployment {self.id}: {self.model_name} -> {self.provider}/{self.model}>"


class UpstreamCall(Struct, frozen=True, kw_only=True):
    """A request and the deployment that is to answer it."""

    request: ResponsesRequest
    deployment: Deployment
    model: str
    """The upstream's name for the model, with the wildcard replaced."""


class UpstreamAnswer(Protocol):
    """An answer whose head has arrived, and whose body is arriving."""

    @property
    def is_stream(self) -> bool:
        """Whether the body is server-sent events; otherwise it is one JSON document."""
        ...

    async def receive(self) -> bytes:
        """Return the next part of the body, all that one read of the socket returned; ``b""`` when it is complete.

        This is a method, not an async iterator, as that would be a generator that the caller must close.

        Raises:
            UpstreamFault: if the connection broke, the protocol was violated, or a deadline passed.
        """
        ...

    def expect_end(self) -> None:
        """Note that everything relevant has been received: only the end of the body may follow, and soon."""
        ...

    async def aclose(self) -> None:
        """Return the connection to its pool if the whole body was read, or close it. The caller of `open` must do this.

        Works even in a cancelled task, and raises no errors of the connection.
        """
        ...


class Upstream(Protocol):
    """One kind of upstream API."""

    async def open(self, call: UpstreamCall, /) -> UpstreamAnswer:
        """Send the request and wait for a good head; the caller must close the answer.

        If this raises or is cancelled, nothing is left open.

        Raises:
            UpstreamFault: if it cannot be reached, does not answer in time, or answers with an error status;
                ``status_hint`` and ``retry_after_s`` hold what it answered.
        """
        ...
