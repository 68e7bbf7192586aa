"""Whose turn it is: the keys under which reasoning is kept.

A key is a hash of the API key's name and the deployment, with the turn's first call id and its conversation, or with
the turn's text and what the user said before it. So nobody sees another's reasoning, and a store holds nothing that a
client wrote.
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
from stages.wire.call_ids import short_call_id
from stages.wire.foreign_json import is_list, is_object

KEY_BYTES = 16
"""Of a SHA-256; by chance two of 20 000 keys are the same once in 10^30 stores."""

MAX_CONVERSATION_CHARS = 64
"""OpenAI's limit for ``prompt_cache_key``, which a conversation's name becomes."""

_HEADER = b"x-cursor-conversation-id"

_RANDOM = re.compile(
    r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
"""In a call id that no other conversation has: OpenAI's and Anthropic's have 20 random characters or more, others count
(``call_0``, ``functions.Read:1``)."""


def conversation_of(request: ResponsesRequest, headers: Mapping[bytes, bytes]) -> str:
    """Name the conversation that a request continues, in at most 64 characters.

    The client's own name for it if it tells one. Else a hash of the model and of what the user said before the model
    first spoke; of more than the first message, because Cursor begins every chat of a workspace with the same one.
    Never ``user``, which is the same in all chats of one person (cursor-wire.md 1.4).

    Args:
        request: the request, in the normal form.
        headers: of the request, names in lower case.
    """
    metadata = request.body.get("metadata")
    told = metadata.get("cursorConversationId") if is_object(metadata) else None
    if not isinstance(told, str) or not told:
        told = headers.get(_HEADER, b"").decode("latin-1").strip()
    if told:
        return told if len(told) <= MAX_CONVERSATION_CHARS else sha256(_utf8(told)).hexdigest()
    return sha256(msgspec.json.encode([request.model, *map(_whole, _opening(request.body.get("input")))])).hexdigest()


class Scope:
    """All that is the same for every turn of a conversation; makes the keys of its turns.

    Args:
        principal: whose key the request came with.
        call: who is to answer. Encrypted reasoning can be read only by the account that made it, so it is bound to the
            deployment; text and signed blocks are good for every deployment of the same model.
        conversation: from `conversation_of`.
    """

    __slots__ = ("_conversation", "_owner")

    def __init__(self, principal: Principal, call: UpstreamCall, conversation: str) -> None:
        deployment = call.deployment
        account = (deployment.id, deployment.url) if deployment.kind == "responses" else ("", "")
        owner = (principal.name, principal.is_master, deployment.kind, call.model, *account)
        self._owner = msgspec.json.encode([_whole(part) if isinstance(part, str) else part for part in owner])
        self._conversation = _utf8(conversation)

    def of_call(self, call_id: str) -> bytes:
        """Give the key of a call. A long id and its short form, which upstreams get, have the same.

        An id that is random names its turn by itself, also when the client names the conversation differently: Cursor
        does when its mode changes.
        """
        short = short_call_id(call_id)
        conversation = b"" if _RANDOM.search(short) else self._conversation
        return _key(self._owner, conversation, b"call", _utf8(short))

    def of_text(self, digest: bytes, asked: bytes) -> bytes:
        """Give the key of a turn without calls. What was said names the conversation: see `of_call`.

        Args:
            digest: of its text, from `TextDigest`.
            asked: hash of all that the user said before it, from `Asked`, as "Done." may be said more than once.
        """
        return _key(self._owner, b"text", asked + digest)


def _key(*parts: bytes) -> bytes:
    return sha256(b"\0".join(parts)).digest()[:KEY_BYTES]


class TextDigest:
    """A hash of a text that comes in pieces. White space around the whole does not count: clients trim it."""

    __slots__ = ("_hash", "_spaces", "is_empty")

    def __init__(self) -> None:
        self.is_empty = True
        self._hash = sha256()
        self._spaces: list[str] = []  # the end of the text, unless more comes

    def update(self, text: str) -> None:
        """Take the next piece."""
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
        """Give the hash of what has come."""
        return self._hash.digest()


def digest_of(text: str) -> bytes | None:
    """Give the hash of a whole text, or None if it is blank."""
    text = text.strip()
    return sha256(_utf8(text)).digest() if text else None


class Asked:
    """A hash of all that the user has said so far; the same however a client writes it down."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = sha256()

    def update(self, text: str) -> None:
        """Take the next message. Blank ones do not count: they are dropped from bodies of one shape only."""
        if (digest := digest_of(text)) is not None:
            self._hash.update(digest)

    def digest(self) -> bytes:
        """Give the hash of what has come."""
        return self._hash.digest()


def asked_in(items: Any) -> bytes:
    """Give the hash of all that the user says in an ``input``, which may be a plain text."""
    asked = Asked()
    if isinstance(items, str):
        asked.update(items)
    for item in items if is_list(items) else ():
        if is_user(item):
            asked.update(text_of(item))
    return asked.digest()


def is_user(item: Any) -> bool:
    """Whether an item of an ``input`` is a message of the user."""
    return is_object(item) and item.get("role") == "user"


def text_of(item: Mapping[str, Any]) -> str:
    """Give the text of a message, without images, files and refusals."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if is_list(content) else []
    texts = (part.get("text") for part in parts if is_object(part))
    return "".join(text for text in texts if isinstance(text, str))


def _opening(items: Any) -> Iterable[str]:
    if isinstance(items, str):
        yield items
        return
    for item in items if is_list(items) else ():
        if not is_object(item):
            continue
        if is_user(item):
            yield text_of(item)
        elif item.get("role") not in ("system", "developer"):
            return


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _whole(text: str) -> str:
    """Give ``text`` in a form that JSON can hold: a lone surrogate cannot be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()
