"""Regular expressions over a sliding window: what a match could still begin in is held."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from stages.text_runs.transformer import Edit

STRETCH: Final = 256
"""How many characters are searched at once for what could begin a match."""


class Window:
    """Regular expressions and what replaces their matches, compiled: make one at start-up.

    A match is what ``re.sub`` would find, if it has at most ``max_match`` characters. The leftmost match comes first,
    and of those that begin at the same character that of the first expression. Empty matches are left out.

    Args:
        patterns: the expressions, in order.
        by: what replaces a match: a text, or a function of what was matched.
        max_match: how many characters a match may have, with what it looks ahead at. A longer one is not found, or is
            found only up to here.

    Raises:
        ValueError: if an expression is not valid.
    """

    def __init__(self, patterns: Iterable[str], by: str | Callable[[str], str], *, max_match: int = 256) -> None:
        if max_match < 1:
            raise ValueError("max_match must be 1 or more")
        self.by: Callable[[str], str] = by if callable(by) else lambda matched: by
        self.max_match = max_match
        self.rules = tuple(_Rule(pattern) for pattern in patterns)

    def open(self) -> SlidingWindow:
        """Return a transformer for one run."""
        return SlidingWindow(self)


class SlidingWindow:
    """A `Transformer` that replaces matches; `Window.open` makes it.

    Holds: text from the first character on where a match could begin and depend on what follows, fewer characters than
    ``max_match``; and as many that were given already, for expressions that look behind.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._buffer = ""
        self._at = 0  # where in the buffer undecided text begins
        self._passed = 0  # characters of the run that are no longer in the buffer
        self.edits: list[Edit] = []

    def feed(self, text: str, /) -> str:
        """Return the text that no match can change any more."""
        # An expression may look at all that follows, from each place where a match may begin: so only little follows.
        size = max(self._window.max_match, STRETCH)
        return "".join([self._take(text[at : at + size], is_end=False) for at in range(0, len(text), size)])

    def flush(self) -> str:
        """Return what is left."""
        return self._take("", is_end=True)

    def _take(self, more: str, *, is_end: bool) -> str:
        text = self._buffer = self._buffer + more
        at, most, rules = self._at, self._window.max_match, self._window.rules
        firsts = [rule.first(text, at) for rule in rules]  # where the next match of each may begin
        given: list[str] = []
        while at < len(text):
            start = min(firsts, default=len(text))
            given.append(text[at:start])
            if (at := start) == len(text):
                break
            if (end := self._end_of_match(text, at, firsts, is_end=is_end)) is None:
                break
            if end > at:
                by = self._window.by(text[at:end])
                self.edits.append(Edit(self._passed + at, self._passed + end, len(by)))
                given.append(by)
                at = end
            else:
                given.append(text[at])
                at += 1
            for number, first in enumerate(firsts):
                if first < at:
                    firsts[number] = rules[number].first(text, at)
        kept = max(at - most, 0)
        self._buffer, self._at = text[kept:], at - kept
        self._passed += kept
        return "".join(given)

    def _end_of_match(self, text: str, at: int, firsts: list[int], *, is_end: bool) -> int | None:
        """Return where the match that begins at ``at`` ends; ``at`` if there is none; None if it may yet change."""
        is_decided = is_end or len(text) - at >= self._window.max_match
        for rule, first in zip(self._window.rules, firsts, strict=True):
            if first == at:
                if not is_decided and rule.may_grow(text, at):
                    return None
                found = rule.pattern.match(text, at, at + self._window.max_match)
                if found and found.end() > at:
                    return found.end()
        return at


class _Rule:
    """One expression, and what begins like it."""

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        flags = self.pattern.flags
        begun = None if flags & re.VERBOSE else _begun(pattern)
        search = None if begun is None else _begun(pattern, for_search=True)
        self._begun = None if begun is None else re.compile(begun, flags)
        self._first = None if search is None else re.compile(search, flags)

    def first(self, text: str, at: int) -> int:
        """Return where the next match, or what may become one, begins; the length of the text if nowhere."""
        if self._first is None:
            return at
        # Near the end of a stretch more begins like a match than is one. But from none of it all that follows is read.
        for end in range(at + STRETCH, len(text) + STRETCH, STRETCH):
            found = self._first.search(text, at, end)
            at = min(end, len(text)) if found is None else found.start()
            if at < end:
                return at
        return len(text)

    def may_grow(self, text: str, at: int) -> bool:
        """Return whether it depends on the text that follows whether there is a match at ``at``, or how long it is."""
        if self._begun is None:
            return True
        found = self._begun.match(text, at)
        return found is not None and found.lastindex is not None


_PARTS: Final = re.compile(
    r"""(?P<opaque>\\[1-9]|\(\?P=|\(\?\(|\(\?>|\(\?[a-zA-Z-]*x)
    |(?P<nothing>\(\?[a-zA-Z]+\)|\(\?\#[^)]*\))
    |(?P<behind>\(\?<[=!])
    |(?P<ahead>\(\?[=!])
    |(?P<open>\((?:\?(?:P<\w+>|[a-zA-Z-]*:))?)
    |(?P<close>\))
    |(?P<bar>\|)
    |(?P<times>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\})[?+]?)
    |(?P<edge>\\[AbBZ]|[\^$])
    |(?P<atom>\\(?:x..|u.{4}|U.{8}|N\{[^}]*\}|0[0-7]{0,2}|.)|\[\^?\]?(?:\\.|[^\]\\])*\]|.)""",
    re.VERBOSE | re.DOTALL,
)
"""The parts of a regular expression (Python's `re`, "Regular Expression Syntax")."""


def _begun(pattern: str, *, for_search: bool = False) -> str | None:
    r"""Return an expression that also matches what begins like a match and goes on to the end of the text.

    `re` does not say whether a text could become a match. But if each character ``c`` of an expression is replaced by
    ``(?:c|\Z())``, what is left of it matches nothing at the end of the text. The group then has matched if the end was
    looked at. If it has not, this is the match, or there is none, whatever follows: each way that `re` would have tried
    before this one has failed before the end.

    Args:
        pattern: the expression.
        for_search: whether it must also match where there is a match in a window that ends early. There ``\b`` and
            ``$`` may hold that do not hold in the whole text, so it leaves them and what is looked ahead at out.

    Returns:
        None if the expression has a part for which there is no such form, such as a reference to a group, or one that
        looks back at text and from there ahead. Then all of the window must be held.
    """
    out: list[str] = []
    groups: list[tuple[str, int]] = []  # how each open one begins, and where in `out`
    has_edge = False  # what looks behind
    for part in _PARTS.finditer(pattern):
        kind, text = part.lastgroup, part[0]
        is_behind = any(_is_behind(opening) for opening, _ in groups)  # there nothing is replaced
        match kind:
            case "opaque":
                return None
            case "times" if len(text) > 1 and text.endswith("+"):
                return None
            case "ahead" | "edge" if is_behind and text in ("(?=", "(?!", "$"):
                return None
            case "open" | "ahead" | "behind":
                groups.append((text, len(out)))
                out.append("(?:" if kind == "open" and not text.endswith(":") else text)
            case "close":
                opening, start = groups.pop()
                out.append(text)
                if any(_is_behind(outer) for outer, _ in groups):
                    continue
                inner = "".join(out[start + 1 : -1])
                if opening in ("(?=", "(?!"):
                    out[start:] = [] if for_search else [rf"(?:(?:{inner})\Z()|{opening}{inner}))"]
                elif _is_behind(opening):
                    # At the end it would look at what came before, and not at what the end stands for.
                    out[start:] = [] if for_search and has_edge else [rf"(?:\Z()|{opening}{inner}))"]
                    has_edge = False
            case "edge" if is_behind:
                has_edge = True
                out.append(text)
            case "edge":
                exact = r"\n?\Z()|$" if text == "$" else rf"\Z()|{text}"
                out.append("(?:)" if for_search else f"(?:{exact})")
            case "atom" if not is_behind:
                out.append(rf"(?:{text}|\Z())")
            case "nothing":
                pass
            case _:
                out.append(text)
    return "".join(out)


def _is_behind(opening: str) -> bool:
    return opening.startswith("(?<")
