"""The tool calls in a Responses answer that the client must carry out.

A call is identified by its place in the output (``places.py``). For the client the calls are numbered 0, 1, 2 ... in
the order in which they start.
"""

from __future__ import annotations

from msgspec import Raw

from stages.events import StreamEvent, ToolCallDelta, ToolCallStarted
from stages.wire import normal_form
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.answers.sent import Sent
from stages.wire.foreign_json import TEXT, read, text
from stages.wire.responses.records import KIND, Item
from stages.wire.responses.text import dropped_field

CALL_TYPES = frozenset({"function_call", "custom_tool_call"})

# Items that the client must carry out although they are not function calls; without a tool call the turn would be a
# dead end. They become calls of these names. A search for tools is one only in an answer: nothing else can run it.
NATIVE_CALLS = {**normal_form.NATIVE_CALLS, "tool_search_call": ("tool_search", ("arguments",))}


class _OutputCall:
    """One call, from its first event on."""

    __slots__ = ("call_id", "index", "is_closed", "is_custom", "is_dropped", "sent", "waiting")

    def __init__(self, call_id: str, *, is_custom: bool) -> None:
        self.call_id = call_id
        self.is_custom = is_custom
        self.index = -1  # until it has started
        self.is_dropped = False
        self.is_closed = False
        self.sent = Sent()
        self.waiting: list[str] = []  # arguments that came before the name


class OutputCalls:
    """The calls of one answer.

    xAI reports its own search as a custom call of an undeclared name. Bedrock's Mantle counts its calls from ``call_0``
    in every answer: a call whose id was used before gets the id of its item.

    Args:
        traits: of the request that is answered.

    Attributes:
        started: how many calls have started.
        response_id: the id of the answer, for the ids of calls that have none.
    """

    def __init__(self, traits: RequestTraits) -> None:
        self._mended = traits.mended
        self._custom_tools = traits.custom_tools
        self._has_hosted_tools = traits.has_hosted_tools
        self._used_ids = set(traits.used_call_ids)
        self._calls: dict[int, _OutputCall] = {}
        self._undecided: dict[int, Item] = {}
        self.started = 0
        self.response_id = ""

    def places(self) -> list[int]:
        """Return the output indices of the calls that have started."""
        return [output_index for output_index, call in self._calls.items() if call.index >= 0]

    def place_of(self, call_id: str) -> int | None:
        """Return the output index of a known call; None if no call has that id."""
        for output_index, call in self._calls.items():
            if call_id and call.call_id == call_id:
                return output_index
        return None

    def added(self, output_index: int, item: Item, out: list[StreamEvent]) -> None:
        """Start a call. Its own arguments are left for the end, because some servers send them again as deltas."""
        call = self._calls.get(output_index)
        call_id = text(item.call_id)
        if call is not None and call.call_id and call_id != call.call_id:
            # The upstream does not count its items: this is another call.
            self._close(call, out)
            call = None
        if call is None:
            call = self._calls[output_index] = _OutputCall(call_id, is_custom=item.type == "custom_tool_call")
        self._start(call, item, out)

    def delta(self, output_index: int, delta: str, out: list[StreamEvent], *, is_custom: bool = False) -> None:
        """Take more arguments, or more of a custom tool's input."""
        if not delta:
            return
        call = self._calls.get(output_index)
        if call is None:
            call = self._calls[output_index] = _OutputCall("", is_custom=is_custom)
        if call.index >= 0:
            call.sent.tail.append(delta)
            call.sent.compact()
            out.append(ToolCallDelta(call.index, delta))
        elif not call.is_dropped:
            call.waiting.append(delta)

    def arguments_done(self, output_index: int, whole: str, out: list[StreamEvent]) -> None:
        """Complete the arguments of a call that has started; one that has not waits for its item."""
        call = self._calls.get(output_index)
        if call is not None and call.index >= 0:
            self._complete(call, whole, out)

    def item_done(self, output_index: int, item: Item, out: list[StreamEvent]) -> None:
        """Complete a call, even if nothing of it has arrived before."""
        call = self._calls.get(output_index)
        call_id = text(item.call_id)
        if call is None or (call.is_closed and call_id != call.call_id):
            call = self._calls[output_index] = _OutputCall(call_id, is_custom=item.type == "custom_tool_call")
        self._start(call, item, out)
        if call.index >= 0:
            self._complete(call, text(item.input) if call.is_custom else self._arguments_of(item), out)
            if item.status != "incomplete":
                self._close(call, out)

    def native_done(self, output_index: int, item: Item, out: list[StreamEvent]) -> None:
        """Emit an item that the client must carry out as a whole function call."""
        if output_index in self._calls or not _is_for_client(item):
            return
        if item.type == "shell_call" and read(KIND, item.environment) is None:
            self._undecided[output_index] = item
            return
        self._emit_native(output_index, item, out)

    def hosted_output(self, item: Item) -> None:
        """Note that the upstream carried out a shell call itself, because its output is in the answer."""
        call_id = text(item.call_id)
        self._undecided = {at: it for at, it in self._undecided.items() if text(it.call_id) != call_id}

    def settle(self, out: list[StreamEvent]) -> None:
        """Emit the shell calls that do not say where they run and that the upstream has not carried out."""
        for output_index, item in self._undecided.items():
            self._emit_native(output_index, item, out)
        self._undecided.clear()

    def _emit_native(self, output_index: int, item: Item, out: list[StreamEvent]) -> None:
        name, fields = NATIVE_CALLS[item.type]
        call = self._calls[output_index] = _OutputCall(text(item.call_id), is_custom=False)
        self._start(call, item, out, name=name)
        bodies: list[Raw] = [getattr(item, field) for field in fields]
        arguments = next((bytes(body).decode("utf-8", "replace") for body in bodies if len(body)), "")
        self._complete(call, arguments, out)
        self._close(call, out)

    def close_all(self, out: list[StreamEvent]) -> None:
        """End the calls of a complete answer."""
        for call in self._calls.values():
            self._close(call, out)

    def _arguments_of(self, item: Item) -> str:
        if not bytes(item.arguments).startswith(b"{"):
            return text(read(TEXT, item.arguments))
        self._mended.add("object_arguments")
        return bytes(item.arguments).decode("utf-8", "replace")

    def _start(self, call: _OutputCall, item: Item, out: list[StreamEvent], *, name: str = "") -> None:
        name = name or text(item.name)
        if call.index >= 0 or call.is_dropped or not name:
            return
        if call.is_custom and self._has_hosted_tools and name not in self._custom_tools:
            call.is_dropped = True
            call.waiting.clear()
            return
        call.call_id = text(item.call_id)
        call.index = self.started
        self.started += 1
        generated = f"call_{self.response_id}_{call.index}"
        candidates = (call.call_id, text(item.id), generated)
        public_id = next((it for it in candidates if it and it not in self._used_ids), generated)
        self._used_ids.add(public_id)
        if namespace := text(item.namespace):
            out.append(dropped_field("function_call", "namespace", namespace))
        out.append(ToolCallStarted(index=call.index, call_id=public_id, name=name, is_custom=call.is_custom))
        waiting = "".join(call.waiting)
        call.waiting.clear()
        if waiting:
            call.sent.tail.append(waiting)
            out.append(ToolCallDelta(call.index, waiting))

    def _complete(self, call: _OutputCall, whole: str, out: list[StreamEvent]) -> None:
        if suffix := call.sent.missing(whole):
            out.append(ToolCallDelta(call.index, suffix))

    def _close(self, call: _OutputCall, out: list[StreamEvent]) -> None:
        """End a call. A function without arguments gets ``{}``, because clients parse them."""
        if call.is_closed or call.index < 0:
            return
        call.is_closed = True
        if not call.is_custom and not call.sent.text():
            self._complete(call, "{}", out)


def _is_for_client(item: Item) -> bool:
    if item.type == "tool_search_call":
        return text(item.execution) == "client"
    if item.type == "shell_call":
        environment = read(KIND, item.environment)
        return environment is None or environment.type in ("", "local")
    return True
