"""Lines that the real service has written: streams, whole answers, a slow head, an attempt that failed, a refusal."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from kit.service.running import Service, model, routed, serving
from kit.upstreams.scripted import end, error, event, in_turn, scripted_upstream, sse_head, wait

HEAD_S = 0.15
CONFIG = routed("{num_retries: 1, retry_after: 0}")


def text(word: str) -> Any:
    """Return a step of a Chat Completions stream."""
    return event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": word}}]})


FINISH = event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


async def recorded(service: Service, name: str, stream: bool = True) -> dict[str, Any]:
    """Make a request and return its line."""
    seen = len(service.records)
    await service.post({"model": name, "input": "Hello there", "stream": stream}, x_request_id=f"{name}-{seen}")
    record = await service.record(seen)
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"ts": now, "event": "request", **record}


async def real_lines() -> list[dict[str, Any]]:
    """Return the lines of some requests of all kinds."""
    slow = (sse_head(), text("a "), wait(0.02), text("b"), FINISH, event(b"data: [DONE]\n\n"), end())
    failing = in_turn([error(500)], slow)
    async with scripted_upstream(wait(HEAD_S), *slow) as one, scripted_upstream(failing) as other:
        models = model("slow", one.url, upstream="deepseek/m") + model("failing", other.url, upstream="deepseek/m")
        async with serving(models, config=CONFIG) as service:
            lines = [await recorded(service, name, stream) for name in ("echo", "agent") for stream in (True, False)]
            lines += [await recorded(service, name) for name in ("slow", "failing", "unknown")]
    return json.loads(json.dumps(lines))  # type: ignore[no-any-return]
