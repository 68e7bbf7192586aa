"""Network IO towards models: what a deployment is, and what every kind of upstream offers to ``call_upstream``."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from stages.request import ResponsesRequest

UpstreamKind: TypeAlias = str
"""The name of an upstream API (`stages.upstreams.apis`), or ``canned`` for the embedded upstream."""

Transport = Literal["headrace", "httpx"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """How long a call may wait for what, in seconds; None is for ever."""

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
    """One entry of ``model_list``: a name that clients use, and the model that answers to it."""

    id: str
    """Unique in the configuration; a metric label."""
    model_name: str
    """What clients ask for; may hold one ``*``."""
    model: str
    """What the upstream is asked for; a ``*`` is filled with what matched in ``model_name``."""
    provider: str
    """The prefix of ``litellm_params.model``: ``openai``, ``azure``, ``canned`` ..."""
    kind: UpstreamKind
    url: str
    """Where to post, complete: ``https://api.example.com/v1/responses``. Empty for ``canned``."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request, credentials included: never logged, never shown."""
    timeouts: Timeouts = Timeouts()
    transport: Transport = "headrace"

    def __repr__(self) -> str:
        """Name the deployment without its headers, which hold the key."""
        return f"<Deployment {self.id}: {self.model_name} -> {self.provider}/{self.model}>"


class UpstreamCall(Struct, frozen=True, kw_only=True):
    """A request together with who is to answer it."""

    request: ResponsesRequest
    deployment: Deployment
    model: str
    """The upstream's name for the model, wildcards filled in."""


class UpstreamAnswer(Protocol):
    """An answer that has begun: its head is here, its body arrives."""

    @property
    def is_stream(self) -> bool:
        """Whether the body is server-sent events; else it is one JSON document."""
        ...

    async def receive(self) -> bytes:
        """Give the next part of the body, all that one read of the socket had; ``b""`` when it is complete.

        (A method and not an async iterator, which would be a generator that somebody must close.)

        Raises:
            UpstreamFault: if the connection broke, the protocol was violated, or a deadline passed.
        """
        ...

    def expect_end(self) -> None:
        """Take notice that all that matters has been received: nothing but the body's end is worth a short wait."""
        ...

    async def aclose(self) -> None:
        """Give the connection back if all of the body was read, else close it. Whoever opened the answer does it.

        Does its work also in a task that is cancelled, and raises nothing of the connection's.
        """
        ...


class Upstream(Protocol):
    """One kind of upstream API."""

    async def open(self, call: UpstreamCall, /) -> UpstreamAnswer:
        """Send the request and wait for a good head; the caller closes the answer.

        If it raises, or is cancelled, nothing is left open.

        Raises:
            UpstreamFault: if it cannot be reached, does not answer in time, or answers with an error status;
                ``status_hint`` and ``retry_after_s`` say what it answered.
        """
        ...
