"""Answers of upstreams that break the rules of their API, and what a client must get all the same: a table.

The rows are those of the odd answers that servers were found to send; one that concerns several APIs has a case for
each.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kit.clients.chat_posts import CREATED, completed
from kit.upstreams import anthropic_stream, chat_stream
from kit.upstreams.scripted import sse

Json = dict[str, Any]

UPSTREAMS: Final = {
    "responses": "openai/gpt-5",
    "chat": "deepseek/deepseek-chat",
    "gemini": "gemini/gemini-2.5-pro",
    "anthropic": "anthropic/claude-sonnet-4-5",
}
"""The model in ``litellm_params`` of a provider that speaks each API; Gemini speaks Chat Completions in its own way."""

FIRST, SECOND = "\ud83d", "\ude00"
"""The halves of 😀, as `json.dumps` writes them: two escapes."""

X: Final = '{"x":1}'


class OddAnswer(NamedTuple):
    """An odd answer, and what it means."""

    row: str
    kind: str
    events: tuple[bytes, ...]
    text: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    reasoning: str = ""
    urls: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    """What the record of the request says."""

    @property
    def name(self) -> str:
        return f"{self.row}: {self.kind}"


# The events of each API.


def responses(*payloads: Json | bytes, output: tuple[Json, ...] = ()) -> tuple[bytes, ...]:
    """Return a whole stream; ``output`` is that of its last event."""
    last: Json = {"type": "response.completed", "response": {**completed("")["response"], "output": list(output)}}
    return tuple(map(sse, (CREATED, *payloads, last)))


def chat(*payloads: Json | bytes, finish: str = "stop") -> tuple[bytes, ...]:
    """Return a whole stream."""
    return (*map(sse, (*payloads, chat_stream.chunk({}, finish))), b"data: [DONE]\n\n")


def anthropic(*payloads: Json | bytes, reason: str = "end_turn", **details: Any) -> tuple[bytes, ...]:
    """Return a whole stream; ``details`` are those of its stop reason."""
    last = anthropic_stream.last(reason)
    last["delta"] |= details
    return tuple(map(sse, (anthropic_stream.head(), *payloads, last, anthropic_stream.STOP)))


def event(kind: str, at: Any = 0, **fields: Any) -> Json:
    return {"type": f"response.{kind}", "output_index": at, **fields}


def call_item(arguments: Any = X, name: str = "f", **fields: Any) -> Json:
    known = {"type": "function_call", "id": f"fc_{name}", "call_id": f"call_{name}", "name": name}
    return {**known, "arguments": arguments, **fields}


def message_item(text: str) -> Json:
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text}]}


def choice(delta: Json, at: Any = 0) -> Json:
    found = chat_stream.chunk(delta)
    found["choices"][0]["index"] = at
    return found


def nameless(*events: bytes) -> tuple[bytes, ...]:
    """Return events whose type is only in their name."""
    out: list[bytes] = []
    for framed in events:
        name, data = framed.split(b"\n")[:2]
        kind = name.removeprefix(b"event: ")
        assert data.startswith(b'data: {"type": "%b"' % kind)
        rest = data.removeprefix(b'data: {"type": "%b"' % kind).removeprefix(b", ")
        out.append(b"%b\ndata: {%b\n\n" % (name, rest))
    return tuple(out)


# The rows.


def _with_index(at: int) -> list[OddAnswer]:
    row = f"76 an index of {at:.3g}"
    calls = (("f", X), ("g", X))
    return [
        OddAnswer(
            row,
            "responses",
            responses(
                event("output_item.added", at, item=message_item("")),
                event("output_text.delta", at, item_id="msg_1", content_index=at, delta="Hel"),
                event("output_text.delta", at, item_id="msg_1", content_index=at, delta="lo"),
                event("output_text.done", at, item_id="msg_1", content_index=at, text="Hello"),
                event("output_item.done", at, item=message_item("Hello")),
                *(
                    step
                    for name, _ in calls
                    for step in (
                        event("output_item.added", at, item=call_item("", name)),
                        event("function_call_arguments.delta", at, item_id=f"fc_{name}", delta=X[:3]),
                        event("function_call_arguments.delta", at, item_id=f"fc_{name}", delta=X[3:]),
                        event("function_call_arguments.done", at, item_id=f"fc_{name}", arguments=X),
                        event("output_item.done", at, item=call_item(X, name)),
                    )
                ),
                output=(message_item("Hello"), call_item(X, "f"), call_item(X, "g")),
            ),
            "Hello",
            calls,
            mended=("item_index",),
        ),
        OddAnswer(
            row,
            "chat",
            chat(
                choice({"content": "Hel"}, at),
                choice({"content": "lo"}, at),
                chat_stream.calls(chat_stream.call(at, "call_f", "f", X[:3])),
                chat_stream.calls(chat_stream.call(at, None, None, X[3:])),
                chat_stream.calls(chat_stream.call(at, "call_g", "g", X)),
            ),
            "Hello",
            calls,
            mended=("item_index",),
        ),
        OddAnswer(
            row,
            "anthropic",
            anthropic(
                *anthropic_stream.text(at, "Hel", "lo"),
                *anthropic_stream.tool(at, "call_f", "f", X[:3], X[3:]),
                *anthropic_stream.tool(at, "call_g", "g", X),
                reason="tool_use",
            ),
            "Hello",
            calls,
            mended=("item_index",),
        ),
    ]


def _split_emoji() -> list[OddAnswer]:
    row = "78 an emoji split over two deltas"
    pieces = (f"a{FIRST}", f"{SECOND}b{FIRST}", f"{SECOND}{FIRST}", SECOND)
    whole = "a😀b😀😀"
    opened, closed = '{"x":"', '"}'
    mended = ("split_emoji",)
    ping: Json = {"type": "ping"}
    return [
        OddAnswer(
            f"{row} of text, reasoning and arguments",
            "responses",
            responses(
                *(event("reasoning_summary_text.delta", 0, summary_index=0, delta=piece) for piece in pieces),
                event("output_item.done", 0, item={"type": "reasoning", "summary": [{"text": whole}]}),
                *(event("output_text.delta", 1, content_index=0, delta=piece) for piece in pieces),
                event("output_text.done", 1, content_index=0, text=whole),
                event("output_item.added", 2, item=call_item("")),
                *(event("function_call_arguments.delta", 2, delta=piece) for piece in (opened, *pieces, closed)),
                event("output_item.done", 2, item=call_item(opened + whole + closed)),
            ),
            whole,
            (("f", opened + whole + closed),),
            whole,
            mended=mended,
        ),
        OddAnswer(
            f"{row} of text, reasoning and arguments",
            "chat",
            chat(
                *(chat_stream.chunk({"reasoning_content": piece}) for piece in pieces),
                *(chat_stream.chunk({"role": "assistant", "content": piece}) for piece in pieces),
                chat_stream.calls(chat_stream.call(0, "call_f", "f", opened)),
                *(chat_stream.calls(chat_stream.call(0, None, None, piece)) for piece in (*pieces, closed)),
            ),
            whole,
            (("f", opened + whole + closed),),
            whole,
            mended=mended,
        ),
        OddAnswer(
            f"{row} of text, reasoning and arguments",
            "anthropic",
            anthropic(
                *anthropic_stream.thinking(0, "s", *pieces),
                *anthropic_stream.text(1, *pieces),
                *anthropic_stream.tool(2, "call_f", "f", opened, *pieces, closed),
                reason="tool_use",
            ),
            whole,
            (("f", opened + whole + closed),),
            whole,
            mended=mended,
        ),
        OddAnswer(
            f"{row} with other events between them",
            "anthropic",
            anthropic(
                anthropic_stream.begin(0, "text", text=f"a{FIRST}"),
                ping,
                anthropic_stream.more(0, "text_delta", text=""),
                anthropic_stream.more(0, "text_delta", text=f"{SECOND}b"),
                anthropic_stream.stop(0),
            ),
            "a😀b",
            mended=mended,
        ),
        OddAnswer(
            f"{row} in two calls at a time",
            "chat",
            chat(
                chat_stream.calls(chat_stream.call(0, "call_f", "f", f"1{FIRST}")),
                chat_stream.calls(chat_stream.call(1, "call_g", "g", f"2{FIRST}")),
                chat_stream.calls(
                    chat_stream.call(0, None, None, f"{SECOND}3{FIRST}"), chat_stream.call(1, None, None, SECOND)
                ),
                chat_stream.calls(chat_stream.call(0, None, None, SECOND)),
            ),
            calls=(("f", "1😀3😀"), ("g", "2😀")),
            mended=mended,
        ),
        OddAnswer(
            f"{row} in two calls at a time",
            "responses",
            responses(
                event("output_item.added", 0, item=call_item("", "f")),
                event("output_item.added", 1, item=call_item("", "g")),
                *(event("function_call_arguments.delta", at, delta=f"{at}{FIRST}") for at in (0, 1)),
                *(event("function_call_arguments.delta", at, delta=SECOND) for at in (0, 1)),
            ),
            calls=(("f", "0😀"), ("g", "1😀")),
            mended=mended,
        ),
        OddAnswer(
            "78 the second half of an emoji in the chunk with the finish reason",
            "chat",
            (
                *map(sse, (choice({"content": FIRST}), chat_stream.chunk({"content": SECOND}, "stop"))),
                b"data: [DONE]\n\n",
            ),
            "😀",
            mended=mended,
        ),
    ]


def _lone_halves() -> list[OddAnswer]:
    row = "78 half an emoji that stays alone"
    mended = ("split_emoji",)
    return [
        OddAnswer(
            row,
            "responses",
            responses(
                event("output_text.delta", content_index=0, delta=f"a{FIRST}"),
                event("output_text.delta", content_index=0, delta=f"b{SECOND}c{FIRST}"),
            ),
            "a\ufffdb\ufffdc\ufffd",
            mended=mended,
        ),
        OddAnswer(
            row,
            "chat",
            chat(
                choice({"reasoning_content": f"r{FIRST}"}),
                choice({"content": f"a{FIRST}"}),
                choice({"content": f"b{SECOND}c{FIRST}"}),
            ),
            "a\ufffdb\ufffdc\ufffd",
            reasoning="r\ufffd",
            mended=mended,
        ),
        OddAnswer(
            row,
            "anthropic",
            anthropic(*anthropic_stream.text(0, f"a{FIRST}", f"b{SECOND}c{FIRST}")),
            "a\ufffdb\ufffdc\ufffd",
            mended=mended,
        ),
    ]


def _object_arguments() -> list[OddAnswer]:
    row = "arguments as an object"
    mended = ("object_arguments",)
    return [
        OddAnswer(
            f"{row} in the finished item",
            "responses",
            responses(
                event("output_item.added", item=call_item("")), event("output_item.done", item=call_item({"x": 1}))
            ),
            calls=(("f", '{"x": 1}'),),
            mended=mended,
        ),
        OddAnswer(
            f"{row} in a delta",
            "responses",
            responses(
                event("output_item.added", item=call_item("")),
                event("function_call_arguments.delta", delta={"x": 1}),
                event("function_call_arguments.done", arguments={"x": 1}),
            ),
            calls=(("f", X),),
            mended=mended,
        ),
        OddAnswer(
            f"{row} in a delta",
            "chat",
            chat(chat_stream.calls(chat_stream.call(0, "c", "f", {"x": 1}))),
            calls=(("f", '{"x": 1}'),),
            mended=mended,
        ),
        OddAnswer(
            f"{row} in a delta",
            "anthropic",
            anthropic(
                anthropic_stream.begin(0, "tool_use", id="c", name="f", input={}),
                anthropic_stream.more(0, "input_json_delta", partial_json={"x": 1}),
                anthropic_stream.stop(0),
                reason="tool_use",
            ),
            calls=(("f", X),),
            mended=mended,
        ),
    ]


def _one_index() -> list[OddAnswer]:
    def of(*entries: Json) -> tuple[bytes, ...]:
        return chat(*map(chat_stream.calls, entries), finish="tool_calls")

    call = chat_stream.call
    row = "parallel calls that all have index 0"
    mended = ("call_index",)
    return [
        OddAnswer(
            f"{row} and {ids} ids",
            "chat",
            of(call(0, call_id, "f", X), call(0, call_id, "g", '{"y'), call(0, call_id, None, '":2}')),
            calls=(("f", X), ("g", '{"y":2}')),
            mended=mended,
        )
        for ids, call_id in (("empty", ""), ("no", None))
    ] + [
        OddAnswer(
            f"{row}, and one without arguments",
            "chat",
            of(call(0, None, "f", ""), call(0, None, "g", X)),
            calls=(("f", "{}"), ("g", X)),
            mended=mended,
        ),
        OddAnswer(
            f"{row}, of one tool, without names and ids",
            "chat",
            of(call(0, "c", "f", '{"x"'), call(0, None, None, ":1}"), call(0, None, None, '{"y":2}')),
            calls=(("f", X), ("f", '{"y":2}')),
            mended=mended,
        ),
        OddAnswer(
            f"{row}, of one tool, with its name",
            "chat",
            of(call(0, "", "f", X), call(0, "", "f", X)),
            calls=(("f", X), ("f", X)),
            mended=mended,
        ),
        OddAnswer(
            "one call whose name and id are repeated",
            "chat",
            of(call(0, "c", "f", X[:3]), call(0, "c", "f", X[3:]), call(0, "c", "f", ""), call(0, None, "f", "")),
            calls=(("f", X),),
        ),
    ]


def _placeholders() -> list[OddAnswer]:
    def of(*entries: Json) -> tuple[bytes, ...]:
        return chat(*map(chat_stream.calls, entries), finish="tool_calls")

    call = chat_stream.call
    row = "{} before the arguments"
    mended = ("repeated_arguments",)
    return [
        OddAnswer(
            row,
            "chat",
            of(call(0, "a", "f", "{}"), call(0, None, None, '{"x"'), call(0, None, None, ":1}")),
            calls=(("f", X),),
            mended=mended,
        ),
        OddAnswer(
            f"{row}, as an object and twice",
            "chat",
            of(call(0, "a", "f", {}), call(0, None, None, "{}"), call(0, "a", "f", X[:3]), call(0, None, None, X[3:])),
            calls=(("f", X),),
            mended=("object_arguments", *mended),
        ),
        OddAnswer(
            f"{row} and before the name",
            "chat",
            of(call(0, "a", None, "{}"), call(0, None, None, X[:3]), call(0, None, "f", X[3:])),
            calls=(("f", X),),
            mended=mended,
        ),
        OddAnswer(
            f"{row} of two calls",
            "chat",
            of(call(0, "a", "f", "{}"), call(1, "b", "g", "{}"), call(0, None, None, X), call(1, None, None, X)),
            calls=(("f", X), ("g", X)),
            mended=mended,
        ),
        OddAnswer(
            "{} as all arguments, and then another call with the same index",
            "chat",
            of(call(0, "a", "f", "{}"), call(0, "b", "f", X), call(0, None, "f", "{}"), call(1, "c", "g", "{ }")),
            calls=(("f", "{}"), ("f", X), ("f", "{}"), ("g", "{ }")),
            mended=("call_index",),
        ),
        *(
            OddAnswer(
                f"whole arguments that are repeated with the id, {how} an index",
                "chat",
                of(call(at, "a", "f", X), call(at, "a", "f", X), call(at, "a", None, X), call(at, "b", "f", X)),
                calls=(("f", X), ("f", X)),
                mended=mended,
            )
            for how, at in (("with", 0), ("without", None))
        ),
        OddAnswer(
            "whole arguments after their pieces",
            "chat",
            of(call(0, "a", "f", X[:3]), call(0, None, None, X[3:]), call(0, "a", "f", X)),
            calls=(("f", X),),
            mended=mended,
        ),
        OddAnswer(
            "{} and white space", "chat", of(call(0, "a", "f", "{}"), call(0, None, None, "\n")), calls=(("f", "{}\n"),)
        ),
        OddAnswer(
            row,
            "anthropic",
            anthropic(*anthropic_stream.tool(0, "a", "f", "{}", X[:3], X[3:]), reason="tool_use"),
            calls=(("f", X),),
            mended=mended,
        ),
    ]


def _event_names() -> list[OddAnswer]:
    row = "a type only in the name of the event"
    mended = ("event_name",)
    told = responses(
        event("output_text.delta", content_index=0, delta="Hel"),
        event("output_text.delta", content_index=0, delta="lo"),
        output=(message_item("Hello"),),
    )
    return [
        OddAnswer(row, "responses", nameless(*told), "Hello", mended=mended),
        OddAnswer(
            row, "anthropic", nameless(*anthropic(*anthropic_stream.text(0, "Hel", "lo"))), "Hello", mended=mended
        ),
    ]


def _empty_envelopes() -> list[OddAnswer]:
    row = "empty envelopes"
    nothing = (b"data: {}\n\n", b"data: null\n\n", b"data:\n\n", b"data: []\n\n")
    empty_deltas: list[Json] = [{}, {"content": None}, {"content": ""}, {"content": None, "tool_calls": []}]
    return [
        OddAnswer(
            row,
            "responses",
            responses(
                *nothing,
                event("output_text.delta", content_index=0, delta=""),
                event("output_text.delta", content_index=0, delta=None),
                event("output_item.added", item=None),
                event("output_text.delta", content_index=0, delta="Hi"),
            ),
            "Hi",
        ),
        OddAnswer(
            row,
            "chat",
            chat(
                *nothing,
                {**choice({}), "choices": []},
                {**choice({}), "choices": None},
                *map(choice, empty_deltas),
                choice({"content": "Hi"}),
                {**choice({}), "choices": []},
                *nothing,
            ),
            "Hi",
        ),
        OddAnswer(
            row,
            "anthropic",
            anthropic(
                *nothing,
                {"type": "content_block_delta"},
                {"type": "content_block_delta", "index": 0, "delta": None},
                *anthropic_stream.text(0, "", "Hi", ""),
            ),
            "Hi",
        ),
    ]


def _reasoning() -> list[OddAnswer]:
    def details(*found: Json, **more: Any) -> Json:
        return choice({"content": "", "reasoning_details": list(found), **more})

    def piece(text: str) -> Json:
        return {"type": "reasoning.text", "text": text, "index": 0}

    return [
        OddAnswer(
            "Gemini's thought tags",
            "gemini",
            chat(
                *(
                    choice({"content": text})
                    for text in (" <tho", "ught>h", "m</thou", "ght><thought>!</thought>H", "i")
                )
            ),
            "Hi",
            reasoning="hm!",
        ),
        OddAnswer(
            "Gemini's text without thought tags",
            "gemini",
            chat(*(choice({"content": text}) for text in ("<th", "e> </thought>", "<thought>"))),
            "<the> </thought><thought>",
        ),
        OddAnswer(
            "Gemini's thought tag that never ends", "gemini", chat(choice({"content": "<thought>h</"})), reasoning="h</"
        ),
        OddAnswer("Gemini's text that may be a tag", "gemini", chat(choice({"content": "<th"})), "<th"),
        OddAnswer("thought tags of others", "chat", chat(choice({"content": "<thought>x"})), "<thought>x"),
        OddAnswer(
            "delta.thinking",
            "chat",
            chat(choice({"thinking": "h"}), choice({"thinking": "m"}), choice({"content": "Hi"})),
            "Hi",
            reasoning="hm",
        ),
        OddAnswer(
            "reasoning_details",
            "chat",
            chat(
                details(piece("h"), {"type": "reasoning.summary", "summary": "m"}),
                details({"type": "reasoning.encrypted", "data": "x"}, piece("!")),
                choice({"content": "Hi"}),
            ),
            "Hi",
            reasoning="hm!",
        ),
        OddAnswer(
            "reasoning_details beside reasoning",
            "chat",
            chat(
                details(piece("h"), reasoning="h"),
                choice({"reasoning": "m"}),
                details(piece("hm")),
                choice({"content": "Hi"}),
            ),
            "Hi",
            reasoning="hm",
        ),
        OddAnswer(
            "Perplexity's citations",
            "chat",
            chat(
                {**choice({"content": "Hi"}), "citations": ["https://a.example", "https://b.example", 5]},
                {
                    **chat_stream.chunk({}, "stop"),
                    "citations": ["https://a.example"],
                    "search_results": [{"url": "https://c.example", "title": "C"}, 5],
                },
            ),
            "Hi",
            urls=("https://a.example", "https://b.example", "https://c.example"),
        ),
    ]


ODD_ANSWERS: Final = (
    *(case for at in (-1, 10**30, 2**40) for case in _with_index(at)),
    *_split_emoji(),
    *_lone_halves(),
    *_object_arguments(),
    *_one_index(),
    *_placeholders(),
    *_event_names(),
    *_empty_envelopes(),
    *_reasoning(),
)


class EmptyAnswer(NamedTuple):
    """An answer without text, refusal or call, and what Cursor shows."""

    row: str
    kind: str
    events: tuple[bytes, ...]
    shown: str
    finish: str = "stop"
    reasoning: str = ""

    @property
    def name(self) -> str:
        return f"{self.row}: {self.kind}"


_ONLY_THOUGHT = "[no answer: the model thought and then ended its turn without a word; ask it to go on]"
_USED_UP = "[no answer: the model's thinking used up all the tokens of the answer]"
_NOTHING = "[no answer: the upstream's answer is empty; try again]"
_FILTERED = "[no answer: the upstream's content filter stopped it]"
_COMPACTED = "[no answer: the upstream compacted the conversation and ended the turn]"


def _incomplete(reason: str) -> tuple[bytes, ...]:
    details = {
        **completed("")["response"],
        "output": [],
        "status": "incomplete",
        "incomplete_details": {"reason": reason},
    }
    return (sse(CREATED), sse({"type": "response.incomplete", "response": details}))


def _image(result: str, **more: Any) -> tuple[bytes, ...]:
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": result, **more}
    return responses(event("output_item.added", item={**item, "result": None}), event("output_item.done", item=item))


EMPTY_ANSWERS: Final = (
    EmptyAnswer(
        "only thinking",
        "responses",
        responses(event("reasoning_summary_text.delta", summary_index=0, delta="hm")),
        _ONLY_THOUGHT,
        reasoning="hm",
    ),
    EmptyAnswer("only thinking", "chat", chat(choice({"reasoning": "hm"})), _ONLY_THOUGHT, reasoning="hm"),
    EmptyAnswer(
        "only thinking", "anthropic", anthropic(*anthropic_stream.thinking(0, "s", "hm")), _ONLY_THOUGHT, reasoning="hm"
    ),
    EmptyAnswer(
        "thinking that uses up the limit",
        "chat",
        chat(choice({"reasoning": "hm"}), finish="length"),
        _USED_UP,
        "length",
        "hm",
    ),
    EmptyAnswer(
        "a limit that is reached at once",
        "responses",
        _incomplete("max_output_tokens"),
        "[no answer: the limit for the tokens of the answer was reached before its first word]",
        "length",
    ),
    EmptyAnswer(
        "a refusal with its explanation",
        "anthropic",
        anthropic(reason="refusal", stop_details={"category": "cyber", "explanation": "Looks like\nan attack."}),
        "[no answer: the model refused to answer (cyber): Looks like an attack.]",
        "content_filter",
    ),
    EmptyAnswer(
        "a refusal without an explanation",
        "anthropic",
        anthropic(reason="refusal"),
        "[no answer: the model refused to answer]",
        "content_filter",
    ),
    EmptyAnswer("a content filter", "responses", _incomplete("content_filter"), _FILTERED, "content_filter"),
    EmptyAnswer("a content filter", "chat", chat(finish="content_filter"), _FILTERED, "content_filter"),
    EmptyAnswer(
        "an MCP approval request",
        "responses",
        responses(
            event(
                "output_item.done",
                item={"type": "mcp_approval_request", "name": "drop", "server_label": "db", "arguments": "{}"},
            )
        ),
        "[no answer: the upstream asks for approval to call the tool 'drop' of the MCP server 'db', "
        "which cannot be given here]",
    ),
    EmptyAnswer(
        "a small image", "responses", _image("aGk=", output_format="webp"), "![image](data:image/webp;base64,aGk=)"
    ),
    EmptyAnswer(
        "a large image",
        "responses",
        _image("A" * (100 << 10)),
        "[no answer: the model made an image of 100 KiB, which is too large to be shown here]",
    ),
    EmptyAnswer(
        "a small image",
        "chat",
        chat(choice({"content": "", "images": [5, {"image_url": {"url": "data:image/png;base64,aGk="}}]})),
        "![image](data:image/png;base64,aGk=)",
    ),
    EmptyAnswer(
        "a compaction", "responses", responses(event("output_item.done", item={"type": "compaction"})), _COMPACTED
    ),
    EmptyAnswer(
        "a compaction", "anthropic", anthropic(anthropic_stream.begin(0, "compaction"), reason="compaction"), _COMPACTED
    ),
    EmptyAnswer("nothing at all", "responses", responses(), _NOTHING),
    EmptyAnswer("nothing at all", "chat", chat(), _NOTHING),
    EmptyAnswer("nothing at all", "anthropic", anthropic(), _NOTHING),
)
