"""The same small answer from an upstream of every kind, in the parts that an upstream may leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kit.clients.chat_posts import CREATED, completed, delta
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import end, sse, sse_head

TEXT: Final = "Hello"


class Answer(NamedTuple):
    """An answer, `TEXT`, as the events of one API."""

    upstream: str
    """The model in ``litellm_params`` whose provider speaks it."""
    text: tuple[bytes, ...]
    finish: tuple[bytes, ...]
    """The finish reason, and the usage, each at its time."""
    end: tuple[bytes, ...]
    """What declares the answer complete; where it is also the finish, there is nothing else."""

    def whole(self) -> bytes:
        """Return a complete, successful response, for one write: then its end arrives together with its text."""
        body = b"".join((*self.text, *self.finish, *self.end))
        return sse_head() + b"%x\r\n%b\r\n" % (len(body), body) + end()


def _chat(delta: Any = None, finish: Any = None, **more: Any) -> bytes:
    return sse(chat_stream.chunk(delta, finish, **more))


ANSWERS: Final[Mapping[str, Answer]] = {
    "responses": Answer("openai/gpt-5", (sse(CREATED), sse(delta(TEXT))), (sse(completed(TEXT)),), ()),
    "chat": Answer(
        "deepseek/deepseek-chat",
        (_chat({"role": "assistant", "content": TEXT}),),
        (
            _chat(finish="stop"),
            _chat(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
        ),
        (b"data: [DONE]\n\n",),
    ),
    "anthropic": Answer(
        "anthropic/claude-sonnet-4-5",
        tuple(map(sse, [anthropic_stream.head(usage={"input_tokens": 3}), *anthropic_stream.text(0, TEXT)])),
        (sse(anthropic_stream.last(output_tokens=2)),),
        (sse(anthropic_stream.STOP),),
    ),
}
"""By the kind of the upstream; each reports 3 tokens of input and 2 of output."""
