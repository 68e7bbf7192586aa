"""Add instructions to every request, and send those in which the user writes a certain word to another model.

Takes and gives ResponsesRequest, 1:1. The client sees the name that it asked for. The conversation is not touched, and
the added instructions are always the same and come after the client's own, so that a prompt cache goes on matching.
"""

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pipeline import Plugin, Stage, per_event
from stages.request import ResponsesRequest


class Options(Struct, frozen=True):
    instructions: str = ""
    routes: dict[str, str] = {}


def last_user_text(conversation: Any) -> str:  # foreign JSON
    """Return the text that the user wrote last, which may be followed by calls and their outputs."""
    items = conversation if isinstance(conversation, list) else [{"role": "user", "content": conversation}]
    content = next((item.get("content") for item in reversed(items) if item.get("role") == "user"), "")
    return " ".join(str(part.get("text", "")) for part in content) if isinstance(content, list) else str(content)


def make_steer(options: Options) -> Stage[ResponsesRequest, ResponsesRequest]:
    """Add instructions to every request, and choose the model by a word of the user's."""
    routes = [(re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.I), to) for word, to in options.routes.items()]

    @per_event
    def steer(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
        said, body = last_user_text(request.body["input"]), request.body
        if options.instructions:
            both = filter(None, (body.get("instructions"), options.instructions))
            body = {**body, "instructions": "\n\n".join(both)}
        target = next((model for word, model in routes if word.search(said)), request.target_model)
        yield replace(request, body=body, target_model=target)

    return steer


plugin = Plugin("steer", make_steer, Options, accepts=ResponsesRequest, emits=ResponsesRequest)
