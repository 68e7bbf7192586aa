"""A request that fails or is abandoned keeps nothing, and many large ones at once stay within their memory."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import trio
from kit.clients.chat_posts import CREATED, ask, post_bytes
from kit.clients.raw import RawClient
from kit.needs import LINUX, needs
from kit.service.running import Service, model, serving
from kit.time.patience import AT_ONCE_S, patiently
from kit.upstreams.scripted import Step, close, error, event, scripted_upstream, sse_head, stall

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))  # the distribution does not contain the benchmarks

from benchmarks.bench_memory import ALLOWED_GROWTH_MIB, growth_mib, upload_all  # noqa: E402
from pipeline.gateway.memory import memory_limit_bytes, return_large_blocks  # noqa: E402

MIB = 1024 * 1024
BODY_BYTES = 2 * MIB
KEPT_BYTES = BODY_BYTES // 8
"""What an idle service allocates meanwhile is far less, and any form of the body is far more."""


@pytest.fixture
def traced() -> Generator[None]:
    """Trace allocations, and have nothing collected: what is left in a cycle counts as kept."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


def kept_bytes() -> int:
    """Return how much of what our own code has allocated, in large pieces, is still there."""
    ours = [tracemalloc.Filter(True, f"{ROOT}/{folder}/*") for folder in ("pipeline", "stages")]
    traces = tracemalloc.take_snapshot().filter_traces(ours).traces
    return sum(trace.size for trace in traces if trace.size > 4096)


async def assert_nothing_is_kept(service: Service) -> None:
    with patiently():
        await service.record()
    with trio.move_on_after(AT_ONCE_S):
        while service.app.bridge.active or kept_bytes() > KEPT_BYTES:
            await trio.sleep(0.01)
    assert not service.app.bridge.active
    assert kept_bytes() <= KEPT_BYTES


def large(name: str = "up") -> dict[str, object]:
    """Return a request's body of `BODY_BYTES`: one half is long texts, and one half short ones."""
    long, short = "x" * (BODY_BYTES // 8), "y" * 8000
    texts = [*[long] * 4, *[short] * (BODY_BYTES // 2 // len(short))]
    return ask(name, input=[{"role": "user", "content": text} for text in texts])


REFUSED: tuple[Step, ...] = (error(400, b'{"error": {"message": "no"}}'),)
CUT: tuple[Step, ...] = (sse_head(), event(CREATED), close())


@pytest.mark.parametrize(
    ("script", "name", "limits", "code"),
    [
        (REFUSED, "up", {}, "upstream_rejected"),
        (CUT, "up", {}, "upstream_protocol"),
        (CUT, "nobody", {}, "model_not_found"),
        ((stall(),), "up", {"timeout": 0.2}, "upstream_timeout"),
    ],
    ids=["upstream_400", "cut_before_text", "unknown_model", "deadline"],
)
async def test_row_64_a_failed_request_keeps_nothing(
    script: tuple[Step, ...], name: str, limits: dict[str, Any], code: str, traced: None
) -> None:
    """A large request fails: the client gets the failure, and nothing of the request is kept, even as garbage."""
    async with scripted_upstream(*script) as up, serving(model("up", up.url, **limits)) as service:
        answer = await service.post(large(name))
        assert answer.json()["error"]["code"] == code
        up.requests.clear()
        await assert_nothing_is_kept(service)


async def test_row_64_a_request_over_the_limit_keeps_nothing(traced: None) -> None:
    """A body turns out to be larger than the limit while it arrives: 413, and nothing of it is kept."""
    body = json.dumps(large()).encode()
    half = len(body) // 2
    async with serving(pipeline="  max_body_mb: 1.5") as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            head = post_bytes({}).partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
            await client.send(head + b"%x\r\n%b\r\n" % (half, body[:half]))
            await client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - half, body[half:]))
            answer = await client.read_answer()
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "body_too_large")
        await assert_nothing_is_kept(service)


async def test_row_64_a_client_that_leaves_after_a_large_upload_is_noticed(traced: None) -> None:
    """A client leaves while its large request waits for the upstream: that ends at once, and nothing is kept."""
    async with scripted_upstream(stall()) as up, serving(model("up", up.url)) as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(post_bytes(large()))
            with patiently():
                await up.request_received()
        with patiently():
            await up.connection_closed()
        up.requests.clear()
        await assert_nothing_is_kept(service)
        assert service.records[0]["end"] == "DC"


async def test_row_64_a_client_that_leaves_during_its_upload_leaves_nothing(traced: None) -> None:
    """A client leaves in the middle of a large upload: no upstream is called, and nothing is kept."""
    body = post_bytes(large())
    async with scripted_upstream(stall()) as up, serving(model("up", up.url)) as service:
        async with await RawClient.open(("127.0.0.1", service.port)) as client:
            await client.send(body[: len(body) * 3 // 4])
        await assert_nothing_is_kept(service)
        assert (service.records[0]["end"], up.requests) == ("DC", [])


@needs(LINUX)
@pytest.mark.timeout(300)  # it starts a process
def test_row_64_the_memory_of_failed_requests_returns_to_the_system() -> None:
    """Clients with 20 MiB bodies leave one after the other: the process does not grow after the first ones."""
    early_mib, late_mib = trio.run(lambda: growth_mib("client leaves", count=8, first=4, size_mib=20))
    assert late_mib - early_mib <= ALLOWED_GROWTH_MIB


@needs(LINUX)
@pytest.mark.timeout(300)  # it starts a process
def test_row_65_many_uploads_at_once_stay_within_their_memory() -> None:
    """More uploads come at once than fit: they take turns within `max_upload_mb_total`, and the process stays small."""
    most_mib, answers, small_s = trio.run(lambda: upload_all(8, 10, "max_upload_mb_total: 40"))
    assert {status for status, _ in answers} <= {200, 503}
    assert all(b"retry-after:" in head for status, head in answers if status == 503)
    assert (200, len(answers)) == (answers[0][0], 8)
    assert small_s  # beside them
    assert most_mib < 200  # all at once they took 330 MiB


def test_the_memory_is_that_of_the_nearest_limit(tmp_path: Path) -> None:
    def limit(cgroup: str, **files: str) -> int | None:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in {"proc/self/cgroup": cgroup, **files}.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return memory_limit_bytes(root)

    machine = limit("")
    assert machine is not None
    assert limit("0::/a/b\n", **{"sys/fs/cgroup/a/memory.max": "1000\n"}) == 1000  # of the group above
    assert limit("0::/a/b\n", **{"sys/fs/cgroup/memory.max": "900\n"}) == 900  # a container's own view
    assert limit("0::/a\n", **{"sys/fs/cgroup/a/memory.max": "max\n"}) == machine
    old = "sys/fs/cgroup/memory"
    assert limit("4:cpu:/\n3:memory,x:/a\n", **{f"{old}/a/memory.limit_in_bytes": "800\n"}) == 800
    assert limit("3:memory:/a\n", **{f"{old}/a/memory.limit_in_bytes": "9223372036854771712\n"}) == machine


def test_malloc_is_asked_for_its_large_blocks_where_it_can_be() -> None:
    return_large_blocks()  # nothing is raised, whichever C library this is
