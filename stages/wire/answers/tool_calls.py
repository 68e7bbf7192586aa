"""The tool calls of a Chat Completions or Anthropic upstream, however it distinguishes one call from another.

OpenAI numbers its calls and names each once. Mistral and Gemini send whole calls without a number, some gateways number
all parallel calls 0 or -1, others repeat name and id with every delta, and small servers send no ids at all. For the
client the calls are numbered 0, 1, 2 ... in the order in which they start.

Some servers send ``{}`` with the name and the arguments after it. So arguments that are ``{}`` are held back until
their call ends, or goes on.
"""

from __future__ import annotations

from typing import Final

from stages.events import StreamEvent, ToolCallDelta, ToolCallStarted
from stages.wire.answers.arguments import Arguments
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.unwrap import StringFieldUnwrapper

_PLACEHOLDERS: Final = frozenset(("{}", "{ }"))


class _CallInAnswer:
    """One call, from its first part on."""

    __slots__ = (
        "call_id",
        "has_arguments",
        "held",
        "index",
        "is_dropped",
        "is_raw",
        "name",
        "received",
        "unwrapper",
        "waiting",
    )

    def __init__(self, call_id: str, *, is_raw: bool) -> None:
        self.call_id = call_id
        self.is_raw = is_raw
        self.name = ""
        self.index = -1  # until it has started
        self.is_dropped = False
        self.held = ""  # arguments that are `{}`, perhaps only a placeholder
        self.has_arguments = False  # others than those that are held
        self.received = Arguments()
        self.waiting: list[str] = []  # arguments that came before the name
        self.unwrapper: StringFieldUnwrapper | None = None

    @property
    def has_object(self) -> bool:
        """Whether it has a whole object for arguments, to which nothing can be added."""
        return not self.is_raw and self.received.is_object()


class ToolCalls:
    """The calls of one answer.

    Args:
        traits: of the request that is answered. Where the upstream calls a custom tool as a function, the text is taken
            out of the function's one string.

    Attributes:
        started: how many calls have started.
        answer_id: the id of the answer, for the ids of calls that have none or one that is taken.
    """

    def __init__(self, traits: RequestTraits) -> None:
        self._mended = traits.mended
        self._custom_tools = traits.custom_tools
        self._has_hosted_tools = traits.has_hosted_tools
        self._used_ids = set(traits.used_call_ids)
        self._calls: list[_CallInAnswer] = []
        self._numbered: dict[int, _CallInAnswer] = {}
        self._named: dict[str, _CallInAnswer] = {}  # the first call of each id
        self.started = 0
        self.answer_id = ""

    def add(
        self,
        number: int | None,
        call_id: str,
        name: str,
        arguments: str,
        out: list[StreamEvent],
        *,
        is_raw: bool = False,
    ) -> None:
        """Take a part of a call, or all of it.

        Args:
            number: the upstream's index; None if it sent none.
            call_id: empty if it sent none.
            name: of the tool; empty if it was sent before.
            arguments: more of them.
            out: receives the events.
            is_raw: whether it is a custom call, whose arguments are not JSON.
        """
        call = self._find(number, call_id, name)
        if call is not None and arguments[:1] == "{" and self._is_other(call, call_id, name):
            self._mended.add("call_index")
            name = name or call.name
            call = None
        elif call is not None and arguments[:1] == "{" and call.has_object and arguments == call.received.text():
            self._mended.add("repeated_arguments")
            arguments = ""
        if call is None:
            call = _CallInAnswer(call_id, is_raw=is_raw)
            self._calls.append(call)
            if call_id:
                self._named.setdefault(call_id, call)
        if number is not None:
            self._numbered[number] = call
        if name and not call.name:
            self._start(call, call_id, name, out)
        if arguments and not call.has_arguments and not call.is_raw:
            arguments = self._without_placeholder(call, arguments)
        if arguments:
            if call.index >= 0:
                self._send(call, arguments, out)
            elif not call.is_dropped:
                call.waiting.append(arguments)

    def end(self, number: int, out: list[StreamEvent]) -> None:
        """Take the end of a call, if the upstream tells it before the end of the answer."""
        self._release(self._numbered[number], out)

    def close_all(self, out: list[StreamEvent], *, is_complete: bool) -> None:
        """End the calls in the order in which they started.

        In a complete answer a function without arguments gets ``{}``, because clients parse them.
        """
        for call in sorted(self._calls, key=lambda call: call.index):
            if call.index < 0:
                continue
            self._release(call, out)
            if call.unwrapper is not None:
                self._emit(call, call.unwrapper.flush(), out)
            elif is_complete and not call.is_raw and not call.received.text().strip():
                self._emit(call, "{}", out)

    def _find(self, number: int | None, call_id: str, name: str) -> _CallInAnswer | None:
        """Return the call that a part belongs to; None if it is a new one."""
        if number is not None:
            known = self._numbered.get(number)
            if known is None or not name or not known.name or (call_id and call_id == known.call_id):
                return known
            is_other = bool(call_id and known.call_id)
            if not is_other and name != known.name and known.received.is_whole():
                self._mended.add("call_index")
                is_other = True
        else:
            known = self._named.get(call_id)
            if known is not None:
                return known
            known = self._calls[-1] if self._calls else None
            is_other = True
        if known is None or not name or not known.name or not is_other:
            return known
        return None if name != known.name or known.is_raw or known.received.is_whole() else known

    @staticmethod
    def _is_other(call: _CallInAnswer, call_id: str, name: str) -> bool:
        """Return whether arguments that begin an object are those of another call: one call has one object.

        It is one of the same tool, if it does not name one.
        """
        if call_id and call_id == call.call_id:
            return False
        return bool(call.held and (name or call_id)) or call.has_object

    def _start(self, call: _CallInAnswer, call_id: str, name: str, out: list[StreamEvent]) -> None:
        call.name = name
        is_declared = name in self._custom_tools
        if call.is_raw and self._has_hosted_tools and not is_declared:
            call.is_dropped = True
            call.waiting.clear()
            return
        if is_declared and not call.is_raw:
            call.unwrapper = StringFieldUnwrapper()
        if call_id and not call.call_id:
            call.call_id = call_id
            self._named.setdefault(call_id, call)
        call.index = self.started
        self.started += 1
        is_custom = is_declared or call.is_raw
        out.append(ToolCallStarted(index=call.index, call_id=self._public_id(call), name=name, is_custom=is_custom))
        waiting = "".join(call.waiting)
        call.waiting.clear()
        if waiting:
            self._send(call, waiting, out)

    def _public_id(self, call: _CallInAnswer) -> str:
        """Choose the id by which the client knows the call: one that no other call has."""
        public_id, number = call.call_id, call.index
        while not public_id or public_id in self._used_ids:
            public_id = f"call_{self.answer_id}_{number}"
            number += 1
        self._used_ids.add(public_id)
        return public_id

    def _without_placeholder(self, call: _CallInAnswer, arguments: str) -> str:
        """Return the first arguments of a call to send: nothing while they are ``{}``, which is held."""
        held, call.held = call.held, ""
        if held and arguments[0] != "{":
            arguments = held + arguments
        else:
            if held:
                self._mended.add("repeated_arguments")
            if arguments.strip() in _PLACEHOLDERS:
                call.held = arguments
                return ""
        call.has_arguments = True
        return arguments

    def _release(self, call: _CallInAnswer, out: list[StreamEvent]) -> None:
        """Send arguments that were held, and turned out to be all."""
        if call.held and call.index >= 0:
            self._send(call, call.held, out)
            call.held, call.has_arguments = "", True

    def _send(self, call: _CallInAnswer, arguments: str, out: list[StreamEvent]) -> None:
        call.received.append(arguments)
        self._emit(call, arguments if call.unwrapper is None else call.unwrapper.feed(arguments), out)

    def _emit(self, call: _CallInAnswer, arguments: str, out: list[StreamEvent]) -> None:
        if arguments:
            out.append(ToolCallDelta(call.index, arguments))
