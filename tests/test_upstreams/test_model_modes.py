"""Which models are not for chats, by their names."""

from __future__ import annotations

import pytest

from stages.upstreams.model_modes import other_mode

OTHER = {
    "embedding": """text-embedding-3-small text-embedding-ada-002 gemini-embedding-001 text-multilingual-embedding-002
        mistral-embed codestral-embed nomic-embed-text:latest mxbai-embed-large snowflake-arctic-embed2 BAAI/bge-m3
        @cf/baai/bge-large-en-v1.5 intfloat/e5-mistral-7b-instruct intfloat/multilingual-e5-large
        voyage-code-3 cohere.embed-english-v3 embed-v4.0 amazon.titan-embed-text-v1 jina-embeddings-v3 gte-large
        Qwen/Qwen3-Embedding-8B
        sentence-transformers/all-MiniLM-L6-v2 embeddinggemma:300m nvidia/nv-embedqa-e5-v5 text-embedding-*""",
    "reranking": "rerank-english-v3.0 BAAI/bge-reranker-v2-m3 jina-reranker-v2 nvidia/nv-rerankqa-mistral-4b-v3",
    "image generation": """dall-e-3 gpt-image-1 gpt-image-1-mini chatgpt-image-latest imagen-4.0-generate-001 sdxl
        black-forest-labs/FLUX.1-schnell flux-pro stable-diffusion-3.5-large stable-image-ultra grok-2-image""",
    "video generation": "sora-2 sora-2-pro veo-3.1-generate-preview",
    "transcription": "whisper-1 whisper-large-v3-turbo gpt-4o-transcribe gpt-4o-mini-transcribe distil-whisper",
    "speech": "tts-1 tts-1-hd gpt-4o-mini-tts gemini-2.5-flash-preview-tts playai-tts",
    "realtime": "gpt-realtime gpt-realtime-mini gpt-4o-realtime-preview",
    "moderation": "omni-moderation-latest text-moderation-stable mistral-moderation-2411",
    "OCR": "mistral-ocr-latest",
    "text completion": "gpt-3.5-turbo-instruct davinci-002 text-davinci-003",
}

CHAT = """gpt-5 gpt-4.1-mini gpt-4o-audio-preview gpt-audio gemini-2.5-flash-image gpt-4o o3 claude-opus-5-5 grok-4
    llama-guard3
    embedder-helper embed-helper-chat my-embedding-chat gpt-3.5-turbo deepseek-ocr mistral-small voxtral-mini-latest
    command-r nova-lite llama-3.3-70b-versatile qwen3-vl phi-4 glm-4.6 kimi-k2 influx-coder deepseek-chat
    qwen2.5-coder:7b gpt-oss-120b sonar-pro minimax-m2 chat-latest * gemma3 solar-pro sdk-helper"""


@pytest.mark.parametrize(("mode", "model"), [(mode, name) for mode, names in OTHER.items() for name in names.split()])
def test_a_name_says_what_a_model_is_for(mode: str, model: str) -> None:
    assert other_mode(model) == mode


@pytest.mark.parametrize("model", CHAT.split())
def test_any_other_model_is_for_chats(model: str) -> None:
    assert other_mode(model) is None
