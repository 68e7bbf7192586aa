"""OpenRouter on Chat Completions, with a model whose reasoning must come back: Gemini 3.

Source: openrouter.ai/docs/use-cases/reasoning-tokens, "Preserving reasoning blocks" (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import msgspec
from kit.vendors.chat_shapes import SHAPE, ChatDouble, calls_of, check_arguments, messages_of
from kit.vendors.double import Answer, Ask, Double, Frame, Json, Made, Part, Refused, Rule, cut, document
from kit.vendors.openai_shapes import check_model, check_path

REASONING: Final = 'openrouter.ai/docs/use-cases/reasoning-tokens, "Preserving reasoning blocks" (2026-11)'
REFERENCE: Final = "openrouter.ai/docs/api-reference/chat-completion (2026-11)"


def details_key(details: Any) -> str:
    """Return the same text for the same list of details."""
    return msgspec.json.encode(details, order="deterministic").decode()


def _details_back(double: Double, ask: Ask) -> None:
    """Refuse a tool turn of this model without its details. The calls of other models have none."""
    own = {call.call_id: made for made in double.made for call in made.calls if made.tokens}
    for where, message in messages_of(ask):
        for call in calls_of(message):
            made = own.get(call["id"])
            if made is not None and made.model == ask.body["model"] and not message.get("reasoning_details"):
                raise Refused(
                    "Gemini models require OpenRouter reasoning details to be preserved in each request.", where
                )


def _details_whole(double: Double, ask: Ask) -> None:
    known = {issued.bound_to for issued in double.issued.values()}
    for where, message in messages_of(ask):
        details = message.get("reasoning_details")
        if details is not None and details_key(details) not in known:
            raise Refused("Thought signature is not valid: reasoning_details must not be changed.", where)


class OpenRouter(ChatDouble):
    """OpenRouter: the whole list of ``reasoning_details`` comes back with the message that it came with."""

    PATH = "/api/v1/chat/completions"
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("path", REFERENCE, check_path),
        *SHAPE,
        Rule("model exists", REFERENCE, check_model),
        Rule("arguments are an object", "gabrii/Cursor-Azure-GPT-5#35", check_arguments),
        Rule("details of tool turns come back", REASONING, _details_back),
        Rule("details are unchanged", REASONING + ': "the entire sequence ... must match"', _details_whole),
    )
    parameters = frozenset(
        {
            *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "temperature", "top_p", "usage"),
            *("max_tokens", "reasoning_effort", "reasoning", "response_format", "stop", "seed", "user", "top_k"),
            *("frequency_penalty", "presence_penalty", "parallel_tool_calls", "include_reasoning", "logit_bias"),
        }
    )
    message_fields = frozenset({"reasoning_content", "reasoning", "reasoning_details", "refusal"})
    restores = "calls"

    def note_reasoning(self, ask: Ask) -> None:
        keys = {details_key(message.get("reasoning_details")) for _, message in messages_of(ask)}
        self.saw({token for token, issued in self.issued.items() if issued.bound_to in keys})

    def frames(self, made: Made, body: Json) -> Iterator[Frame]:
        yield Frame(b": OPENROUTER PROCESSING\n\n")
        yield from super().frames(made, body)

    def thought_deltas(self, made: Made, part: Part, body: Json) -> Iterator[tuple[Json, str | None]]:
        text: Json = {"type": "reasoning.text", "text": part.text, "format": "google-gemini-v1", "index": 0}
        sealed: Json = {
            "type": "reasoning.encrypted",
            "data": self.letters(32),
            "format": "google-gemini-v1",
            "index": 1,
        }
        token = self.issue(made, details_key([text, sealed]))
        for piece in cut(part.text):
            yield {"reasoning": piece, "reasoning_details": [text | {"text": piece}]}, None
        yield {"reasoning_details": [sealed]}, token

    def refusal(self, refused: Refused) -> Answer:
        return document(refused.status, {"error": {"code": refused.status, "message": refused.message}})

    def length_refusal(self, tokens: int) -> Refused:
        return Refused(
            f"This endpoint's maximum context length is {self.limit_tokens} tokens. However, you requested about "
            f"{tokens} tokens. Please reduce the length of either one."
        )

    def call_id(self) -> str:
        return "tool_0_" + self.letters(20)
