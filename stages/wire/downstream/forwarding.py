"""Fields that choose another model, or that name something stored in an account: sent only where the operator wants it.

Through ``models``, ``route`` or ``plugins`` OpenRouter answers with another model than the one that a key is for. An
answer of ours has no id at the vendor, so ``previous_response_id`` and the like were never ours: they name what another
user of the same account has stored. The conversation that came with them stands for itself.

Source: https://openrouter.ai/docs/features/model-routing (2026-11); docs/facts/translation.md, "Parameters".
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from stages.request import ResponsesRequest
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.pairing import pair_calls
from stages.wire.foreign_json import Json, is_list
from stages.wire.normal_form import is_reference

MODEL_FIELDS: Final = frozenset({"models", "route", "plugins", "preset", "prompt"})
"""Those that can choose another model; a stored prompt names one, and a plugin may be a router."""

_STORED: Final = frozenset({"previous_response_id", "conversation"})

FORWARDABLE: Final = MODEL_FIELDS | _STORED | {"provider", "transforms"}
"""All of them: what ``forward_fields`` may list."""


def only_forwarded(request: ResponsesRequest, allowed: frozenset[str]) -> ResponsesRequest:
    """Return the request without the fields that may not be sent; the request itself if it has none of them.

    Args:
        request: in normal form.
        allowed: what the deployment forwards, and the key may use.

    Raises:
        BadRequest: if all that the request says is stored elsewhere.
    """
    body = request.body
    if FORWARDABLE.isdisjoint(body):  # nearly all requests
        return request
    withheld = {name for name in body if name in FORWARDABLE and name not in allowed}
    if not withheld:
        return request
    request.mended.add("unforwarded_field")
    left = {name: value for name, value in body.items() if name not in withheld}
    items: Json = left["input"]
    if is_list(items) and not withheld.isdisjoint(_STORED):
        # Outputs whose calls are stored elsewhere were kept until now.
        left["input"] = paired = pair_calls(items, is_whole=not any(map(is_reference, items)))
        if not paired:
            raise BadRequest(
                "input has no conversation of its own: it continues one that is stored elsewhere, which this gateway "
                "does not forward. Send the whole conversation.",
                "input",
            )
        if paired is not items:
            request.mended.add("unpaired_call")
    return replace(request, body=left)
