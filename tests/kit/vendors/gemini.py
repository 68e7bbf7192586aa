"""Gemini's OpenAI-compatible endpoint, with a Gemini 3 model.

Sources: ai.google.dev/gemini-api/docs/openai and .../thought-signatures (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from kit.vendors.chat_shapes import SHAPE, ChatDouble, calls_of, check_arguments, messages_of
from kit.vendors.double import Answer, Ask, Double, Json, Made, Part, Refused, Rule, cut, document
from kit.vendors.openai_shapes import check_effort, check_model, check_path

COMPATIBLE: Final = "ai.google.dev/gemini-api/docs/openai (2026-11)"
SIGNATURES: Final = "ai.google.dev/gemini-api/docs/thought-signatures (2026-11)"
PLACEHOLDER: Final = "skip_thought_signature_validator"
"""Accepted for calls that another model made."""

_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high"})


def signature_of(call: Json) -> Any:
    """Return the signature of a call; None if it has none."""
    return ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")


def _effort(double: Double, ask: Ask) -> None:
    check_effort(ask.body.get("reasoning_effort"), _EFFORTS, "reasoning_effort")


def _signed(double: Double, ask: Ask) -> None:
    for where, message in messages_of(ask):
        # "If the model generates parallel function calls in a response, only the first one has a signature."
        if (calls := calls_of(message)) and not signature_of(calls[0]):
            raise Refused(f"Function call `{calls[0]['function']['name']}` is missing a `thought_signature`.", where)


def _own_signatures(double: Double, ask: Ask) -> None:
    for where, message in messages_of(ask):
        for call in calls_of(message):
            if (signature := signature_of(call)) not in (None, PLACEHOLDER) and signature not in double.issued:
                raise Refused("Thought signature is not valid.", where)


class Gemini(ChatDouble):
    """Gemini 3: calls carry signatures, unknown fields are refused, and all calls of an answer have index 0."""

    PATH = "/v1beta/openai/chat/completions"
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("path", COMPATIBLE, check_path),
        *SHAPE,
        Rule("model exists", COMPATIBLE, check_model),
        Rule("efforts", COMPATIBLE, _effort),
        Rule("arguments are an object", "gabrii/Cursor-Azure-GPT-5#35", check_arguments),
        Rule("calls are signed", SIGNATURES + ': 400 "missing a thought_signature"', _signed),
        Rule("signatures are valid", SIGNATURES, _own_signatures),
    )
    # Unknown fields are 400 'Invalid JSON payload received. Unknown name "x"'.
    parameters = frozenset(
        {
            *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "temperature", "top_p"),
            *("max_tokens", "max_completion_tokens", "reasoning_effort", "response_format", "n", "stop", "extra_body"),
        }
    )
    call_fields = frozenset({"extra_content"})
    restores = "calls"

    def note_reasoning(self, ask: Ask) -> None:
        signatures = {signature_of(call) for _, message in messages_of(ask) for call in calls_of(message)}
        self.saw({one for one in signatures if one in self.issued})

    def refusal(self, refused: Refused) -> Answer:
        error = {"code": refused.status, "message": refused.message, "status": "INVALID_ARGUMENT"}
        return document(refused.status, [{"error": error}])

    def length_refusal(self, tokens: int) -> Refused:
        return Refused(
            f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({self.limit_tokens})."
        )

    def thought_deltas(self, made: Made, part: Part, body: Json) -> Iterator[tuple[Json, str | None]]:
        google = ((body.get("extra_body") or {}).get("google") or {}).get("thinking_config") or {}
        if google.get("include_thoughts"):
            for piece in ("<thought>", *cut(part.text), "</thought>"):
                yield {"content": piece, "extra_content": {"google": {"thought": True}}}, None

    def call_deltas(self, made: Made, part: Part, number: int) -> Iterator[tuple[Json, str | None]]:
        call: Json = {"index": 0, "id": part.call_id, "type": "function"}
        call["function"] = {"name": part.name, "arguments": part.text}
        token = None
        if number == 0:
            token = self.issue(made)
            call["extra_content"] = {"google": {"thought_signature": token}}
        yield {"tool_calls": [call]}, token

    def call_id(self) -> str:
        return "function-call-" + "".join(self.rng.choices("0123456789", k=19))
