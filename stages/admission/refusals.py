"""What a client is told of limits: the failure of a request that is refused, and the headers of all others.

Source: OpenAI's ``x-ratelimit-*`` headers (platform.openai.com/docs/guides/rate-limits, 2026-08), which LiteLLM's
proxy sends for its keys too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pipeline import Overloaded
from stages.admission.quota import Full, Standing
from stages.limits import Limits

Headers = list[tuple[bytes, bytes]]


class RateLimited(Overloaded):
    """A limit of the configuration is reached."""

    code = "rate_limited"


def key_is_full(full: Full) -> RateLimited:
    """Return the failure of a request whose key has reached a limit."""
    wait_s = math.ceil(full.retry_after_s)
    return RateLimited(f"{full.sentence}: try again in {wait_s} s", retry_after_s=wait_s)


def all_are_full(model: str, fulls: Sequence[Full]) -> RateLimited:
    """Return the failure of a request for which no deployment has room."""
    wait_s = math.ceil(min(full.retry_after_s for full in fulls))
    sentences = "; ".join(dict.fromkeys(full.sentence for full in fulls))
    return RateLimited(
        f"all deployments of the model {model!r} have reached their limits ({sentences}): try again in {wait_s} s",
        retry_after_s=wait_s,
    )


def rate_limit_headers(standings: Iterable[tuple[Limits, Standing]]) -> Headers:
    """Return the headers that show what is left, of several limits that of which the least is."""
    requests: tuple[int, int, float] | None = None
    tokens: tuple[int, int, float] | None = None
    for limits, standing in standings:
        if standing.requests is not None and limits.rpm is not None:
            found = standing.requests, limits.rpm, standing.requests_reset_s
            requests = found if requests is None else min(requests, found)
        if standing.tokens is not None and limits.tpm is not None:
            found = standing.tokens, limits.tpm, standing.tokens_reset_s
            tokens = found if tokens is None else min(tokens, found)
    headers: Headers = []
    for name, least in ((b"requests", requests), (b"tokens", tokens)):
        if least is not None:
            left, limit, reset_s = least
            headers += [
                (b"x-ratelimit-limit-" + name, b"%d" % limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % left),
                (b"x-ratelimit-reset-" + name, b"%ds" % math.ceil(reset_s)),
            ]
    return headers
