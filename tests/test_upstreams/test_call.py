"""A call, and the same call for another deployment."""

from __future__ import annotations

import pytest

from stages.testing import new_call


@pytest.mark.parametrize(
    ("here", "asked", "there", "model"),
    [
        ("gpt-5", "gpt-5", "claude", "claude"),
        ("gpt-5", "gpt-5", "openai/*", "openai/gpt-5"),
        ("openai/*", "openai/o3", "azure-*-eu", "azure-o3-eu"),
        ("openai/*", "changed", "azure-*", "azure-changed"),
        ("openai/*", "openai/o3", "claude", "claude"),
    ],
)
def test_a_call_at_another_deployment_has_that_ones_model(here: str, asked: str, there: str, model: str) -> None:
    call = new_call(deployment=new_call(model=here).deployment)
    call = type(call)(request=call.request, deployment=call.deployment, model=asked)
    other = new_call(model=there, id="other").deployment
    moved = call.at(other)
    assert (moved.request, moved.deployment, moved.model) == (call.request, other, model)
