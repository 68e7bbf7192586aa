"""Tokens that a command prints: when it is run, what requests carry, and what is written when it fails."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_stream
from kit.service.running import serving
from kit.time.patience import patiently
from kit.upstreams.scripted import Step, end, error, events, in_turn, scripted_upstream, sse_head

from pipeline import UpstreamFault
from pipeline.gateway.token_commands import MAX_BYTES, TokenCommandError, keeping_tokens, run_command
from stages.upstreams import Deployment
from stages.upstreams.token import Token, TokenCommand

COMMAND = TokenCommand(words=("get",), refresh_s=100, limit_s=5)


def deployment(token: Token, id: str = "d") -> Deployment:
    return Deployment(id=id, model_name=id, model="m", provider="openai", kind="chat", url="http://h", token=token)


class FakeRuns:
    """Runs no command: returns ``results`` in turn, the last one forever, and notes when."""

    def __init__(self, *results: str | TokenCommandError, takes_s: float = 0.0) -> None:
        self.results = list(results)
        self.takes_s = takes_s
        self.at: list[float] = []

    async def __call__(self, command: TokenCommand) -> str:
        self.at.append(trio.current_time())
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        await trio.sleep(self.takes_s)
        if isinstance(result, TokenCommandError):
            raise result
        return result


FAILED = TokenCommandError("it ended with status 1")


# --- when it is run: virtual time -------------------------------------------------------------------------------------


async def test_a_command_runs_before_the_block_begins_and_again_in_time(autojump_clock: trio.abc.Clock) -> None:
    token, runs = Token(COMMAND), FakeRuns("t-1", "t-2", takes_s=2)
    start = trio.current_time()
    async with keeping_tokens([deployment(token)], runs):
        assert trio.current_time() == start + 2
        assert await token.get("d") == "t-1"
        await trio.sleep(101)
        assert await token.get("d") == "t-1"  # while the next run is on
        await trio.sleep(2)
        assert await token.get("d") == "t-2"
    assert runs.at == [start, start + 102]


async def test_deployments_with_one_command_share_its_runs(autojump_clock: trio.abc.Clock) -> None:
    token, runs = Token(COMMAND), FakeRuns("t")
    async with keeping_tokens([deployment(token, "a"), deployment(token, "b")], runs):
        await trio.sleep(1)
    assert len(runs.at) == 1


async def test_without_a_command_nothing_is_run(autojump_clock: trio.abc.Clock) -> None:
    plain = Deployment(id="d", model_name="d", model="m", provider="openai", kind="chat", url="http://h")
    async with keeping_tokens([plain], FakeRuns(FAILED)) as kept:
        assert kept is None


async def test_a_token_goes_on_with_what_the_configuration_before_has(autojump_clock: trio.abc.Clock) -> None:
    before, token = Token(COMMAND), Token(COMMAND)
    before.end_run("t-1")
    token.go_on_with(before)
    async with keeping_tokens([deployment(token)], FakeRuns(FAILED)):
        assert await token.get("d") == "t-1"
        assert "Bearer t-1" in token.secrets


async def test_a_401_causes_one_run_and_only_if_it_was_about_the_last_token(autojump_clock: trio.abc.Clock) -> None:
    token, runs = Token(COMMAND), FakeRuns("t-1", "t-2")
    async with keeping_tokens([deployment(token)], runs):
        await trio.sleep(6)
        for _ in range(3):
            token.refused("t-1")
        await trio.sleep(1)
        token.refused("t-1")  # of a request that was sent before
        assert (await token.get("d"), len(runs.at)) == ("t-2", 2)
        await trio.sleep(1)
        token.refused("t-2")  # within 5 s of the last run
        await trio.sleep(1)
        assert len(runs.at) == 2
        await trio.sleep(5)
        token.refused("t-2")
        await trio.sleep(1)
        assert len(runs.at) == 3
        await trio.sleep(30)
        token.refused("t-2")  # the run has printed the same again, so that was not the reason
        await trio.sleep(1)
        assert len(runs.at) == 3


async def test_after_a_failure_the_old_token_is_used_on_and_the_log_has_two_lines(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headrace")
    token, runs = Token(COMMAND), FakeRuns("t-1", FAILED, FAILED, "t-2")
    start = trio.current_time()
    async with keeping_tokens([deployment(token)], runs):
        await trio.sleep(145)
        assert await token.get("d") == "t-1"
        await trio.sleep(20)
        assert await token.get("d") == "t-2"
    assert [at - start for at in runs.at] == [0, 100, 130, 160]
    assert [record.message for record in caplog.records] == [
        "the token_command of deployment d, get, has failed: it ended with status 1: the token that it printed last is "
        "used on",
        "the token_command of deployment d, get, works again",
    ]


async def test_without_any_token_a_request_waits_for_a_run_unless_one_has_just_failed(
    autojump_clock: trio.abc.Clock,
) -> None:
    token, runs = Token(COMMAND), FakeRuns(FAILED, "t", takes_s=1)
    async with keeping_tokens([deployment(token)], runs):
        with pytest.raises(UpstreamFault) as caught:
            await token.get("d")
        assert caught.value.code == "upstream_unauthorized"
        assert caught.value.public == (
            "deployment d has no token: its token_command, get, has not printed one (it ended with status 1); run it "
            "by hand where headrace runs"
        )
        await trio.sleep(6)
        asked = trio.current_time()
        assert await token.get("d") == "t"
        assert trio.current_time() == asked + 1
    with pytest.raises(UpstreamFault, match="it is not run here"):
        await Token(COMMAND).get("d")


async def test_requests_that_wait_for_a_run_cause_no_other_after_it(autojump_clock: trio.abc.Clock) -> None:
    token, runs = Token(COMMAND), FakeRuns(FAILED, takes_s=4)
    start = trio.current_time()
    async with keeping_tokens([deployment(token)], runs), trio.open_nursery() as nursery:
        await trio.sleep(6)

        async def ask() -> None:
            with pytest.raises(UpstreamFault):
                await token.get("d")

        for _ in range(40):  # 8 s, longer than a run and shorter than a run and the pause
            nursery.start_soon(ask)
            await trio.sleep(0.2)
    assert [at - start for at in runs.at] == [0, 10]


async def test_at_the_end_nobody_waits_and_what_runs_is_cancelled(autojump_clock: trio.abc.Clock) -> None:
    token, runs = Token(COMMAND), FakeRuns(FAILED, "t", takes_s=1)
    async with trio.open_nursery() as nursery:
        async with keeping_tokens([deployment(token)], runs):
            runs.takes_s = 1e9
            await trio.sleep(6)

            async def wait() -> None:
                with pytest.raises(UpstreamFault):
                    await token.get("d")

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() < 1e6


async def test_a_start_that_is_cancelled_ends_the_run(autojump_clock: trio.abc.Clock) -> None:
    runs = FakeRuns("t", takes_s=1e9)
    with trio.move_on_after(3) as scope:
        async with keeping_tokens([deployment(Token(COMMAND))], runs):
            raise AssertionError("it has begun")
    assert scope.cancelled_caught


# --- what is run: real programs ---------------------------------------------------------------------------------------


async def run(*words: str, limit_s: float = 20.0) -> str:
    return await run_command(TokenCommand(words=words, limit_s=limit_s))


async def test_what_a_program_prints_is_the_token() -> None:
    assert await run("printf", "  tok-1\\n\\n") == "tok-1"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("/nowhere/get-token",), "it cannot be started: is the program there, and executable?"),
        (("sh", "-c", "echo s3cret; echo s3cret >&2; exit 3"), "it ended with status 3"),
        (("true",), "it printed nothing"),
        (("echo", "s3cret", "word"), "it printed something that cannot be a token: expected one word"),
        (("printf", "\\344"), "it printed something that cannot be a token: expected one word"),
        (("yes", "s3cret"), f"it printed more than {MAX_BYTES // 1024} KiB"),
    ],
)
async def test_a_program_that_prints_no_token_has_failed_and_nothing_of_it_is_shown(
    words: tuple[str, ...], why: str
) -> None:
    with pytest.raises(TokenCommandError) as caught:
        await run(*words)
    assert str(caught.value) == why
    assert caught.value.__context__ is None


@pytest.mark.parametrize("end", ["wait", "exit"])  # the child has its output open, so it is not the end of that
async def test_a_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path, end: str) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TokenCommandError, match=r"it did not end within 0\.5 s"):
        await run("sh", "-c", f"sleep 100 & echo $! > {pid}; {end}", limit_s=0.5)
    with patiently():
        while is_alive(int(pid.read_text())):
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- the whole way ----------------------------------------------------------------------------------------------------

CHUNKS: tuple[Step, ...] = (
    sse_head(),
    events(
        [
            {
                "id": "c",
                "model": "m",
                "created": 7,
                "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
            }
        ]
    ),
    end(),
)
TOKEN = "ABSK-token-of-the-script-%s"


def script(folder: Path, body: str) -> str:
    """Write a program whose ``body`` has the number of the run as ``$n``."""
    file = folder / "get-token"
    file.write_text(f'#!/bin/sh\necho x >> {folder}/runs\nn=$(wc -l < {folder}/runs | tr -d " ")\n{body}\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def runs_of(folder: Path) -> int:
    return (folder / "runs").read_text().count("x")


def entry(url: str, command: str, name: str = "up", **params: object) -> str:
    given = {"model": "deepseek/m", "api_base": url, "token_command": command, "num_retries": 0, **params}
    return f"  - model_name: {name}\n    litellm_params: {json.dumps(given)}\n"


async def test_requests_carry_the_token_and_messages_of_the_upstream_do_not(tmp_path: Path) -> None:
    command = script(tmp_path, f'echo "{TOKEN % "$n"}"')
    echo = error(
        400, b'{"error": {"message": "bad token ABSK-token-of-the-script-1 in it"}}', content_type="application/json"
    )
    async with (
        scripted_upstream(in_turn(CHUNKS, (echo,))) as up,
        serving(entry(up.url, command) + entry(up.url, command, "other")) as service,
    ):
        assert runs_of(tmp_path) == 1  # before the first request, for both
        answer = await service.post({"model": "up", "input": "hello", "stream": True})
        assert fold_stream(answer.content).content == "hi"
        refused = await service.post({"model": "other", "input": "hello"})
        assert "bad token [redacted] in it" in refused.text
    assert [request.headers["authorization"] for request in up.requests] == [f"Bearer {TOKEN % 1}"] * 2
    assert runs_of(tmp_path) == 1


async def test_a_401_makes_the_command_run_again_and_later_requests_carry_the_new_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.upstreams.token.PAUSE_S", 0.0)
    command = script(tmp_path, f'echo "{TOKEN % "$n"}"')
    expired = error(401, b'{"error": {"message": "expired"}}', content_type="application/json")
    async with scripted_upstream(in_turn((expired,), CHUNKS)) as up, serving(entry(up.url, command)) as service:
        token = service.application.generations.current.settings.deployments[-1].token
        assert token is not None
        assert (await service.post({"model": "up", "input": "hello"})).status_code == 502
        with patiently():
            while token.value != TOKEN % 2:
                await trio.sleep(0.01)
        answer = await service.post({"model": "up", "input": "hello", "stream": True})
        assert fold_stream(answer.content).content == "hi"
    assert [request.headers["authorization"] for request in up.requests] == [f"Bearer {TOKEN % n}" for n in (1, 2)]


async def test_a_command_that_fails_does_not_keep_the_service_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = script(tmp_path, "echo s3cret-1234; exit 7")
    async with scripted_upstream(*CHUNKS) as up, serving(entry(up.url, command)) as service:
        answer = await service.post({"model": "up", "input": "hello"})
        assert answer.status_code == 502
        assert "has not printed one (it ended with status 7)" in answer.text
        assert (await service.get("/readyz")).status_code == 200
    assert up.requests == []
    assert "requests fail until it works" in caplog.text
    assert "s3cret" not in caplog.text + answer.text


async def test_a_reload_runs_the_command_of_the_new_configuration(tmp_path: Path) -> None:
    command = script(tmp_path, f'echo "{TOKEN % "$n"}"')
    async with scripted_upstream(*CHUNKS) as up, serving(entry(up.url, command)) as service:
        await service.reload(entry(up.url, command))
        await service.post({"model": "up", "input": "hello", "stream": True})
    assert up.requests[0].headers["authorization"] == f"Bearer {TOKEN % 2}"
