"""The blocks of an Anthropic answer, as events: text, reasoning, and the calls that the client must carry out.

Blocks follow one another, and each has its index in the answer. Servers that imitate Anthropic's API omit starts or
stops, or use one index for all blocks; even then no content is lost or mixed up.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from stages.events import Citation, ReasoningDelta, ReasoningItem, StreamEvent, TextDelta
from stages.wire.answers.sent import PARAGRAPH, Sent
from stages.wire.answers.tool_calls import ToolCalls
from stages.wire.anthropic.records import BLOCK, CITED, Block, BlockDelta
from stages.wire.foreign_json import LIST, TEXT, encode, is_object, read, read_list, text, text_or_object


class _Text:
    """A block of text."""

    __slots__ = ("cited", "offset")

    def __init__(self, offset: int) -> None:
        self.offset = offset  # in the text of the whole answer, in characters
        self.cited: list[tuple[str, str]] = []


class _Thinking:
    """A block of reasoning."""

    __slots__ = ("is_empty", "sent", "signature")

    def __init__(self) -> None:
        self.is_empty = True
        self.sent = Sent()
        self.signature = ""


class _ToolUse:
    """A call of one of the client's tools."""

    __slots__ = ("has_arguments", "number", "whole")

    def __init__(self, number: int, whole: str) -> None:
        self.number = number
        self.whole = whole  # the input that came at the start; deltas replace it
        self.has_arguments = False


class AnswerBlocks:
    """The blocks of one answer.

    Args:
        calls: receives the calls.
        names: the client's name of each tool that the upstream knows under another name.
        mended: words of `stages.mending.MENDS`, for what is mended here.

    Attributes:
        citations: the pages that are cited, in order and without duplicates.
        has_compaction: whether the upstream has replaced the conversation by a summary.
    """

    def __init__(self, calls: ToolCalls, names: Mapping[str, str], mended: set[str]) -> None:
        self._mended = mended
        self.has_compaction = False
        self.citations: dict[Citation, None] = {}
        self._calls = calls
        self._names = names
        self._numbers = 0  # of calls, because the indices of blocks count other blocks too
        self._empty_call: int | None = None
        self._open: dict[int, _Text | _Thinking | _ToolUse | None] = {}
        self._early: list[Block] = []
        self._text_chars = 0
        self._blank_chars: int = 0  # of them at the start, which clients trim
        self._has_reasoning = False

    @property
    def has_text(self) -> bool:
        """Whether the answer has any text so far."""
        return self._text_chars > 0

    def expect(self, content: Raw) -> None:
        """Take the content that came with the message's head. It is emitted unless blocks repeat it."""
        self._early = [block for block in read_list(BLOCK, content) if block is not None]

    def start(self, at: int, block: Block, out: list[StreamEvent]) -> None:
        """Start a block. It ends the block that was in its place, and any reasoning, which led to it."""
        if at < len(self._early):
            self._early.clear()  # the blocks repeat them
        self._take_early(out)
        for other in [n for n, known in self._open.items() if n == at or isinstance(known, _Thinking)]:
            self.stop(other, out)
        if self._empty_call is not None:
            # More has come, so nothing was cut off: the call has no arguments, and clients parse them.
            self._calls.add(self._empty_call, "", "", "{}", out)
            self._calls.end(self._empty_call, out)
            self._empty_call = None
        self._open[at] = None
        match block.type:
            case "text":
                started = self._open[at] = _Text(self._text_chars)
                self.add_text(at, text(block.text), out)
                started.cited += [page for cited in read(LIST, block.citations) or () if (page := _page_of(cited))]
            case "thinking":
                self._open[at] = thinking = _Thinking()
                thinking.signature = text(block.signature)
                self.add_thinking(at, text(block.thinking), out)
            case "redacted_thinking":
                if data := text(block.data):
                    out.append(self._item({"type": "redacted_thinking", "data": data}))
            case "tool_use":
                self._open[at] = _ToolUse(self._numbers, _input_of(block))
                name = text(block.name)
                self._calls.add(self._numbers, text(block.id), self._names.get(name, name), "", out)
                self._numbers += 1
            case "compaction":
                self.has_compaction = True
            case _:
                pass  # a tool that the upstream ran itself, or an unknown type

    def add_delta(self, at: int, delta: BlockDelta, out: list[StreamEvent]) -> None:
        """Take a delta of any kind."""
        match delta.type:
            case "text_delta":
                self.add_text(at, text(delta.text), out)
            case "thinking_delta":
                self.add_thinking(at, text(delta.thinking), out)
            case "input_json_delta":
                if is_object(delta.partial_json):
                    self._mended.add("object_arguments")
                self.add_arguments(at, text_or_object(delta.partial_json), out)
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

    def add_text(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Emit more of the text of a block."""
        if type(self._open.get(at)) is not _Text:
            if self._is_ignored(at):
                return
            self.start(at, Block(type="text"), out)
        if delta:
            if self._text_chars == self._blank_chars:
                self._blank_chars += len(delta) - len(delta.lstrip())
            self._text_chars += len(delta)
            out.append(TextDelta(delta))

    def add_thinking(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Emit more of the reasoning of a block, with a blank line before that of a second block."""
        block = self._open.get(at)
        if not isinstance(block, _Thinking):
            if self._is_ignored(at):
                return
            self.start(at, Block(type="thinking"), out)
            block = self._open[at]
            assert isinstance(block, _Thinking)
        if not delta:
            return
        block.sent.tail.append(delta)
        block.sent.compact()
        if block.is_empty:
            block.is_empty = False
            if self._has_reasoning:
                delta = PARAGRAPH + delta
            self._has_reasoning = True
        out.append(ReasoningDelta(delta))

    def add_arguments(self, at: int, delta: str, out: list[StreamEvent]) -> None:
        """Emit more of the arguments of a call of one of the client's tools."""
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
                    self.citations[Citation(url, title, block.offset, self._text_chars)] = None
            case _Thinking():
                # Unsigned reasoning, for example when it was cut off, is refused in the next turn.
                if block.signature:
                    thought = {"type": "thinking", "thinking": block.sent.text(), "signature": block.signature}
                    out.append(self._item(thought))
            case _ToolUse() if not block.has_arguments:
                if block.whole:
                    self._calls.add(block.number, "", "", block.whole, out)
                else:
                    self._empty_call = block.number
            case _ToolUse():
                self._calls.end(block.number, out)
            case _:
                pass

    def stop_all(self, out: list[StreamEvent]) -> None:
        """End all blocks."""
        self._take_early(out)
        for at in list(self._open):
            self.stop(at, out)

    def _is_ignored(self, at: int) -> bool:
        """Return whether an open block is of a type that clients never see."""
        return at in self._open and self._open[at] is None

    def _item(self, block: dict[str, str]) -> ReasoningItem:
        return ReasoningItem("anthropic", Raw(encode(block)), self._text_chars - self._blank_chars)

    def _take_early(self, out: list[StreamEvent]) -> None:
        """Emit the content that came with the message's head."""
        blocks, self._early = self._early, []
        for at, block in enumerate(blocks):
            self.start(at, block, out)
            self.stop(at, out)


def _input_of(block: Block) -> str:
    """Return the arguments at the start of a call: those in a document, or from servers that do not stream them."""
    arguments = read(TEXT, block.input)
    if arguments is None:
        arguments = bytes(block.input).decode("utf-8", "replace")
    return arguments if arguments.startswith("{") and arguments.strip("{} \t\r\n") else ""


def _page_of(citation: Raw) -> tuple[str, str] | None:
    """Return the URL and the title of a cited page; None if a place in a document is cited."""
    cited = read(CITED, citation)
    if cited is None:
        return None
    url = text(cited.url)
    if not url and (source := text(cited.source)).startswith(("https://", "http://")):
        url = source
    return (url, text(cited.title)) if url else None
