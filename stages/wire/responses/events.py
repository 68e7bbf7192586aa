"""What each event of a Responses upstream means: the decoder's slow path, which accepts every event in every shape.

The deltas that matter for speed take this path only if their shape is unexpected.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw

from stages.events import Annotations, Failed, Finished, FinishReason, Heartbeat, Started, StreamEvent, Usage
from stages.wire.answers.failures import Error, broken_protocol, error_of, failure_of
from stages.wire.answers.finish import NO_REASON, failure_of_empty
from stages.wire.answers.notes import COMPACTED, approval_note, image_note
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.answers.stream_decoder import EARLY_END
from stages.wire.answers.usage import TOKEN_DETAILS, TokenDetails
from stages.wire.foreign_json import (
    LIST,
    TEXT,
    Json,
    count,
    index,
    is_object,
    read,
    read_list,
    text,
    text_or_object,
    unix_time,
)
from stages.wire.responses.calls import CALL_TYPES, NATIVE_CALLS, OutputCalls
from stages.wire.responses.places import OutputPlaces
from stages.wire.responses.records import (
    ANNOTATION,
    EVENT,
    ITEM,
    KIND,
    PART,
    REASON,
    RESPONSE,
    TOKEN_USAGE,
    Item,
    Reason,
    Response,
    ResponsesEvent,
)
from stages.wire.responses.text import AnswerText, Reasoning

_CANCELLED = "The upstream cancelled the answer; try again."

# How an answer ended, from best to worst. If the name of the event and the status disagree, the worse one counts.
_ENDINGS = ("completed", "incomplete", "cancelled", "failed")
_FINISH_OF_INCOMPLETE: dict[str, FinishReason] = {"content_filter": "content_filter", "steered": "stop"}


class EventDecoder:
    """Decode events one by one, and keep what was sent so far.

    Attributes:
        has_started: whether Started was emitted.
        is_over: whether Finished or Failed was emitted; nothing may be decoded after it.
    """

    is_complete = False
    """Whether the answer is whole although neither Finished nor Failed was emitted. Never: the event that completes an
    answer also ends it."""

    def __init__(self, traits: RequestTraits, *, keeps_plain: bool = False) -> None:
        self._mended = traits.mended
        self.messages = AnswerText(wants_logprobs=traits.wants_logprobs)
        self.reasoning = Reasoning(keeps_plain=keeps_plain)
        self.calls = OutputCalls(traits)
        self.places = OutputPlaces(traits.mended)
        self._note: str | None = None
        self.has_started = False
        self.is_over = False

    def decode(self, data: bytes, out: list[StreamEvent]) -> None:
        """Decode any event, in any shape.

        Raises:
            Malformed: if it is not JSON.
        """
        if data == b"[DONE]":  # sent by some gateways: the end of the input
            self.end(out)
            return
        event = read(EVENT, data)
        if event is None:
            return
        kind = event.type or ("error" if error_of(event.error) is not None else "")
        handle = _HANDLERS.get(kind)
        if handle is not None:
            if not self.has_started and kind not in _BEFORE_THE_START:
                self.start(read(RESPONSE, event.response) or Response(), out)
            handle(self, event, out)

    # What each event means. Events without a handler mean nothing to a client.

    def on_keepalive(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        out.append(Heartbeat())

    def on_lifecycle(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        """Do nothing more: `decode` has already emitted Started."""

    def on_item_added(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        item = read(ITEM, event.item)
        if item is None:
            return
        place = self.places.added(event, item)
        if item.type in CALL_TYPES:
            self.calls.added(place, item, out)
        elif item.type == "message":
            self.messages.set_phase(place, item.phase, out)

    def on_item_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        item = read(ITEM, event.item)
        if item is not None:
            self.item_done(self.places.done(event, item), item, out)
            if item.type == "reasoning":
                self.reasoning.keep(item, event.item, out)

    def on_part_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        part = read(PART, event.part)
        if part is None:
            return
        at = index(event.content_index)
        if part.type == "reasoning_text":
            self.reasoning.done("raw", self.places.of(event, "reasoning"), at, text(part.text), out)
        else:
            self.messages.part_done(self.places.of(event, "message"), at, part, out)

    def on_text_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "message"), index(event.content_index)
        self.messages.text_delta(of, at, text(event.delta), event.logprobs, out)

    def on_text_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "message"), index(event.content_index)
        self.messages.text_done(of, at, text(event.text), event.logprobs, out)

    def on_annotation(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        annotation = read(ANNOTATION, event.annotation)
        if annotation is not None:
            of, at = self.places.of(event, "message"), index(event.content_index)
            self.messages.cite(of, at, index(event.annotation_index), annotation)

    def on_refusal_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "message"), index(event.content_index)
        self.messages.refusal_delta(of, at, text(event.delta), out)

    def on_refusal_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "message"), index(event.content_index)
        self.messages.refusal_done(of, at, text(event.refusal), out)

    def on_summary_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "reasoning"), index(event.summary_index)
        self.reasoning.delta("summary", of, at, text(event.delta), out)

    def on_summary_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "reasoning"), index(event.summary_index)
        self.reasoning.done("summary", of, at, text(event.text), out)

    def on_reasoning_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "reasoning"), index(event.content_index)
        self.reasoning.delta("raw", of, at, text(event.delta), out)

    def on_reasoning_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        of, at = self.places.of(event, "reasoning"), index(event.content_index)
        self.reasoning.done("raw", of, at, text(event.text), out)

    def on_arguments_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        self.calls.delta(self.places.of(event, "function_call"), self._arguments(event.delta), out)

    def on_arguments_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        self.calls.arguments_done(self.places.of(event, "function_call"), self._arguments(event.arguments), out)

    def on_input_delta(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        self.calls.delta(self.places.of(event, "custom_tool_call"), text(event.delta), out, is_custom=True)

    def on_input_done(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        self.calls.arguments_done(self.places.of(event, "custom_tool_call"), text(event.input), out)

    def on_error(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        error = Error(code=event.code, message=event.message, error=event.error)
        self.fail(failure_of(error, default=NO_REASON), out)

    def on_end(self, event: ResponsesEvent, out: list[StreamEvent]) -> None:
        ending = event.type.removeprefix("response.")
        self.conclude(ending, read(RESPONSE, event.response) or Response(), out)

    def _arguments(self, value: Json) -> str:
        if is_object(value):
            self._mended.add("object_arguments")
        return text_or_object(value)

    # The end.

    def conclude(self, ending: str, response: Response, out: list[StreamEvent]) -> None:
        """Take the terminal event: emit what it has and the deltas had not, and finish."""
        status = text(response.status)
        if status != ending:
            ending = max(ending, status, key=lambda it: _ENDINGS.index(it) if it in _ENDINGS else 0)
        usage = _usage_of(response)
        if ending in ("failed", "cancelled"):
            if usage is not None:
                if not self.has_started:
                    self.start(response, out)
                out.append(usage)
            default = _CANCELLED if ending == "cancelled" else NO_REASON
            self.fail(failure_of(error_of(response.error), default=default), out)
            return
        if not self.has_started:
            self.start(response, out)
        if response.input_transformations and read_list(KIND, response.input_transformations):
            self._mended.add("reasoning_dropped")
        self.complete_from(response.output, out)
        self.calls.settle(out)
        reason: FinishReason
        if ending == "incomplete":
            details = read(REASON, response.incomplete_details) or Reason()
            word = text(details.reason)
            failed = failure_of_empty(word) if self.messages.is_empty and not self.calls.started else None
            if failed is not None:
                if usage is not None:
                    out.append(usage)
                self.fail(failed, out)
                return
            reason = _FINISH_OF_INCOMPLETE.get(word, "length")
        else:
            self.calls.close_all(out)
            reason = "tool_calls" if self.calls.started else "stop"
        if citations := self.messages.citations():
            out.append(Annotations(citations))
        if usage is not None:
            out.append(usage)
        out.append(Finished(reason, self._note))
        self.is_over = True

    def complete_from(self, output: Raw, out: list[StreamEvent]) -> None:
        """Emit what the final output has and the events before it had not.

        An item's place in it is its output index, unless the upstream left items out or does not count them. Then the
        items cannot be matched, so only those of a kind of which nothing was sent are used.
        """
        raws = read(LIST, output) or []
        items = [read(ITEM, raw) for raw in raws]
        has_kept = self.reasoning.has_kept
        has_sent = {
            "message": not self.messages.is_empty,
            "reasoning": not self.reasoning.is_empty,
            "call": self.calls.started > 0,
        }
        counted = True not in has_sent.values() or all(
            place < len(items) and (item := items[place]) is not None and _kind_of(item) == kind
            for kind, places in (
                ("message", self.messages.places()),
                ("reasoning", self.reasoning.places()),
                ("call", self.calls.places()),
            )
            for place in places
        )
        for place, item in enumerate(items):
            if item is None:
                continue
            kind = _kind_of(item)
            if counted or not has_sent.get(kind, False):
                self.item_done(place, item, out)
            elif kind == "call" and (known := self.calls.place_of(text(item.call_id))) is not None:
                self.item_done(known, item, out)
            if kind == "reasoning" and not has_kept:
                self.reasoning.keep(item, raws[place], out)

    def item_done(self, place: int, item: Item, out: list[StreamEvent]) -> None:
        """Complete an item of any type from its final value."""
        if item.type == "message":
            self.messages.set_phase(place, item.phase, out)
            parts = read_list(PART, item.content)
            for content_index, part in enumerate(parts):
                if part is not None:
                    self.messages.part_done(place, content_index, part, out)
        elif item.type == "reasoning":
            summary, content = read_list(PART, item.summary), read_list(PART, item.content)
            self.reasoning.item_done(place, summary, content, out)
        elif item.type in CALL_TYPES:
            self.calls.item_done(place, item, out)
        elif item.type in NATIVE_CALLS:
            self.calls.native_done(place, item, out)
        elif item.type == "shell_call_output":
            self.calls.hosted_output(item)
        else:
            self._note = _note_of(item) or self._note

    def start(self, response: Response, out: list[StreamEvent]) -> None:
        """Take the id and the time from the first event that has them; Copilot sends different ones in each event."""
        self.has_started = True
        started = Started(
            response_id=text(response.id),
            model=text(response.model),
            created=unix_time(response.created_at),
            service_tier=text(response.service_tier) or None,
        )
        self.calls.response_id = started.response_id
        out.append(started)

    def end(self, out: list[StreamEvent]) -> None:
        """Take the end of the input: without a terminal event the answer is incomplete."""
        self.fail(broken_protocol(EARLY_END), out)

    def fail(self, failed: Failed, out: list[StreamEvent]) -> None:
        """End the answer with a failure."""
        out.append(failed)
        self.is_over = True


def _kind_of(item: Item) -> str:
    return "call" if item.type in CALL_TYPES or item.type in NATIVE_CALLS else item.type


def _note_of(item: Item) -> str | None:
    """Return what an item is, in words, if it takes the place of an answer; it has no form in Chat Completions."""
    match item.type:
        case "mcp_approval_request":
            return approval_note(text(item.name), text(item.server_label))
        case "image_generation_call" if len(item.result) > len("null"):
            return image_note(f"data:image/{text(item.output_format) or 'png'};base64,{text(read(TEXT, item.result))}")
        case "compaction":
            return COMPACTED
        case _:
            return None


def _usage_of(response: Response) -> Usage | None:
    usage = read(TOKEN_USAGE, response.usage)
    if usage is None:
        return None
    prompt, completion = count(usage.input_tokens), count(usage.output_tokens)
    if prompt is None and completion is None:
        return None
    total = count(usage.total_tokens)
    of_prompt = read(TOKEN_DETAILS, usage.input_tokens_details) or TokenDetails()
    of_completion = read(TOKEN_DETAILS, usage.output_tokens_details) or TokenDetails()
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        total_tokens=(prompt or 0) + (completion or 0) if total is None else total,
        cached_tokens=count(of_prompt.cached_tokens),
        cache_write_tokens=count(of_prompt.cache_write_tokens),
        reasoning_tokens=count(of_completion.reasoning_tokens),
    )


_BEFORE_THE_START = frozenset({"keepalive", "response.keep_alive", "error", "response.error"})

_Handler = Callable[[EventDecoder, ResponsesEvent, list[StreamEvent]], None]
_HANDLERS: dict[str, _Handler] = {
    "keepalive": EventDecoder.on_keepalive,
    "response.keep_alive": EventDecoder.on_keepalive,
    "response.created": EventDecoder.on_lifecycle,
    "response.queued": EventDecoder.on_lifecycle,
    "response.in_progress": EventDecoder.on_lifecycle,
    "response.output_item.added": EventDecoder.on_item_added,
    "response.output_item.done": EventDecoder.on_item_done,
    "response.content_part.done": EventDecoder.on_part_done,
    "response.output_text.delta": EventDecoder.on_text_delta,
    "response.output_text.done": EventDecoder.on_text_done,
    "response.output_text.annotation.added": EventDecoder.on_annotation,
    "response.refusal.delta": EventDecoder.on_refusal_delta,
    "response.refusal.done": EventDecoder.on_refusal_done,
    "response.reasoning_summary_text.delta": EventDecoder.on_summary_delta,
    "response.reasoning_summary_text.done": EventDecoder.on_summary_done,
    "response.reasoning_text.delta": EventDecoder.on_reasoning_delta,
    "response.reasoning_text.done": EventDecoder.on_reasoning_done,
    "response.reasoning.delta": EventDecoder.on_reasoning_delta,
    "response.reasoning.done": EventDecoder.on_reasoning_done,
    "response.function_call_arguments.delta": EventDecoder.on_arguments_delta,
    "response.function_call_arguments.done": EventDecoder.on_arguments_done,
    "response.custom_tool_call_input.delta": EventDecoder.on_input_delta,
    "response.custom_tool_call_input.done": EventDecoder.on_input_done,
    "error": EventDecoder.on_error,
    "response.error": EventDecoder.on_error,
    "response.completed": EventDecoder.on_end,
    "response.done": EventDecoder.on_end,
    "response.incomplete": EventDecoder.on_end,
    "response.failed": EventDecoder.on_end,
    "response.cancelled": EventDecoder.on_end,
}
