"""Restore the reasoning of earlier turns, which clients drop, before the calls and the text that it led to.

Also names the conversation to the upstream (``prompt_cache_key``) if the client does not, and asks for reasoning in the
form that can be sent back. A request that refers to a conversation stored by the upstream is not changed.

A call that is answered through something around it is not changed either: each of its attempts restores anew.

Takes: UpstreamCall. Gives: UpstreamCall, 1:1.
Holds: one call. Waits: for the store (declared), and for its turn to work on a large body.
Fills: SENT_REASONING, if reasoning is sent back; PROMPTS, if the body is large.
Raises: nothing; reasoning that the store does not have is left out.
Source: docs/facts/cursor.md, "Reasoning between turns"; https://platform.openai.com/docs/guides/reasoning (2025-11).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from pipeline import Lane, RequestContext, Stage, codec_stage
from stages.large_bodies import in_slices
from stages.reasoning.keys import Scope, conversation_of, prompts_of
from stages.reasoning.refused import ReasoningInRequest
from stages.reasoning.store import ReasoningStore
from stages.reasoning.turns import TurnPlaces, has_turns, read_turn
from stages.slots import CALL, HEAD, PRINCIPAL, PROMPTS, SENT_REASONING
from stages.upstreams import UpstreamCall
from stages.wire.foreign_json import is_list
from stages.wire.normal_form import ENCRYPTED
from stages.wire.openai_models import family_of
from stages.wire.slices import LARGE_BYTES

_STORED_UPSTREAM = ("previous_response_id", "conversation")
"""Fields that refer to a conversation stored by the upstream, with its reasoning."""


IsLater = Callable[[UpstreamCall, RequestContext], bool]
"""Whether the reasoning of a call is restored later."""


class _Restore:
    def __init__(self, store: ReasoningStore | None, is_later: IsLater | None, ctx: RequestContext) -> None:
        self._store = store
        self._is_later = is_later
        self._ctx = ctx

    async def feed(self, batch: list[UpstreamCall], lane: Lane, /) -> list[UpstreamCall]:
        is_later, ctx = self._is_later, self._ctx
        ctx[CALL] = batch[-1]  # as it is: another deployment gets other reasoning
        return [
            call if is_later is not None and is_later(call, ctx) else await self._restored(call, lane) for call in batch
        ]

    async def flush(self, lane: Lane, /) -> list[UpstreamCall]:
        return []

    async def _restored(self, call: UpstreamCall, lane: Lane) -> UpstreamCall:
        body, size_bytes = call.request.body, call.request.size_bytes
        if any(body.get(field) for field in _STORED_UPSTREAM):
            return call
        conversation = conversation_of(call.request, self._ctx[HEAD].headers)
        changes: dict[str, Any] = {}
        if not body.get("prompt_cache_key"):
            changes["prompt_cache_key"] = conversation
        if self._store is not None and call.deployment.kind != "canned":
            if call.deployment.kind == "responses" and _needs_encrypted(_sent(call), call.model):
                changes["include"] = [*(body.get("include") or ()), ENCRYPTED]
            items = body.get("input")
            if size_bytes >= LARGE_BYTES:
                self._ctx[PROMPTS] = await in_slices(size_bytes, partial(prompts_of, items))
            if is_list(items) and has_turns(items):
                scope = Scope(self._ctx[PRINCIPAL], call, conversation)
                places = await in_slices(size_bytes, partial(TurnPlaces, items, scope))
                if places.keys:
                    with lane.outside():
                        found = await self._store.find(places.keys)
                    turns = {key: turn for key, value in found.items() if (turn := read_turn(value)) is not None}
                    restored = await in_slices(size_bytes, partial(places.restored, turns))
                    if restored is not None:
                        changes["input"] = restored
                    if keys := places.in_request(turns):
                        self._ctx[SENT_REASONING] = ReasoningInRequest(self._store, keys, items, restored or items)
        return replace(call, request=replace(call.request, body={**body, **changes}))


def _sent(call: UpstreamCall) -> dict[str, Any]:
    """Return the body with what the deployment's entry sets, which it does only when it is called."""
    parameters = call.deployment.parameters
    return call.request.body if parameters is None else parameters.applied_to(call.request).body


def _needs_encrypted(body: dict[str, Any], model: str) -> bool:
    """Return whether encrypted reasoning must be requested, to send it back in the next turn.

    Only if the client mentions reasoning, or if the model is known to think anyway: a model without reasoning refuses
    the field. Nothing is requested if the upstream stores the response, as it then restores the reasoning itself.
    """
    if body.get("store") is True or ENCRYPTED in (body.get("include") or ()):
        return False
    if not body.get("reasoning") and not family_of(model).thinks_with(None):
        return False
    return body.get("store") is False or bool(body.get("tools"))


def restore_reasoning(
    store: ReasoningStore | None, is_later: IsLater | None = None
) -> Stage[UpstreamCall, UpstreamCall]:
    """Return the stage; without a store it restores nothing, but still names the conversation."""
    return codec_stage("restore_reasoning", lambda ctx: _Restore(store, is_later, ctx), codec=_Restore)
