"""Servers that run on one's own machines, and addresses of which nothing else is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stages.upstreams.provider import ALL, CHAT_OF_ALL, Provider, compatible
from stages.upstreams.quirks import (
    LM_STUDIO_RESPONSES,
    OLLAMA_CHAT,
    OLLAMA_RESPONSES,
    VLLM_RESPONSES,
)

COMPATIBLE: Final = "openai_compatible"
"""A server of which nothing is known but the API."""

_OLLAMA: Final = Provider(
    kinds=ALL,
    origin="http://localhost:11434",
    key_names=("OLLAMA_API_KEY",),
    base_names=("OLLAMA_API_BASE",),
    needs_key=False,
    quirks=(OLLAMA_RESPONSES, OLLAMA_CHAT),
)

LOCAL: Final[Mapping[str, Provider]] = {
    "litellm_proxy": Provider(kinds=ALL, key_names=("LITELLM_PROXY_API_KEY",), base_names=("LITELLM_PROXY_API_BASE",)),
    "hosted_vllm": Provider(
        kinds=ALL,
        is_rooted=True,
        key_names=("HOSTED_VLLM_API_KEY",),
        base_names=("HOSTED_VLLM_API_BASE",),
        needs_key=False,
        quirks=(VLLM_RESPONSES,),
    ),
    "lm_studio": Provider(
        kinds=ALL,
        origin="http://localhost:1234",
        key_names=("LM_STUDIO_API_KEY",),
        base_names=("LM_STUDIO_API_BASE",),
        needs_key=False,
        quirks=(LM_STUDIO_RESPONSES,),
    ),
    "ollama": _OLLAMA,
    "ollama_chat": Provider(
        kinds=CHAT_OF_ALL,
        origin=_OLLAMA.origin,
        key_names=_OLLAMA.key_names,
        base_names=_OLLAMA.base_names,
        needs_key=False,
        quirks=_OLLAMA.quirks,
    ),
    "llamafile": compatible("http://127.0.0.1:8080", "LLAMAFILE_API_KEY", base="LLAMAFILE_API_BASE", needs_key=False),
    "lemonade": compatible(
        "http://localhost:8000", "LEMONADE_API_KEY", root="/api/v1", base="LEMONADE_API_BASE", needs_key=False
    ),
    "docker_model_runner": compatible(
        "http://localhost:22088",
        "DOCKER_MODEL_RUNNER_API_KEY",
        root="/engines/llama.cpp/v1",
        base="DOCKER_MODEL_RUNNER_API_BASE",
        is_rooted=True,
        needs_key=False,
    ),
    "vllm": compatible(
        None,
        "HOSTED_VLLM_API_KEY",
        base="HOSTED_VLLM_API_BASE",
        is_rooted=True,
        needs_key=False,
        quirks=(VLLM_RESPONSES,),
    ),
    "openai_like": compatible(None, "OPENAI_LIKE_API_KEY", base="OPENAI_LIKE_API_BASE", needs_key=False),
    # LiteLLM sends OPENAI_API_KEY to any custom_openai address; we send only what the file says.
    "custom_openai": compatible(None, needs_key=False),
    COMPATIBLE: compatible(None, needs_key=False),
}
