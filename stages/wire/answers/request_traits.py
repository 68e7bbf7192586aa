"""The traits of a request that decide how its answer is decoded."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from msgspec import Struct, field

from stages.request import ResponsesRequest
from stages.wire.normal_form import call_ids_of


class RequestTraits(Struct, frozen=True, kw_only=True):
    """What a decoder needs to know of the request.

    Attributes:
        custom_tools: names of the custom tools that the client declared: a call of one of them carries raw text.
        has_hosted_tools: whether tools are declared that the upstream runs itself: then a custom call of an undeclared
            name is one of theirs, which the client cannot carry out.
        wants_logprobs: whether to emit LogProbs, each before the TextDelta that it belongs to.
        used_call_ids: the ids of the calls in the conversation so far. Some servers count their calls from ``call_0``
            in every answer: a call whose id was used before gets another one.
        mended: the request's set of words of `stages.mending.MENDS`, for what is mended in the answer.
    """

    custom_tools: AbstractSet[str] = frozenset()
    has_hosted_tools: bool = False
    wants_logprobs: bool = False
    used_call_ids: AbstractSet[str] = frozenset()
    mended: set[str] = field(default_factory=set[str])


NO_TRAITS = RequestTraits()
"""A request without tools, log probabilities or earlier calls."""


def traits_of(request: ResponsesRequest) -> RequestTraits:
    """Return the traits of a request in normal form."""
    return RequestTraits(
        custom_tools=request.custom_tools,
        has_hosted_tools=request.has_hosted_tools,
        wants_logprobs=request.wants_logprobs,
        used_call_ids=call_ids_of(request.body),
        mended=request.mended,
    )
