"""What a soak asks, and what must come of it: drawn from a seed, and checked when it is over."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import msgspec

from benchmarks.behaviour import FAULTS
from benchmarks.gateways import KEY

Outcome = Literal["complete", "document", "told", "refused", "gone", "reset"]
"""What a plan expects. ``told``: a failure as a status or in the stream; ``refused``: a 4xx; ``gone``: the client
leaves; ``reset``: the server gives up on a client that does not read."""

TEXT = "xxxxx "
_STAMP = re.compile(r"@[0-9a-f]{16}@")
UPLOAD_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """One request.

    Attributes:
        kind: its row in the report.
        request: all its bytes.
        expects: what must come of it.
        events: the deltas of its answer.
        leaves_after: so many deltas after which the client closes; -1: it stays.
        by_reset: whether it closes with a reset.
        rests_s: for how long the client does not read after the head; 0: it reads at once.
    """

    kind: str
    request: bytes
    expects: Outcome
    events: int = 0
    leaves_after: int = -1
    by_reset: bool = False
    rests_s: float = 0.0


class Plans:
    """Draws plans.

    Args:
        seed: what is drawn.
        faults: the share of requests whose upstream fails, and the share whose client leaves.
        paced: draw only paced streams of ``events`` events, one each ``gap_us``; else all kinds.
    """

    def __init__(self, seed: int, *, faults: float, paced: bool, events: int, gap_us: int) -> None:
        self.rng = self._rng = Random(seed)
        self._faults = faults
        self._paced = paced
        self._events = events
        self._gap_us = gap_us
        self._count = 0

    def draw(self) -> Plan:
        """Return the next plan."""
        self._count += 1
        rng, draw = self._rng, self._rng.random()
        if draw < self._faults:
            return self._faulty()
        if draw < 2 * self._faults:
            events = self._events
            leaves = rng.randrange(events) if not self._paced else rng.randrange(max(1, events // 2))
            return self._stream("disconnect", events, "gone", leaves_after=leaves, by_reset=rng.random() < 0.5)
        if self._paced:
            return self._stream("paced stream", self._events, "complete")
        draw = rng.random()
        if draw < 0.5:
            return self._stream("paced stream", self._events, "complete")
        if draw < 0.65:
            return Plan("burst", self._post("mock-n200-t0", stream=True), "complete", 200)
        if draw < 0.8:
            return Plan("document", self._post("mock-n20", stream=False), "document", 20)
        if draw < 0.84:
            return Plan("upload", self._post("mock-n20-t0", stream=True, padding=UPLOAD_BYTES), "complete", 20)
        if draw < 0.86:
            return Plan("slow reader", self._post("mock-n4000-t0", stream=True), "complete", 4000, rests_s=1.0)
        if draw < 0.865:
            return Plan("stalled reader", self._post("mock-n40000-t0", stream=True), "reset", 40000, rests_s=3600.0)
        return Plan("bad request", self._bad(), "refused")

    def _stream(self, kind: str, events: int, expects: Outcome, **more: Any) -> Plan:
        model = f"mock-n{events}-d{self._gap_us}-t1-r1"
        return Plan(kind, self._post(model, stream=True), expects, events, **more)

    def _faulty(self) -> Plan:
        rng, events = self._rng, self._events
        kind = rng.randrange(len(FAULTS) + 2)
        if kind >= len(FAULTS):
            status = rng.choice((400, 401, 404, 429, 500, 503))
            return Plan(f"fault: status {status}", self._post(f"mock-h{status}", stream=rng.random() < 0.7), "told")
        model = f"mock-n{events}-d{self._gap_us}-t1-r1-x{rng.randrange(1, events)}-f{kind}"
        return Plan(f"fault: {FAULTS[kind]}", self._post(model, stream=True), "told", events)

    def _post(self, model: str, *, stream: bool, padding: int = 0) -> bytes:
        body = {
            "model": model,
            "stream": stream,
            "messages": [{"role": "user", "content": f"mark-{self._count} {'x' * padding}"}],
        }
        return _request(msgspec.json.encode(body))

    def _bad(self) -> bytes:
        rng = self._rng
        return rng.choice(
            (
                _request(b"{"),
                _request(b"[" * 5000),
                _request(b'{"model":"nobody","messages":[{"role":"user","content":"x"}]}'),
                _request(b'{"model":"mock-n1"}'),
                _request(b'{"model":"mock-n1","messages":[{"role":"wizard","content":"x"}]}'),
                _request(b'{"model":"mock-n1","input":"x"}', key="sk-wrong"),
                b"POST /cursor/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                b"GET /cursor/chat/completions HTTP/1.1\r\nHost: h\r\n\r\n",
            )
        )


def mark_of(plan: Plan) -> str:
    """Return the name of a request at the upstream."""
    found = re.search(rb"mark-[0-9]+", plan.request)
    return found[0].decode() if found else ""


def _request(body: bytes, key: str = KEY) -> bytes:
    head = (
        f"POST /cursor/chat/completions HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def fault_in(plan: Plan, status: int, body: bytes) -> str:
    """Return what is wrong with an answer that has ended by itself; "" if it is as planned."""
    try:
        if plan.expects == "refused":
            return "" if 400 <= status < 500 else f"status {status} instead of a refusal"
        if status != 200:
            error = msgspec.json.decode(body)["error"]
            return "" if plan.expects == "told" and error["message"] else f"status {status}"
        if plan.expects == "document":
            text = msgspec.json.decode(body)["choices"][0]["message"]["content"]
            return "" if text == (TEXT * (plan.events * 5 // 6 + 1)) else "another text"
        return _fault_in_stream(plan, body)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        return f"not an answer: {type(error).__name__}"


def _fault_in_stream(plan: Plan, body: bytes) -> str:
    texts: list[str] = []
    finish = error = ""
    frames = body.split(b"\n\n")
    if frames.pop():
        return "cut in an event"
    is_done = bool(frames) and frames[-1] == b"data: [DONE]"
    for frame in frames[:-1] if is_done else frames:
        if frame.startswith(b":"):
            continue
        chunk = msgspec.json.decode(frame.removeprefix(b"data: "))
        if "error" in chunk:
            error = chunk["error"]["message"]
        for choice in chunk.get("choices", ()):
            texts.append(choice["delta"].get("content") or "")
            finish = choice["finish_reason"] or finish
    text = _STAMP.sub("", "".join(texts))
    one = "x" * 5
    if plan.expects == "told":
        if not error or is_done:
            return "a failure that is not told"
        return "" if text == one * (len(text) // 5) and len(text) // 5 <= plan.events else "another text"
    if not is_done or finish != "stop":
        return f"not complete: {error[:60] or 'no end'}"
    return "" if text == one * plan.events else "another text"
