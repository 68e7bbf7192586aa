"""Which of OpenAI's error types each of our codes has."""

from __future__ import annotations

import pytest

from stages.wire.downstream.errors import error_type


@pytest.mark.parametrize(
    ("code", "type"),
    [
        ("rate_limited", "rate_limit_error"),
        ("upstream_rate_limited", "rate_limit_error"),
        ("unauthorized", "authentication_error"),
        ("metrics_forbidden", "permission_error"),
        ("overloaded", "server_error"),
    ],
)
def test_a_code_has_the_type_that_clients_know(code: str, type: str) -> None:
    assert error_type(code) == type
