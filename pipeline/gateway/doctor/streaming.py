"""Streams of which it is known when their parts are sent: what buffers, compresses or cuts them on the way."""

from __future__ import annotations

from secrets import token_hex
from typing import Final

import msgspec
import trio
from msgspec import Struct

from pipeline.gateway.doctor.client import error_of, posting
from pipeline.gateway.doctor.findings import Finding, ok, problem, untested, warning
from pipeline.gateway.doctor.proxies import remedy_for
from pipeline.gateway.doctor.streams import Streamed, stream
from pipeline.gateway.doctor.target import Plan, Visit

CHAT: Final = "/chat/completions"
HELD_SHARE: Final = 0.5
"""Of the time that a stream takes: what is held back for longer was buffered."""
STREAM_TRIES: Final = 3
"""So many streams must look buffered until that is said."""
LEAVE_AFTER_S: Final = 0.5
"""From the head of the answer: by then headrace surely has the request."""
_POLL_S: Final = 0.1


async def probe_stream(visit: Visit) -> list[Finding]:
    """Time a steady stream.

    What buffers does so each time: a stream that was late once may have waited for a busy machine or network.
    """
    plan = visit.plan
    model = visit.probe_model(f"tokens={plan.tokens};gap={plan.gap_s * 1000:g}ms")
    tries = 0
    while True:
        tries += 1
        streamed = await stream(visit.client, visit.target, visit.target.url(CHAT), {"model": model, **HELLO})
        found = judge_stream(streamed, plan, visit)
        is_buffered = found.status == "problem" and streamed.is_done
        if not is_buffered or tries == STREAM_TRIES:
            return [found, judge_compression(streamed, visit.proxy)]


HELLO: Final = {"messages": [{"role": "user", "content": "headrace doctor"}]}


def judge_stream(streamed: Streamed, plan: Plan, visit: Visit) -> Finding:
    """Return whether the tokens came when they were sent."""
    if not streamed.is_stream or not streamed.is_done:
        return problem("stream", what_came(streamed, visit), see_log(streamed))
    times_s = streamed.token_times_s
    delays_s = [at_s - number * plan.gap_s for number, at_s in enumerate(times_s)]
    held_s = max(delays_s) - min(delays_s)
    parts = len({round(at_s, 3) for at_s in times_s})
    if held_s > HELD_SHARE * plan.span_s:
        return problem(
            "stream",
            f"buffered: {len(times_s)} tokens, sent one each {plan.gap_s * 1000:g} ms, came in {parts} "
            f"{'part' if parts == 1 else 'parts'}, the first after {times_s[0]:.2f} s",
            remedy_for("stream", visit.proxy),
        )
    text = f"{len(times_s)} tokens, sent one each {plan.gap_s * 1000:g} ms, came in {parts} parts"
    if held_s > plan.late_s:
        return warning("stream", f"{text}, held back for up to {held_s:.2f} s", "run it again: the network may be slow")
    return ok(
        "stream", f"{text}, the first after {times_s[0] * 1000:.0f} ms, held back for up to {held_s * 1000:.0f} ms"
    )


def judge_compression(streamed: Streamed, proxy: str | None) -> Finding:
    """Return whether a stream came compressed, which headrace never does."""
    coding = streamed.headers.get("content-encoding", "")
    if not streamed.status:
        return untested("compression", "no stream came")
    if coding:
        return warning(
            "compression",
            f"the event stream is compressed on the way ({coding}): each part costs time, and some servers hold it "
            "back to compress more",
            remedy_for("compression", proxy),
        )
    return ok("compression", "the event stream is not compressed")


async def probe_idle(visit: Visit) -> list[Finding]:
    """Wait for a stream on which only comments come."""
    plan = visit.plan
    if not plan.idle_s:
        return [untested("idle", "--idle 0")]
    model = visit.probe_model(f"first={plan.idle_s * 1000:g}ms;tokens=2")
    streamed = await stream(visit.client, visit.target, visit.target.url(CHAT), {"model": model, **HELLO})
    return [judge_idle(streamed, visit)]


def judge_idle(streamed: Streamed, visit: Visit) -> Finding:
    """Return whether a stream without tokens has survived."""
    idle_s = visit.plan.idle_s
    every_s = visit.page.keep_alive_interval_s if visit.page is not None else 0.0
    comments = sum(arrival.is_comment for arrival in streamed.arrivals)
    if streamed.is_stream and streamed.is_done:
        text = f"survives {idle_s:g} s without a token, with {comments} comments, silent for up to"
        text = f"{text} {streamed.longest_silence_s:.1f} s"
        if not comments and not every_s:
            return warning(
                "idle",
                f"{text}: keep_alive_interval_s is 0",
                "set pipeline_settings.keep_alive_interval_s: 15, so that a longer wait survives as well",
            )
        if not comments and every_s + visit.plan.late_s < idle_s:
            text = f"{text}: the comments are buffered or removed on the way"
            return warning("idle", text, remedy_for("stream", visit.proxy))
        return ok("idle", text)
    if streamed.status and not streamed.is_stream and error_of(streamed.error):
        return problem("idle", what_came(streamed, visit), see_log(streamed))
    last_s = streamed.arrivals[-1].at_s if streamed.arrivals else 0.0
    silent_s = streamed.ended_s - last_s
    how = f"status {streamed.status}" if streamed.status >= 400 else "cut off"
    below_s = max(0.1, silent_s / 2)
    return problem(
        "idle",
        f"{how} after {streamed.ended_s:.1f} s, of which the last {silent_s:.1f} s were silent (a comment comes each "
        f"{every_s:g} s)",
        f"{remedy_for('idle', visit.proxy)}, or in headrace's file: keep_alive_interval_s: {below_s:.2g}",
    )


class _Recorded(Struct):
    end: str


def _end_of(record: bytes) -> str | None:
    try:
        return msgspec.json.decode(record, type=_Recorded).end
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def probe_leaving(visit: Visit) -> list[Finding]:
    """Leave a stream, and see when headrace has ended it."""
    target, limit_s = visit.target, visit.plan.leave_s
    request_id = f"headrace-doctor-{token_hex(8)}"
    body = msgspec.json.encode({"model": visit.probe_model(f"first={3 * limit_s:g}s"), "stream": True, **HELLO})
    headers = target.headers() | {"x-request-id": request_id}
    with trio.move_on_after(limit_s) as patience:  # a client that is stopped while the model thinks
        async with posting(visit.client, target.url(CHAT), headers, [body], len(body)) as response:
            patience.deadline = min(patience.deadline, trio.current_time() + LEAVE_AFTER_S)
            await response.aread()
        return [untested("leaving", "the stream that was to be left has ended before")]
    left_s, running = trio.current_time(), b""
    while trio.current_time() < left_s + limit_s:
        record = await visit.client.get(f"{target.root}/latency/requests/{request_id}", headers=target.headers())
        if (end := _end_of(record.content)) is not None:
            after_s = trio.current_time() - left_s
            return [ok("leaving", f"headrace has ended a silent stream ({end}) {after_s:.1f} s after its client left")]
        said = error_of(record.content)
        if said is None or said.code != "record_not_found":
            return [untested("leaving", "the proxy does not lead to /latency, where it would be seen")]
        # From the first time that it is asked, what runs is published each second.
        running = (await visit.client.get(f"{target.root}/latency/running", headers=target.headers())).content
        await trio.sleep(_POLL_S)
    if request_id.encode() not in running:
        why = (
            "the request is not in headrace's flight recorder (recorder_mb), or the proxy has changed its x-request-id"
        )
        return [untested("leaving", why)]
    return [
        problem(
            "leaving",
            f"headrace does not notice within {limit_s:g} s that a client has left: the model goes on, and costs",
            remedy_for("leaving", visit.proxy),
        )
    ]


def what_came(streamed: Streamed, visit: Visit) -> str:
    """Return what came instead of a complete stream."""
    if streamed.failure and not streamed.is_stream:
        return f"no answer: {streamed.failure}"
    if not streamed.is_stream:
        said = error_of(streamed.error)
        kind = streamed.headers.get("content-type", "no content-type")
        why = visit.target.hide_key(said.message) if said else f"{kind} and no event stream"
        return f"status {streamed.status}: {why}"
    why = streamed.failure or "without its last event"
    return f"the stream was cut off after {streamed.ended_s:.1f} s, {len(streamed.token_times_s)} tokens: {why}"


def see_log(streamed: Streamed) -> str:
    """Return where to look for the reason."""
    request_id = streamed.headers.get("x-request-id")
    return f"see headrace's log for the request {request_id}" if request_id else "see the log of the proxy"
