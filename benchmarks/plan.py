"""What a load sends: the settings of a run of `benchmarks.load`, and the bytes of its request."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to request, how often, and for how long.

    Attributes:
        mode: ``repeat`` keeps ``connections`` requests running for warm-up and measurement; ``once`` sends one request
            on each connection and ends with the last answer; ``hold`` waits until all requests are established, then
            for the warm-up, then measures.
        requests: if given, ``repeat`` ends after so many requests instead, and measures all of them.
        cooldown_s: how long the load goes on after the measurement, for the sake of others that still measure.
        ids: if given, each request has an ``x-request-id`` of this and a number, and the figures have its total time,
            until the last byte reached the client's socket, even if the client comes late to read it.
        awaits_head: whether a request is established when the head of its answer arrives, or already when it is sent.
        hint: the text of the user's message: the upstream's script, for a service that knows only its own models.
        dialect: the form of the request, and of the end of a complete stream.
        events: the number of deltas in a complete stream; 0: not checked.
        open_per_s: connections opened per second; 0: all at once.
        pids: processes whose CPU and memory, with their descendants', are measured.
        limit_s: how long ``once`` and ``requests`` may take to end, and ``hold`` to establish its requests.
    """

    port: int
    model: str
    hint: str = ""
    connections: int = 1
    seconds: float = 5.0
    warmup_s: float = 0.5
    cooldown_s: float = 0.0
    mode: Literal["repeat", "once", "hold"] = "repeat"
    requests: int = 0
    ids: str = ""
    awaits_head: bool = True
    path: str = "/cursor/chat/completions"
    dialect: Literal["chat", "responses"] = "chat"
    stream: bool = True
    events: int = 0
    token: str = "sk-bench"
    headers: dict[str, str] = {}
    open_per_s: float = 2000.0
    pids: list[int] = []
    limit_s: float = 60.0


NUMBER = b"{number}"
"""Stands in a request for the number of its ``x-request-id``."""


def request(load: Load) -> bytes:
    """Return the request of a load, the same each time but for `NUMBER`."""
    body: dict[str, Any] = {"model": load.model, "stream": load.stream}
    system, user = "You are a helpful assistant.", f"hello {load.hint}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    if load.dialect == "responses":
        body |= {"input": messages}
    else:
        body |= {"temperature": 1, "messages": messages}
        if load.stream:
            body |= {"stream_options": {"include_usage": True}}
    content = msgspec.json.encode(body)
    headers = {
        "Host": f"127.0.0.1:{load.port}",
        "Authorization": f"Bearer {load.token}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream" if load.stream else "application/json",
        "User-Agent": "headrace-bench",
        "Content-Length": str(len(content)),
        **({"X-Request-Id": load.ids + NUMBER.decode()} if load.ids else {}),
        **load.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {load.path} HTTP/1.1\r\n{head}\r\n".encode() + content
