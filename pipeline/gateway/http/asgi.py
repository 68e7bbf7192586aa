"""The types of ASGI's HTTP scope and messages (asgi.readthedocs.io, specification 3.0, HTTP 2.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application; Any because each framework types scope and messages in its own way."""

REQUEST_CYCLE = "headrace.request_cycle"
"""The key in a scope's ``extensions`` of our server's own `RequestCycle`, which an application may use instead of
``receive`` and ``send``."""
