"""The upstream APIs that are spoken: one row for each. Adding one is a folder in ``stages/wire`` and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stages.wire.anthropic.api import ANTHROPIC
from stages.wire.api import Api
from stages.wire.chat.api import CHAT
from stages.wire.responses.api import RESPONSES

# Any: the quirks' type differs from row to row; an API is only ever given its own.
APIS: Final[Mapping[str, Api[Any]]] = {api.name: api for api in (RESPONSES, CHAT, ANTHROPIC)}
"""By name, the preferred one first."""

ANSWERS: Final[Mapping[str, Api[Any]]] = {**APIS, "canned": RESPONSES}
"""How a deployment answers, by its kind: the embedded upstream speaks the Responses API."""
