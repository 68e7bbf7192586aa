"""What a request takes to come in, and what it returns."""

from __future__ import annotations

import pytest

from pipeline import Overloaded, RequestContext
from stages.admission.admission import ADMITTED, Admission
from stages.admission.counts import MAX_NAMES, Counts
from stages.admission.refusals import RateLimited
from stages.events import Usage
from stages.limits import NO_LIMITS, Limits
from stages.principal import Principal

ALICE = Principal("alice", model_limits={"gpt-5": Limits(rpm=1), "free": NO_LIMITS})
MASTER = Principal("master", is_master=True)


def no_size() -> int:
    raise AssertionError("nobody limits tokens")


async def test_the_size_of_a_prompt_is_estimated_only_if_tokens_are_limited() -> None:
    admission = Admission(Counts(), keys={"alice": Limits(rpm=5)})
    ctx = RequestContext("1")
    await admission.begin(ALICE, ctx)
    ctx[ADMITTED].ask_for("gpt-5", ("gpt-5",), no_size)
    ctx[ADMITTED].end(None, was_refused=False)
    await Admission(Counts(), keys={"alice": Limits(tpm=5)}).begin(ALICE, ctx)
    with pytest.raises(AssertionError):
        ctx[ADMITTED].ask_for("gpt-5", ("gpt-5",), no_size)


async def test_the_master_key_takes_nothing_even_if_a_key_has_its_name() -> None:
    admission = Admission(Counts(), keys={"master": Limits(rpm=0)}, key_limits={"gpt-5": Limits(rpm=0)})
    ctx = RequestContext("1")
    await admission.begin(MASTER, ctx)
    ctx[ADMITTED].ask_for("gpt-5", ("gpt-5",), no_size)
    assert ctx[ADMITTED].headers() == []
    ctx[ADMITTED].end(None, was_refused=False)


async def test_a_key_says_what_it_may_have_of_a_model_by_any_of_its_names() -> None:
    admission = Admission(Counts(), key_limits={"*": Limits(rpm=1)})
    for names, are_let_in in (
        (("gpt-5-high", "gpt-5", "*"), [True, False]),
        (("gpt-5", "*"), [False]),  # the same counts
        (("free", "*"), [True, True]),  # the key says so
        (("other", "*"), [True, False]),
    ):
        for is_let_in in are_let_in:
            ctx = RequestContext("1")
            await admission.begin(ALICE, ctx)
            if is_let_in:
                ctx[ADMITTED].ask_for("*", names, no_size)
            else:
                with pytest.raises(RateLimited):
                    ctx[ADMITTED].ask_for("*", names, no_size)


async def test_the_usage_of_a_request_replaces_the_estimate() -> None:
    admission = Admission(Counts(clock=lambda: 0.0), keys={"alice": Limits(tpm=100)})
    for usage, left in ((Usage(10, 20, 30), b"80"), (None, b"50"), (None, b"30")):
        ctx = RequestContext("1")
        await admission.begin(ALICE, ctx)
        ctx[ADMITTED].ask_for("m", ("m",), lambda: 20)
        assert dict(ctx[ADMITTED].headers())[b"x-ratelimit-remaining-tokens"] == left
        ctx[ADMITTED].end(usage, was_refused=False)


async def test_a_pair_that_cannot_be_counted_is_refused_and_not_let_in() -> None:
    counts = Counts()
    admission = Admission(counts)
    for number in range(MAX_NAMES):
        counts.index_of(str(number))
    ctx = RequestContext("1")
    await admission.begin(ALICE, ctx)
    with pytest.raises(Overloaded, match="this request cannot be counted: at most 16384"):
        ctx[ADMITTED].ask_for("gpt-5", ("gpt-5",), no_size)
