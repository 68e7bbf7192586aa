"""Codes become statuses, bodies and end codes in one table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

import pipeline
import stages
from pipeline import ClientFault, Overloaded, StageBug, UpstreamFault
from pipeline.gateway.failures import END_CODES, TABLE, refusal, render, row_of
from pipeline.gateway.http.refusals import RefusalCode


def test_a_failure_has_openais_shape() -> None:
    rendered = render(ClientFault("model must be a string", param="model"))
    assert rendered.status == 400
    assert json.loads(rendered.body) == {
        "error": {
            "message": "model must be a string",
            "type": "invalid_request_error",
            "param": "model",
            "code": "invalid_request",
        }
    }
    assert dict(rendered.headers) == {
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(rendered.body),
    }


def test_retry_after_says_when_to_try_again() -> None:
    fault = UpstreamFault("slow down", code="upstream_rate_limited", retry_after_s=19.6)
    assert dict(render(fault).headers)[b"retry-after"] == b"20"
    assert dict(render(Overloaded("full")).headers)[b"retry-after"] == b"1"


def test_a_refused_key_names_the_scheme_for_keys() -> None:
    rendered = render(ClientFault("no key", code="unauthorized"))
    assert rendered.status == 401
    assert dict(rendered.headers)[b"www-authenticate"] == b"Bearer"


def test_the_upstreams_own_4xx_is_kept() -> None:
    assert render(UpstreamFault("no", code="upstream_rejected", status_hint=422)).status == 422
    assert render(UpstreamFault("no", code="upstream_rejected")).status == 400


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("upstream_rate_limited", 400),
        ("upstream_error", 400),
        ("upstream_timeout", 400),
        ("internal_error", 400),
        ("unauthorized", 401),
        ("model_forbidden", 403),
        ("model_not_found", 404),
    ],
)
def test_cursor_gets_a_400_for_everything_not_about_its_key_or_model(code: str, status: int) -> None:
    rendered = render(UpstreamFault("what happened", code=code), as_400=True)
    assert rendered.status == status
    error = json.loads(rendered.body)["error"]
    assert (error["message"], error["code"]) == ("what happened", code)
    assert status != 400 or error["type"] == "invalid_request_error"


@pytest.mark.parametrize("code", get_args(RefusalCode))
def test_the_servers_own_refusals_have_openais_shape(code: RefusalCode) -> None:
    refused = refusal(code, "no")
    kind = "invalid_request_error" if refused.status < 500 else "server_error"
    assert refused.body == b'{"error":{"message":"no","type":"%b","param":null,"code":"%b"}}' % (
        kind.encode(),
        code.encode(),
    )
    assert refused.content_type == b"application/json"
    assert refused.retry_after_s == (2 if code == "too_many_connections" else None)


def test_a_code_that_is_not_in_the_table_is_our_bug() -> None:
    assert render(StageBug("oh", code="made_up")).status == 500
    assert row_of("made_up").end == "ST"


def test_every_row_has_a_documented_end_code() -> None:
    assert {row.end for row in TABLE.values()} <= set(END_CODES)
    assert all(row.meaning.endswith(".") for row in TABLE.values())


def test_every_code_that_is_used_is_in_the_table() -> None:
    used: set[str] = set()
    for package in (pipeline, stages):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            text = path.read_text()
            for pattern in (
                r'\bcode(?:: str)? ?= ?"([a-z_]+)"',
                r'\bFailed\(\s*"([a-z_]+)"',
                r'RefusedRequest\(\s*"([a-z_]+)"',
                r'_send_refusal\("([a-z_]+)"',
            ):
                used |= set(re.findall(pattern, text))
    assert used - {"pipeline_error", "client_fault"} <= set(TABLE)
    assert len(used) > 20
