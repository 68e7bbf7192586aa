"""Runs the commands that print the tokens of deployments: once before the service is ready, and again in time.

Each process runs those of its current configuration, one run at a time for each command, however many deployments have
it. A command gets no input, what it prints on stderr is dropped, and nothing of what it prints is logged.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import trio

from pipeline.errors import places_of
from pipeline.gateway.config.fields import secret_problem
from stages.upstreams import Deployment
from stages.upstreams.token import Token, TokenCommand

RETRY_S: Final = 30.0
"""When a command is run again after it has failed, unless it is due before."""
MAX_BYTES: Final = 64 * 1024
"""More than any token; a command that prints more is ended."""
_PIECE_BYTES: Final = 4096

log = logging.getLogger("headrace")


class TokenCommandError(Exception):
    """A command has given no token; the text says why, and nothing of what it has printed."""


Run = Callable[[TokenCommand], Awaitable[str]]
"""Runs a command and returns the token; raises `TokenCommandError`."""


async def run_command(command: TokenCommand) -> str:
    """Run a command and return what it prints, without white space around it.

    If it is cancelled or takes too long, it is killed with all the processes that it has started.

    Raises:
        TokenCommandError: if it cannot be started, fails, takes too long, or prints no token.
    """
    printed = bytearray()
    status, has_started = 0, True
    with trio.move_on_after(command.limit_s) as limit:
        try:
            async with trio.open_nursery() as nursery:
                process = await nursery.start(
                    partial(
                        trio.run_process,
                        list(command.words),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL,
                        check=False,
                        deliver_cancel=_kill,
                        start_new_session=True,
                    )
                )
                try:
                    async with process.stdout:
                        while len(printed) <= MAX_BYTES and (piece := await process.stdout.receive_some(_PIECE_BYTES)):
                            printed += piece
                except trio.Cancelled:  # it may have ended, and a process that it has started has not
                    await _kill(process)
                    raise
                if len(printed) > MAX_BYTES:
                    nursery.cancel_scope.cancel()
                status = await process.wait()
        except* OSError:
            has_started = False
    if not has_started:
        raise TokenCommandError("it cannot be started: is the program there, and executable?")
    if limit.cancelled_caught:
        raise TokenCommandError(f"it did not end within {command.limit_s:g} s")
    if len(printed) > MAX_BYTES:
        raise TokenCommandError(f"it printed more than {MAX_BYTES // 1024} KiB")
    if status:
        raise TokenCommandError(f"it ended with status {status}")
    text = printed.decode("latin-1").strip()
    if not text or secret_problem(text) is not None:
        found = "nothing" if not text else "something that cannot be a token: expected one word"
        raise TokenCommandError(f"it printed {found}")
    return text


async def _kill(process: trio.Process) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def keeping_tokens(deployments: Iterable[Deployment], run: Run = run_command) -> AsyncGenerator[None]:
    """Keep the tokens of deployments until the block is left; it is entered when each command has been run once.

    The commands live in a task of their own, because the block may be left in another task than it was entered in.
    """
    users: dict[Token, list[str]] = {}
    for one in deployments:
        if one.token is not None:
            users.setdefault(one.token, []).append(one.id)
    living, ended = trio.CancelScope(), trio.Event()

    async def live() -> None:
        try:
            with living:
                await _keep_all(users, run)
        except Exception as error:
            log.error("the token commands are no longer run: restart: %s", places_of(error))
        finally:
            ended.set()

    for token in users:
        token.is_kept = True
    first_runs = [token.next_run() for token in users]
    trio.lowlevel.spawn_system_task(live, name="token commands")
    try:
        for run_once in first_runs:
            await run_once.wait()
        yield
    finally:
        living.cancel()
        with trio.CancelScope(shield=True):  # what is running is killed
            await ended.wait()


async def _keep_all(users: Mapping[Token, list[str]], run: Run) -> None:
    try:
        async with trio.open_nursery() as nursery:
            for token, names in users.items():
                nursery.start_soon(_keep, token, names, run)
    finally:
        for token in users:
            token.is_kept = False
            token.end_run(None, "headrace is shutting down")


async def _keep(token: Token, names: list[str], run: Run) -> None:
    command, failed_with = token.command, ""
    while True:
        token.begin_run()
        failure = ""
        try:
            token.end_run(await run(command))
        except TokenCommandError as error:
            failure = str(error)
            token.end_run(None, failure)
        if failure != failed_with:
            _log(token, names, failure)
            failed_with = failure
        with trio.move_on_after(min(command.refresh_s, RETRY_S) if failure else command.refresh_s):
            await token.wait_for_need()


def _log(token: Token, names: list[str], failure: str) -> None:
    of = f"of deployment{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
    program = token.command.program
    if not failure:
        log.info("the token_command %s, %s, works again", of, program)
        return
    meanwhile = "requests fail until it works" if token.value is None else "the token that it printed last is used on"
    log.error("the token_command %s, %s, has failed: %s: %s", of, program, failure, meanwhile)
