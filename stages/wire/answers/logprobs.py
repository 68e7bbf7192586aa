"""Log probabilities of tokens, from an upstream's shape to that of Chat Completions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder

from stages.wire.foreign_json import encode, read, read_list, text


class TopLogProb(Struct):
    """One of the most likely tokens at a position."""

    token: Any = None  # foreign JSON, here and below
    logprob: Any = None
    bytes: Raw = Raw()


class TokenLogProb(Struct):
    """The token that was chosen at a position, and the most likely ones."""

    token: Any = None
    logprob: Any = None
    bytes: Raw = Raw()
    top_logprobs: Raw = Raw()


TOKEN_LOGPROB = Decoder(TokenLogProb)
TOP_LOGPROB = Decoder(TopLogProb)
_BYTES: Final = Decoder(list[Annotated[int, Meta(ge=0, le=255)]])


def chat_logprobs(logprobs: Raw) -> Iterable[Raw]:
    """Yield log probabilities in the form of Chat Completions, where ``bytes`` and ``top_logprobs`` are required."""
    for token in read_list(TOKEN_LOGPROB, logprobs):
        if token is not None and isinstance(token.logprob, int | float):
            top = [
                {"token": text(other.token), "logprob": other.logprob, "bytes": _bytes(other.bytes)}
                for other in read_list(TOP_LOGPROB, token.top_logprobs)
                if other is not None and isinstance(other.logprob, int | float)
            ]
            yield Raw(
                encode(
                    {
                        "token": text(token.token),
                        "logprob": token.logprob,
                        "bytes": _bytes(token.bytes),
                        "top_logprobs": top,
                    }
                )
            )


def _bytes(value: Raw) -> Raw | None:
    return value if read(_BYTES, value) is not None else None
