"""No credential leaves the service, by whichever place shows foreign text; and nothing of a prompt is logged."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import CURSOR, OPENAI_LIKE, ask, begun, failed_event
from kit.service.running import KEY, model, serving
from kit.upstreams.scripted import (
    Exchange,
    Step,
    close,
    end,
    error,
    event,
    json_answer,
    pieces,
    reset,
    scripted_upstream,
    sse_head,
    stall,
)

from pipeline import Plugin, per_event
from pipeline.gateway.logs import configure_logging
from pipeline.registry import NoOptions
from stages.events import StreamEvent

TOKEN = "github_pat_11ABCDEFG0aB3dE5fG7hJ9kL2mN4pQ6rS8tU0vW1xY3zA5"
UPSTREAM_KEY = "sk-upstream-secret-0123456789"
"""The key of the deployments of `kit.service.running.model`."""
OWN = "my-own-plain-SECRET-key"
"""What an upstream gets in a header of its deployment; only the deployment tells that it is a secret."""


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    """Log to a file, and restore logging afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "log"
    with path.open("ab") as file:
        configure_logging("json", "debug", fd=file.fileno())
        yield path
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.parametrize("agent", [OPENAI_LIKE, CURSOR])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_shown_without_the_credential_that_it_quotes(agent: str, stream: bool) -> None:
    refusal = json_answer({"error": {"message": f"no access for {TOKEN} or {OWN}", "param": OWN}}, 403)
    async with scripted_upstream(refusal) as up:
        async with serving(model("up", up.url, extra_headers={"x-team": OWN})) as service:
            answer = await service.post(ask(stream=stream), user_agent=agent)
    error = json.loads(answer.content)["error"]
    assert error["message"].endswith("answered 403: no access for [redacted] or [redacted]")
    assert TOKEN not in answer.text
    assert OWN not in answer.text
    assert up.requests[0].headers["x-team"] == OWN


@pytest.mark.parametrize("agent", [OPENAI_LIKE, CURSOR])
async def test_a_failure_within_a_stream_is_shown_without_the_deployments_own_secret(agent: str) -> None:
    failure = event(failed_event("server_error", f"no access for {OWN} or {TOKEN}"))
    async with scripted_upstream(*begun("Hello"), failure, end()) as up:
        async with serving(model("up", up.url, extra_headers={"x-team": OWN})) as service:
            answer = await service.post(ask(), user_agent=agent)
            whole = await service.post(ask(stream=False), user_agent=agent)
    folded = fold_stream(answer.content)
    shown = folded.content if agent == CURSOR else folded.error and folded.error["message"]
    assert shown is not None
    assert "no access for [redacted] or [redacted]" in shown
    assert "no access for [redacted] or [redacted]" in json.loads(whole.content)["error"]["message"]
    for text in (answer.text, whole.text):
        assert OWN not in text
        assert TOKEN not in text


async def test_a_credential_that_a_client_sends_as_a_name_is_not_logged(log_file: Path) -> None:
    async with scripted_upstream(json_answer({"error": "no"}, 404)) as up:
        async with serving(model("team/*", up.url, upstream="openai/*")) as service:
            await service.post(ask(f"team/{TOKEN}"), x_request_id=TOKEN)
            record = await service.record(0)
    assert (record["model"], record["request_id"]) == ("team/[redacted]", "[redacted]")
    assert record["error"] == "upstream_not_found"
    assert TOKEN not in json.dumps(record)
    assert TOKEN not in log_file.read_text()


# What a client sends is nobody else's business, whatever happens to its request.

MARKS = {
    "in the instructions": "mauve-walrus",
    "in the prompt": "ochre-lemur",
    "in the reasoning": "umber-stoat",
    "in the arguments of a call": "coral-heron",
    "in the output of a tool": "khaki-bison",
    "in the description of a tool": "azure-moose",
    "in an image": "ivory-gecko",
    "in the user's name": "beige-otter",
    "in the metadata": "olive-finch",
    "in a header": "amber-hyena",
    "in the query": "lilac-shrew",
    "in a wrong key": "rusty-camel",
    "the key": KEY,
    "the upstream's key": UPSTREAM_KEY,
}
"""Words that no rule of redaction takes for a credential, so that only silence hides them; and the keys."""

PROMPT = MARKS["in the prompt"]
MARKED: dict[str, Any] = {
    "model": "up",
    "instructions": MARKS["in the instructions"],
    "input": [
        {"role": "user", "content": [
            {"type": "input_text", "text": PROMPT},
            {"type": "input_image", "image_url": f"https://example.com/{MARKS['in an image']}.png"},
        ]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": MARKS["in the reasoning"]}]},
        {"type": "function_call", "call_id": "call_1", "name": "Read",
         "arguments": json.dumps({"path": MARKS["in the arguments of a call"]})},
        {"type": "function_call_output", "call_id": "call_1", "output": MARKS["in the output of a tool"]},
        {"role": "user", "content": "go on"},
    ],
    "tools": [{"type": "function", "name": "Read", "description": MARKS["in the description of a tool"],
               "parameters": {"type": "object", "properties": {}}}],
    "user": MARKS["in the user's name"],
    "metadata": {"note": MARKS["in the metadata"]},
}  # fmt: skip


def quoting(exchange: Exchange) -> str:
    """Return an error text that quotes everything that the upstream got."""
    return f"cannot process {exchange.request.body.decode()} with {exchange.request.headers}"


async def refuse_quoting(exchange: Exchange) -> None:
    await exchange.send(json_answer({"error": {"message": quoting(exchange)[-1500:], "code": "invalid_value"}}, 400))


async def refuse_quoting_as_text(exchange: Exchange) -> None:
    await exchange.send(error(500, quoting(exchange)[:1500].encode(), content_type="text/plain"))


async def fail_quoting(exchange: Exchange) -> None:
    await event(failed_event("server_error", quoting(exchange)[:1500]))(exchange)
    await exchange.send(end())


BROKEN: dict[str, tuple[Step, ...]] = {
    "closes": (close(),),
    "resets": (reset(),),
    "does not speak HTTP": (b"SSH-2.0 ochre\r\n\r\n", stall()),
    "is silent": (stall(),),
    "is silent after its head": (sse_head(), stall()),
    "400": (json_answer({"error": {"message": "no"}}, 400),),
    "401": (json_answer({"error": {"message": f"bad key {UPSTREAM_KEY}"}}, 401),),
    "404": (error(404),),
    "429": (json_answer({"error": {"message": "slow down"}}, 429, headers=[("retry-after", "1")]),),
    "503 in HTML": (error(503, b"<html>", content_type="text/html"),),
    "redirects": (error(302, headers=[("location", "http://127.0.0.1:1/")]),),
    "HTML": (error(200, b"<html>", content_type="text/html"),),
    "compresses": (error(200, gzip.compress(b"{}"), headers=[("content-encoding", "gzip")]),),
    "a document that is not JSON": (error(200, b"{nope"),),
    "an empty document": (json_answer({}),),
    "no events": (sse_head(), end()),
    "an event that is not JSON": (sse_head(), event(b"data: {nope\n\n"), end()),
    "an event that is too large": (sse_head(until_close=True), pieces(b"data: " + b"x" * (17 << 20), 1 << 20), stall()),
    "resets in mid-stream": (*begun("Hello"), reset()),
    "ends in mid-stream": (*begun("Hello"), end()),
    "closes in mid-stream": (*begun("Hello"), close()),
    "bad chunks in mid-stream": (*begun("Hello"), b"zz\r\n", stall()),
    "is silent in mid-stream": (*begun("Hello"), stall()),
    "fails": (sse_head(), event(failed_event("server_error", "I broke")), end()),
    "fails in mid-stream": (*begun("Hello"), event(failed_event("rate_limit_exceeded", "slow")), end()),
}
QUOTING: dict[str, tuple[Step, ...]] = {
    "quotes in a refusal": (refuse_quoting,),
    "quotes in plain text": (refuse_quoting_as_text,),
    "quotes in its answer": (sse_head(), fail_quoting),
    "quotes in mid-stream": (*begun("Hello"), fail_quoting),
}
"""What the upstream quotes in its error is shown to the client that sent it, and to nobody else."""


def break_quoting(event: StreamEvent) -> list[StreamEvent]:
    raise ValueError(f"cannot show {PROMPT}")


BREAKS = Plugin("break_quoting", lambda _: per_event(break_quoting), NoOptions, StreamEvent, StreamEvent)


def assert_unmarked(shown: str, *, but: Collection[str] = ()) -> None:
    assert [where for where, mark in MARKS.items() if mark in shown and where not in but] == []


@pytest.mark.parametrize("transport", ["headrace", "httpx"])
@pytest.mark.parametrize("failure", [*BROKEN, *QUOTING, "a stage breaks", "the client leaves"])
async def test_nothing_of_a_request_is_logged_or_in_its_record_whatever_fails(
    failure: str, transport: str, log_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    patience = trio.CancelScope()

    async def make_the_client_leave(exchange: Exchange) -> None:
        if failure == "the client leaves":
            patience.cancel()

    script = BROKEN.get(failure) or QUOTING.get(failure) or (*begun("Hello"), make_the_client_leave, stall())
    may_quote = MARKS.keys() - {"the key", "the upstream's key"} if failure in QUOTING else ()
    limits: dict[str, Any] = {"timeout": 0.1, "stream_timeout": 0.1} if "is silent" in failure else {}
    pipeline = f"  transport: {transport}"
    plugins: dict[str, Plugin[NoOptions]] = {}
    if failure == "a stage breaks":
        pipeline += "\n  stages: [{use: break_quoting, after: decode_events}]"
        plugins = {"break_quoting": BREAKS}
    path = f"/v1/chat/completions?note={MARKS['in the query']}"
    async with (
        scripted_upstream(*script) as up,
        serving(model("up", up.url, **limits), pipeline, plugins=plugins) as service,
    ):
        ways = ((OPENAI_LIKE, True), (CURSOR, True), (CURSOR, False))
        for number, (agent, stream) in enumerate(ways if transport == "headrace" else ways[:1]):
            with (patience := trio.CancelScope()):
                answer = await service.post(
                    {**MARKED, "stream": stream}, path=path, user_agent=agent, x_note=MARKS["in a header"]
                )
                assert_unmarked(answer.text + str(answer.headers), but=may_quote)
            record = await service.record(number)
            assert record["end"] != "OK"
            assert_unmarked(json.dumps(record))
    assert_unmarked(log_file.read_text())
    assert_unmarked("".join(capfd.readouterr()))


REFUSED: dict[str, bytes] = {
    "a wrong key": json.dumps(MARKED).encode(),
    "an unknown model": json.dumps({**MARKED, "model": "nope"}).encode(),
    "not JSON": json.dumps(MARKED).encode()[:-1],
    "JSON after its end": json.dumps(MARKED).encode() + b"}",
    "not UTF-8": json.dumps(MARKED).encode().replace(PROMPT.encode(), PROMPT.encode() + b"\xff"),
    "a field of a wrong type": json.dumps({**MARKED, "temperature": PROMPT}).encode(),
    "messages that are text": json.dumps({**MARKED, "input": None, "messages": PROMPT}).encode(),
    "an item that is a list": json.dumps({**MARKED, "input": [[PROMPT]]}).encode(),
    "a tool that is text": json.dumps({**MARKED, "tools": [PROMPT]}).encode(),
    "too deep": json.dumps(MARKED).encode()[:-1] + b', "x": ' + b"[" * 300 + b"]" * 300 + b"}",
    "too large": json.dumps({**MARKED, "x": "x" * 600_000}).encode(),
    "compressed": gzip.compress(json.dumps(MARKED).encode()),
}


@pytest.mark.parametrize("reason", REFUSED)
async def test_nothing_of_a_request_is_logged_or_shown_if_it_is_refused(
    reason: str, log_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = {"content_encoding": "gzip"} if reason == "compressed" else {}
    key = f"sk-{MARKS['in a wrong key']}" if reason == "a wrong key" else KEY
    async with serving(model("up", "http://127.0.0.1:1"), "  max_body_mb: 0.5") as service:
        for agent in (OPENAI_LIKE, CURSOR):
            answer = await service.post(
                REFUSED[reason], key=key, path=f"/v1/chat/completions?note={MARKS['in the query']}", user_agent=agent,
                x_note=MARKS["in a header"], **headers,
            )  # fmt: skip
            assert 400 <= answer.status_code < 500
            assert_unmarked(answer.text + str(answer.headers))
        await service.record(1)
        assert_unmarked(json.dumps(service.records))
    assert_unmarked(log_file.read_text())
    assert_unmarked("".join(capfd.readouterr()))
