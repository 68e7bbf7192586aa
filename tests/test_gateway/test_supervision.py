"""``headrace serve`` as a whole: nobody notices a restart, and a mistake in the configuration changes nothing."""

from __future__ import annotations

import re
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, post_bytes
from kit.clients.held_streams import Held
from kit.clients.raw import RawClient
from kit.clients.short_requests import PAUSE_S, SHORT, ShortRequests
from kit.service.command import configured, headrace_serve
from kit.service.running import model
from kit.upstreams.scripted import scripted_upstream

from pipeline.gateway.supervision import Inherited, problem_of

pytestmark = pytest.mark.timeout(300)  # processes

STREAMS = 40
KEPT, NEW = 8, 4
"""Clients that send short requests all the time, on a connection that they keep or on new ones."""
CANNED = "  - {model_name: echo, litellm_params: {model: canned/echo}}\n"


def short_requests(port: int) -> ShortRequests:
    return ShortRequests(partial(RawClient.open, ("127.0.0.1", port)))


@pytest.mark.parametrize("workers", [1, 2])
async def test_row_70_under_load_a_rolling_restart_cuts_no_stream_and_refuses_no_request(
    workers: int, tmp_path: Path
) -> None:
    """All workers are replaced under load: no stream is cut and no request is refused, with one worker and with two."""
    held = Held()
    async with scripted_upstream(held) as upstream:
        text = configured(CANNED + model("up", upstream.url))
        async with headrace_serve(tmp_path, text, workers=workers) as running, trio.open_nursery() as nursery:
            requests = short_requests(running.port)
            for _ in range(KEPT):
                nursery.start_soon(requests.send_on)
            for _ in range(NEW):
                nursery.start_soon(requests.send_anew)
            streams: list[RawClient] = []
            for _ in range(STREAMS):
                client = await RawClient.open(("127.0.0.1", running.port))
                await client.send(post_bytes(ask()))
                assert (await client.read_head()).status == 200
                streams.append(client)
            before = requests.answered
            running.process.send_signal(signal.SIGUSR1)
            await running.logged(b"replaced: draining", times=workers)
            during = requests.answered
            while requests.answered < during + 100:
                await trio.sleep(PAUSE_S)
            held.go.set()
            for client in streams:
                async with client:
                    folded = fold_stream(await client.read_chunks())
                    assert (folded.content, folded.is_done) == ("Hello, you", True)
            await running.logged(b"drained in", times=workers)
            requests.is_over = True
        assert during > before
        assert requests.lost == []
        assert b'"level":"error"' not in running.log


async def test_row_72_a_worker_that_has_served_max_requests_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    """Requests on kept and on new connections come meanwhile: none is lost."""
    text = configured(CANNED, "max_requests: 50")
    async with headrace_serve(tmp_path, text, workers=1) as running, trio.open_nursery() as nursery:
        requests = short_requests(running.port)
        nursery.start_soon(requests.send_on)
        nursery.start_soon(requests.send_anew)
        await running.logged(b": max_requests", times=2)
        requests.is_over = True
        assert requests.lost == []
        served = [int(count) for count in re.findall(rb"max_requests: (\d+) requests served", running.log)]
        assert all(45 <= count <= 55 for count in served)


async def test_an_invalid_configuration_changes_nothing_on_sighup_and_on_a_restart(tmp_path: Path) -> None:
    async with headrace_serve(tmp_path, configured(CANNED), workers=1) as running:
        running.config.write_text(configured(CANNED, "prot: 5"))
        running.process.send_signal(signal.SIGHUP)
        await running.logged(b"SIGHUP: the configuration is invalid, so nothing changes: ")
        assert b"did you mean port" in running.log
        running.process.send_signal(signal.SIGUSR1)
        await running.logged(b"the restart has ended at worker 1; what serves goes on as it is")
        async with await RawClient.open(("127.0.0.1", running.port)) as client:
            await client.send(SHORT)
            assert (await client.read_answer()).status == 200
        running.process.send_signal(signal.SIGTERM)
        assert await running.exit() == 0


async def test_a_stage_that_does_not_exist_is_found_before_there_is_a_service_and_told_once(tmp_path: Path) -> None:
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True) as failure:
        async with headrace_serve(tmp_path, configured(CANNED, "stages: [{use: nope}]"), workers=2):
            pass
    [ended] = failure.value.exceptions
    assert str(ended).count("no stage named 'nope' is installed") == 1


def python(program: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; {program}"]


async def test_a_check_that_succeeds_has_no_problem_whatever_it_prints() -> None:
    assert await problem_of(python("print('a warning', file=sys.stderr)")) is None


async def test_all_lines_of_a_check_that_fails_are_the_problem() -> None:
    said = await problem_of(python("print('line 1\\n\\nline 2', file=sys.stderr); sys.exit(2)"))
    assert said == "line 1; line 2"
    assert await problem_of(python("sys.exit(5)")) == "its check ended with status 5"


def test_what_a_worker_inherits_is_an_argument() -> None:
    inherited = Inherited(3, 5, 1, 7, 9)
    assert str(inherited) == "3,5,1,7,9"
    assert Inherited.parse(str(inherited)) == inherited


async def test_what_the_supervisor_was_started_with_needs_a_restart_whatever_worker_is_new(tmp_path: Path) -> None:
    remark = b"max_age_s has changed: restart the service"
    text = configured(CANNED, "max_age_s: 3600")
    async with headrace_serve(tmp_path, text, workers=1) as running:
        file = next(tmp_path.glob("*.yaml"))
        file.write_text(file.read_text().replace("max_age_s: 3600", "max_age_s: 7200"))
        running.process.send_signal(signal.SIGHUP)
        await running.logged(b"generation 2")
        assert running.log.count(remark) == 1
        running.process.send_signal(signal.SIGUSR1)
        await running.logged(b"replaced: draining")
        running.process.send_signal(signal.SIGHUP)
        await running.logged(remark, times=2)
