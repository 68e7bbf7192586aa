"""A key that expires: a command prints it, and is run again in time; requests carry what it printed last.

The command is not run here: `pipeline.gateway.token_commands` does that, in the background. A request waits for a run
only while there has never been a token.
"""

from __future__ import annotations

import math
import os
from typing import Final

import trio
from msgspec import Struct

from pipeline import UpstreamFault
from stages.wire.redaction import redact, secrets_in

PAUSE_S: Final = 5.0
"""Requests cause a run at most so often: the first of a token, or one after a 401."""
SAME_PAUSE_S: Final = 60.0
"""The same if the last run has printed the token that was there before: then a 401 has another reason."""


class TokenCommand(Struct, frozen=True, kw_only=True):
    """A command that prints a token.

    Attributes:
        words: the program and its arguments, which may be secret.
        refresh_s: how long after a run the next one begins.
        limit_s: how long it may take.
    """

    words: tuple[str, ...]
    refresh_s: float = 1800.0
    limit_s: float = 30.0

    @property
    def program(self) -> str:
        """The program's name, as messages have it: not a token that was written in its place."""
        return redact(os.path.basename(self.words[0]))

    def __repr__(self) -> str:
        """Omit the arguments, which may be secret."""
        return f"<TokenCommand {self.program}>"


class Token:
    """The last token of a command. All deployments of a configuration with the same command share one.

    Args:
        command: what prints it.

    Attributes:
        value: the token; None if there has never been one.
        is_kept: whether somebody runs the command.
    """

    def __init__(self, command: TokenCommand) -> None:
        self.command = command
        self.value: str | None = None
        self.is_kept = False
        self._failure = ""
        self._secrets: frozenset[str] = frozenset()
        self._is_running = False
        self._asked_from = -math.inf
        self._asked, self._tried = trio.Event(), trio.Event()

    def __eq__(self, other: object) -> bool:
        """Tokens of one command are the same, as deployments compare them."""
        return isinstance(other, Token) and other.command == self.command

    def __hash__(self) -> int:
        """As `__eq__` wants it."""
        return hash(self.command)

    def __repr__(self) -> str:
        """Omit the token."""
        return f"<Token of {self.command.program}>"

    @property
    def secrets(self) -> frozenset[str]:
        """What must not appear in any message: this token, and the one before, which requests may still carry."""
        return self._secrets

    def go_on_with(self, before: Token) -> None:
        """Use what another Token of the command has, until a run has printed a new one."""
        self.value, self._secrets = before.value, before._secrets

    async def get(self, deployment_id: str) -> str:
        """Return the token; if there has never been one, wait for a run, unless the last has only just failed.

        Raises:
            UpstreamFault: ``upstream_unauthorized`` if there is none.
        """
        if self.value is None and self.is_kept and (self._is_running or self._may_ask):
            self._ask()
            await self._tried.wait()
        if self.value is None:
            why = self._failure or "it is not run here"
            raise UpstreamFault(
                f"deployment {deployment_id} has no token: its token_command, {self.command.program}, has not printed "
                f"one ({why}); run it by hand where headrace runs",
                code="upstream_unauthorized",
            )
        return self.value

    def refused(self, value: str) -> None:
        """Ask for a run because the upstream has refused a token, if that is still the last one."""
        if value == self.value and self._may_ask:
            self._ask()

    @property
    def _may_ask(self) -> bool:
        return trio.current_time() >= self._asked_from

    def _ask(self) -> None:
        if not self._is_running:  # what is asked for then would be another run after this one
            self._asked.set()

    async def wait_for_need(self) -> None:
        """Return when a request wants a run."""
        await self._asked.wait()

    def next_run(self) -> trio.Event:
        """Return what is set when the run that is on, or else the next one, has ended."""
        return self._tried

    def begin_run(self) -> None:
        """Note that the command is about to be run."""
        self._is_running = True
        self._asked = trio.Event()

    def end_run(self, value: str | None, failure: str = "") -> None:
        """Note how the run has ended: with a token, or else with the reason why there is none."""
        is_new = value is not None and value != self.value
        if value is not None:
            now, before = (
                secrets_in([("", f"Bearer {one}")]) if one else frozenset[str]() for one in (value, self.value)
            )
            self._secrets = now | before
            self.value = value
        self._failure = failure
        self._is_running = False
        self._asked_from = trio.current_time() + (PAUSE_S if is_new or self.value is None else SAME_PAUSE_S)
        self._tried.set()
        self._tried = trio.Event()
