"""Whether an upstream's failure says that it does not have the API that it was asked by.

A server without ``/responses`` says so by 404, 405 or 501, with whatever text its framework has, and LM Studio by 200.
A server that has it also answers 404: for a model, an account or a stored response that does not exist. What is taken
for an unknown route is asked by another API, so in doubt it is: then the other API's error says what is wrong.

Sources: lmstudio-ai/lmstudio-bug-tracker#618, #1323 ("Unexpected endpoint or method", as 200); vLLM's
``create_responses`` ("The model does not support Responses API", 400 or 501); OpenAI and one-api ("Invalid URL (POST
/v1/responses)"); llama.cpp ("File Not Found"); Express, FastAPI, Go, Kong (2026-11).
"""

from __future__ import annotations

import re
from typing import Final

from pipeline import PipelineError, UpstreamFault

_STATUSES: Final = frozenset({405, 501})

_ROUTE: Final = re.compile(
    r"(?:upstream answered \d{3}: )?(?:error: )?(?:"
    r"invalid url \(|unexpected endpoint or method|cannot post /|no route matched|route not found"
    r"|(?:unknown|unsupported|unrecognized) (?:request url|endpoint|route|path)\b"
    r"|[^.]{0,60}(?:does not|doesn't) support (?:the )?responses api"
    r"|(?:the )?responses api (?:is )?not (?:supported|implemented)"
    r")",
    re.IGNORECASE,
)
"""How the message of a failure begins that is about the route, whatever its status. Only the beginning counts: further
on, a message may quote a prompt."""

_OTHER: Final = re.compile(
    r"model|deployment|engine|function|account|project|organi[sz]ation|permission|endpoints found"
    r"|previous.response|with.id|file.object|\bplan\b|token",
    re.IGNORECASE,
)
"""What else a 404 may be about: then the server knows the route."""

_ADDRESS: Final = re.compile(r"\S*/responses\b")


def is_unknown_route(fault: PipelineError) -> bool:
    """Return whether an upstream failed because it does not know the API that it was asked by."""
    if not isinstance(fault, UpstreamFault):
        return False
    if _ROUTE.match(fault.public) is not None:
        return True
    if fault.status_hint != 404:
        return fault.status_hint in _STATUSES
    return _OTHER.search(_ADDRESS.sub("", f"{fault.upstream_code or ''} {fault.public}")) is None


def with_remedy(fault: PipelineError, remedy: str) -> UpstreamFault:
    """Return a failure like this one, with what to do about it at the end of its message."""
    more = UpstreamFault(
        f"{fault.public.rstrip('.')}; {remedy}",
        code=fault.code,
        param=fault.param,
        retry_after_s=fault.retry_after_s,
        status_hint=fault.status_hint,
        upstream_code=fault.upstream_code,
    )
    more.stage = fault.stage
    return more
