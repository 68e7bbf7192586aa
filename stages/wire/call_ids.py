"""Call ids that an upstream accepts.

All mappings depend on the id alone, so a call and its output are mapped alike, in every turn and every process. Nothing
has to be mapped back: an upstream never refers to a call of an earlier turn, and a new call has a new id.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

MAX_CALL_ID_CHARS = 64
"""OpenAI's limit: a longer ``call_id`` is 400 ``string_above_max_length`` (ungate#26, oh-my-pi#11844)."""

_DIGEST_CHARS = 16
_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]")
_NINE: Final = re.compile(r"[a-zA-Z0-9]{9}")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def short_call_id(call_id: str) -> str:
    """Return ``call_id`` itself if it fits, else a short form of it: the same one for the same id, distinct for others.

    Cursor composes ids of 85 and more characters in chats that ran on other models. They share long prefixes, so
    truncation would merge two calls into one; the short form ends with a hash of the whole id instead.
    """
    if len(call_id) <= MAX_CALL_ID_CHARS:
        return call_id
    return _with_digest(call_id, call_id)


def legal_call_id(call_id: str) -> str:
    """Return ``call_id`` in the characters that Anthropic accepts (``^[a-zA-Z0-9_-]+$``, at most 64 of them).

    A legal id stays as it is. In others the illegal characters are replaced and a hash of the whole id is appended, so
    that ``a:1`` and ``a.1`` stay two ids (``functions.AskUserQuestion:1``, ungate 673a830).
    """
    plain = _ILLEGAL.sub("_", call_id)
    return short_call_id(call_id) if plain == call_id else _with_digest(plain, call_id)


def numbered_call_id(call_id: str, number: int) -> str:
    """Return the id of the ``number``-th call that has the id ``call_id``: the first one keeps it.

    Some upstreams count from ``call_0`` in every answer, and an id that occurs twice is refused: "Duplicate
    function_call_output for call_id" (hermes-agent#102629), "each tool_use must have a single result" (Anthropic).
    """
    return call_id if number == 1 else _with_digest(call_id, f"{call_id}\n{number}")


def _with_digest(shown: str, whole: str) -> str:
    # Decoded JSON holds no lone surrogates, but a plugin's stage may make an id of its own.
    digest = sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return f"{shown[: MAX_CALL_ID_CHARS - _DIGEST_CHARS - 1]}_{digest}"


def nine_character_call_id(call_id: str) -> str:
    """Return a call id in the form of Mistral: nine letters and digits, always the same ones for the same id."""
    if _NINE.fullmatch(call_id):
        return call_id
    number = int.from_bytes(sha256(call_id.encode("utf-8", "replace")).digest()[:8])
    digits: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)
