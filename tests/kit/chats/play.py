"""What happens in a generated chat: one seeded choice after another.

A turn is one request and its answer. Before each, something may happen to the chat that real chats have met: see
`Habits`, whose fields are how often it happens per turn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from kit.chats.client import IMAGE, LATE, Call, Client, Output, Said, User
from kit.clients.chat_fold import Folded

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max", "none", "minimal")


@dataclass(frozen=True)
class Habits:
    """How often something happens, per turn.

    Attributes:
        image: a question with an image.
        switch: to Ask mode, or back, with a question.
        edit: an earlier message is edited, and what came after it is gone.
        stop: "Stop" in mid-stream.
        lost_id: a call in a stopped answer loses its id.
        late_tool: an MCP server comes, with a tool.
        new_time: the system prompt shows another time; in half of the chats it never does.
        summary: the IDE replaces the history by a summary before it is too long.
        effort: another effort is chosen.
        model: another model is chosen.
        model_back: the first model is chosen again.
        account: the deployment gets a key of another account; in the usual chats it does not.
        half_emoji: a question ends in one half of an emoji, which JavaScript cut.
    """

    image: float = 0.04
    switch: float = 0.03
    edit: float = 0.02
    stop: float = 0.04
    lost_id: float = 0.3
    late_tool: float = 0.01
    new_time: float = 0.03
    summary: float = 0.01
    effort: float = 0.02
    model: float = 0.01
    model_back: float = 0.2
    account: float = 0.0
    half_emoji: float = 0.005


USUAL: Final = Habits()


class Play:
    """A chat and its dice.

    Args:
        client: the IDE.
        aliases: the names of the two models.
        seed: of the dice.
    """

    def __init__(self, client: Client, aliases: tuple[str, str], *, seed: str, habits: Habits = USUAL) -> None:
        self.client = client
        self._aliases = aliases
        self.habits = habits
        self._rng = rng = random.Random(seed)
        self._shows_time = rng.random() < 0.5
        self._late = [*LATE]
        rng.shuffle(self._late)
        self._number = 0
        client.has_temperature = rng.random() < 0.5
        client.replays_patches_as_functions = rng.random() < 0.5
        self._info = User("<user_info>\nOS Version: darwin 25.3.0\nWorkspace Path: /w/app\n</user_info>")
        client.entries.append(self._info)

    def happens(self, chance: float) -> bool:
        return self._rng.random() < chance

    def go_on(self) -> int | None:
        """Bring the chat to its next request; return after how many frames of the answer it is stopped, if it is."""
        client, habits = self.client, self.habits
        last = client.entries[-1]
        if isinstance(last, Said) and last.calls:
            client.entries += (Output(call, self._output()) for call in last.calls)
        elif not isinstance(last, Output):
            self._ask_something()
        if self._shows_time and self.happens(habits.new_time):
            client.system = f"You are an AI coding assistant. You operate in Cursor. It is 10:{self._number % 60:02}."
        if self._late and self.happens(habits.late_tool):
            client.late.append(self._late.pop())
        if self.happens(habits.effort):
            client.effort = self._rng.choice(EFFORTS)
        first, second = self._aliases
        if client.alias == first and self.happens(habits.model):
            client.alias = second
        elif client.alias == second and self.happens(habits.model_back):
            client.alias = first
        return self._rng.randrange(1, 12) if self.happens(habits.stop) else None

    def _ask_something(self) -> None:
        client, habits = self.client, self.habits
        if self.happens(habits.summary):
            self.shorten()
        if self.happens(habits.switch):
            client.mode = "ask" if client.mode == "agent" else "agent"
        asked = [n for n, entry in enumerate(client.entries) if isinstance(entry, User) and entry is not self._info]
        if asked[1:] and self.happens(habits.edit):
            del client.entries[self._rng.choice(asked[-4:]) :]
        self._number += 1
        question = self._rng.choice(("why?", "mend it 😀", "and the tests?"))
        text = f"<user_query>\nQuestion {self._number}: {question}\n</user_query>"
        if self.happens(habits.half_emoji):
            text = text[: text.index("\n</")] + "\ud83d"
        client.entries.append(User(text, IMAGE if self.happens(habits.image) else None))

    def _output(self) -> str:
        lines = self._rng.choice((1, 1, 2, 4, 16))
        return "".join(f"{n + 1}: print({self._rng.randrange(10_000)})  # é\n" for n in range(lines))

    def shorten(self) -> None:
        """Replace the history by a summary; if a question is still open, it stays."""
        entries = self.client.entries
        open_question = [entries[-1]] if isinstance(entries[-1], User) and entries[-1] is not self._info else []
        self._number += 1
        summary = User(f"<summary>\nThe chat so far, in short ({self._number}): the tests pass.\n</summary>")
        self.client.entries = [self._info, summary, *open_question]
        if not open_question:
            self.client.entries.append(User(f"<user_query>\nGo on ({self._number}).\n</user_query>"))

    def start_anew(self) -> None:
        """Leave everything behind that may have killed the chat, as a user would: to see what comes after it."""
        self.client.late.clear()
        self.client.effort = "medium"
        self.client.entries = [self._info]
        self.shorten()

    def take(self, folded: Folded, turn: int) -> None:
        """Add a complete answer."""
        calls = [Call(it["id"], it["name"], it["arguments"]) for it in folded.tool_calls]
        self.client.entries.append(Said(folded.content or "", calls, turn, self.client.front))

    def take_part(self, folded: Folded, turn: int) -> None:
        """Add what had arrived of an answer when it was stopped; some of its calls get an output all the same."""
        client = self.client
        calls = [Call(it["id"], it["name"], it["arguments"]) for it in folded.tool_calls]
        if calls and self.happens(self.habits.lost_id):
            calls[-1].call_id = None
        if folded.content or calls:
            client.entries.append(Said(folded.content or "", calls, turn, client.front))
        client.entries += (Output(call, "The user aborted this call.") for call in calls if self.happens(0.5))
        self._number += 1
        client.entries.append(User(f"<user_query>\nNo, stop ({self._number}).\n</user_query>"))
