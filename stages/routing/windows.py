"""Which deployments a request fits into, before anybody is asked: an estimate of its tokens against their windows.

The estimate is low on purpose. A deployment that is left out although the request fits would be a failure that nobody
needs; one that is asked although it does not fit says so itself, and the same fallbacks follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stages.routing.router import Candidate
from stages.wire.foreign_json import Json, is_list, is_object

BYTES_PER_TOKEN: Final = 5
"""English prose has 4 to 5 bytes in a token, code 3 to 4, other scripts 2 to 4 (UTF-8): the estimate is between half of
the true number and all of it. Source: "about 4 characters" of common English text (help.openai.com, "What are tokens",
2026-11), and less in newer vocabularies of other vendors."""

TOKENS_PER_FILE: Final = 85
"""For an image or another file: the least that OpenAI charges for an image (``detail: low``)."""

_FILES: Final = frozenset({"image_url", "file_data", "file_url", "file_id", "input_audio"})
_NO_TEXT: Final = frozenset({"type", "role", "id", "call_id", "status", "encrypted_content", "annotations", "logprobs"})


def estimated_tokens(body: Mapping[str, Json]) -> int:
    """Return about how many tokens the input of a request has, rather too few than too many.

    What counts is the text of the instructions, messages, calls, outputs and tools. Names of fields, reasoning of
    earlier turns, and what the templates of a model add do not.
    """
    size_bytes = files = 0
    left: list[Json] = [body.get("input"), body.get("instructions"), body.get("tools")]
    while left:
        value = left.pop()
        if isinstance(value, str):
            size_bytes += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif is_list(value):
            left += value
        elif is_object(value) and value.get("type") != "reasoning":
            for name, field in value.items():
                if name in _FILES:
                    files += 1
                elif name not in _NO_TEXT:
                    left.append(field)
    return size_bytes // BYTES_PER_TOKEN + files * TOKENS_PER_FILE


def fitting(candidates: Sequence[Candidate], tokens: int) -> Sequence[Candidate]:
    """Return those whose window is large enough, or not known."""
    return [one for one in candidates if (window := one.deployment.max_input_tokens) is None or tokens <= window]
