"""One history makes one prompt, in whichever shape it arrives, and each turn starts with the previous one."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from kit.upstreams.agent_conversation import Cursor, Output, Said, User

from stages.request import ResponsesRequest
from stages.upstreams.providers import quirks_in
from stages.wire.anthropic.request import anthropic_request
from stages.wire.chat.api import CHAT
from stages.wire.chat.request import chat_request
from stages.wire.downstream.request import parse_body
from stages.wire.responses.api import RESPONSES
from stages.wire.responses.request import native_request

PNG = "data:image/png;base64,iVBORw0KGgo="
PATCH = '*** Begin Patch\n*** Add File: a\n+"x"\n*** End Patch'
LONG = "call-" + "0" * 40 + "\nfc_" + "1" * 40
TURNS: list[list[User | Said | Output]] = [
    [User("Fix main.py")],
    [
        Said("I will look.", [("c1", "ReadFile", '{"path": "main.py"}'), (LONG, "Shell", '{"command":')]),
        Output("c1", "ReadFile", "print('hi')"),
        Output(LONG, "Shell", ""),
    ],
    [Said("", [("c2", "ApplyPatch", PATCH)]), Output("c2", "ApplyPatch", "Done")],
    [Said("It says x now.", []), User("I see this", image=PNG)],
    [Said("  A traceback.\n", []), User("So?")],
    [Said("<think>\nhm\n</think>\n\nIt runs.", []), User("Thanks")],
]  # fmt: skip
"""What each request adds; it has everything that the two shapes write differently."""

Translate = Callable[[ResponsesRequest], dict[str, Any]]


def native(provider: str, model: str = "m") -> Translate:
    return lambda request: native_request(
        request.body, quirks=quirks_in(RESPONSES, provider, model), model=model, stream=True
    )


def chat(provider: str, model: str) -> Translate:
    return lambda request: chat_request(request, model=model, quirks=quirks_in(CHAT, provider, model))


def claude(model: str) -> Translate:
    return lambda request: anthropic_request(request, model=model)


UPSTREAMS: dict[str, Translate] = {
    "openai": native("openai", "gpt-5.4"),
    "azure": native("azure", "gpt-5.4"),
    "openrouter": native("openrouter", "openai/gpt-5.4"),
    "fireworks": native("fireworks_ai"),
    "xai": native("xai", "grok-4"),
    "vllm": native("hosted_vllm"),
    "ollama": native("ollama"),
    "chat openai": chat("openai", "gpt-5.4"),
    "chat deepseek": chat("deepseek", "deepseek-v4"),
    "chat mistral": chat("mistral", "devstral"),
    "chat gemini": chat("gemini", "gemini-3-pro"),
    "claude 5": claude("claude-opus-5"),
    "claude 4.5": claude("claude-sonnet-4-5"),
}


def prompts(translate: Translate, *, turns: int, **habits: Any) -> list[list[str]]:
    """Return the upstream's messages that each of the two shapes leads to, as JSON."""
    cursor = Cursor("m", history=[entry for turn in TURNS[:turns] for entry in turn], **habits)
    both: list[list[str]] = []
    for mode in ("agent", "ask"):
        sent = translate(parse_body(json.dumps(cursor.body(mode)).encode()))
        messages: list[Any] = sent["input"] if "input" in sent else sent["messages"]
        both.append([json.dumps(unmarked(part)) for part in messages])
    return both


def unmarked(value: Any) -> Any:
    """Leave out Anthropic's cache breakpoints, which do not belong to the prompt and move with its end."""
    if isinstance(value, list):
        return [unmarked(inner) for inner in value]
    if isinstance(value, dict):
        return {key: unmarked(inner) for key, inner in value.items() if key != "cache_control"}
    return value


@pytest.mark.parametrize("replays_patches_as_functions", [False, True], ids=["custom", "function"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_both_shapes_of_a_history_lead_to_the_same_bytes(upstream: str, replays_patches_as_functions: bool) -> None:
    agent, ask = prompts(
        UPSTREAMS[upstream], turns=len(TURNS), replays_patches_as_functions=replays_patches_as_functions
    )
    assert agent == ask
    assert len(agent) > len(TURNS)


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_each_turn_starts_with_the_bytes_of_the_previous_one(upstream: str) -> None:
    sent = [prompts(UPSTREAMS[upstream], turns=turns)[turns % 2] for turns in range(1, len(TURNS) + 1)]
    for before, now in pairwise(sent):
        assert len(now) > len(before)
        assert now[: len(before)] == before
