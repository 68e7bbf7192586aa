"""Small configurations for tests, and what they are parsed to."""

from __future__ import annotations

import pytest

from pipeline.gateway.config.load import ConfigError, Settings, parse_settings
from stages.upstreams import Deployment

MASTER = "sk-master-0123456789abcdef"


def parse(text: str, **environ: str) -> Settings:
    """Parse a configuration with a master key; one that says nothing of models gets one, after its own lines."""
    if "model_list" not in text:
        text += "\nmodel_list: [{model_name: echo, litellm_params: {model: canned/echo}}]\n"
    return parse_settings(text, source="config.yaml", environ={"HEADRACE_MASTER_KEY": MASTER, **environ})


def problems(text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    return caught.value.problems


def model(params: str, info: str = "{}", name: str = "m") -> str:
    return f"model_list:\n  - model_name: '{name}'\n    litellm_params: {params}\n    model_info: {info}\n"


def only(text: str, **environ: str) -> Deployment:
    (deployment,) = parse(text, **environ).deployments
    return deployment
