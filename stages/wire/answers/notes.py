"""What an answer without text and calls holds instead, in words: the notes of `stages.events.Finished`."""

from __future__ import annotations

from typing import Final

from stages.wire.redaction import message_to_show

MAX_IMAGE_LINK_BYTES: Final = 64 << 10
"""The largest image that is shown as a ``data:`` link: the history keeps it, and each turn pays for it."""

_MAX_EXPLANATION_CHARACTERS: Final = 1000

COMPACTED: Final = "the upstream compacted the conversation and ended the turn"


def refusal_note(explanation: str, category: str) -> str:
    """Return the note of a refusal, with the vendor's reason if it gives one (Anthropic's ``stop_details``)."""
    kind = f" ({message_to_show(category, max_characters=100)})" if category else ""
    reason = f": {message_to_show(explanation, max_characters=_MAX_EXPLANATION_CHARACTERS)}" if explanation else ""
    return f"the model refused to answer{kind}{reason}"


def approval_note(tool: str, server: str) -> str:
    """Return the note of a call that the upstream itself would make if someone approved it."""
    of_server = f" of the MCP server {message_to_show(server, max_characters=100)!r}" if server else ""
    name = message_to_show(tool, max_characters=100)
    return f"the upstream asks for approval to call the tool {name!r}{of_server}, which cannot be given here"


def image_note(url: str) -> str:
    """Return an image as Markdown, or say that there is one if its link is too long to be kept in a chat."""
    if len(url) > MAX_IMAGE_LINK_BYTES:
        return f"the model made an image of {len(url) >> 10:,} KiB, which is too large to be shown here"
    return f"![image]({url})"
