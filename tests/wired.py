"""Which kinds of upstream the running service can call."""

from __future__ import annotations

import pytest
from kit.service.running import CONFIG, KEY, model

from pipeline.gateway.config.load import parse_settings
from stages.upstreams import UpstreamKind

BY_CHAT = "openai/chat_completions/gpt-x"
BY_ANTHROPIC = "anthropic/claude-x"


def is_wired(kind: UpstreamKind, upstream: str) -> bool:
    """Say whether a deployment of ``upstream`` is of this kind."""
    text = CONFIG.format(models=model("up", "http://127.0.0.1:1", upstream=upstream), pipeline="", key=KEY)
    found = parse_settings(text, source="test.yaml", environ={}).deployments
    return any(deployment.model_name == "up" and deployment.kind == kind for deployment in found)


needs_chat = pytest.mark.skipif(not is_wired("chat", BY_CHAT), reason="Chat Completions upstreams are not wired")
needs_anthropic = pytest.mark.skipif(not is_wired("anthropic", BY_ANTHROPIC), reason="Anthropic is not wired")
