"""What web pages may read of our responses."""

from __future__ import annotations

from pipeline.gateway.cors import Cors
from stages.admission.quota import Standing
from stages.admission.refusals import rate_limit_headers
from stages.limits import Limits


def test_a_page_may_read_what_is_left_of_its_limits() -> None:
    exposed = dict(Cors(["*"]).headers_for(b"https://example.com"))[b"access-control-expose-headers"].split(b", ")
    left = Standing(requests=4, requests_reset_s=1.0, tokens=8, tokens_reset_s=1.0)
    limited = rate_limit_headers([(Limits(rpm=5, tpm=9), left)])
    assert len(limited) == 6
    assert {name for name, _ in limited} | {b"retry-after", b"x-request-id"} <= set(exposed)
