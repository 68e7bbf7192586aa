"""The blocks of an Anthropic answer, as events: text, reasoning, and the calls that the client is to carry out.

Blocks follow one another, and each has its index in the answer. Servers that only speak Anthropic's language leave out
starts or stops, or give all blocks one index; nothing of that loses or mixes anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from stages.events import Citation, ReasoningDelta, ReasoningItem, StreamEvent, TextDelta
from stages.wire.answers.sent import PARAGRAPH, Sent
from stages.wire.answers.tool_calls import ToolCalls
from stages.wire.anthropic.records import BLOCK, CITED, Block, BlockDelta
from stages.wire.foreign_json import LIST, TEXT, encode, read, read_list, text


class _Text:
    """A block of text."""

    __slots__ = ("begin", "cited")

    def __init__(self, begin: int) -> None:
        self.begin = begin  # in the text of the whole answer, in characters
        self.cited: list[tuple[str, str]] = []


class _Thinking:
    """A block of reasoning."""

    __slots__ = ("is_empty", "sent", "signature")

    def __init__(self) -> None:
        self.is_empty = True
        self.sent = Sent()
        self.signature = ""


class _ToolUse:
    """A call of a tool of the client's."""

    __slots__ = ("has_arguments", "number", "whole")

    def __init__(self, number: int, whole: str) -> None:
        self.number = number
        self.whole = whole  # the input that came at the start; the deltas take its place
        self.has_arguments = False


class AnswerBlocks:
    """The blocks of one answer.

    Args:
        calls: gets the calls.
        names: the client's name of each tool that the upstream knows under another.

    Attributes:
        citations: the pages that are cited, in order, each one once.
    """

    def __init__(self, calls: ToolCalls, names: Mapping[str, str]) -> None:
        self.citations: dict[Citation, None] = {}
        self._calls = calls
        self._names = names
        self._numbers = 0  # of calls, as the indices of blocks count other blocks too
        self._empty_call: int | None = None
        self._open: dict[int, _Text | _Thinking | _ToolUse | None] = {}
        self._early: list[Block] = []
        self._said = 0
        self._has_reasoned = False

    def expect(self, content: Raw) -> None:
        """Take the content that came with the message's head. It is given unless it is said again."""
        self._early = [block for block in read_list(BLOCK, content) if block is not None]

    def begin(self, at: int, block: Block, out: list[StreamEvent]) -> None:
        """Begin a block. It ends the one that was in its place, and any reasoning, which led to it."""
        if at < len(self._early):
            self._early.clear()  # they are said again
        self._take_early(out)
        for other in [n for n, known in self._open.items() if n == at or isinstance(known, _Thinking)]:
            self.stop(other, out)
        if self._empty_call is not None:
            # Nothing was cut off, as more has come: it has no arguments, and clients parse what they are given.
            self._calls.add(self._empty_call, "", "", "{}", out)
            self._empty_call = None
        self._open[at] = None
        match block.type:
            case "text":
                begun = self._open[at] = _Text(self._said)
                self.say(at, text(block.text), out)
                begun.cited += [page for cited in read(LIST, block.citations) or () if (page := _page_of(cited))]
            case "thinking":
                self._open[at] = thinking = _Thinking()
                thinking.signature = text(block.signature)
                self.think(at, text(block.thinking), out)
            case "redacted_thinking":
                if data := text(block.data):
                    out.append(_item({"type": "redacted_thinking", "data": data}))
            case "tool_use":
                self._open[at] = _ToolUse(self._numbers, _input_of(block))
                name = text(block.name)
                self._calls.add(self._numbers, text(block.id), self._names.get(name, name), "", out)
                self._numbers += 1
            case _:
                pass  # what the upstream did itself, or what nobody knows

    def proceed(self, at: int, delta: BlockDelta, out: list[StreamEvent]) -> None:
        """Take a delta of any kind."""
        match delta.type:
            case "text_delta":
                self.say(at, text(delta.text), out)
            case "thinking_delta":
                self.think(at, text(delta.thinking), out)
            case "input_json_delta":
                self.argue(at, text(delta.partial_json), out)
            case "signature_delta":
                block = self._open.get(at)
                if isinstance(block, _Thinking):
                    block.signature = text(delta.signature) or block.signature
            case "citations_delta":
                block = self._open.get(at)
                if isinstance(block, _Text) and (page := _page_of(delta.citation)) is not None:
                    block.cited.append(page)
            case _:
                pass

    def say(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Give more of the text of a block."""
        if type(self._open.get(at)) is not _Text:
            if self._is_silent(at):
                return
            self.begin(at, Block(type="text"), out)
        if delta:
            self._said += len(delta)
            out.append(TextDelta(delta))

    def think(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Give more of the reasoning of a block, with a blank line before that of a second block."""
        block = self._open.get(at)
        if not isinstance(block, _Thinking):
            if self._is_silent(at):
                return
            self.begin(at, Block(type="thinking"), out)
            block = self._open[at]
            assert isinstance(block, _Thinking)
        if not delta:
            return
        block.sent.tail.append(delta)
        block.sent.compact()
        if block.is_empty:
            block.is_empty = False
            if self._has_reasoned:
                delta = PARAGRAPH + delta
            self._has_reasoned = True
        out.append(ReasoningDelta(delta))

    def argue(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Give more of the arguments of a call of the client's."""
        block = self._open.get(at)
        if delta and isinstance(block, _ToolUse):
            block.has_arguments = block.has_arguments or bool(delta.strip())
            self._calls.add(block.number, "", "", delta, out)

    def stop(self, at: int, out: list[StreamEvent]) -> None:
        """End a block."""
        block = self._open.pop(at, None)
        match block:
            case _Text():
                for url, title in block.cited:
                    self.citations[Citation(url, title, block.begin, self._said)] = None
            case _Thinking():
                # Unsigned reasoning, as when it was cut off, is refused when it is given back.
                if block.signature:
                    thought = {"type": "thinking", "thinking": block.sent.text(), "signature": block.signature}
                    out.append(_item(thought))
            case _ToolUse() if not block.has_arguments:
                if block.whole:
                    self._calls.add(block.number, "", "", block.whole, out)
                else:
                    self._empty_call = block.number
            case _:
                pass

    def stop_all(self, out: list[StreamEvent]) -> None:
        """End all blocks."""
        self._take_early(out)
        for at in list(self._open):
            self.stop(at, out)

    def _is_silent(self, at: int) -> bool:
        """Whether an open block is none that a client gets to see."""
        return at in self._open and self._open[at] is None

    def _take_early(self, out: list[StreamEvent]) -> None:
        """Give the content that came with the message's head."""
        blocks, self._early = self._early, []
        for at, block in enumerate(blocks):
            self.begin(at, block, out)
            self.stop(at, out)


def _item(block: dict[str, str]) -> ReasoningItem:
    return ReasoningItem("anthropic", Raw(encode(block)))


def _input_of(block: Block) -> str:
    """Give the arguments that a call begins with: those of a document, and of servers that do not stream them."""
    told = read(TEXT, block.input)
    if told is None:
        told = bytes(block.input).decode("utf-8", "replace")
    return told if told.startswith("{") and told.strip("{} \t\r\n") else ""


def _page_of(citation: Raw) -> tuple[str, str] | None:
    """Give the address and the title of what is cited; None if it is no page, but a place in a document."""
    cited = read(CITED, citation)
    if cited is None:
        return None
    url = text(cited.url)
    if not url and (source := text(cited.source)).startswith(("https://", "http://")):
        url = source
    return (url, text(cited.title)) if url else None
