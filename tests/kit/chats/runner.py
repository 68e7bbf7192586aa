"""Plays generated chats against a double and checks what must hold in every turn of them.

- No request is refused while the context limit is not reached.
- A request over the limit is refused in the form that Cursor recovers from, and the shortened chat goes on.
- Reasoning comes back in the turns in which the vendor's rules allow it.
- What the client has not changed has the same bytes in the next request.
- The client gets the text and the calls that the model sent.

Where accounts of a vendor take turns in getting into trouble (`kit.vendors.accounts`), also:

- No request is refused while one account is in order, and none is answered twice.
- When an account has been in order for a while, it answers the conversations that it had before.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from kit.chats.client import Client, Entry, Front, Said
from kit.chats.pipeline import ALIASES, error_of
from kit.chats.play import USUAL, Habits, Play
from kit.clients.chat_fold import Folded, fold_stream
from kit.vendors.accounts import Accounts
from kit.vendors.double import Double, Made
from kit.vendors.vendors import Vendor

Send = Callable[..., Awaitable[tuple[int, bytes]]]
"""Posts a body, perhaps with ``stops_after``, and returns the status and the response."""

OURS = "refused by the gateway"
UNRECOGNISED = "too long, but not recognised"
GARBLED = "what the client got is not what was sent"
CHANGED = "the beginning of the request has other bytes"
TWICE = "answered twice"
AWAY = "its account is in order again, and another one answers"

AWAY_S: Final = 90.0
"""An account that is in order for so long answers again: it is left out for 60 s at most, after a failure that may be
20 s late."""


@dataclass
class Fault:
    """Something that must not happen: in which chat, in which turn, against which rule."""

    seed: int
    turn: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"chat {self.seed}, turn {self.turn}: {self.rule}: {self.message}"


@dataclass
class Figures:
    """What was seen in some chats.

    Attributes:
        restorable: turns with reasoning that could have come back, counted in each request that has them.
        restored: those that did.
        comparable: requests whose beginning the client had not changed since the request before.
        identical: those whose beginning had the same bytes.
        dropped: blocks of reasoning that the vendor left out because what came before them had changed.
        asked_again: requests that the vendor refused, and that the service then mended and sent once more.
        changes: where the beginning had other bytes.
        foreign: turns with reasoning that only another account can read, counted as ``restorable`` is.
        moves: requests that another account answered than the one before.
        attempts: requests that reached an account; ``most_attempts`` is how many did of one request of the client.
        hopeless: requests that failed, and no account was in order for as long as they took.
        request_bytes, cached_bytes: of the accepted requests, and how many of them the account had in its prompt cache.
    """

    turns: int = 0
    stopped: int = 0
    too_long: int = 0
    restorable: int = 0
    restored: int = 0
    comparable: int = 0
    identical: int = 0
    dropped: int = 0
    asked_again: int = 0
    faults: list[Fault] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    foreign: int = 0
    moves: int = 0
    attempts: int = 0
    most_attempts: int = 0
    hopeless: int = 0
    request_bytes: int = 0
    cached_bytes: int = 0

    @property
    def restored_share(self) -> float:
        return self.restored / self.restorable if self.restorable else 1.0

    @property
    def kept_share(self) -> float:
        """The share of all reasoning that is restored, whichever account it came from."""
        return self.restored / (self.restorable + self.foreign) if self.restorable else 1.0

    @property
    def cached_share(self) -> float:
        return self.cached_bytes / self.request_bytes

    def accounts_row(self, name: str) -> str:
        """Return the figures of chats with several accounts as a line of a table."""
        kept = f"{self.kept_share:6.1%}" if self.restorable else "     -"
        return (
            f"{name:22} {self.turns:6} turns {self.moves:5} moves {self.attempts:6} attempts, at most "
            f"{self.most_attempts}   prefix cached {self.cached_share:6.1%}   reasoning restored {kept}, of this "
            f"account's {self.restored_share:6.1%}   mended {self.asked_again}   hopeless {self.hopeless}   "
            f"faults {len(self.faults)}"
        )

    def row(self, name: str) -> str:
        """Return the figures as a line of a table."""
        restored = f"{self.restored_share:6.1%}" if self.restorable else "     -"
        return (
            f"{name:12} {self.turns:6} turns {self.stopped:4} stopped {self.too_long:4} too long   reasoning restored "
            f"{restored} of {self.restorable:6}   same beginning {self.identical:5} of {self.comparable:5}   "
            f"dropped by the vendor {self.dropped:5}   faults {len(self.faults)}"
        )


@dataclass
class _Before:
    """The last request that was accepted."""

    front: Front
    entries: list[Entry]
    units: list[bytes]
    declared: bytes
    thinks: bool
    account: str


class Runner:
    """One chat.

    Args:
        vendor: whose shape the client writes.
        double: answers; it must be the one that ``send`` reaches.
        send: reaches the service.
        seed: of the chat.
        figures: what is added to.
        accounts: those that the double answers for, if there are several.
        returns_home: whether a conversation is expected to return to its first account.
    """

    def __init__(
        self,
        vendor: Vendor,
        double: Double,
        send: Send,
        *,
        seed: int,
        figures: Figures,
        habits: Habits = USUAL,
        accounts: Accounts | None = None,
        returns_home: bool = True,
    ) -> None:
        client = Client(vendor.shape, ALIASES[0], f"3f0b6f7e-6d0e-4a83-9a51-{seed:012}")
        self.play = Play(client, ALIASES, seed=f"{vendor.double.__name__} {seed}", habits=habits)
        self.figures = figures
        self._double = double
        self._send = send
        self._seed = seed
        self._turn = 0
        self._before: _Before | None = None
        self._accounts = accounts
        self._returns_home = returns_home
        self._homes: dict[tuple[str, ...], str] = {}  # by model and conversation; that of the first answer
        self._answered_by: dict[str, str] = {}

    async def run(self, turns: int) -> None:
        """Play the chat."""
        for self._turn in range(turns):
            stops_after = self.play.go_on()
            self.figures.turns += 1
            if self.play.happens(self.play.habits.account):
                self._double.account = f"account-{self._turn}"
            for _ in range(2):
                if await self._ask(stops_after):
                    break
                stops_after = None

    async def _ask(self, stops_after: int | None) -> bool:
        """Ask for an answer; return False if there was none, and the chat is shorter or has begun anew."""
        double, client = self._double, self.play.client
        refusals, too_long, made = len(double.refusals), double.too_long, len(double.made)
        if self._accounts is not None:
            self._accounts.attempts.clear()
        try:
            status, response = await self._send(client.body(), stops_after=stops_after)
        finally:
            self.figures.dropped += double.dropped
            double.dropped = 0
        if double.too_long > too_long:
            self.figures.too_long += 1
            error = error_of(response) if status == 400 else {}
            if error.get("code") != "context_length_exceeded":
                self._fault(UNRECOGNISED, f"{status} {error or response[:300]!r}")
            self.play.shorten()
            return False
        if status != 200 and self._accounts is not None and not self._accounts.was_one_in_order():
            self.figures.hopeless += 1
            return False
        if status != 200:
            refused = double.refusals[-1] if len(double.refusals) > refusals else None
            self._fault(refused.rule if refused else OURS, refused.message if refused else str(error_of(response)))
            self.play.start_anew()
            return False
        self.figures.asked_again += len(double.refusals) - refusals
        if len(double.made) == made:
            return True  # stopped before anything was asked
        if len(double.made) > made + 1:
            self._fault(TWICE, f"{len(double.made) - made} times")
        self._count()
        if self._accounts is not None:
            self._count_of(self._accounts)
        self._take(double.made[-1], response, is_stopped=stops_after is not None)
        return True

    def _fault(self, rule: str, message: str) -> None:
        self.figures.faults.append(Fault(self._seed, self._turn, rule, message[:300]))

    def _count(self) -> None:
        double, client = self._double, self.play.client
        front, seen = client.front, double.seen
        for entry in client.entries:
            if isinstance(entry, Said) and entry.turn is not None and self._may_return(entry, front):
                if self._is_foreign(entry.turn):
                    self.figures.foreign += 1
                    continue
                self.figures.restorable += 1
                self.figures.restored += entry.turn in seen
        thinks = client.effort != "none"
        now = _Before(front, [*client.entries], double.units, double.declared, thinks, double.account)
        before, self._before = self._before, now
        if before is None or before.entries != client.entries[: len(before.entries)]:
            return
        if (before.front.alias, before.front.system) != (front.alias, front.system):
            return
        if before.account != double.account:
            return  # what only the other one can read is not sent
        if double.restores == "unchanged" and before.thinks != thinks:
            return  # switching thinking off takes its blocks out of the history
        if before.front.mode != front.mode and any(map(_is_cut, before.entries)):
            return  # each mode writes arguments that were cut in its own way
        self.figures.comparable += 1
        is_same = double.units[: len(before.units)] == before.units
        if before.front == front:
            is_same = is_same and double.declared == before.declared
        self.figures.identical += is_same
        if not is_same:
            pairs = enumerate(zip(before.units, double.units, strict=False))
            place = next((n for n, (old, new) in pairs if old != new), -1)
            change = "tools" if place < 0 else f"{before.units[place][:500]!r}\n    {double.units[place][:500]!r}"
            self.figures.changes.append(f"chat {self._seed}, turn {self._turn}, item {place}: {change}")

    def _count_of(self, accounts: Accounts) -> None:
        """Count which account has answered, and what it knew of the request."""
        figures, account, alias = self.figures, self._double.account, self.play.client.alias
        chat = (alias, *self.play.client.name)
        figures.attempts += len(accounts.attempts)
        figures.most_attempts = max(figures.most_attempts, len(accounts.attempts))
        figures.request_bytes += accounts.keep()
        figures.cached_bytes += accounts.cached
        figures.moves += self._answered_by.get(alias, account) != account
        self._answered_by[alias] = account
        if all(accounts.well_s(name) > AWAY_S for name in accounts.names):
            self._homes.setdefault(chat, account)
        home = self._homes.get(chat, account)
        if self._returns_home and home != account and accounts.well_s(home) > AWAY_S:
            self._fault(AWAY, f"{account} and not {home}, which is in order for {accounts.well_s(home):.0f} s")

    def _is_foreign(self, turn: int) -> bool:
        """Return whether only another account can read the reasoning of an answer."""
        double = self._double
        tokens = double.made[turn].tokens
        return double.binds_account and any(double.issued[token].account != double.account for token in tokens)

    def _may_return(self, said: Said, front: Front) -> bool:
        """Return whether the vendor's rules allow that the reasoning of an answer comes back to the same account."""
        assert said.turn is not None
        assert said.upon is not None
        made = self._double.made[said.turn]
        issued = [self._double.issued[token] for token in made.tokens]
        if said.upon.alias != front.alias or not any(one.is_sent for one in issued):
            return False
        match self._double.restores:
            case "unchanged" if self.play.client.effort == "none":
                return False  # without thinking there is nothing to make the vendor leave out what does not fit
            case "unchanged":
                # The messages before an answer never change while the answer is there.
                return said.upon == front
            case "calls":
                return bool(said.calls)
            case _:
                return True

    def _take(self, made: Made, response: bytes, *, is_stopped: bool) -> None:
        folded = fold_stream(response)
        if is_stopped and folded.finish_reason is None:
            self.figures.stopped += 1
            self.play.take_part(folded, made.turn)
            return
        if why := _difference(made, folded, self.play.client.front.tools):
            self._fault(GARBLED, why)
        self.play.take(folded, made.turn)


def _is_cut(entry: Entry) -> bool:
    """Return whether "Stop" has cut the arguments of a call."""
    return isinstance(entry, Said) and any(call.call_id is None or not _is_json(call.arguments) for call in entry.calls)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _difference(made: Made, folded: Folded, tools: tuple[str, ...]) -> str:
    """Return how the client's answer differs from the model's; empty if it does not."""
    if folded.error is not None:
        return str(folded.error)
    if (folded.content or "") != made.text:
        return f"text {folded.content!r} for {made.text!r}"
    ids = [it["id"] for it in folded.tool_calls]
    if len(set(ids)) != len(ids) or not all(ids):
        return f"ids {ids}"
    if foreign := [it["name"] for it in folded.tool_calls if it["name"] not in tools]:
        return f"calls of tools that the client does not have: {foreign}"
    got = [it["arguments"] for it in folded.tool_calls]
    sent = [call.text if call.raw is None else call.raw for call in made.calls]
    if got != sent:
        return f"calls {got} for {sent}"
    names = [(it["name"], call.name) for it, call in zip(folded.tool_calls, made.calls, strict=True)]
    wrong = [pair for pair in names if pair[1] in tools and pair[0] != pair[1]]
    return f"names {wrong}" if wrong else ""
