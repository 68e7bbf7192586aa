"""DeepSeek V4 on Chat Completions.

Source: api-docs.deepseek.com/guides/thinking_mode (2026-10), and the reports that a row names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from kit.vendors.chat_shapes import SHAPE, ChatDouble, calls_of, messages_of
from kit.vendors.double import Ask, Double, Json, Made, Part, Refused, Rule, cut
from kit.vendors.openai_shapes import check_effort, check_model, check_path

THINKING: Final = "api-docs.deepseek.com/guides/thinking_mode (2026-10)"
REFERENCE: Final = "api-docs.deepseek.com/api/create-chat-completion (2026-10)"
_EFFORTS: Final = frozenset({"minimal", "low", "medium", "high", "max"})


def _effort(double: Double, ask: Ask) -> None:
    check_effort(ask.body.get("reasoning_effort"), _EFFORTS, "reasoning_effort")


def is_thinking(body: Json) -> bool:
    return bool((body.get("thinking") or {}).get("type") != "disabled")


def _reasoning_back(double: Double, ask: Ask) -> None:
    if not is_thinking(ask.body):
        return
    for where, message in messages_of(ask):
        if calls_of(message) and not isinstance(message.get("reasoning_content"), str):
            raise Refused("The `reasoning_content` in the thinking mode must be passed back to the API.", where)


class DeepSeek(ChatDouble):
    """DeepSeek V4: the reasoning of tool turns comes back as text; that of other turns is ignored."""

    PATH = "/chat/completions"
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("path", REFERENCE, check_path),
        *SHAPE,
        Rule("model exists", REFERENCE, check_model),
        Rule("efforts", THINKING, _effort),
        Rule("reasoning of tool turns comes back", THINKING + "; awesome-deepseek-agent#12, #51, #63", _reasoning_back),
    )
    parameters = frozenset(
        {
            *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "temperature", "top_p"),
            *("max_tokens", "reasoning_effort", "response_format", "stop", "thinking", "logprobs", "top_logprobs"),
            *("frequency_penalty", "presence_penalty", "parallel_tool_calls", "seed"),
        }
    )
    message_fields = frozenset({"reasoning_content", "prefix"})
    restores = "calls"

    def thinks(self, body: Json) -> bool:
        return is_thinking(body)

    def note_reasoning(self, ask: Ask) -> None:
        texts = {str(message.get("reasoning_content")) for _, message in messages_of(ask) if calls_of(message)}
        self.saw({token for token, issued in self.issued.items() if issued.bound_to in texts})

    def thought_deltas(self, made: Made, part: Part, body: Json) -> Iterator[tuple[Json, str | None]]:
        *pieces, last = cut(part.text)
        for piece in pieces:
            yield {"reasoning_content": piece}, None
        yield {"reasoning_content": last}, self.issue(made, part.text)
