"""The typed values that the stages of one request leave for each other.

The docstring of a slot names the stage that fills it; a stage that reads the slot comes after that one.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from pipeline import Slot
from stages.answer import AroundTime, Attempt
from stages.events import Failed, Usage
from stages.principal import Principal
from stages.upstreams import UpstreamCall
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.profiles import Profile
from stages.wire.trace_context import TraceContext


class ReceivedHead(Struct, frozen=True):
    """What arrived before the body."""

    headers: dict[bytes, bytes]
    """Names are in lower case; a repeated header has its last value."""
    received_s: int
    """Wall clock, in seconds since the epoch."""
    model_in_path: str | None = None
    """From ``/openai/deployments/<name>/chat/completions``."""
    client: str | None = None
    """The client's address; None if it is not known."""
    differing: frozenset[bytes] = frozenset()
    """The headers that came more than once, with different values."""


class ClientResponse(Protocol):
    """The response to the client. Only one task may write at a time."""

    def answered_by(self, deployment: str, attempts: int) -> None:
        """Note which deployment answers, after how many attempts, for the headers, if they are not sent yet."""
        ...

    def start(self, status: int, headers: list[tuple[bytes, bytes]], *, is_whole: bool = False) -> None:
        """Commit to a status and headers; they are sent with the first bytes of the body.

        Args:
            status: of HTTP.
            headers: those that this response needs.
            is_whole: whether all of the body is there, so that it is known where the time went.
        """
        ...

    def write_nowait(self, data: bytes, *, last: bool = False) -> bool:
        """Hand over part of the body; ``last`` ends the response.

        Returns:
            True if the socket has accepted all of it, or the client is gone. False if a part is left: await `drain`
            before the next write.
        """
        ...

    @property
    def took_some(self) -> bool:
        """After a `write_nowait` that returned False: whether the socket accepted a part of it at once."""
        ...

    async def drain(self) -> None:
        """Send what is left of the writes, waiting while the client reads too slowly; return at once if nothing is.

        Cancellation never leaves a write half done.
        """
        ...


class SentReasoning(Protocol):
    """The reasoning of earlier turns that a request sends back."""

    def plain_input(self, items: list[dict[str, Any]], /) -> list[dict[str, Any]]:
        """Return an ``input`` as it was before reasoning was restored, if this is where it was."""
        ...

    def forget(self) -> None:
        """Leave it out of all later turns of the conversation; never waits."""
        ...


HEAD: Slot[ReceivedHead] = Slot("head")
"""Filled by the gateway before the first stage."""

PROFILE: Slot[Profile] = Slot("profile")
"""Filled by the gateway: the form of response that this client needs."""

RESPONSE: Slot[ClientResponse] = Slot("response")
"""Filled by the gateway."""

TRACE_CONTEXT: Slot[TraceContext] = Slot("trace_context")
"""Filled by the gateway if the request came with a valid ``traceparent``."""

PRINCIPAL: Slot[Principal] = Slot("principal")
"""Filled by authenticate, or by the gateway if the key's limits are checked before: the key that the client sent."""

CALL: Slot[UpstreamCall] = Slot("call")
"""Filled by choose_deployment; by what follows if another deployment is asked."""

SENT_REASONING: Slot[SentReasoning] = Slot("sent_reasoning")
"""Filled by restore_reasoning if the request has reasoning of earlier turns: call_upstream may find it refused."""

PROMPTS: Slot[bytes] = Slot("prompts")
"""Filled by restore_reasoning if the body is large: the hash of the user's messages, for remember_reasoning."""

IS_STREAM: Slot[bool] = Slot("is_stream")
"""Filled by call_upstream: whether the upstream's answer is a stream of events; else it is one JSON document."""

USAGE: Slot[Usage] = Slot("usage")
"""Filled by decode_events if the upstream reported it."""

FAILURE: Slot[Failed] = Slot("failure")
"""Filled by decode_events if the answer broke off after it had started."""

ATTEMPTS: Slot[list[Attempt]] = Slot("attempts")
"""Filled if there are several attempts at an answer, or something is around the call: with them, in their order."""

AROUNDS: Slot[list[AroundTime]] = Slot("arounds")
"""Filled by answer_call: the time of each thing around the call, the outermost first."""

ENCODER: Slot[ChunkEncoder] = Slot("encoder")
"""Filled by encode_chunks. Code that must end the stream early reads from it what the client has seen."""
