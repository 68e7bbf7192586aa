"""The answers of the embedded models. Pure: the same request produces the same answer."""

from __future__ import annotations

from typing import Final

import msgspec

from stages.request import ResponsesRequest
from stages.upstreams.canned.events import CannedCall, CannedMessage, CannedReasoning, Output
from stages.wire.foreign_json import Json, is_list, is_object

STORY: Final = """\
The mill above the village had a wheel, and the wheel had a channel, and the channel had a gate. Nobody thought \
about the gate. People thought about flour, which came down the hill in sacks every morning, and about bread, \
which came after.

One spring the snow went all at once. The river rose in a night, brown and loud, and by breakfast it carried \
fence posts. The miller's daughter was the only one awake. She took a lantern up the path, found the gate by the \
sound of it, and leaned on the lever until the boards began to drop.

She did not shut it. Her grandmother had taught her that a closed gate only moves a flood to where you are not \
looking. She let through what the wheel could use and sent the rest over the spillway, a hand's breadth at a \
time, listening: a low hum meant room to spare, and a rattle meant too much.

By noon the sky had cleared. The wheel was still turning, a little faster than on other days. Down in the \
village they noticed that the flour was early, and that the road was wet, and then they went back to talking \
about bread.

That evening she painted a line on the stone beside the channel and wrote the date under it. Below the line she \
left room for others. It is a good thing, she thought, to know how high the water came, and better to know that \
somebody was listening when it did."""

_NOTHING_TO_ECHO: Final = "(The last user message holds no text, so there is nothing to echo.)"
_PLAN: Final = (
    "**Looking before touching**\n\nI want to see what is there first, so I read one thing and search for another at "
    "the same time, and write a note beside them."
)
_PATCH: Final = """\
*** Begin Patch
*** Add File: headrace-was-here.md
+# headrace was here
+
+This file was written by canned/agent, the embedded model that plays an agent. Delete it.
*** End Patch"""

_READS: Final = ("read", "open", "view", "cat")
_SEARCHES: Final = ("rg", "grep", "search", "glob", "find", "ls", "list")
_READ: Final[dict[str, Json]] = {"name": "ReadFile", "parameters": {"required": ["path"]}}
_SEARCH: Final[dict[str, Json]] = {"name": "rg", "parameters": {"required": ["pattern"]}}


def echo(request: ResponsesRequest) -> tuple[Output, ...]:
    """Repeat the user's last text."""
    return (CannedMessage(_last_user_text(request.body.get("input")) or _NOTHING_TO_ECHO),)


def story(_: ResponsesRequest) -> tuple[Output, ...]:
    """Tell a story of five paragraphs, whatever the request."""
    return (CannedMessage(STORY),)


def agent(request: ResponsesRequest) -> tuple[Output, ...]:
    """Play one turn of an agent: reason and call tools, or end if the input contains outputs of tools.

    Calls two functions and a custom tool that the request declares or, if it declares none, tools that Cursor has.
    Tools that read and search are preferred, since a client may really run them.
    """
    outputs = _count_tool_outputs(request.body.get("input"))
    if outputs:
        return (
            CannedMessage(
                f"I have what I asked for: {outputs} tool results. Nothing is left to do, so this turn ends here."
            ),
        )
    if request.body.get("tool_choice") == "none":
        return (CannedMessage("I would call tools now, but tool_choice is none, so I only say so."),)
    calls = _calls(request.body)
    return (
        (CannedReasoning(_PLAN), *calls) if calls else (CannedMessage("The tool that I am to call is not declared."),)
    )


def _calls(body: dict[str, Json]) -> list[CannedCall]:
    tools: list[dict[str, Json]] = body.get("tools", [])
    functions = [tool for tool in tools if tool["type"] == "function"]
    customs = [tool for tool in tools if tool["type"] == "custom"]
    choice = body.get("tool_choice")
    if is_object(choice) and "name" in choice:
        functions = [tool for tool in functions if tool["name"] == choice["name"]][:1]
        customs = [tool for tool in customs if tool["name"] == choice["name"]][:1]
        calls = [_call(tool) for tool in functions] + [_custom_call(tool["name"]) for tool in customs]
    elif functions or customs:
        calls = [_call(tool) for tool in _pair(functions)] + [_custom_call(name) for name in _patch_tool(customs)]
    else:
        calls = [_call(_READ), _call(_SEARCH), _custom_call("ApplyPatch")]
    return calls[:1] if body.get("parallel_tool_calls") is False else calls


def _pair(functions: list[dict[str, Json]]) -> list[dict[str, Json]]:
    """Return two functions, if possible one that reads and one that searches; a single one is called twice."""
    if not functions:
        return []
    first = _named_like(_READS, functions) or functions[0]
    others = [tool for tool in functions if tool is not first] or [first]
    return [first, _named_like(_SEARCHES, others) or others[0]]


def _named_like(words: tuple[str, ...], tools: list[dict[str, Json]]) -> dict[str, Json] | None:
    return next((tool for word in words for tool in tools if word in str(tool["name"]).lower()), None)


def _patch_tool(customs: list[dict[str, Json]]) -> list[str]:
    chosen = _named_like(("patch",), customs) or (customs[0] if customs else None)
    return [chosen["name"]] if chosen else []


def _custom_call(name: str) -> CannedCall:
    return CannedCall(name, _PATCH if "patch" in name.lower() else "example", is_custom=True)


def _call(tool: dict[str, Json]) -> CannedCall:
    """Return a call of a function, with the simplest arguments that fit its schema as far as it can be guessed."""
    schema = _object(tool.get("parameters"))
    known = _object(schema.get("properties"))
    required: Json = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if is_list(required) else []
    arguments = {name: _plausible(name, _object(known.get(name))) for name in names}
    return CannedCall(tool["name"], msgspec.json.encode(arguments).decode())


def _object(value: Json) -> dict[str, Json]:
    """Return a schema, or an empty one: schemas come from the client and may be anything."""
    return value if is_object(value) else {}


def _plausible(name: str, schema: dict[str, Json]) -> Json:
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    choices: Json = schema.get("enum")
    if is_list(choices) and choices:
        return choices[0]
    match schema.get("type"):
        case "integer" | "number":
            return 1
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return {}
        case _:
            return _plausible_text(name.lower())


def _plausible_text(name: str) -> str:
    for word, text in (
        ("dir", "."),
        ("path", "README.md"),
        ("file", "README.md"),
        ("command", "ls"),
        ("url", "about:"),
    ):
        if word in name:
            return text
    return "TODO" if "pattern" in name or "query" in name else "example"


def _last_user_text(conversation: Json) -> str:
    if not is_list(conversation):
        return str(conversation)
    contents = (item.get("content") for item in reversed(conversation) if item.get("role") == "user")
    content: Json = next(contents, "")
    if is_list(content):
        texts = [part.get("text") for part in content if is_object(part) and part.get("type") == "input_text"]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def _count_tool_outputs(conversation: Json) -> int:
    if not is_list(conversation):
        return 0
    return sum(1 for item in conversation if str(item.get("type")).endswith("_call_output"))
