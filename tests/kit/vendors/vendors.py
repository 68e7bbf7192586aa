"""All doubles, and how a deployment of each is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kit.vendors.claude import Claude5, Claude45, Claude52, Claude55
from kit.vendors.deepseek import DeepSeek
from kit.vendors.double import Double
from kit.vendors.gemini import Gemini
from kit.vendors.openai_chat import Gpt5Chat, Gpt6
from kit.vendors.openai_responses import Gpt5Responses, Gpt6Responses, Gpt62Responses
from kit.vendors.openrouter import OpenRouter
from kit.vendors.vllm import Vllm

Shape = Literal["responses", "chat", "blocks"]


@dataclass(frozen=True)
class Vendor:
    """A double, and the deployment that reaches it.

    Attributes:
        double: makes it.
        prefix: of the deployment's ``model``.
        models: the vendor's names; a chat changes from the first to the second and back.
        shape: how Cursor writes to models of such a name in agent mode.
        kind: what the configuration says about the API; None if the name is enough.
        base: the path of ``api_base``.
    """

    double: type[Double]
    prefix: str
    models: tuple[str, str]
    shape: Shape
    kind: str | None = None
    base: str = ""


VENDORS: Final[Mapping[str, Vendor]] = {
    "gpt-5": Vendor(Gpt5Responses, "openai", ("gpt-5.4", "gpt-5.4-mini"), "responses"),
    "gpt-5 chat": Vendor(Gpt5Chat, "openai", ("gpt-5.1", "gpt-5-mini"), "responses", kind="chat"),
    "gpt-6": Vendor(Gpt6Responses, "openai", ("gpt-6.1-sol", "gpt-6-luna"), "responses"),
    "gpt-6.2": Vendor(Gpt62Responses, "openai", ("gpt-6.2-sol", "gpt-6.2-astra"), "responses"),
    "claude 4.5": Vendor(Claude45, "anthropic", ("claude-sonnet-4-5", "claude-opus-4-5"), "blocks"),
    "claude 5": Vendor(Claude5, "anthropic", ("claude-opus-5", "claude-sonnet-5"), "chat"),
    "claude 5.2": Vendor(Claude52, "anthropic", ("claude-fable-5-2", "claude-opus-5-5"), "blocks"),
    "claude 5.5": Vendor(Claude55, "anthropic", ("claude-haiku-5-5", "claude-sonnet-5-5"), "blocks"),
    "gemini": Vendor(Gemini, "gemini", ("gemini-3.1-pro", "gemini-3-flash"), "chat"),
    "deepseek": Vendor(DeepSeek, "deepseek", ("deepseek-v4-pro", "deepseek-v4-flash"), "chat"),
    "openrouter": Vendor(OpenRouter, "openrouter", ("google/gemini-3.1-pro", "google/gemini-3-flash"), "chat", "chat"),
    "vllm": Vendor(Vllm, "hosted_vllm", ("Qwen/Qwen3.5-32B", "Qwen/Qwen3.5-8B"), "chat", "chat", base="/v1"),
}
"""By name."""

GPT_6_CHAT: Final = Vendor(Gpt6, "openai", ("gpt-6.1-sol", "gpt-6-luna"), "responses", kind="chat")
"""A row for Chat Completions with a model that has function tools only on /responses."""
