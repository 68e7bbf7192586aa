"""What a model is for, by its name: only chat models are listed and called.

Files made for LiteLLM have embedding, image and audio models beside the others, often without the ``mode`` that would
say so, and a wildcard such as ``openai/*`` matches all that a vendor has. The table has names whose vendors serve them
at other endpoints only; a name that is not in it is a chat model.

Sources, all 2026-11: platform.openai.com/docs/models; LiteLLM's model_prices_and_context_window.json (``mode``); the
vendors' lists of models (Cohere, Voyage, Jina, Mistral, Google, xAI, Ollama); huggingface.co for open weights.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_START: Final = r"(?:^|[-_.@:])"
_END: Final = r"(?=$|[-_.@:*\d])"

_CHAT: Final = re.compile(rf"{_START}chat{_END}")
"""Whoever calls a model a chat model knows it: ``embed-helper-chat``."""

_MODES: Final = tuple(
    (re.compile("|".join(patterns)), mode)
    for mode, patterns in (
        # Before embeddings, as `bge-reranker-v2-m3` is in both. Cohere, Voyage, Jina, BGE, Qwen, NVIDIA: all say it.
        ("reranking", (r"rerank",)),
        (
            "embedding",
            (
                # text-embedding-3-small, gemini-embedding-001, mistral-embed, nomic-embed-text, jina-embeddings-v3,
                # amazon.titan-embed-text-v1, cohere.embed-english-v3, Qwen3-Embedding-8B, nv-embedqa-e5-v5.
                rf"{_START}(?:embed|embedding|embeddings|embedqa){_END}",
                r"^embeddinggemma",
                # Families whose names do not say it: BAAI, Microsoft, Alibaba, Voyage, sentence-transformers.
                r"^bge-",
                r"^(?:multilingual-)?e5-",
                r"^gte-",
                r"^voyage-",
                r"^all-(?:minilm|mpnet)",
                r"^paraphrase-(?:multilingual-)?(?:minilm|mpnet)",
            ),
        ),
        (
            # Not `gemini-2.5-flash-image`, which answers chats.
            "image generation",
            (
                r"^dall-e",
                r"^(?:chat)?gpt-image",
                rf"^imagen{_END}",
                rf"^flux{_END}",
                r"^stable-(?:diffusion|image)",
                rf"^sd(?:xl|3){_END}",
                r"^grok-(?:\d-image|imagine)",
                r"^qwen-image",
                r"^seedream",
                r"^recraft",
                r"^ideogram",
            ),
        ),
        ("video generation", (rf"^sora{_END}", rf"^veo{_END}")),
        # gpt-4o-transcribe, gpt-4o-mini-transcribe, voxtral-mini-transcribe; whisper-1, whisper-large-v3.
        ("transcription", (rf"{_START}transcribe{_END}", rf"{_START}whisper{_END}")),
        # tts-1-hd, gpt-4o-mini-tts, gemini-2.5-flash-preview-tts, playai-tts. Not `gpt-audio`, which answers chats.
        ("speech", (rf"{_START}tts{_END}",)),
        # gpt-realtime-mini, gpt-4o-realtime-preview: WebSocket only.
        ("realtime", (rf"{_START}realtime{_END}",)),
        # omni-moderation-latest, text-moderation-stable, mistral-moderation-2411.
        ("moderation", (rf"{_START}moderation{_END}",)),
        ("OCR", (r"^mistral-ocr",)),
        # OpenAI's last models without a chat endpoint: "This is not a chat model".
        ("text completion", (r"^gpt-3\.5-turbo-instruct", r"^(?:text-)?(?:davinci|babbage)-00")),
    )
)


@lru_cache(1024)
def other_mode(model: str) -> str | None:
    """Return what a model is for, as in "an embedding model", by the upstream's name for it; None if for chats."""
    name = model.rpartition("/")[2].lower()
    if _CHAT.search(name):
        return None
    return next((mode for pattern, mode in _MODES if pattern.search(name)), None)
