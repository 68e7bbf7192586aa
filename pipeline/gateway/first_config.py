"""The configuration that ``headrace init`` writes: which providers it offers, and the text of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.config.env_file import ENV_FILE, can_be_written
from pipeline.gateway.config.fields import secret_problem
from stages.upstreams.providers import PROVIDERS

NONE: Final = "none"
"""The choice of no provider: only the embedded models."""
MASTER_KEY: Final = "HEADRACE_MASTER_KEY"
OWN_KEY: Final = "UPSTREAM_API_KEY"
"""The variable for the key of a server that has no usual one."""


class Offer(Struct, frozen=True):
    """A provider that is offered.

    Attributes:
        title: what people call it.
        prefix: LiteLLM's name of it, before the model's.
        model: the model that is proposed; None if nobody but the reader knows one.
        name: what clients are to call it: Cursor has no model with that name.
        api_base: the address that is proposed, of a provider that has none of its own.
    """

    title: str
    prefix: str
    model: str | None
    name: str
    api_base: str | None = None


OFFERS: Final[Mapping[str, Offer]] = {
    "openai": Offer("OpenAI", "openai", "gpt-6.2-sol", "my-gpt"),
    "anthropic": Offer("Anthropic", "anthropic", "claude-sonnet-5-5", "my-claude"),
    "gemini": Offer("Google Gemini", "gemini", "gemini-3.1-pro", "my-gemini"),
    "openrouter": Offer("OpenRouter", "openrouter", "openrouter/auto", "my-router"),
    "azure": Offer("Azure OpenAI", "azure", None, "my-azure"),
    "deepseek": Offer("DeepSeek", "deepseek", "deepseek-v4-pro", "my-deepseek"),
    "ollama": Offer("Ollama on this machine", "ollama", "qwen3-coder", "my-qwen", "http://localhost:11434"),
    "vllm": Offer("vLLM", "hosted_vllm", None, "my-vllm", "http://localhost:8000/v1"),
    "compatible": Offer("any server with OpenAI's API", "custom_openai", None, "my-model"),
}
"""By the word for ``--provider``. The models are those of late 2026; any other can be named."""

_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._/@-]*(?::[A-Za-z0-9._/@-]+)*")
_NOT_TEXT: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_OF_CURSOR: Final = re.compile(r"(?:gpt|o\d|claude|gemini|grok|composer|cursor|auto|default)(?:-|$)")
"""How the names of Cursor's own models begin (docs/facts/cursor.md, "Which body for which model")."""


class FirstModel(Struct, frozen=True, kw_only=True):
    """What the file is to say of its model.

    Attributes:
        prefix: the provider's.
        model: its name for the model.
        name: what clients ask for.
        api_base: the address; None for the provider's own.
        variable: the environment variable with the key; None if it takes none.
    """

    prefix: str
    model: str
    name: str
    api_base: str | None = None
    variable: str | None = None


class Wish(Struct, frozen=True, kw_only=True):
    """What is to be written.

    Attributes:
        choice: the model; None for the embedded ones only.
        key: its key, if it is known and not in a variable yet.
        keeps_keys: whether keys are written to `ENV_FILE`.
    """

    choice: FirstModel | None
    key: str | None = None
    keeps_keys: bool = False


def offer_of(word: str) -> Offer | None:
    """Return the offer for a word; a provider that is not offered has one without a model; None if there is none."""
    if (offer := OFFERS.get(word)) is not None:
        return offer
    return Offer(word, word, None, f"my-{word.replace('_', '-')}") if word in PROVIDERS else None


def needs_base(offer: Offer) -> bool:
    """Return whether the provider has no address of its own."""
    return PROVIDERS[offer.prefix].origin is None


def needs_key(offer: Offer) -> bool:
    """Return whether the provider refuses requests without a key."""
    return PROVIDERS[offer.prefix].needs_key


def variable_of(offer: Offer, environ: Mapping[str, str]) -> str:
    """Return the variable for the provider's key: that which is set, else the usual one."""
    names = PROVIDERS[offer.prefix].key_names or (OWN_KEY,)
    return next((name for name in names if environ.get(name, "").strip()), names[0])


def checked_key(key: str) -> str:
    """Return a key.

    Raises:
        CommandError: if it cannot be one; the message does not show it.
    """
    if not key:
        raise CommandError("the key is empty")
    if problem := secret_problem(key):
        raise CommandError(problem)
    if not can_be_written(key):
        raise CommandError(f"the key has a character that {ENV_FILE} cannot hold: set it as a variable yourself")
    return key


def is_like_cursors(name: str) -> bool:
    """Return whether Cursor may take a name for one of its own models, and not ask us."""
    return _OF_CURSOR.match(name.lower()) is not None


def config_text(choice: FirstModel | None, *, check: str) -> str:
    """Return the text of the file.

    Args:
        choice: the model; None for the embedded ones only.
        check: the command that explains the file.
    """
    lines = [f"# Written by `headrace init`. What it means: {check}", "model_list:"]
    if choice is None:
        lines += _embedded("echo", "repeats your words")
        lines += _embedded("story", "writes at the pace of a model")
        lines += _embedded("agent", "thinks, and calls tools as an agent does")
    else:
        lines += [
            f"  - model_name: {_yaml(choice.name)}",
            "    litellm_params:",
            f"      model: {_yaml(f'{choice.prefix}/{choice.model}')}",
        ]
        if choice.api_base is not None:
            lines.append(f"      api_base: {_yaml(choice.api_base)}")
        if choice.variable is not None:
            lines.append(f"      api_key: os.environ/{choice.variable}")
        lines += _embedded("echo", "built in: shows that Cursor reaches you, without the provider")
    lines += ["general_settings:", f"  master_key: os.environ/{MASTER_KEY}"]
    return "\n".join(lines) + "\n"


def _embedded(name: str, about: str) -> list[str]:
    return [f"  - model_name: headrace-{name}   # {about}", f"    litellm_params: {{model: canned/{name}}}"]


def _yaml(text: str) -> str:
    """Return text as YAML: plain where every reader takes it as text, else in quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return msgspec.json.encode(text).decode()
