"""W3C Trace Context: the headers by which the parts of a distributed system know that they serve the same request.

Source: https://www.w3.org/TR/trace-context-1/ (Recommendation, 23 November 2021), read on 2026-11-30. We are a
participant that honours what comes and begins nothing: who sends no ``traceparent``, or an invalid one, has no trace.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from msgspec import Struct

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

MAX_TRACESTATE_BYTES: Final = 512
"""What must be passed on at least (section 3.3.1.5); more is shortened to it."""
_LONG_MEMBER_BYTES: Final = 128
"""Longer entries are the first to go (the same section)."""
_MAX_MEMBERS: Final = 32

# Section 3.2: version ff is forbidden, and so are ids of zeros. A later version may have more after another dash.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?", re.DOTALL
)
_SAMPLED: Final = 1
"""The only flag of this version; the others must be sent as zeros (section 3.2.2.5)."""
# Section 3.3.1.3.
_KEY = rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(_KEY + rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class TraceContext(Struct, frozen=True):
    """The trace that a request belongs to.

    Attributes:
        trace_id: 32 hexadecimal digits.
        is_sampled: whether the caller may have recorded it.
        tracestate: what other systems say of it, as it is passed on; empty if nothing.
    """

    trace_id: str
    is_sampled: bool
    tracestate: bytes = b""

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers of one call upstream, whose caller we are: with an id of its own."""
        call_id = secrets.randbits(64) or 1
        parent = (TRACEPARENT, f"00-{self.trace_id}-{call_id:016x}-{self.is_sampled:02x}".encode("ascii"))
        return (parent, (TRACESTATE, self.tracestate)) if self.tracestate else (parent,)


def read_trace_context(traceparent: bytes, tracestate: bytes = b"") -> TraceContext | None:
    """Return what two headers say, or None if the first is not valid: then the second has no meaning either.

    A later version is read as far as we know it. A ``tracestate`` that is not valid is dropped.
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or (found[1] == b"00" and found[4] is not None):
        return None
    return TraceContext(found[2].decode("ascii"), bool(int(found[3], 16) & _SAMPLED), _passed_on(tracestate))


def _passed_on(tracestate: bytes) -> bytes:
    """Return a ``tracestate`` as it is passed on: unchanged, unless it is too long or not valid."""
    members = [member for part in tracestate.split(b",") if (member := part.strip(b" \t"))]
    if not members or len(members) > _MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return b""
    if len(tracestate) <= MAX_TRACESTATE_BYTES:
        return tracestate
    while len(b",".join(members)) > MAX_TRACESTATE_BYTES:
        at = next((at for at in reversed(range(len(members))) if len(members[at]) > _LONG_MEMBER_BYTES), -1)
        del members[at]
    return b",".join(members)
