"""The conversation of the normal form, as messages of Chat Completions.

There a call is part of an assistant's message, and its result must directly follow that message. So the calls that
belong together are gathered into one message with the assistant's text before them, their results follow, and anything
that was between them goes before the calls.
"""

from __future__ import annotations

from typing import Final

from stages.wire.call_ids import nine_character_call_id
from stages.wire.chat.content import plain_text, refusal_text, tool_content, user_content
from stages.wire.chat.quirks import ChatQuirks
from stages.wire.chat.tools import ChatTools
from stages.wire.custom_tools import object_arguments
from stages.wire.foreign_json import Json, encode, is_list, is_object
from stages.wire.normal_form import (
    CALLS,
    OUTPUTS,
    kind_of,
    leave_out,
    native_task,
    output_of,
    output_places,
    own_call_ids,
)
from stages.wire.slices import paced
from stages.wire.unwrap import FIELD

_SEE_NEXT: Final = "The result is in the next message."

# Gemini's placeholder for calls without a signature, such as those of another model (ai.google.dev/gemini-api/docs/
# thought-signatures, "FAQs"). Models before Gemini 3 need none.
_NO_SIGNATURE: Final = {"google": {"thought_signature": "skip_thought_signature_validator"}}
_UNSIGNED_MODELS: Final = ("gemini-1", "gemini-2")


class _AssistantTurn:
    """One message of the assistant, while it is being gathered."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.refusals: list[str] = []
        self.reasoning: list[str] = []
        self.details: list[Json] = []
        self.calls: list[dict[str, Json]] = []
        self.outputs: list[tuple[str, Json, str]] = []
        self.awaited: set[int] = set()
        """The positions in the conversation of the outputs of its calls that have not been reached yet."""
        self.has_output = False


class ChatHistory:
    """Builds the messages of one request.

    Args:
        quirks: of the upstream.
        model: the upstream's name for it.
        tools: of the request.
        mended: receives the words for what had to be mended.

    Attributes:
        messages: those that are complete.
    """

    def __init__(self, quirks: ChatQuirks, model: str, tools: ChatTools, mended: set[str]) -> None:
        self.messages: list[dict[str, Json]] = []
        self._mended = mended
        self._quirks = quirks
        self._tools = tools
        self._signs_calls = quirks.signs_calls and not any(name in model for name in _UNSIGNED_MODELS)
        self._turn: _AssistantTurn | None = None
        self._reasoning: list[str] = []
        self._details: list[Json] = []
        self._extra: Json = None

    def add_all(self, items: list[dict[str, Json]]) -> None:
        """Add a conversation.

        Raises:
            BadRequest: if it refers to something that only another upstream has.
        """
        outputs = output_places(items)
        own_ids = own_call_ids(items, nine_character_call_id if self._quirks.short_ids else str)
        for position, item in enumerate(paced(items)):
            kind = kind_of(item)
            where = f"input[{position}]"
            if kind in CALLS:
                place = outputs.get(position)
                self._add_call(kind, item, own_ids[position], place, items)
                if place is not None and place > position and self._turn is not None:
                    self._turn.awaited.add(place)
            elif kind in OUTPUTS:
                if self._turn is not None and position in self._turn.awaited:
                    self._turn.awaited.remove(position)
                    self._turn.has_output = True
            elif kind == "message":
                self._add_message(item, where)
            elif kind == "reasoning":
                self._add_reasoning(item)
            else:
                leave_out(kind, item, where, self._mended)
        self.close()

    def add(self, role: str, content: Json) -> None:
        """Add a message without any changes."""
        self.messages.append({"role": role, "content": content})

    def close(self) -> None:
        """End the assistant's message that is being gathered, and append the results of its calls."""
        turn, self._turn = self._turn, None
        if turn is None:
            return
        message: dict[str, Json] = {"role": "assistant"}
        text = "\n\n".join(filter(None, turn.texts))
        refusal = "".join(turn.refusals)
        if refusal and self._quirks.is_openai:
            message["refusal"] = refusal
        else:
            text += refusal
        message["content"] = text or (self._quirks.empty_content if turn.calls else "")
        if self._quirks.takes_details and turn.details:
            message["reasoning_details"] = turn.details
        elif self._quirks.takes_reasoning or self._quirks.reasoning is not None:
            reasoning = "".join(turn.reasoning) or (self._quirks.reasoning if turn.calls else None)
            if reasoning is not None:
                message["reasoning_content"] = reasoning
        if turn.calls:
            message["tool_calls"] = turn.calls
            if self._signs_calls:
                turn.calls[0].setdefault("extra_content", _NO_SIGNATURE)
        elif not text and not refusal:
            return
        self.messages.append(message)
        self._add_outputs(turn.outputs)

    def _add_outputs(self, outputs: list[tuple[str, Json, str]]) -> None:
        pictures: list[dict[str, Json]] = []
        for call_id, output, where in outputs:
            text, others = tool_content(output, where, self._mended, has_files=self._quirks.is_openai)
            self.messages.append(
                {"role": "tool", "tool_call_id": call_id, "content": text or (_SEE_NEXT if others else "")}
            )
            if others:
                pictures += [{"type": "text", "text": f"From the tool call {call_id}:"}, *others]
        if pictures:
            self._say_as_user(pictures)

    def _say_as_user(self, content: Json) -> None:
        if self._quirks.answers_tools and self.messages and self.messages[-1]["role"] == "tool":
            self.add("assistant", "Done.")
        self.add("user", content)

    def _add_message(self, item: dict[str, Json], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "assistant":
            turn = self._turn
            if turn is None or not turn.awaited:
                self.close()
                turn = self._turn = _AssistantTurn()
            self._move_reasoning(turn)
            turn.texts.append(plain_text(content))
            turn.refusals.append(refusal_text(content))
            return
        self._reasoning.clear()
        self._details.clear()
        self._extra = None
        waiting = None
        if self._turn is not None and self._turn.awaited:
            waiting, self._turn = self._turn, None  # a message between a call and its result goes before the call
        self.close()
        said = user_content(content, f"{where}.content", self._mended, has_files=self._quirks.is_openai)
        if not said:
            pass  # its parts were left out, and several upstreams refuse an empty message
        elif role == "user":
            self._say_as_user(said)
        else:
            self.add("developer" if role == "developer" and self._quirks.is_openai else "system", said)
        self._turn = waiting

    def _add_reasoning(self, item: dict[str, Json]) -> None:
        content, summary = item.get("content"), item.get("summary")
        text = plain_text(content) or ("\n\n".join(plain_text([part]) for part in summary) if is_list(summary) else "")
        if text:
            self._reasoning.append(text)
        if is_list(details := item.get("reasoning_details")):
            self._details += details
        if is_object(item.get("extra_content")):
            self._extra = item["extra_content"]

    def _move_reasoning(self, turn: _AssistantTurn) -> None:
        """Move the reasoning that has been gathered to the turn that it led to."""
        turn.reasoning += self._reasoning
        turn.details += self._details
        self._reasoning.clear()
        self._details.clear()

    def _add_call(
        self, kind: str, item: dict[str, Json], call_id: str, place: int | None, items: list[dict[str, Json]]
    ) -> None:
        if self._turn is not None and self._turn.has_output:
            self.close()
        turn = self._turn = self._turn or _AssistantTurn()
        self._move_reasoning(turn)
        call: dict[str, Json] = {"id": call_id, **self._body_of(kind, item)}
        if self._extra is not None:
            if self._quirks.signs_calls:
                call["extra_content"] = self._extra
            self._extra = None
        turn.calls.append(call)
        if place is None:  # every call must have a result
            turn.outputs.append((call_id, "", ""))
        else:
            turn.outputs.append((call_id, output_of(items[place]), f"input[{place}].output"))

    def _body_of(self, kind: str, item: dict[str, Json]) -> dict[str, Json]:
        if (native := native_task(kind, item)) is not None:
            name, task = native
            arguments = encode({} if task is None else task).decode()
            return {"type": "function", "function": {"name": name, "arguments": arguments}}
        name = self._tools.flat_name(item.get("namespace"), item["name"])
        if kind == "function_call":
            return {"type": "function", "function": {"name": name, "arguments": self._arguments(item["arguments"])}}
        if self._tools.has_native_custom:
            return {"type": "custom", "custom": {"name": name, "input": item["input"]}}
        arguments = encode({FIELD: item["input"]}).decode()
        return {"type": "function", "function": {"name": name, "arguments": arguments}}

    def _arguments(self, arguments: str) -> str:
        """Return arguments that the upstream can read: a truncated call must not break the rest of a chat.

        OpenAI reads them as text; chat templates and Gemini parse them, and answer 400 or 500 (gabrii#35).
        """
        if not arguments.strip():
            return "{}"
        return arguments if self._quirks.is_openai else object_arguments(arguments, self._mended)
