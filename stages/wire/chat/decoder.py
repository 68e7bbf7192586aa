"""Decode the answer of a Chat Completions upstream into `stages.events`: a stream of chunks, or one document.

Source: OpenAI's Chat Completions reference, nine recorded streams of eight vendors (docs/facts/recordings.md), and
docs/facts/translation.md, "Chat Completions streams". Unknown fields are ignored. ``<think>`` tags in the text stay
text: only the client can know whether they are markup. Gemini's ``<thought>`` is known to be (`thoughts`).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Raw

from stages.events import (
    Annotations,
    Citation,
    Failed,
    Finished,
    LogProbs,
    ReasoningDelta,
    ReasoningItem,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    Usage,
)
from stages.wire.answers.failures import broken_protocol, error_of, failure_of
from stages.wire.answers.finish import NO_REASON, finish_of
from stages.wire.answers.logprobs import chat_logprobs
from stages.wire.answers.notes import image_note
from stages.wire.answers.request_traits import NO_TRAITS, RequestTraits
from stages.wire.answers.sent import Sent
from stages.wire.answers.stream_decoder import EARLY_END, StreamDecoder
from stages.wire.answers.tool_calls import ToolCalls
from stages.wire.chat.ends import failure_in, failure_in_list, usage_of
from stages.wire.chat.reasoning_details import ReasoningDetails
from stages.wire.chat.records import (
    CALL,
    CHOICE,
    CHUNK,
    CONTENT_PART,
    DELTA,
    FUNCTION,
    GROQ_EXTRAS,
    HOT_CHUNK,
    IMAGE,
    LOGPROBS_OF_CHOICE,
    REASONING_DETAIL,
    SEARCH_RESULT,
    URL_CITATION,
    ChatCall,
    ChatDelta,
    Choice,
    Chunk,
    Function,
    GroqExtras,
    HotCall,
    LogProbsOfChoice,
)
from stages.wire.chat.thoughts import ThoughtTags
from stages.wire.foreign_json import LIST, TEXT, Malformed, count, encode, is_index, read, read_list, text, unix_time

_NOT_A_COMPLETION = "The upstream's answer is not a Chat Completions document."


class ChatDecoder(StreamDecoder["_ChatAnswer"]):
    """Decode a stream of chunks.

    Finished is emitted at ``[DONE]`` or at the end of the input, not at the finish reason, because usage may follow it.

    Args:
        traits: of the request that is answered.
        tags_thoughts: whether reasoning comes as ``<thought>`` within the text.
    """

    has_types = False

    def __init__(self, traits: RequestTraits = NO_TRAITS, *, tags_thoughts: bool = False) -> None:
        super().__init__(_ChatAnswer(traits, tags_thoughts=tags_thoughts), traits.mended)
        self._takes_hot = not traits.wants_logprobs

    def decode_all(self, datas: Iterator[bytes], out: list[StreamEvent], /) -> None:
        """Decode chunks: those that only add text, reasoning or arguments on a fast path."""
        answer = self._answer
        decode = HOT_CHUNK.decode
        for data in datas:
            if self._takes_hot and answer.takes_hot:
                try:
                    (choice,) = decode(data).choices
                except (ValueError, RecursionError):  # another kind of chunk, or one of an unexpected shape
                    pass
                else:
                    if choice.index == 0:
                        delta = choice.delta
                        if thought := delta.reasoning_content or delta.reasoning:
                            answer.has_plain_reasoning = True
                            answer.add_reasoning(thought, out)
                        if delta.content:
                            answer.add_text(delta.content, out)
                        if delta.tool_calls:
                            answer.add_calls(delta.tool_calls, out)
                    continue
            self.decode_cold(data, datas, out)
            if answer.is_over:
                break


def decode_chat_document(
    body: bytes, traits: RequestTraits = NO_TRAITS, *, tags_thoughts: bool = False
) -> list[StreamEvent]:
    """Decode a whole completion, or an error, into the events of an equivalent stream.

    The last event is Finished or Failed. A document is complete by itself, so its finish reason may be missing.
    """
    answer = _ChatAnswer(traits, tags_thoughts=tags_thoughts)
    out: list[StreamEvent] = []
    try:
        answer.decode(body.removeprefix(b"\xef\xbb\xbf"), out)
        if not answer.is_over:
            if answer.has_message:
                answer.finish_word = answer.finish_word or ""
                answer.end(out)
            else:
                answer.fail(broken_protocol(_NOT_A_COMPLETION), out)
    except Malformed:
        answer.fail(broken_protocol(_NOT_A_COMPLETION), out)
    return out


class _ChatAnswer:
    """What the upstream has sent so far of one answer.

    Attributes:
        has_started: whether Started was emitted.
        takes_hot: whether a delta of text is nothing but text.
        has_plain_reasoning: whether reasoning came in a field of its own, which `reasoning_details` repeat.
        has_message: whether a message or a part of one has arrived.
        is_over: whether Finished or Failed was emitted; nothing may be decoded after it.
        finish_word: the upstream's finish reason, in its own words; None until it sends one.
    """

    def __init__(self, traits: RequestTraits, *, tags_thoughts: bool) -> None:
        self._mended = traits.mended
        self._calls = ToolCalls(traits)
        self._thoughts = ThoughtTags() if tags_thoughts else None
        self._note: str | None = None
        self._wants_logprobs = traits.wants_logprobs
        self._reasoning: Sent | None = None
        self._details = ReasoningDetails()
        self._citations: dict[Citation, None] = {}
        self._usage: Usage | None = None
        self._is_blank_finish = False
        self._has_text = False
        self.has_started = False
        self.takes_hot = False
        self.has_plain_reasoning = False
        self.has_message = False
        self.is_over = False
        self.finish_word: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has sent a finish reason."""
        return self.finish_word is not None

    def decode(self, data: bytes, out: list[StreamEvent]) -> None:
        """Decode any chunk, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        if data.strip() == b"[DONE]":
            # Some servers send "" as the reason in every chunk; it only counts once they declare the answer done.
            if self.finish_word is None and self._is_blank_finish:
                self.finish_word = ""
            self.end(out)
            return
        chunk = read(CHUNK, data)
        if chunk is None:
            if (failed := failure_in_list(data)) is not None:
                self.fail(failed, out)
            return
        choices = [choice for choice in read_list(CHOICE, chunk.choices) if choice is not None]
        extras = read(GROQ_EXTRAS, chunk.x_groq) or GroqExtras()
        for usage in (chunk.usage, extras.usage):
            self._usage = usage_of(usage) or self._usage
        failed = failure_in(chunk)
        if failed is None and (error := error_of(extras.error)) is not None:
            failed = failure_of(error, default=NO_REASON)
        if not self.has_started and (choices or (text(chunk.id) and failed is None)):
            self._start(chunk, out)
        for choice in choices:
            if choice.index == 0 or not is_index(choice.index):
                if choice.index not in (None, 0):
                    self._mended.add("item_index")
                self._take(choice, out)
        if len(chunk.citations) or len(chunk.search_results):
            self._cite_pages(chunk)
        if failed is not None:
            self.fail(failed, out)

    def add_reasoning(self, delta: str, out: list[StreamEvent]) -> None:
        """Emit more of the reasoning."""
        if self._reasoning is None:
            self._reasoning = Sent()
        self._reasoning.tail.append(delta)
        self._reasoning.compact()
        out.append(ReasoningDelta(delta))

    def add_text(self, delta: str, out: list[StreamEvent]) -> None:
        """Emit more of the text."""
        if self._reasoning is not None or self._details:
            self._end_reasoning(Raw(), out)
        self._has_text = True
        out.append(TextDelta(delta))

    def add_calls(self, calls: list[HotCall], out: list[StreamEvent]) -> None:
        """Emit more of the calls."""
        if self._reasoning is not None or self._details:
            self._end_reasoning(Raw(), out)
        for call in calls:
            function = call.function
            self._calls.add(call.index, call.id or "", function.name or "", function.arguments or "", out)

    def end(self, out: list[StreamEvent]) -> None:
        """Take the end of the stream: Finished if there was a finish reason, Failed if not."""
        if self.finish_word is None:
            self.fail(broken_protocol(EARLY_END), out)
            return
        self._flush_thoughts(out)
        finish = finish_of(self.finish_word, has_calls=self._calls.started > 0, has_text=self._has_text)
        if isinstance(finish, Failed):
            self.fail(finish, out)
            return
        if self._details:  # they may also come after what they led to
            self._end_reasoning(Raw(), out)
        self._calls.close_all(out, is_complete=finish in ("stop", "tool_calls"))
        if self._citations:
            out.append(Annotations(tuple(self._citations)))
        if self._usage is not None:
            out.append(self._usage)
        out.append(Finished(finish, self._note))
        self.is_over = True

    def fail(self, failed: Failed, out: list[StreamEvent]) -> None:
        """End the answer with a failure."""
        self._flush_thoughts(out)
        if self._usage is not None:
            out.append(self._usage)
        out.append(failed)
        self.is_over = True

    def _start(self, chunk: Chunk, out: list[StreamEvent]) -> None:
        self.has_started = True
        self.takes_hot = self._thoughts is None
        started = Started(
            response_id=text(chunk.id),
            model=text(chunk.model),
            created=unix_time(chunk.created),
            service_tier=text(chunk.service_tier) or None,
        )
        self._calls.answer_id = started.response_id or f"{started.created:x}"
        out.append(started)

    def _take(self, choice: Choice, out: list[StreamEvent]) -> None:
        self._usage = usage_of(choice.usage) or self._usage  # Moonshot sends it here
        delta = read(DELTA, choice.delta) or read(DELTA, choice.message)
        if delta is not None:
            self.has_message = True
            self._take_delta(delta, choice.logprobs, is_whole=not len(choice.delta), out=out)
        if isinstance(choice.finish_reason, str):
            is_null = choice.finish_reason == "null"
            if is_null:
                self._mended.add("finish")
            self._is_blank_finish = is_null or not choice.finish_reason
            if not self._is_blank_finish:
                self.finish_word = choice.finish_reason

    def _take_delta(self, delta: ChatDelta, logprobs: Raw, *, is_whole: bool, out: list[StreamEvent]) -> None:
        if thought := text(delta.reasoning_content) or text(delta.reasoning) or text(delta.thinking):
            self.has_plain_reasoning = True
            self.add_reasoning(thought, out)
        if len(delta.reasoning_details):
            self._details.add(delta.reasoning_details)
            if not self.has_plain_reasoning:
                for detail in read_list(REASONING_DETAIL, delta.reasoning_details):
                    if detail is not None and (thought := text(detail.text) or text(detail.summary)):
                        self.add_reasoning(thought, out)
        if self._wants_logprobs:
            listed = read(LOGPROBS_OF_CHOICE, logprobs) or LogProbsOfChoice()
            if content := tuple(chat_logprobs(listed.content)):
                out.append(LogProbs(content))
        self._take_content(delta.content, out)
        if refusal := text(delta.refusal):
            self._has_text = True
            out.append(RefusalDelta(refusal))
        for annotation in read_list(URL_CITATION, delta.annotations):
            if annotation is not None and annotation.type in (None, "url_citation"):
                cited = read(URL_CITATION, annotation.url_citation) or annotation
                if url := text(cited.url):
                    start, end = count(cited.start_index) or 0, count(cited.end_index) or 0
                    self._citations[Citation(url, text(cited.title), start, end)] = None
        for image in read_list(IMAGE, delta.images):
            if image is not None and (page := read(SEARCH_RESULT, image.image_url)) and (url := text(page.url)):
                self._note = image_note(url)
        calls = read_list(CALL, delta.tool_calls)
        for place, call in enumerate(calls):
            if call is not None:
                self._take_call(call, place if is_whole else self._number_of(call), out)
        if (legacy := read(FUNCTION, delta.function_call)) is not None:
            self._take_function(0, "", legacy, out)

    def _take_content(self, content: Raw, out: list[StreamEvent]) -> None:
        """Take content that is text, or a list of parts, as Mistral sends it with thinking."""
        if delta := text(read(TEXT, content)):
            if self._thoughts is None:
                self.add_text(delta, out)
            else:
                thought, delta = self._thoughts.feed(delta)
                if self._thoughts.is_over:
                    self._thoughts, self.takes_hot = None, True
                self._add_both(thought, delta, out)
            return
        for part in read_list(CONTENT_PART, content):
            if part is None:
                continue
            if part.type == "thinking":
                thought = text(read(TEXT, part.thinking)) or "".join(
                    text(piece.text) for piece in read_list(CONTENT_PART, part.thinking) if piece is not None
                )
                if thought:
                    self.add_reasoning(thought, out)
            elif delta := text(part.text):
                self.add_text(delta, out)

    def _add_both(self, thought: str, delta: str, out: list[StreamEvent]) -> None:
        if thought:
            self.add_reasoning(thought, out)
        if delta:
            self.add_text(delta, out)

    def _flush_thoughts(self, out: list[StreamEvent]) -> None:
        """Emit the text that might have become a tag."""
        if self._thoughts is not None:
            self._add_both(*self._thoughts.flush(), out)

    def _cite_pages(self, chunk: Chunk) -> None:
        """Note the pages that are listed beside the choices, in each chunk again."""
        results = [page for page in read_list(SEARCH_RESULT, chunk.search_results) if page is not None]
        titles = {url: text(page.title) for page in results if (url := text(page.url))}
        known = {citation.url for citation in self._citations}
        for url in (*(text(read(TEXT, raw)) for raw in read(LIST, chunk.citations) or ()), *titles):
            if url and url not in known:
                known.add(url)
                self._citations[Citation(url, titles.get(url, ""))] = None

    def _number_of(self, call: ChatCall) -> int | None:
        if is_index(call.index):
            return call.index
        if call.index is not None:
            self._mended.add("item_index")
        return None

    def _take_call(self, call: ChatCall, number: int | None, out: list[StreamEvent]) -> None:
        if self._reasoning is not None or self._details or bytes(call.extra_content).startswith(b"{"):
            self._end_reasoning(call.extra_content, out)
        custom = read(FUNCTION, call.custom)
        if custom is not None:
            self._calls.add(number, text(call.id), text(custom.name), text(custom.input), out, is_raw=True)
        elif (function := read(FUNCTION, call.function)) is not None:
            self._take_function(number, text(call.id), function, out)

    def _take_function(self, number: int | None, call_id: str, function: Function, out: list[StreamEvent]) -> None:
        arguments = read(TEXT, function.arguments)
        if arguments is None and bytes(function.arguments).startswith(b"{"):  # an object instead of its text
            arguments = bytes(function.arguments).decode("utf-8", "replace")
            self._mended.add("object_arguments")
        self._calls.add(number, call_id, text(function.name), arguments or "", out)

    def _end_reasoning(self, extra: Raw, out: list[StreamEvent]) -> None:
        """Emit the reasoning as one item, in the form that the upstream requires in the next turn.

        ``extra_content`` is Gemini's: it holds the signature without which it refuses the call in the next turn.
        """
        payload: dict[str, object] = {}
        if self._reasoning is not None:
            payload["reasoning_content"] = self._reasoning.text()
            self._reasoning = None
        if bytes(extra).startswith(b"{"):
            payload["extra_content"] = extra
        if self._details:
            payload["reasoning_details"] = self._details.take()
        out.append(ReasoningItem("chat", Raw(encode(payload))))
