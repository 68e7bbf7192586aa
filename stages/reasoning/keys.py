"""The keys under which the reasoning of turns is stored.

A key is a hash of the API key's name and the deployment, with the turn's first call id and its conversation, or with
the turn's text and the user's messages before it. So no API key can reach the reasoning of another, and a store holds
nothing that a client wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.upstreams import UpstreamCall
from stages.wire.anthropic.models import claude_model
from stages.wire.call_ids import short_call_id
from stages.wire.foreign_json import is_list, is_object
from stages.wire.slices import paced

KEY_BYTES = 16
"""The length to which a SHA-256 is cut; the chance that two of 20 000 keys collide is 10^-30."""

MAX_CONVERSATION_CHARS = 64
"""OpenAI's limit for ``prompt_cache_key``, for which the conversation's name is used."""

MAX_OPENING_CHARS = 1 << 20
MAX_OPENING_MESSAGES = 1000
"""The most of the messages before the model's first that names a conversation: 3 ms."""

_SHARES_THOUGHTS = re.compile(r"(?:^|/)(deepseek)-(?:v4-)?(?:pro|flash)\b")
"""Models that read each other's reasoning, which is text: DeepSeek V4 (api-docs.deepseek.com, 2026-11)."""

_HEADER = b"x-cursor-conversation-id"

_RANDOM = re.compile(
    r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\Acall_[A-Za-z]{24}\Z"  # one of 70 ids of OpenAI has no digit
)
"""Matches in call ids that no other conversation can have: those of OpenAI and Anthropic have 20 random characters or
more, other servers count (``call_0``, ``functions.Read:1``)."""


def conversation_of(request: ResponsesRequest, headers: Mapping[bytes, bytes]) -> str:
    """Return the name of the conversation that a request continues, in at most 64 characters.

    This is the client's own name for it, if the client sends one. Otherwise it is a hash of the model and of the user's
    messages before the model's first, up to the limits above; the first message alone does not suffice, because Cursor
    starts every chat of a workspace with the same one. ``user`` is never used, as it is the same in all chats of one
    person (docs/facts/cursor.md, "The Responses body").

    Args:
        request: the request, in the normal form.
        headers: the request's headers, names in lower case.
    """
    metadata = request.body.get("metadata")
    name = metadata.get("cursorConversationId") if is_object(metadata) else None
    if not isinstance(name, str) or not name:
        name = headers.get(_HEADER, b"").decode("latin-1").strip()
    if name:
        return name if len(name) <= MAX_CONVERSATION_CHARS else sha256(_utf8(name)).hexdigest()
    opening = map(_encodable, _opening(request.body.get("input")))
    return sha256(msgspec.json.encode([request.requested_model, *opening])).hexdigest()


class Scope:
    """What all turns of a conversation have in common; makes the keys of its turns.

    Args:
        principal: the API key of the request.
        call: the deployment and the model that answer. Only the account that made encrypted reasoning can read it, so
            that is bound to the deployment, and so are the signed blocks of some of Claude's models; text and other
            signed blocks are valid for every deployment of the same model, or of the
            same family of models.
        conversation: the result of `conversation_of`.
    """

    __slots__ = ("_conversation", "_owner")

    def __init__(self, principal: Principal, call: UpstreamCall, conversation: str) -> None:
        deployment = call.deployment
        family = _SHARES_THOUGHTS.search(call.model)
        is_bound = (deployment.kind == "responses" and family is None) or (
            deployment.kind == "anthropic" and claude_model(call.model).binds_account
        )
        account = (deployment.id, deployment.url) if is_bound else ("", "")
        model = call.model if family is None else family[1]
        owner = (principal.name, principal.is_master, deployment.kind, model, *account)
        self._owner = msgspec.json.encode([_encodable(part) if isinstance(part, str) else part for part in owner])
        self._conversation = _utf8(conversation)

    def of_call(self, call_id: str) -> bytes:
        """Return the key of a call. A long id and its short form, which upstreams get, have the same key.

        A random id identifies its turn by itself, even if the client names the conversation differently, as Cursor does
        when its mode changes.
        """
        short = short_call_id(call_id)
        conversation = b"" if _RANDOM.search(short) else self._conversation
        return _key(self._owner, conversation, b"call", _utf8(short))

    def of_text(self, digest: bytes, prompts: bytes) -> bytes:
        """Return the key of a turn without calls. The texts identify the conversation; see `of_call`.

        Args:
            digest: the hash of its text, from `TextDigest`.
            prompts: the hash of all user messages before it, from `PromptDigest`: a text like "Done." may occur twice.
        """
        return _key(self._owner, b"text", prompts + digest)

    def of_thought(self, blocks: Any) -> bytes:
        """Return the key of signed reasoning that a client sent back itself: of its signatures."""
        return _key(self._owner, b"thought", *(_utf8(_proof(block)) for block in (blocks if is_list(blocks) else ())))


def _proof(block: Any) -> str:
    proof = block.get("signature") or block.get("data") if is_object(block) else None
    return proof if isinstance(proof, str) else ""


def _key(*parts: bytes) -> bytes:
    return sha256(b"\0".join(parts)).digest()[:KEY_BYTES]


class TextDigest:
    """The hash of a text that arrives in pieces. White space around the whole does not count, as clients trim it."""

    __slots__ = ("_hash", "_spaces", "is_empty")

    def __init__(self) -> None:
        self.is_empty = True
        self._hash = sha256()
        self._spaces: list[str] = []  # at the end of the text, unless more arrives

    def update(self, text: str) -> None:
        """Add the next piece."""
        if self.is_empty:
            text = text.lstrip()
        body = text.rstrip()
        if body:
            self.is_empty = False
            self._hash.update(_utf8("".join(self._spaces) + body))
            self._spaces.clear()
            text = text[len(body) :]
        if text:
            self._spaces.append(text)

    def digest(self) -> bytes:
        """Return the hash of what has been added."""
        return self._hash.digest()


def digest_of(text: str) -> bytes | None:
    """Return the hash of a whole text, or None if it is blank."""
    text = text.strip()
    return sha256(_utf8(text)).digest() if text else None


class PromptDigest:
    """The hash of all user messages so far; it does not depend on the form in which a client sends them."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = sha256()

    def update(self, text: str) -> None:
        """Add the next message. Blank ones do not count: they are dropped from bodies of one shape only."""
        if (digest := digest_of(text)) is not None:
            self._hash.update(digest)

    def digest(self) -> bytes:
        """Return the hash of what has been added."""
        return self._hash.digest()


def prompts_of(items: Any) -> bytes:
    """Return the hash of all user messages in an ``input``, which may be a plain text."""
    prompts = PromptDigest()
    if isinstance(items, str):
        prompts.update(items)
    for item in paced(items) if is_list(items) else ():
        if is_user(item):
            prompts.update(text_of(item))
    return prompts.digest()


def is_user(item: Any) -> bool:
    """Return whether an item of an ``input`` is a user message."""
    return is_object(item) and item.get("role") == "user"


def text_of(item: Mapping[str, Any]) -> str:
    """Return the text of a message, without images, files and refusals."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if is_list(content) else []
    texts = (part.get("text") for part in parts if is_object(part))
    return "".join(text for text in texts if isinstance(text, str))


def _opening(items: Any) -> Iterable[str]:
    if isinstance(items, str):
        yield items[:MAX_OPENING_CHARS]
        return
    left_chars = MAX_OPENING_CHARS
    for item in items[:MAX_OPENING_MESSAGES] if is_list(items) else ():
        if not is_object(item):
            continue
        if is_user(item):
            text = text_of(item)[:left_chars]
            left_chars -= len(text)
            yield text
        elif item.get("role") not in ("system", "developer"):
            return


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _encodable(text: str) -> str:
    """Return ``text`` in a form that can be encoded: a lone surrogate cannot."""
    return text.encode("utf-8", "backslashreplace").decode()
