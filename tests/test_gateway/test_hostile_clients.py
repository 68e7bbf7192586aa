"""Clients that stall, contradict themselves, announce too much, or try keys: through the whole service, on sockets."""

from __future__ import annotations

import json

import httpx
import pytest
import trio
import trio.testing
from kit.clients.chat_posts import ask, delta, post_bytes
from kit.clients.raw import RawClient
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.running import CONFIG, KEY, PLAIN, Service, model, serving
from kit.study.made import as_request
from kit.time.patience import patiently
from kit.upstreams.scripted import events, scripted_upstream, sse_head, stall

from pipeline.study.why import explained

HI = {"model": "echo", "input": "hi"}
SMALL_BUFFER = 4096
"""SO_RCVBUF of a client that reads nothing: the kernel between us holds little."""


@pytest.mark.parametrize(
    "sizes",
    [[1 << 20] * 8, [12_000]],
    ids=["a send waits", "only the kernel waits"],  # in the second case all fits into our socket's buffer
)
async def test_row_81_a_client_that_stops_reading_is_reset_after_write_timeout_s(sizes: list[int]) -> None:
    """A client that stops reading is reset after `write_timeout_s`, and its end code is DS."""
    script = (sse_head(), events([delta("x" * size) for size in sizes]), stall())
    async with scripted_upstream(*script) as up, serving(model("up", up.url), "  write_timeout_s: 1") as service:
        address = ("127.0.0.1", service.port)
        async with await RawClient.open(address, receive_buffer_bytes=SMALL_BUFFER) as client:
            await client.send(post_bytes(ask()))
            with patiently():
                record = await service.record()
    assert record["end"] == "DS"
    assert 1000 <= record["total_ms"] <= 15_000


@pytest.mark.parametrize("expects", [True, False])
@pytest.mark.parametrize(("key", "status", "code"), [(KEY, 413, "body_too_large"), ("sk-none", 401, "unauthorized")])
async def test_row_80_a_body_that_is_announced_too_large_is_refused_at_once(
    expects: bool, key: str, status: int, code: str
) -> None:
    """A body whose Content-Length is over the limit gets its 413 before a byte of it, and without 100 Continue."""
    async with serving(pipeline="  max_body_mb: 1") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            expect = "Expect: 100-continue\r\n" if expects else ""
            await client.send(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Length: 1048577\r\n{expect}\r\n".encode()
            )
            answer = await client.read_answer()
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
            assert answer.headers["connection"] == "close"
            assert await client.read_to_end() == (b"", "fin")


async def test_row_80_the_413_reaches_a_client_that_sends_its_body_all_the_same() -> None:
    """A client that sends the whole of its too large body can read the 413: the connection is closed in order."""
    async with serving(pipeline="  max_body_mb: 1") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(post_bytes({"model": "echo", "input": "x" * 8_000_000}))
            assert (await client.read_answer()).status == 413
            assert await client.read_to_end() == (b"", "fin")


OTHER = "sk-another-key-9876543210"
TWO_KEYS = [
    [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {OTHER}")],
    [("x-api-key", OTHER), ("X-Api-Key", KEY)],
    [("Authorization", f"Bearer {KEY}"), ("x-api-key", OTHER)],
]


async def request(service: Service, method: str, path: str, headers: list[tuple[str, str]]) -> httpx.Response:
    """Send a small request with exactly these headers."""
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False, verify=PLAIN) as client:
        content = json.dumps({"model": "echo", "input": "hi"}).encode() if method == "POST" else b""
        return await client.request(method, path, headers=headers, content=content)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models")])
@pytest.mark.parametrize("headers", TWO_KEYS)
async def test_row_79_two_different_keys_in_one_request_are_a_400(
    method: str, path: str, headers: list[tuple[str, str]]
) -> None:
    """Two different keys, in one header or in two, are a 400 that names the headers; equal ones are served."""
    async with serving() as service:
        answer = await request(service, method, path, headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_request")
        assert all(name.lower() in error["message"] for name, _ in headers)
        assert KEY not in answer.text
        assert OTHER not in answer.text
        same = [(name, value.replace(OTHER, KEY)) for name, value in headers]
        assert (await request(service, method, path, same)).status_code == 200


@pytest.mark.parametrize("setting", ["key_header: X-Api-Key", "general_settings"])
async def test_row_79_the_other_key_may_be_that_of_a_proxy(setting: str) -> None:
    """With `key_header` a key counts only in that header, so a proxy in front may use any other for its own."""
    config = CONFIG
    if setting == "general_settings":  # LiteLLM's name of the same
        config = CONFIG.replace("{{master_key: {key}}}", "{{master_key: {key}, litellm_key_header_name: x-api-key}}")
        setting = ""
    headers = [("Authorization", f"Bearer {OTHER}"), ("Authorization", "Bearer third"), ("x-api-key", KEY)]
    async with serving(pipeline=f"  {setting}", config=config) as service:
        assert (await request(service, "POST", "/v1/chat/completions", headers)).status_code == 200
        assert (await request(service, "GET", "/v1/models", headers)).status_code == 200
        alone = [("Authorization", f"Bearer {KEY}")]
        assert (await request(service, "POST", "/v1/chat/completions", alone)).status_code == 401


async def test_row_84_wrong_keys_are_counted_with_their_address_and_a_right_key_is_served_beside_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wrong keys are counted by address, logged once a minute and answered ever later; a right key is not."""
    async with serving() as service:
        assert (await service.post(HI)).status_code == 200  # not counted
        for _ in range(4):
            assert (await service.post(HI, key=OTHER)).status_code == 401
        assert (await service.get("/v1/models", key=OTHER)).status_code == 401
        assert (await service.get("/health")).json()["wrong_keys"] == 5
        assert (await service.post(HI)).status_code == 200
    assert [record["client"] for record in service.records] == ["127.0.0.1"] * 6
    assert [record["end"] for record in service.records] == ["OK", *["AU"] * 4, "OK"]
    delayed = service.records[4]
    assert delayed["total_ms"] >= 250
    assert 250 <= delayed["party_ms"]["client"] <= delayed["total_ms"]  # not ours: anybody can send wrong keys
    why = explained(as_request(delayed))
    assert (why.culprit.kind, why.culprit.party) == ("delay", "client"), why.sentence
    [line] = [message for message in caplog.messages if "wrong API keys" in message]
    assert line.startswith("4 wrong API keys from 127.0.0.1")
    assert OTHER not in caplog.text


async def test_row_84_a_delayed_answer_ends_with_its_client_and_with_the_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The delay of an answer to a wrong key ends at once when the client leaves or the server stops."""
    bridge, records = bridge_to(FakeUpstream())
    began = trio.current_time()

    async def ask_with_wrong_key() -> Browser:
        browser = Browser(bridge, HI, authorization=f"Bearer {OTHER}")
        nursery.start_soon(browser.ask)
        await trio.testing.wait_all_tasks_blocked()
        return browser

    async with trio.open_nursery() as nursery:
        answered = [(await ask_with_wrong_key()).status for _ in range(3)]
        assert answered == [401, 401, 401]
        leaving, staying = await ask_with_wrong_key(), await ask_with_wrong_key()
        assert (leaving.status, staying.status) == (None, None)
        leaving.disconnected.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [record["end"] for record in records[3:]] == ["DC"]
        bridge.cut_off()
        await trio.testing.wait_all_tasks_blocked()
        assert staying.status == 503
        assert trio.current_time() == began
    assert bridge.active == set()


async def test_row_84_a_proxy_that_is_trusted_says_who_its_client_is() -> None:
    """The record has the client's address: the connection's, or what a proxy of `forwarded_allow_ips` reports."""
    reported = {"x_forwarded_for": "6.6.6.6, 2001:db8::7"}
    async with serving() as service:
        await service.post(HI, **reported)
        assert (await service.record())["client"] == "127.0.0.1"
    async with serving(pipeline='  forwarded_allow_ips: ["127.0.0.0/8", "::1"]') as service:
        await service.post(HI, **reported)
        assert (await service.record())["client"] == "2001:db8::7"
