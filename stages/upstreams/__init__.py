"""Network IO to models: what a deployment is, and what every kind of upstream offers to ``call_upstream``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from pipeline.timeline import Point
from stages.limits import NO_LIMITS, Limits
from stages.request import ResponsesRequest
from stages.upstreams.parameters import Parameters
from stages.upstreams.token import Token
from stages.wire.redaction import secrets_in

_CREDENTIAL: Final = re.compile("auth|key|token|secret")
"""What is in the names of the headers that carry a client's credentials."""

UpstreamKind: TypeAlias = str
"""The name of an upstream API (`stages.upstreams.apis`), or ``canned`` for the embedded upstream."""

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names, in lower case, and values."""

Transport = Literal["headrace", "httpx"]
DEFAULT_TRANSPORT: Final[Transport] = "headrace"


class Timeouts(Struct, frozen=True, kw_only=True):
    """The limits of the waits of one attempt, in seconds, and of the whole request; None means no limit."""

    connect_s: float = 10.0
    headers_s: float | None = 600.0
    """From the request's last byte to the end of the response's head."""
    first_event_s: float | None = 600.0
    """From the response's head to the first byte of its body."""
    idle_s: float | None = 600.0
    """Between two reads of the body."""
    total_s: float | None = None
    """The whole request: all its attempts, and the pauses between them."""


class HealthCheck(Struct, frozen=True, kw_only=True):
    """How a deployment is asked, in the background, whether it answers."""

    model: str
    """The upstream's name for the model that is asked."""
    timeout_s: float = 60.0


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
    token: Token | None = None
    """Sent as Bearer, if its key is what a command prints."""
    timeouts: Timeouts = Timeouts()
    transport: Transport = DEFAULT_TRANSPORT
    weight: float = 1.0
    """Its share of the conversations of its group, in proportion to the others'."""
    order: int = 0
    """Deployments of a higher order are asked only while none of a lower one is ready."""
    max_retries: int | None = None
    """How often a request is repeated at this deployment; None: as the settings of its group say."""
    max_input_tokens: int | None = None
    """The window of its model; None if it is not known."""
    limits: Limits = NO_LIMITS
    """What it may be given: while it is full, others of its group are asked."""
    key_limits: Limits = NO_LIMITS
    """What each key may have of its model, unless the key says otherwise."""
    forward_fields: frozenset[str] = frozenset()
    """The fields of a client's body that are sent although they choose another model or name something stored."""
    parameters: Parameters | None = None
    """What its entry sets or removes in each request; None if nothing."""
    is_chat: bool = False
    """Whether its entry says that its models are chat models, whatever their names suggest."""
    health_check: HealthCheck | None = None
    """None if it is not asked in the background."""
    on_responses: Deployment | None = None
    """The same in the Responses API, for the models of a wildcard that have no function tools in Chat Completions."""
    on_chat: Deployment | None = None
    """The same in Chat Completions, if its server may have no Responses API and the entry does not say so."""
    is_transparent: bool = False
    """Whether it is the client's own upstream: its requests carry the client's headers, credentials included, and the
    client's body unchanged if that is in its API. No configuration file can say so: only `headrace study` does."""

    @property
    def secrets(self) -> frozenset[str]:
        """What must not appear in any message, in every form that an upstream might echo."""
        own = () if self.parameters is None else self.parameters.secrets
        found = secrets_in([*self.headers, *(("", text) for text in own)])
        return found if self.token is None else found | self.token.secrets

    def __repr__(self) -> str:
        """Describe the deployment without its headers, which hold the key."""
        return f"<Deployment {self.id}: {self.model_name} -> {self.provider}/{self.model}>"


Reason = Literal["moved", "repeated", "fallback", "by_chat"]
"""After a failure: to another deployment of the group, in the group after a pause, or to another group; or to the same
deployment by Chat Completions, because its server does not have the API that it was asked by."""


class UpstreamCall(Struct, frozen=True, kw_only=True):
    """A request and the deployment that is to answer it."""

    request: ResponsesRequest
    deployment: Deployment
    model: str
    """The upstream's name for the model, with the wildcard replaced."""
    deadline_s: float = math.inf
    """When the answer must be complete, on trio's clock, however many attempts that takes."""
    pause_s: float = 0.0
    """How long `call_upstream` waits before it asks: the pause before a repetition."""
    reason: Reason | None = None
    """Why it is made, if routing makes it after a failure."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What is sent with this one call, over HTTP: its place in a distributed trace. The deployment's own count more."""
    client_headers: Headers = ()
    """The client's own headers that are sent, credentials included: only to a transparent deployment, never logged."""

    @property
    def client_secrets(self) -> frozenset[str]:
        """What of the client's headers must not appear in any message; see `Deployment.secrets`."""
        named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.client_headers]
        return secrets_in([(name, value) for name, value in named if _CREDENTIAL.search(name)])

    def __repr__(self) -> str:
        """Describe the call without its request, which is a prompt, and without the client's key."""
        return f"<UpstreamCall of {self.model} to {self.deployment.id}>"

    def at(self, deployment: Deployment) -> UpstreamCall:
        """Return the same call for another deployment, with that one's name for the model.

        A ``*`` in it stands for what the ``*`` of this call's deployment matched.
        """
        model = deployment.model
        if "*" in model:
            start, star, end = self.deployment.model.partition("*")
            is_known = star and self.model.startswith(start) and self.model.endswith(end)
            matched = self.model[len(start) : len(self.model) - len(end)] if is_known else self.model
            model = model.replace("*", matched, 1)
        return UpstreamCall(request=self.request, deployment=deployment, model=model, deadline_s=self.deadline_s)


Mark: TypeAlias = Callable[[Point], object]
"""Notes that a time point of the request has been reached, by name; must not raise.

The points, in their order: ``upstream_slot`` (the pool has room for the call), ``upstream_resolved`` (its name),
``upstream_connected``, ``upstream_secured`` (the TLS handshake is complete), ``upstream_sent`` (the socket has accepted
the last byte of the request), ``upstream_head`` (a good head has arrived). What does not happen has no point: a
connection that is used again is neither resolved, connected nor secured. A request that is sent once more reaches some
of them again: the last time counts.
"""


class UpstreamAnswer(Protocol):
    """An answer whose head has arrived, and whose body is arriving."""

    @property
    def is_stream(self) -> bool:
        """Whether the body is server-sent events, else one JSON document. Final after the first `receive`."""
        ...

    @property
    def arrived_ns(self) -> int:
        """When the bytes that `receive` has just returned arrived, by the kernel, in ns on `time.perf_counter_ns`.

        0 if that is unknown: always if the transport does not ask the kernel, and as long as the loop is not late, when
        they arrived just before they were read.
        """
        ...

    @property
    def is_backing_off(self) -> bool:
        """Whether the process was overloaded at the last `receive`, so that `back_off` should come before the next."""
        ...

    async def back_off(self) -> None:
        """Wait for as long as this answer is not to be read; return at once if it may be read now.

        The caller does this before `receive`, which does not. This wait is ours, not the upstream's: it counts towards
        no deadline.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next part of the body, all that one read of the socket returned; ``b""`` when it is complete.

        This is a method, not an async iterator, as that would be a generator that the caller must close. After a
        cancelled call only `aclose` may follow.

        Raises:
            UpstreamFault: if the connection broke, the protocol was violated, or a deadline passed.
        """
        ...

    async def aclose(self, *, is_answered: bool = False) -> None:
        """Return the connection to its pool if the whole body was read, or close it. The caller of `open` must do this.

        With ``is_answered`` everything relevant has been received, although the end of the body may not have been read.
        Then our own transport returns the connection to its pool without waiting for that end (ADR 0016), even if
        `receive` was cancelled. httpx's closes it, because httpcore cannot continue a read that was cancelled.

        Works even in a cancelled task, but not while another task is in `receive`. Raises no errors of the connection.
        """
        ...


Prepared = TypeVar("Prepared")


class Upstream(Protocol[Prepared]):
    """One kind of upstream API. What it prepares for a call is its own, and nobody else looks into it."""

    def prepare(self, call: UpstreamCall, /) -> Prepared:
        """Encode the request: the part of a call that takes our own CPU. Does no IO.

        Raises:
            ClientFault: ``invalid_request`` if the request has no form in this API.
            UpstreamFault: ``upstream_unreachable`` if the deployment's address or headers cannot be sent at all.
        """
        ...

    async def open(self, prepared: Prepared, mark: Mark, /) -> UpstreamAnswer:
        """Send the request and wait for a good head; the caller must close the answer.

        If this raises or is cancelled, nothing is left open.

        Raises:
            UpstreamFault: if it cannot be reached, does not answer in time, or answers with an error status;
                ``status_hint`` and ``retry_after_s`` hold what it answered.
            Overloaded: ``upstream_pool_full`` if no connection became free in time.
        """
        ...
