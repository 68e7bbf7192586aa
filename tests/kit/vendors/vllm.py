"""vLLM's Chat Completions, with a chat template that is strict about roles.

Sources: docs.vllm.ai/en/latest/serving/openai_compatible_server.html (2026-11), and the reports that a row names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from kit.vendors.chat_shapes import SHAPE, ChatDouble, check_arguments, messages_of
from kit.vendors.double import Answer, Ask, Double, Json, Made, Part, Refused, Rule, cut, document
from kit.vendors.openai_shapes import check_model, check_path

SERVER: Final = "docs.vllm.ai/en/latest/serving/openai_compatible_server.html (2026-11)"
TEMPLATE: Final = 'vllm#41114, the chat template of Qwen 3.5: "System message must be at the beginning."'


def _system_first(double: Double, ask: Ask) -> None:
    for n, (where, message) in enumerate(messages_of(ask)):
        if message["role"] == "system" and n:
            raise Refused("System message must be at the beginning.", where)


def _user_query(double: Double, ask: Ask) -> None:
    if all(message["role"] != "user" for message in ask.body["messages"]):
        raise Refused("No user query found in messages.", "messages")


class Vllm(ChatDouble):
    """vLLM: the template reads calls' arguments, so they must be JSON; it drops the reasoning of earlier turns."""

    PATH = "/v1/chat/completions"
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("path", SERVER, check_path),
        *SHAPE,
        Rule("model exists", SERVER, check_model),
        Rule("system comes first", TEMPLATE, _system_first),
        Rule(
            "a user asks", 'vllm#36432, the chat template of Qwen 3.5: "No user query found in messages."', _user_query
        ),
        Rule("arguments are an object", "gabrii/Cursor-Azure-GPT-5#35", check_arguments),
    )
    parameters = frozenset(
        {
            *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "temperature", "top_p", "top_k"),
            *("max_tokens", "max_completion_tokens", "reasoning_effort", "response_format", "stop", "seed", "user"),
            *("frequency_penalty", "presence_penalty", "parallel_tool_calls", "chat_template_kwargs", "min_p"),
            *("repetition_penalty", "structured_outputs", "logit_bias", "logprobs", "top_logprobs"),
        }
    )
    message_fields = frozenset({"reasoning_content", "reasoning"})
    restores = "none"

    def thought_deltas(self, made: Made, part: Part, body: Json) -> Iterator[tuple[Json, str | None]]:
        for piece in cut(part.text):
            yield {"reasoning": piece}, None

    def refusal(self, refused: Refused) -> Answer:
        error = {"message": refused.message, "type": "BadRequestError", "param": refused.param, "code": refused.status}
        return document(refused.status, {"error": error})

    def length_refusal(self, tokens: int) -> Refused:
        return Refused(
            f"This model's maximum context length is {self.limit_tokens} tokens. However, you requested {tokens} "
            "tokens in the messages, Please reduce the length of the messages."
        )

    def call_id(self) -> str:
        return "chatcmpl-tool-" + self.letters(32)
