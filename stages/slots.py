"""What stays while events flow: the typed notes that the stages of one request leave for each other.

Each slot says who fills it; a stage that reads one comes after that stage.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from pipeline import Slot
from stages.events import Failed, Usage
from stages.principal import Principal
from stages.upstreams import UpstreamAnswer, UpstreamCall
from stages.wire.downstream.chat_stream import ChunkEncoder
from stages.wire.downstream.profiles import Profile


class ReceivedHead(Struct, frozen=True):
    """What came before the body."""

    headers: dict[bytes, bytes]
    """Names in lower case; of a repeated header the last one."""
    received_s: int
    """Wall clock, in seconds since the epoch."""
    model_in_path: str | None = None
    """From ``/openai/deployments/<name>/chat/completions``."""


class ClientResponse(Protocol):
    """The way back to the client. One writer at a time."""

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Commit to a status and headers; they leave with the first bytes of the body."""
        ...

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send part of the body, waiting while the client is behind; ``last`` ends the response.

        A write is never cut in half by a cancellation.
        """
        ...


HEAD: Slot[ReceivedHead] = Slot("head")
"""Filled by the gateway before the first stage."""

PROFILE: Slot[Profile] = Slot("profile")
"""Filled by the gateway: how this client wants to be answered."""

RESPONSE: Slot[ClientResponse] = Slot("response")
"""Filled by the gateway."""

PRINCIPAL: Slot[Principal] = Slot("principal")
"""Filled by authenticate: whose key it is."""

CALL: Slot[UpstreamCall] = Slot("call")
"""Filled by choose_deployment."""

ANSWER: Slot[UpstreamAnswer] = Slot("answer")
"""Filled by call_upstream when the upstream's head is here."""

USAGE: Slot[Usage] = Slot("usage")
"""Filled by decode_events if the upstream reported it."""

FAILURE: Slot[Failed] = Slot("failure")
"""Filled by decode_events if the answer broke off after it had begun."""

ENCODER: Slot[ChunkEncoder] = Slot("encoder")
"""Filled by encode_chunks: who else must end the stream knows from it what the client has seen."""
