"""Providers of their own models.

The names are LiteLLM's prefixes; addresses and variables are LiteLLM 1.110.2's unless a row says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stages.upstreams.provider import CHAT_FIRST, CHAT_OF_ALL, CHAT_ONLY, MESSAGES, ModelRoute, Provider, compatible
from stages.upstreams.quirks import (
    CODESTRAL_CHAT,
    COHERE_CHAT,
    DASHSCOPE_CHAT,
    DEEPSEEK_CHAT,
    DEEPSEEK_RESPONSES,
    GEMINI_CHAT,
    MINIMAX_CHAT,
    MISTRAL_CHAT,
    MOONSHOT_CHAT,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    PERPLEXITY_RESPONSES,
    XAI_CHAT,
    XAI_RESPONSES,
    ZAI_CHAT,
)

VENDORS: Final[Mapping[str, Provider]] = {
    # The Responses API.
    "openai": Provider(
        origin="https://api.openai.com",
        key_names=("OPENAI_API_KEY",),
        base_names=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        quirks=(OPENAI_RESPONSES, OPENAI_CHAT),
    ),
    "xai": Provider(
        origin="https://api.x.ai",
        key_names=("XAI_API_KEY",),
        base_names=("XAI_API_BASE",),
        quirks=(XAI_RESPONSES, XAI_CHAT),
    ),
    "perplexity": Provider(  # its Responses API names models with their maker; plain `sonar` has Chat Completions
        routes=(ModelRoute(models=re.compile(r"\A[^/]*\Z"), kinds=CHAT_FIRST),),
        origin="https://api.perplexity.ai",
        chat_root="",
        key_names=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        base_names=("PERPLEXITY_API_BASE",),
        quirks=(PERPLEXITY_RESPONSES,),
    ),
    # Messages.
    "anthropic": Provider(
        kinds=MESSAGES,
        origin="https://api.anthropic.com",
        key_names=("ANTHROPIC_API_KEY",),
        base_names=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        key_header="x-api-key",
    ),
    # Chat Completions. Gemini through its OpenAI-compatible endpoint: ai.google.dev/gemini-api/docs/openai.
    "gemini": compatible(
        "https://generativelanguage.googleapis.com",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        root="/v1beta/openai",
        base="GEMINI_API_BASE",
        is_rooted=True,
        quirks=(GEMINI_CHAT,),
    ),
    # LiteLLM goes to /beta, which validates strict tools' schemas and refuses what it does not know; the documented
    # address is the host itself (api-docs.deepseek.com, 2026).
    "deepseek": Provider(
        kinds=CHAT_FIRST,
        origin="https://api.deepseek.com",
        root="",
        key_names=("DEEPSEEK_API_KEY",),
        base_names=("DEEPSEEK_API_BASE",),
        quirks=(DEEPSEEK_CHAT, DEEPSEEK_RESPONSES),
    ),
    "mistral": compatible(
        "https://api.mistral.ai",
        "MISTRAL_API_KEY",
        base="MISTRAL_API_BASE",
        is_rooted=True,
        quirks=(MISTRAL_CHAT,),
    ),
    "codestral": compatible(
        "https://codestral.mistral.ai",
        "CODESTRAL_API_KEY",
        base="CODESTRAL_API_BASE",
        quirks=(CODESTRAL_CHAT,),
    ),
    "moonshot": compatible(
        "https://api.moonshot.ai",
        "MOONSHOT_API_KEY",
        base="MOONSHOT_API_BASE",
        quirks=(MOONSHOT_CHAT,),
    ),
    "dashscope": compatible(
        "https://dashscope.aliyuncs.com",
        "DASHSCOPE_API_KEY",
        root="/compatible-mode/v1",
        base="DASHSCOPE_API_BASE",
        quirks=(DASHSCOPE_CHAT,),
    ),
    "qwencloud": compatible(
        "https://dashscope-intl.aliyuncs.com",
        "QWENCLOUD_API_KEY",
        "DASHSCOPE_API_KEY",
        root="/compatible-mode/v1",
        base="QWENCLOUD_API_BASE",
        quirks=(DASHSCOPE_CHAT,),
    ),
    "qwen_ai_platform": compatible(
        "https://dashscope.aliyuncs.com",
        "QWEN_AI_PLATFORM_API_KEY",
        "DASHSCOPE_API_KEY",
        root="/compatible-mode/v1",
        base="QWEN_AI_PLATFORM_API_BASE",
        quirks=(DASHSCOPE_CHAT,),
    ),
    "zai": compatible("https://api.z.ai", "ZAI_API_KEY", root="/api/paas/v4", base="ZAI_API_BASE", quirks=(ZAI_CHAT,)),
    "bigmodel": compatible(
        "https://open.bigmodel.cn",
        "BIGMODEL_API_KEY",
        root="/api/paas/v4",
        base="BIGMODEL_API_BASE",
        quirks=(ZAI_CHAT,),
    ),
    "minimax": compatible(
        "https://api.minimax.io",
        "MINIMAX_API_KEY",
        base="MINIMAX_API_BASE",
        is_rooted=True,
        quirks=(MINIMAX_CHAT,),
    ),
    # docs.cohere.com/docs/compatibility-api (2026-11). LiteLLM calls Cohere's own API, at /v1/chat or /v2/chat.
    **dict.fromkeys(
        ("cohere", "cohere_chat"),
        compatible(
            "https://api.cohere.ai",
            "COHERE_API_KEY",
            "CO_API_KEY",
            root="/compatibility/v1",
            base="COHERE_API_BASE",
            foreign_paths=((re.compile(r"\A/v[12](?:/chat)?\Z"), "/compatibility/v1"),),
            quirks=(COHERE_CHAT,),
        ),
    ),
    **dict.fromkeys(
        ("ai21", "ai21_chat"),
        compatible("https://api.ai21.com", "AI21_API_KEY", root="/studio/v1", base="AI21_API_BASE"),
    ),
    "amazon_nova": compatible("https://api.nova.amazon.com", "AMAZON_NOVA_API_KEY", base="AMAZON_NOVA_API_BASE"),
    "meta_llama": compatible("https://api.llama.com", "LLAMA_API_KEY", root="/compat/v1", base="LLAMA_API_BASE"),
    "meta": compatible("https://api.meta.ai", "META_API_KEY", base="META_API_BASE", kinds=CHAT_OF_ALL),
    "inception": compatible("https://api.inceptionlabs.ai", "INCEPTION_API_KEY", base="INCEPTION_API_BASE"),
    "xiaomi_mimo": compatible("https://api.xiaomimimo.com", "XIAOMI_MIMO_API_KEY"),
    "tencent": compatible("https://tokenhub-intl.tencentcloudmaas.com", "TENCENT_API_KEY", base="TENCENT_API_BASE"),
    "reka": compatible("https://api.reka.ai", "REKA_API_KEY", base="REKA_API_BASE"),
    "cognition": compatible("https://api.cognition.ai", "COGNITION_API_KEY", base="COGNITION_API_BASE"),
    "sarvam": Provider(
        kinds=CHAT_ONLY,
        origin="https://api.sarvam.ai",
        key_names=("SARVAM_API_KEY",),
        key_header="api-subscription-key",
    ),
    "maritalk": compatible("https://chat.maritaca.ai", "MARITALK_API_KEY", root="/api"),  # docs.maritaca.ai (2026)
}
