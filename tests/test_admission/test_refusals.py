"""What a client is told of limits."""

from __future__ import annotations

from stages.admission.counts import Counts
from stages.admission.quota import Full, Quota, Standing
from stages.admission.refusals import all_are_full, key_is_full, rate_limit_headers
from stages.limits import Limits


def shown(*standings: tuple[Limits, Standing]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in rate_limit_headers(standings)}


def test_of_several_limits_the_headers_show_the_one_of_which_the_least_is_left() -> None:
    large = Limits(rpm=100, tpm=1000), Standing(90, 12.2, 10, 30.0)
    small = Limits(rpm=10, tpm=5000), Standing(9, 3.0, 4000, 2.0)
    assert shown(large, small) == shown(small, large) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "3s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "30s",
    }  # fmt: skip


def test_without_a_limit_by_the_minute_there_are_no_headers() -> None:
    assert shown((Limits(parallel=3), Standing(None, 0.0, None, 0.0))) == {}
    assert shown((Limits(tpm=3), Standing(None, 0.0, 3, 0.0))) == {
        "x-ratelimit-limit-tokens": "3",
        "x-ratelimit-remaining-tokens": "3",
        "x-ratelimit-reset-tokens": "0s",
    }


def test_a_refusal_says_when_to_try_again_in_whole_seconds() -> None:
    counts = Counts()
    one, other = (Quota(counts, name, f"the deployment {name}", Limits(rpm=5)) for name in "ab")
    assert key_is_full(Full(one, "rpm", 11.2, None)).retry_after_s == 12
    both = all_are_full("m", [Full(one, "rpm", 11.2, None), Full(other, "rpm", 3.0, None), Full(one, "rpm", 9.0, None)])
    assert both.retry_after_s == 3
    assert both.public == (
        "all deployments of the model 'm' have reached their limits (the deployment a has had its 5 requests a minute "
        "(rpm); the deployment b has had its 5 requests a minute (rpm)): try again in 3 s"
    )
