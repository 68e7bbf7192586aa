"""What doctor finds at an address without a proxy: headrace with the master key, with others, and other servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio
from kit.service.certificates import issue
from kit.service.running import KEY, serving
from msgspec.structs import replace

from pipeline.gateway.command_error import CommandError
from pipeline.gateway.doctor.findings import CHECKS, Finding
from pipeline.gateway.doctor.target import Plan, read_target
from pipeline.gateway.doctor.visit import FIRST_OF_PUBLIC, visit
from stages.upstreams.transport.tls import client_context

LIMITED = "sk-limited-key-0123456789"
QUICK = Plan(tokens=2, gap_s=0.05, late_s=10, idle_s=0.3, body_bytes=100_000, leave_s=0.2, limit_s=20)
LEAST = Plan(tokens=2, gap_s=0.01, idle_s=0, body_bytes=0, leave_s=0.1)
PUBLIC = list(CHECKS)[list(CHECKS).index(FIRST_OF_PUBLIC) :]


async def found_at(url: str, key: str = KEY, plan: Plan = QUICK) -> dict[str, Finding]:
    """Return the findings by their check; each check has one."""
    findings: list[Finding] = []
    await visit(read_target(url, key, client_context()), plan, datetime.now(UTC), findings.append)
    assert sorted(finding.check for finding in findings) == sorted(PUBLIC)
    for finding in findings:
        assert key not in json.dumps([finding.measured, finding.remedy]) or not key
        assert (finding.remedy == "") <= (finding.status in ("ok", "not tested"))
    return {finding.check: finding for finding in findings}


async def test_with_the_master_key_everything_is_told() -> None:
    async with serving(pipeline="  keep_alive_interval_s: 0.1", is_measured=True) as service:
        found = await found_at(f"{service.url}/cursor", plan=replace(QUICK, tokens=3, gap_s=1.0))
        assert {check: one.status for check, one in found.items() if one.status != "ok"} == {
            "address": "problem",
            "https": "problem",
            "leaving": "not tested",  # this service has no flight recorder
        }
        assert "recorder_mb" in found["leaving"].measured
        assert "echo, story, agent" in found["key"].measured
        assert found["server"].measured.startswith("headrace ")
        assert "3 tokens, sent one each 1000 ms" in found["stream"].measured
        assert found["cursor request"].measured.startswith("echo: ")


async def test_the_model_that_is_named_is_asked_with_cursors_tools() -> None:
    async with serving() as service:
        found = await found_at(f"{service.url}/v1", plan=replace(LEAST, model="agent"))
        assert found["cursor request"].measured.startswith("agent: 0 parts of text, 3 calls of tools")
        assert found["idle"].measured == "--idle 0"
        records = [record for record in service.records if record["model"] == "agent"]
    assert len(records) == 1


async def test_with_another_key_it_says_what_it_cannot_tell() -> None:
    async with serving() as service:
        found = await found_at(f"{service.url}/cursor", key=LIMITED)
    untold = {check for check, one in found.items() if one.status == "not tested"}
    assert untold == {
        *("server", "http version", "headers", "client address", "compression", "idle", "leaving"),
        "stream",  # the model echo is so fast that all comes at once
    }
    assert "master key" in found["idle"].measured
    assert found["cursor request"].status == "ok"
    assert found["azure"].status == "ok"
    assert found["large body"].status == "ok"


async def test_a_slow_real_model_shows_that_nothing_buffers_it() -> None:
    slow = "  - {model_name: team/slow, litellm_params: {model: 'canned/timed:tokens=5;gap=100ms'}}"
    async with serving(slow) as service:
        found = await found_at(f"{service.url}/cursor", LIMITED, replace(LEAST, model="team/slow"))
    assert found["stream"].status == "ok"
    assert "not buffered as a whole" in found["stream"].measured


async def test_offline_asks_no_model() -> None:
    async with serving() as service:
        found = await found_at(f"{service.url}/cursor", plan=replace(LEAST, asks_models=False))
        models = {record["model"] for record in service.records}
    assert found["cursor request"].measured == "--offline"
    assert all(model is None or model.startswith("headrace-doctor:") for model in models)


async def test_a_wrong_key_and_no_key_end_it_early() -> None:
    async with serving() as service:
        wrong = await found_at(f"{service.url}/cursor", key="sk-not-a-key-0123456789")
        none = await found_at(f"{service.url}/cursor", key="")
    assert wrong["key"].status == none["key"].status == "problem"
    assert wrong["key"].measured == "refused with status 401"
    assert "none was sent" in none["key"].measured
    assert wrong["stream"].status == "not tested"


async def test_everybody_is_let_in_where_that_is_configured() -> None:
    async with serving(pipeline="  allow_anonymous: true") as service:
        found = await found_at(f"{service.url}/cursor")
    assert found["wrong key"].status == "ok"  # an unknown key is refused, only none is accepted


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that says the same to whatever it reads, or nothing for None; yield its URL, and what it reads."""
    heard: list[bytes] = []

    async def answer_one(stream: trio.SocketStream) -> None:
        heard.append(await stream.receive_some())
        if answer is None:
            await trio.sleep_forever()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(answer)
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer_one, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", heard
        nursery.cancel_scope.cancel()


def page(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


async def test_an_address_where_something_else_speaks_or_nobody_listens() -> None:
    async with answering(page(b"<html>Not here</html>", "404 Not Found", "text/html")) as (url, _):
        found = await found_at(f"{url}/cursor")
    assert "status 404, without a list of models" in found["key"].measured
    gone = await found_at(f"{url}/cursor")
    assert gone["https"].status == "problem"
    assert "refused" in gone["https"].measured


async def test_a_server_that_closes_or_never_answers() -> None:
    async with answering(b"") as (url, _):
        closed = await found_at(f"{url}/cursor")
    assert "closed before the answer" in closed["key"].measured
    async with answering(None) as (url, _):
        silent = await found_at(f"{url}/cursor", plan=Plan(limit_s=0.2))
    assert silent["key"].measured == "no answer within 0.2 s"


async def test_another_gateway_lists_models_and_is_asked_for_a_real_one() -> None:
    listed = b'{"object": "list", "data": [{"id": "gpt-5"}]}'
    async with answering(page(listed)) as (url, heard):
        found = await found_at(url)
    assert found["key"].measured == "accepted; 1 model: gpt-5"
    assert found["wrong key"].status == "problem"
    assert found["cursor request"].status == "problem"
    assert "no event stream" in found["cursor request"].measured
    assert any(b"POST /chat/completions" in request for request in heard)


async def test_an_error_of_a_server_is_shown_without_the_key() -> None:
    said = b'{"error": {"message": "Received API Key = %s", "code": null}}' % KEY.encode()
    async with answering(page(said, "500 Oh")) as (url, _):
        found = await found_at(url)
    assert "status 500: Received API Key = [redacted]" in found["key"].measured


async def test_a_certificate_is_checked_before_the_key_is_sent(tmp_path: Path) -> None:
    certificate = issue(tmp_path)
    async with serving(certificate=certificate) as service:
        found = await found_at(f"{service.url}/cursor")
        assert "certificate is not accepted" in found["https"].measured
        assert found["key"].status == "not tested"
        findings: list[Finding] = []
        await visit(
            read_target(f"{service.url}/cursor", KEY, certificate.trusting), QUICK, datetime.now(UTC), findings.append
        )
    https = next(finding for finding in findings if finding.check == "https")
    assert https.status == "ok"
    assert "certificate until" in https.measured


@pytest.mark.parametrize("text", ["", "ftp://host", "https://", "https://user:pw@host/cursor", "https://h/cursor?x=1"])
def test_what_is_not_a_base_url_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        read_target(text, KEY, client_context())
    assert "URL is not a base URL" in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_base_url_is_read_as_it_was_typed() -> None:
    target = read_target("gateway.example.com/cursor/", KEY, client_context())
    assert target.url("/models") == "https://gateway.example.com/cursor/models"
    assert target.root == "https://gateway.example.com"
    assert read_target("https://h/llm/cursor/v1", KEY, client_context()).root == "https://h/llm"
    assert KEY not in repr(target)
    assert target.hide_key(f"no\n{KEY} " + "x" * 500).startswith("no [redacted] xxx")


async def test_it_can_be_ended_at_any_time() -> None:
    async with serving() as service:
        for after_s in (0.02, 0.1, 0.3):
            with trio.move_on_after(after_s) as scope:
                await found_at(f"{service.url}/cursor", plan=Plan(idle_s=30))
            assert scope.cancelled_caught
