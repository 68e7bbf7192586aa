"""What a Responses upstream has sent so far: text, refusals, citations and reasoning.

Every part is kept as it was sent, because a later value may complete what the deltas did not deliver: the missing
suffix is sent if the later value starts with what was sent, and nothing otherwise. Nothing is sent twice or corrected.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Raw

from stages.events import Citation, LogProbs, ReasoningDelta, ReasoningItem, RefusalDelta, StreamEvent, TextDelta
from stages.wire.answers.logprobs import chat_logprobs
from stages.wire.answers.sent import PARAGRAPH, Sent
from stages.wire.foreign_json import count, encode, read_list, text
from stages.wire.responses.records import ANNOTATION, PART, Annotation, Item, Part

ReasoningKind = Literal["summary", "raw"]


def dropped_field(kind: str, field: str, value: str) -> ReasoningItem:
    """Return a field of an item that clients of Chat Completions cannot send back."""
    return ReasoningItem("responses", Raw(encode({"type": kind, field: value})))


class AnswerText:
    """The messages of an answer, as one text.

    Parts are joined without a separator, as in OpenAI's ``output_text``, so that JSON stays JSON. Only a message that
    the model itself calls commentary is followed by a blank line, because ``links.Here are`` is unreadable.
    """

    def __init__(self, *, wants_logprobs: bool) -> None:
        self._wants_logprobs = wants_logprobs
        self._texts: dict[tuple[int, int], Sent] = {}
        self._refusals: dict[tuple[int, int], Sent] = {}
        self._phases: dict[int, str] = {}
        self._citations: dict[tuple[int, int], dict[int, Annotation]] = {}
        self._separators = 0
        self._open_message: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was sent at all."""
        return not (self._texts or self._refusals)

    def places(self) -> set[int]:
        """Return the output indices of the messages of which something was sent."""
        return {output_index for output_index, _ in (*self._texts, *self._refusals)}

    def set_phase(self, output_index: int, phase: object, out: list[StreamEvent]) -> None:
        """Note what the model calls a message: ``commentary`` or ``final_answer``; the next turn must say it again."""
        if phase and (name := text(phase)) and self._phases.get(output_index) != name:
            self._phases[output_index] = name
            out.append(dropped_field("message", "phase", name))

    def part(self, output_index: int, content_index: int) -> Sent | None:
        """Return a text part, or None if nothing of it was sent."""
        return self._texts.get((output_index, content_index))

    def open(self, output_index: int, content_index: int) -> tuple[Sent, str]:
        """Start a text part; return it and the separator that belongs before it."""
        previous = self._open_message
        separator = ""
        if previous is not None and previous != output_index and self._phases.get(previous) == "commentary":
            separator = PARAGRAPH
            self._separators += len(PARAGRAPH)
        self._open_message = output_index
        offset = self._separators + sum(len(sent.text()) for sent in self._texts.values())
        sent = self._texts[output_index, content_index] = Sent(offset)
        return sent, separator

    def text_delta(
        self, output_index: int, content_index: int, delta: str, logprobs: Raw, out: list[StreamEvent]
    ) -> None:
        """Take a delta that the fast path did not accept."""
        if not delta:
            return
        sent = self.part(output_index, content_index)
        separator = ""
        if sent is None:
            sent, separator = self.open(output_index, content_index)
        sent.tail.append(delta)
        sent.compact()
        self._send_logprobs(sent, logprobs, out)
        out.append(TextDelta(separator + delta))

    def text_done(
        self, output_index: int, content_index: int, whole: str, logprobs: Raw, out: list[StreamEvent]
    ) -> None:
        """Complete a text part."""
        if not whole:
            return
        sent = self.part(output_index, content_index)
        separator = ""
        if sent is None:
            sent, separator = self.open(output_index, content_index)
        suffix = sent.missing(whole)
        if not sent.logprobs:
            self._send_logprobs(sent, logprobs, out)
        if suffix:
            out.append(TextDelta(separator + suffix))

    def refusal_delta(self, output_index: int, content_index: int, delta: str, out: list[StreamEvent]) -> None:
        """Take more of a refusal."""
        if delta:
            self._refusals.setdefault((output_index, content_index), Sent()).tail.append(delta)
            out.append(RefusalDelta(delta))

    def refusal_done(self, output_index: int, content_index: int, whole: str, out: list[StreamEvent]) -> None:
        """Complete a refusal."""
        if whole and (suffix := self._refusals.setdefault((output_index, content_index), Sent()).missing(whole)):
            out.append(RefusalDelta(suffix))

    def part_done(self, output_index: int, content_index: int, part: Part, out: list[StreamEvent]) -> None:
        """Complete a part from its final value, which also lists all of its citations."""
        if part.type == "refusal":
            self.refusal_done(output_index, content_index, text(part.refusal), out)
        elif part.type in ("output_text", "text"):
            self.text_done(output_index, content_index, text(part.text), part.logprobs, out)
            listed = read_list(ANNOTATION, part.annotations)
            if found := {n: annotation for n, annotation in enumerate(listed) if annotation is not None}:
                self._citations[output_index, content_index] = found

    def cite(self, output_index: int, content_index: int, annotation_index: int, annotation: Annotation) -> None:
        """Note one citation."""
        self._citations.setdefault((output_index, content_index), {})[annotation_index] = annotation

    def citations(self) -> tuple[Citation, ...]:
        """Return all citations of web pages in order; other kinds have no form in Chat Completions."""
        found: list[Citation] = []
        for place, cited in sorted(self._citations.items()):
            sent = self._texts.get(place)
            offset = sent.offset if sent else 0
            for _, annotation in sorted(cited.items()):
                if annotation.type == "url_citation" and (url := text(annotation.url)):
                    start, end = count(annotation.start_index), count(annotation.end_index)
                    found.append(
                        Citation(
                            url=url,
                            title=text(annotation.title),
                            start_index=0 if start is None else start + offset,
                            end_index=0 if end is None else end + offset,
                        )
                    )
        return tuple(found)

    def _send_logprobs(self, sent: Sent, logprobs: Raw, out: list[StreamEvent]) -> None:
        if self._wants_logprobs and (content := tuple(chat_logprobs(logprobs))):
            sent.logprobs = True
            out.append(LogProbs(content))


class Reasoning:
    """The model's reasoning: summaries and raw text as one text, with a blank line between parts.

    If an item has both, only the kind that came first is used, because their contents are the same.

    Args:
        keeps_plain: whether the upstream reads reasoning as text in the next turn.
    """

    def __init__(self, *, keeps_plain: bool) -> None:
        self._keeps_plain = keeps_plain
        self._kept: set[str] = set()
        self._parts: dict[tuple[int, int], Sent] = {}
        self._kinds: dict[int, ReasoningKind] = {}

    @property
    def has_kept(self) -> bool:
        """Whether an item was emitted for the next turn."""
        return bool(self._kept)

    def keep(self, item: Item, raw: Raw, out: list[StreamEvent]) -> None:
        """Emit a finished item for the next turn: once, and only if the upstream can read it again.

        Without ``encrypted_content`` or text it is only a reference to an item that the upstream may have stored.
        """
        content = text(item.encrypted_content)
        if not content and self._keeps_plain and read_list(PART, item.content):
            content = bytes(item.content).decode("utf-8", "replace")
        if content and content not in self._kept and item.status in (None, "completed"):
            self._kept.add(content)
            out.append(ReasoningItem("responses", raw.copy()))  # a slice would keep all bytes of the read alive

    @property
    def is_empty(self) -> bool:
        """Whether no reasoning was sent."""
        return not self._parts

    def places(self) -> set[int]:
        """Return the output indices of the items of which something was sent."""
        return {output_index for output_index, _ in self._parts}

    def delta(self, kind: ReasoningKind, output_index: int, part: int, delta: str, out: list[StreamEvent]) -> None:
        """Take more of a part."""
        if delta and self._kinds.setdefault(output_index, kind) == kind:
            sent, separator = self._part(output_index, part)
            sent.tail.append(delta)
            sent.compact()
            out.append(ReasoningDelta(separator + delta))

    def done(self, kind: ReasoningKind, output_index: int, part: int, whole: str, out: list[StreamEvent]) -> None:
        """Complete a part."""
        if whole and self._kinds.setdefault(output_index, kind) == kind:
            sent, separator = self._part(output_index, part)
            if suffix := sent.missing(whole):
                out.append(ReasoningDelta(separator + suffix))

    def item_done(
        self, output_index: int, summary: Iterable[Part | None], content: Iterable[Part | None], out: list[StreamEvent]
    ) -> None:
        """Complete an item from its final value, from the summary if it has one."""
        kinds: tuple[tuple[ReasoningKind, Iterable[Part | None]], ...] = (("summary", summary), ("raw", content))
        for kind, parts in kinds:
            for position, part in enumerate(parts):
                if part is not None:
                    self.done(kind, output_index, position, text(part.text), out)

    def _part(self, output_index: int, part: int) -> tuple[Sent, str]:
        sent = self._parts.get((output_index, part))
        if sent is not None:
            return sent, ""
        separator = PARAGRAPH if self._parts else ""
        sent = self._parts[output_index, part] = Sent()
        return sent, separator
