"""A request in normal form becomes one that Anthropic accepts."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from kit.recordings import combined, payloads
from kit.strategies.requests import bodies
from kit.upstreams.claude_rules import BINDING, TOOL_ID, check

from stages.request import ResponsesRequest
from stages.wire.anthropic.models import CLAUDE_MODELS, claude_model
from stages.wire.anthropic.request import MIN_BUDGET, anthropic_request, beta_headers, tool_names
from stages.wire.anthropic.tools import object_schema
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.request import parse_body
from stages.wire.responses.api import RESPONSES
from stages.wire.responses.quirks import ResponsesQuirks

NEWEST, FIVE, FOUR_SEVEN, FOUR_SIX = "claude-opus-5-5", "claude-opus-5", "claude-opus-4-7", "claude-sonnet-4-6"
BUDGET, OPUS_4, PLAIN, FOREIGN = (
    "claude-sonnet-4-5-20250929",
    "claude-opus-4-20250514",
    "claude-3-5-haiku-latest",
    "kimi",
)
SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-5-5"
MODELS = [NEWEST, SONNET, HAIKU, FIVE, FOUR_SEVEN, FOUR_SIX, BUDGET, OPUS_4, PLAIN, "claude-fable-5", FOREIGN]

PNG_DATA = "iVBORw0KGgo="
PNG = f"data:image/png;base64,{PNG_DATA}"
CACHE: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
PATCH = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: PATCH"},
}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}


# --- helpers ---------------------------------------------------------------------------------------------------------


def ask(model: str = FOUR_SEVEN, **body: Any) -> dict[str, Any]:
    body.setdefault("input", "hi")
    before = json.dumps(body)
    request = ResponsesRequest(requested_model="alias", stream=True, include_usage=False, body=body)
    result = check(anthropic_request(request, model=model))
    assert json.dumps(body) == before, "the request was changed"
    return result


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_marks(inner) for key, inner in value.items() if key != "cache_control"}
    return [without_marks(inner) for inner in value] if isinstance(value, list) else value


def messages(*items: dict[str, Any], model: str = FOUR_SEVEN, **body: Any) -> list[Any]:
    sent: list[Any] = without_marks(ask(model, input=list(items), **body)["messages"])
    return sent


def user(content: Any = "u", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(call_id: str, arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments, **more}


def output(call_id: str, text: Any = "r", **more: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text, **more}


def thought(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "anthropic_blocks": list(blocks or (THOUGHT,))}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def by_user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def by_assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def use(call_id: str, name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id: str, content: Any = "r", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def nothing(call_id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id}


def refused(model: str = FOUR_SEVEN, **body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        ask(model, **body)
    return caught.value


# --- system and roles ------------------------------------------------------------------------------------------------


def test_instructions_and_leading_system_messages_form_the_system_prompt_and_a_string_is_a_user_message() -> None:
    body = ask(
        instructions="be kind",
        input=[{"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, user()],
    )
    assert without_marks(body["system"]) == [text("be kind"), text("s"), text("d")]
    assert without_marks(body["messages"]) == [by_user("u")]
    assert without_marks(ask()["messages"]) == [by_user("hi")]
    assert "system" not in ask(instructions=" ")


def test_later_system_messages_are_wrapped_and_keep_their_place() -> None:
    rules = {"role": "developer", "content": "new rule"}, {"role": "system", "content": "x"}
    assert messages(user("a"), rules[0], assistant("b"), rules[1]) == [
        by_user("a", "<system>\nnew rule\n</system>"),
        by_assistant("b"),
        by_user("<system>\nx\n</system>"),
    ]  # fmt: skip


def test_roles_alternate_and_blank_text_is_never_sent() -> None:
    blank = [{"type": "input_text", "text": " \n"}, {"type": "from_the_future"}, "odd"]
    items = [
        user("a"),
        user(""),
        user(blank),
        user("b"),
        assistant("c"),
        user(" "),
        assistant(" "),
        assistant("d"),
        user("e"),
    ]
    assert messages(*items) == [by_user("a", "b"), by_assistant("c", "d"), by_user("e")]


def test_the_first_message_is_the_users() -> None:
    assert messages(assistant("hello"), user("b")) == [by_user("Continue."), by_assistant("hello"), by_user("b")]


def test_a_conversation_of_instructions_alone_is_continued() -> None:
    body = ask(input=[{"role": "system", "content": "say hi"}])
    assert without_marks(body["system"]) == [text("say hi")]
    assert without_marks(body["messages"]) == [by_user("Continue.")]


def test_an_empty_conversation_is_refused() -> None:
    assert refused(input=[user(" ")]).param == "input"


def test_the_assistants_parts_and_refusals_become_text() -> None:
    parts = [
        {"type": "output_text", "text": "a"},
        {"type": "input_image", "image_url": PNG},
        {"type": "refusal", "refusal": "no"},
    ]
    assert messages(user(), {"role": "assistant", "content": parts}, user()) == [
        by_user("u"), by_assistant("a", "no"), by_user("u")
    ]  # fmt: skip


@pytest.mark.parametrize("model", [NEWEST, FOUR_SIX, FOREIGN])
def test_a_trailing_assistant_message_is_followed_by_a_request_to_continue(model: str) -> None:
    assert messages(user(), assistant("Sure, "), model=model) == [
        by_user("u"),
        by_assistant("Sure, "),
        by_user("Continue."),
    ]


def test_a_model_with_prefill_continues_its_message_without_trailing_whitespace() -> None:
    assert messages(user(), assistant("Sure, "), model=BUDGET) == [by_user("u"), by_assistant("Sure,")]
    thinking = messages(user(), assistant("Sure, "), model=BUDGET, reasoning={"effort": "low"})
    assert thinking[-1] == by_user("Continue.")
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    formatted = messages(
        user(), assistant("{ "), model=BUDGET, text={"format": {"type": "json_schema", "schema": schema}}
    )
    assert formatted[-1] == by_user("Continue.")


# --- images and files ------------------------------------------------------------------------------------------------


def image(url: str = PNG, **more: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, **more}


def test_images_become_base64_or_a_url() -> None:
    assert messages(user([{"type": "input_text", "text": "see"}, image(), image("https://x/y.png")])) == [
        by_user(
            "see",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_DATA}},
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        )
    ]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("data:image/jpg;base64,AAAA", "image/jpeg"),
        ("data:image/png;base64,/9j/AAAA", "image/jpeg"),
        ("data:image/jpeg;base64,R0lGODAA", "image/gif"),
        ("data:;base64,UklGRAAA", "image/webp"),
        ("data:IMAGE/WEBP;charset=x;BASE64,AAAA", "image/webp"),
    ],
)
def test_the_type_of_an_image_follows_from_its_first_bytes(url: str, kind: str) -> None:
    ((block,),) = [message["content"] for message in messages(user([image(url)]))]
    assert block["source"]["media_type"] == kind


def file(data: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "input_file", **({"file_data": data} if data else {}), **more}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            file("data:application/pdf;base64,AAAA", filename="a.pdf"),
            {"source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}, "title": "a.pdf"},
        ),
        (file("JVBERiAA"), {"source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERiAA"}}),
        (
            file("data:text/x-python;base64,aGk=", filename=" "),
            {"source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        ),
        (file(file_url="https://x/a.pdf"), {"source": {"type": "url", "url": "https://x/a.pdf"}}),
    ],
)
def test_pdfs_and_text_become_documents(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert messages(user([part])) == [by_user({"type": "document", **block})]


def test_an_image_in_a_file_becomes_an_image_and_an_empty_text_is_left_out() -> None:
    (message,) = messages(
        user(["x", file(PNG), file("data:text/plain;base64,IA=="), {"type": "input_text", "text": "a"}])
    )
    assert [block["type"] for block in message["content"]] == ["image", "text"]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_image", "file_id": "file_1"}, "file_id"),
        (image("u"), "image_url"),
        (image("data:image/png,abc"), "image_url"),
        (image("data:image/png;base64,"), "image_url"),
        (image("data:image/svg+xml;base64,AAAA"), "image_url"),
        (file(file_id="file_1"), "file_data"),
        (file(file_url="ftp://x"), "file_data"),
        (file("AAAA"), "file_data"),
        (file("data:application/zip;base64,AAAA"), "file_data"),
        (file("data:text/plain,abc"), "file_data"),
        (file("data:text/plain;base64,//8="), "file_data"),
        (file("data:text/plain;base64,a"), "file_data"),
    ],
)
def test_media_that_anthropic_cannot_read_is_refused(part: dict[str, Any], param: str) -> None:
    assert refused(input=[user(), user(["x", part])]).param == f"input[1].content[1].{param}"


# --- calls and results -----------------------------------------------------------------------------------------------


def test_calls_of_one_turn_form_one_message_and_their_results_another() -> None:
    items = [user(), assistant("a"), call("1", '{"x": 1}'), call("2"), output("1"), output("2", "s"), user("next")]
    assert messages(*items, tools=[FUNCTION]) == [
        by_user("u"),
        by_assistant("a", use("1", x=1), use("2")),
        by_user(result("1"), result("2", "s"), "next"),
    ]


def test_calls_after_a_result_form_another_turn() -> None:
    assert messages(user(), call("1"), output("1"), call("2"), output("2"), assistant("b"), user("c")) == [
        by_user("u"),
        by_assistant(use("1")),
        by_user(result("1")),
        by_assistant(use("2")),
        by_user(result("2")),
        by_assistant("b"),
        by_user("c"),
    ]


def test_results_follow_their_calls_directly_in_the_same_order() -> None:
    items = [user(), call("1"), call("2"), user("wait"), output("2", "b"), output("1", "a"), assistant("c"), user()]
    assert messages(*items) == [
        by_user("u"),
        by_assistant(use("1"), use("2")),
        by_user(result("1", "a"), result("2", "b"), "wait"),
        by_assistant("c"),
        by_user("u"),
    ]


def test_text_between_a_call_and_its_result_moves_before_the_call() -> None:
    items = [user(), call("1"), assistant("working"), output("1"), user("c")]
    assert messages(*items) == [by_user("u"), by_assistant("working", use("1")), by_user(result("1"), "c")]


def test_an_interleaved_call_does_not_lose_the_results_of_the_others() -> None:
    items = [user(), call("1"), call("2"), output("1", "a"), call("3"), output("2", "b"), output("3", "c")]
    assert messages(*items) == [
        by_user("u"),
        by_assistant(use("1"), use("2")),
        by_user(result("1", "a"), result("2", "b")),
        by_assistant(use("3")),
        by_user(result("3", "c")),
    ]


def test_a_call_without_a_result_gets_an_empty_one() -> None:
    assert messages(user(), call("1"), assistant("so"), call("2"), user("c")) == [
        by_user("u"),
        by_assistant(use("1")),
        by_user(nothing("1")),
        by_assistant("so", use("2")),
        by_user(nothing("2"), "c"),
    ]


def test_results_without_a_call_and_second_results_are_dropped() -> None:
    assert messages(user(), output("0"), call("1"), output("1"), output("1", "again"), user("c")) == [
        by_user("u"),
        by_assistant(use("1")),
        by_user(result("1"), "c"),
    ]


def test_a_repeated_id_becomes_two_ids() -> None:
    turns = messages(user(), call("1"), output("1", "a"), call("1"), output("1", "b"))
    first, second = turns[1]["content"][0]["id"], turns[3]["content"][0]["id"]
    assert first == "1"
    assert second != first
    assert turns[4] == by_user(result(second, "b"))


@pytest.mark.parametrize("call_id", ["functions.AskUserQuestion:1", "x" * 70, "é"])
def test_ids_are_made_valid_alike_in_calls_and_results(call_id: str) -> None:
    turns = messages(user(), call(call_id), output(call_id))
    legal = turns[1]["content"][0]["id"]
    assert TOOL_ID.fullmatch(legal)
    assert turns[2] == by_user(result(legal))
    assert messages(user("x"), call(call_id), output(call_id))[1:] == turns[1:]


def test_an_early_result_of_a_native_call_goes_to_its_call() -> None:
    shell = {"type": "local_shell_call", "id": "lsh_1", "call_id": "1", "action": {}}
    early = {"type": "local_shell_call_output", "id": "lsh_1", "output": "r"}
    orderly = messages(user(), shell, early, user("x"))
    assert [turn["role"] for turn in orderly] == ["user", "assistant", "user"]
    shell["id"] = early["id"] = "1"
    assert messages(user(), early, shell, user("x")) == orderly


def test_calls_without_an_id_get_one() -> None:
    turns = messages(user(), {"type": "local_shell_call"}, {"type": "shell_call"})
    assert turns[1]["content"][0]["id"] == "call"


@pytest.mark.parametrize(
    "arguments", ["{ cut", "[1]", '"x"', '{"a":' * 150 + "1" + "}" * 150, "[" * 5000, '{"a":1e999}']
)
def test_arguments_that_are_not_an_object_become_one(arguments: str) -> None:
    assert messages(user(), call("1", arguments), output("1"))[1] == by_assistant(use("1", input=arguments))


def test_blank_arguments_become_empty() -> None:
    assert messages(user(), call("1", " "), output("1"))[1] == by_assistant(use("1"))


def test_a_custom_call_has_one_string() -> None:
    items = [
        {"type": "custom_tool_call", "call_id": "1", "name": "ApplyPatch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "done"},
    ]
    assert messages(user(), *items, tools=[PATCH])[1:] == [
        by_assistant(use("1", "ApplyPatch", input="*** Begin")),
        by_user(result("1", "done")),
    ]


def test_calls_that_the_client_executes_become_tool_uses() -> None:
    items: list[dict[str, Any]] = [
        {"type": "local_shell_call", "call_id": "1", "action": {"command": ["ls"]}},
        {"type": "computer_call", "call_id": "2", "actions": [{"type": "click"}]},
        {"type": "apply_patch_call", "call_id": "3"},
        {"type": "shell_call", "call_id": "4", "action": {"commands": ["ls"]}},
        {"type": "local_shell_call_output", "id": "1", "output": "a"},
        {"type": "computer_call_output", "call_id": "2", "output": {"type": "computer_screenshot", "image_url": PNG}},
        {"type": "shell_call_output", "call_id": "4", "output": [{"stdout": "x"}]},
    ]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_DATA}}
    assert messages(user(), *items)[1:] == [
        by_assistant(
            use("1", "local_shell", command=["ls"]),
            use("2", "computer", input=[{"type": "click"}]),
            use("3", "apply_patch"),
            use("4", "shell", commands=["ls"]),
        ),
        by_user(result("1", "a"), result("2", [picture]), nothing("3"), result("4", '[{"stdout":"x"}]')),
    ]


def test_a_result_is_one_text_or_parts_and_is_marked_if_it_is_an_error() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    items = [call("1"), call("2"), call("3"), call("4")]
    outputs = [
        output("1", parts),
        output("2", [*parts, image()]),
        output("3", "no", is_error=True),
        output("4", " ", is_error=True),
    ]
    content = messages(user(), *items, *outputs)[2]["content"]
    assert content[0] == result("1", "a\nb")
    assert [block["type"] for block in content[1]["content"]] == ["text", "text", "image"]
    assert content[2] == result("3", "no", is_error=True)
    assert content[3] == nothing("4")


def test_an_unreadable_image_in_a_result_is_named() -> None:
    bad = output("1", [{"type": "input_image", "file_id": "file_1"}])
    assert refused(input=[user(), call("1"), bad]).param == "input[2].output[0].file_id"


def test_items_of_other_services_are_dropped_or_refused() -> None:
    hosted = {"type": "web_search_call", "id": "ws_1"}
    assert messages(user(), hosted, {"type": "item_reference", "id": "rs_1"}, {"id": "rs_2"}) == [by_user("u")]
    assert refused(input=[user(), {"type": "item_reference", "id": "msg_1"}]).param == "input[1]"
    assert refused(input=[user(), {"type": "compaction", "encrypted_content": "x"}]).param == "input[1]"


# --- reasoning -------------------------------------------------------------------------------------------------------


def test_signed_thinking_comes_before_its_result_and_other_reasoning_is_dropped() -> None:
    hidden = {"type": "redacted_thinking", "data": "x"}
    unsigned: list[Any] = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "redacted_thinking"},
        "odd",
        {"type": "text", "text": "x"},
    ]
    plain = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    items = [
        user(),
        plain,
        thought({**THOUGHT, **CACHE}, hidden, *unsigned),
        assistant("a"),
        call("1"),
        output("1"),
        thought(),
        call("2"),
        output("2"),
    ]
    assert messages(*items) == [
        by_user("u"),
        by_assistant(THOUGHT, hidden, "a", use("1")),
        by_user(result("1")),
        by_assistant(THOUGHT, use("2")),
        by_user(result("2")),
    ]


def test_thinking_between_calls_keeps_its_place() -> None:
    items = [user(), thought(), call("1"), thought(), assistant("b"), call("2"), output("1"), output("2")]
    assert messages(*items)[1] == by_assistant(THOUGHT, use("1"), THOUGHT, "b", use("2"))


def test_thinking_text_thinking_text_and_a_call_keep_their_order() -> None:
    second, empty = {**THOUGHT, "signature": "s2"}, {"type": "thinking", "thinking": "", "signature": "s3"}
    sent = messages(
        user(), thought(), assistant("a"), thought(second), assistant("b"), thought(empty), call("1"), output("1")
    )
    assert sent == [by_user("u"), by_assistant(THOUGHT, "a", second, "b", empty, use("1")), by_user(result("1"))]


def test_thinking_without_a_result_is_dropped() -> None:
    assert messages(user("a"), thought(), user("b"), assistant("c"), user("d")) == [
        by_user("a", "b"), by_assistant("c"), by_user("d")
    ]  # fmt: skip


def test_a_model_without_thinking_gets_no_thinking_blocks() -> None:
    assert messages(user(), thought(), assistant("c"), user("d"), model=PLAIN)[1] == by_assistant("c")


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        (NEWEST, None, "adaptive", None),
        (NEWEST, "none", "adaptive", {"effort": "low"}),
        (NEWEST, "xhigh", "adaptive", {"effort": "xhigh"}),
        ("claude-sonnet-5-5", "none", "between_tools", None),
        (FIVE, "none", "disabled", None),
        (FIVE, "minimal", "adaptive", {"effort": "low"}),
        (FOUR_SEVEN, None, None, None),
        (FOUR_SEVEN, "none", "disabled", None),
        (FOUR_SEVEN, "max", "adaptive", {"effort": "max"}),
        (FOUR_SEVEN, "odd", None, None),
        (FOUR_SIX, "xhigh", "adaptive", {"effort": "max"}),
        (BUDGET, None, None, None),
        (BUDGET, "none", "disabled", None),
        (BUDGET, "low", "enabled", None),
        (PLAIN, "high", None, None),
        (PLAIN, "none", None, None),
        (FOREIGN, "high", "enabled", None),
        (HAIKU, None, "adaptive", None),
        (HAIKU, "none", "disabled", None),
        ("claude-fable-5", "none", "adaptive", {"effort": "low"}),
    ],
)
def test_each_model_gets_its_own_form_of_thinking_parameters(
    model: str, effort: str | None, thinking: str | None, config: dict[str, str] | None
) -> None:
    body = ask(model, reasoning={"effort": effort})
    assert body.get("thinking", {}).get("type") == thinking
    assert body.get("output_config") == config
    if thinking == "adaptive":
        assert body["thinking"]["display"] == "summarized"


@pytest.mark.parametrize(
    ("model", "effort", "limit", "tokens", "budget"),
    [
        (BUDGET, "minimal", None, 64_000, 1024),
        (BUDGET, "high", None, 64_000, 31_999),
        (BUDGET, "medium", 100, 10_100, 10_000),
        (BUDGET, "high", 60_000, 64_000, 31_999),
        (BUDGET, "high", 99_999, 64_000, 31_999),
        (OPUS_4, "high", None, 32_000, 23_808),
        (OPUS_4, "high", 20_000, 32_000, 16_000),
        (FOREIGN, "low", None, 12_192, 4000),
        (FOREIGN, "low", 50_000, 54_000, 4000),
    ],
)
def test_a_thinking_budget_is_added_to_the_answers_limit_up_to_the_models_maximum(
    model: str, effort: str, limit: int | None, tokens: int, budget: int
) -> None:
    body = ask(model, reasoning={"effort": effort}, max_output_tokens=limit)
    assert (body["max_tokens"], body["thinking"]) == (tokens, {"type": "enabled", "budget_tokens": budget})


@pytest.mark.parametrize(
    ("model", "limit", "tokens"),
    [
        (NEWEST, None, 128_000),
        (BUDGET, None, 64_000),
        (PLAIN, 9000, 8192),
        (FOREIGN, None, 8192),
        (FOREIGN, 9000, 9000),
        (FIVE, 7, 7),
    ],
)
def test_the_limit_is_the_clients_or_else_the_models(model: str, limit: int | None, tokens: int) -> None:
    assert ask(model, max_output_tokens=limit)["max_tokens"] == tokens


def test_anthropics_own_thinking_parameter_is_understood() -> None:
    own = {"type": "enabled", "budget_tokens": 2048}
    assert ask(BUDGET, thinking=own)["thinking"] == own
    assert ask(BUDGET, thinking={**own, "budget_tokens": 1})["thinking"]["budget_tokens"] == MIN_BUDGET
    assert ask(BUDGET, thinking={"type": "enabled", "budget_tokens": "x"})["thinking"]["budget_tokens"] == 10_000
    assert ask(FOUR_SEVEN, thinking=own)["output_config"] == {"effort": "medium"}
    assert ask(FOUR_SEVEN, thinking={"type": "disabled"})["thinking"] == {"type": "disabled"}
    assert ask(BUDGET, thinking=own, reasoning={"effort": "none"})["thinking"] == {"type": "disabled"}


def test_a_client_may_choose_what_it_sees_of_the_thinking() -> None:
    updates = ask(NEWEST, thinking={"type": "adaptive", "display": "updates"})
    assert updates["thinking"]["display"] == "updates"
    assert "thinking-display-updates-2026-08-18" in beta_headers(updates)["anthropic-beta"]
    assert ask(NEWEST, thinking={"display": "omitted"})["thinking"]["display"] == "omitted"
    assert ask(NEWEST, thinking={"display": ["odd"]})["thinking"]["display"] == "summarized"
    assert "thinking" not in ask(FOUR_SEVEN, thinking={"display": "summarized"}), "it does not think by itself"


def test_thinking_that_a_client_turns_off_stays_off_whatever_the_effort_is() -> None:
    off = {"type": "disabled"}
    five = ask(FIVE, thinking=off, reasoning={"effort": "max"})
    assert (five["thinking"], five["output_config"]) == (off, {"effort": "high"}), "Opus 5 accepts it up to high"
    seven = ask(FOUR_SEVEN, thinking=off, reasoning={"effort": "low"})
    assert (seven["thinking"], seven["output_config"]) == (off, {"effort": "low"})
    assert ask(BUDGET, thinking=off, reasoning={"effort": "low"})["thinking"] == off
    assert "output_config" not in ask(FIVE, thinking=off, reasoning={"effort": "none"})
    assert ask(NEWEST, thinking=off, reasoning={"effort": "high"})["thinking"]["type"] == "adaptive", "it cannot"


def test_thinking_is_off_where_anthropic_requires_thinking_blocks_that_are_lost() -> None:
    lost = [user(), call("1"), output("1")]
    assert "thinking" not in ask(BUDGET, input=lost, reasoning={"effort": "high"})
    assert ask(FOUR_SIX, input=lost, reasoning={"effort": "high"})["thinking"]["type"] == "adaptive"
    kept = [user(), thought(), call("1"), output("1")]
    assert ask(BUDGET, input=kept, reasoning={"effort": "high"})["thinking"]["type"] == "enabled"
    answered = [*lost, assistant("done"), user("next")]
    assert ask(BUDGET, input=answered, reasoning={"effort": "high"})["thinking"]["type"] == "enabled"


# --- tools -----------------------------------------------------------------------------------------------------------


def tools(*declared: dict[str, Any]) -> list[Any]:
    sent: list[Any] = without_marks(ask(tools=list(declared)).get("tools", []))
    return sent


def test_functions_become_tools_with_a_schema() -> None:
    schema = {"type": "object", "properties": {}}
    assert tools(FUNCTION, {"type": "function", "name": "g", "strict": True, "parameters": None}) == [
        {"name": "f", "description": "d", "input_schema": schema},
        {"name": "g", "input_schema": schema},
    ]


def test_custom_tools_take_one_string_and_have_the_grammar_in_the_description() -> None:
    (tool,) = tools(PATCH)
    assert tool["name"] == "ApplyPatch"
    assert tool["description"].startswith("Edit files.\n\n")
    assert tool["description"].endswith("start: PATCH")
    assert tool["input_schema"]["properties"].keys() == {"input"}
    assert tool["input_schema"]["required"] == ["input"]


def test_hosted_tools_are_dropped_and_namespaces_flattened_and_names_declared_once() -> None:
    space = {"type": "namespace", "name": "n", "tools": [{**FUNCTION, "name": "g"}, FUNCTION]}
    hosted = [{"type": "web_search"}, {"type": "mcp", "server_label": "x"}]
    names = [tool["name"] for tool in tools(*hosted, FUNCTION, {"type": "local_shell"}, space, FUNCTION)]
    assert names == ["f", "local_shell", "g", "n__f"]
    assert messages(user(), call("1", namespace="n"), output("1"), tools=[FUNCTION, space])[1] == by_assistant(
        use("1", "n__f")
    )
    assert "tools" not in ask(tools=hosted, tool_choice="required")


def test_an_invalid_name_is_changed_everywhere_and_can_be_mapped_back() -> None:
    odd = {**FUNCTION, "name": "mcp.server/read"}
    declared = [odd, FUNCTION]
    body = ask(
        tools=declared,
        input=[user(), call("1", name=odd["name"]), output("1")],
        tool_choice={"type": "function", "name": odd["name"]},
    )
    name = body["tools"][0]["name"]
    assert body["messages"][1]["content"][0]["name"] == name == body["tool_choice"]["name"]
    request = ResponsesRequest(
        requested_model="m", stream=True, include_usage=False, body={"input": "hi", "tools": declared}
    )
    assert tool_names(request) == {name: "mcp.server/read"}


def test_alternatives_at_the_top_of_a_schema_are_joined() -> None:
    a, b = {"properties": {"a": 1, "c": 2}, "required": ["a", "c"]}, {"properties": {"b": 3}, "required": ["c"]}
    assert object_schema({"anyOf": [a, b, "odd"], "properties": {"a": 0}, "required": ["x"], "$defs": {}}) == {
        "$defs": {},
        "type": "object",
        "properties": {"a": 0, "c": 2, "b": 3},
        "required": ["x", "c"],
    }
    assert object_schema({"allOf": [a, {"description": "d"}]})["required"] == ["a", "c"]
    assert object_schema({"type": "string", "required": None, "oneOf": 1}) == {"type": "object", "properties": {}}


def test_calls_without_tools_declare_the_called_tools_and_forbid_further_calls() -> None:
    body = ask(input=[user(), call("1"), call("2"), output("1"), output("2")])
    assert without_marks(body["tools"]) == [{"name": "f", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}


ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}, "odd"]}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("none", {"type": "none"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "custom", "name": "ApplyPatch"}, {"type": "tool", "name": "ApplyPatch"}),
        ({"type": "function", "name": "gone"}, {"type": "auto"}),
        ({"type": "web_search"}, {"type": "auto"}),
        (ALLOWED, {"type": "any"}),
        ({**ALLOWED, "mode": "auto"}, {"type": "auto"}),
        ("odd", None),
    ],
)
def test_tool_choices(choice: Any, expected: Any) -> None:
    body = ask(tools=[FUNCTION, PATCH], tool_choice=choice)
    assert body.get("tool_choice") == expected
    assert [tool["name"] for tool in body["tools"]] == (
        ["f"] if isinstance(choice, dict) and "tools" in choice else ["f", "ApplyPatch"]
    )


def test_a_choice_among_undeclared_tools_is_refused() -> None:
    assert refused(tools=[FUNCTION], tool_choice={"type": "allowed_tools"}).param == "tool_choice.tools"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [(None, "auto"), ("auto", "auto"), ("required", "any"), ({"type": "function", "name": "f"}, "tool")],
)
def test_parallel_calls_are_disabled_in_the_tool_choice(choice: Any, expected: str) -> None:
    chosen = ask(tools=[FUNCTION], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    assert (chosen["type"], chosen["disable_parallel_tool_use"]) == (expected, True)
    assert ask(tools=[FUNCTION], tool_choice="none", parallel_tool_calls=False)["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in ask(tools=[FUNCTION], parallel_tool_calls=True)


@pytest.mark.parametrize(
    ("model", "effort", "choice", "thinking"),
    [
        (BUDGET, None, "any", None),
        (BUDGET, "high", "auto", "enabled"),
        (FOUR_SIX, "high", "auto", "adaptive"),
        (FIVE, None, "any", None),
        (FIVE, "high", "any", None),
        (FIVE, "none", "any", "disabled"),
        (NEWEST, None, "auto", "adaptive"),
        (NEWEST, "none", "auto", "adaptive"),
    ],
)
def test_a_choice_is_not_forced_where_the_model_thinks_or_refuses_forcing(
    model: str, effort: str | None, choice: str, thinking: str | None
) -> None:
    for asked in ("required", ALLOWED):
        body = ask(model, tools=[FUNCTION], tool_choice=asked, reasoning={"effort": effort})
        assert body["tool_choice"] == {"type": choice}
        assert body.get("thinking", {}).get("type") == thinking


# --- other parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked", "sent"),
    [
        (BUDGET, {"temperature": 1.5, "top_p": 0.5}, {"temperature": 1}),
        (BUDGET, {"temperature": -1}, {"temperature": 0}),
        (FOUR_SIX, {"top_p": 0.5}, {"top_p": 0.5}),
        (FOREIGN, {"temperature": 0.3}, {"temperature": 0.3}),
        (BUDGET, {"temperature": 0, "reasoning": {"effort": "low"}}, {}),
        (BUDGET, {"temperature": 0, "reasoning": {"effort": "none"}}, {"temperature": 0}),
        (FOUR_SEVEN, {"temperature": 0, "top_p": 0.5}, {}),
        (NEWEST, {"temperature": 1}, {}),
    ],
)
def test_one_sampling_parameter_is_sent_within_bounds_to_models_that_accept_it(
    model: str, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    body = ask(model, **asked)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == sent


def test_blank_stop_sequences_are_dropped() -> None:
    assert ask(stop="END")["stop_sequences"] == ["END"]
    assert ask(stop=["a", " ", "", "b"])["stop_sequences"] == ["a", "b"]
    assert "stop_sequences" not in ask(stop=["\n"])


def test_the_safety_identifier_is_preferred_as_the_user_id() -> None:
    assert ask(user="u", safety_identifier="s")["metadata"] == {"user_id": "s"}
    assert ask(user="u", metadata={"cursorConversationId": "c"})["metadata"] == {"user_id": "u"}
    (digest,) = ask(user="u" * 257)["metadata"].values()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert "metadata" not in ask(metadata={"a": "b"}, user="")


@pytest.mark.parametrize(
    ("asked", "sent"),
    [("auto", "auto"), ("priority", "auto"), ("default", "standard_only"), ("flex", None), (None, None)],
)
def test_service_tiers(asked: str | None, sent: str | None) -> None:
    assert ask(service_tier=asked).get("service_tier") == sent


def test_haiku_5_5_has_no_tiers() -> None:
    assert "service_tier" not in ask(HAIKU, service_tier="auto")


@pytest.mark.parametrize("model", ["claude-fable-5-2", "claude-mythos-5-2", NEWEST, FIVE, "claude-opus-4-8"])
def test_fast_mode_is_a_speed_and_not_a_tier(model: str) -> None:
    body = ask(model, speed="fast", service_tier="priority")
    assert body["speed"] == "fast"
    assert "service_tier" not in body
    assert "fast-mode-2026-02-01" in beta_headers(body)["anthropic-beta"].split(",")


@pytest.mark.parametrize("model", [SONNET, HAIKU, "claude-fable-5-1", FOUR_SEVEN, BUDGET, FOREIGN, "claude-x"])
def test_a_model_without_a_fast_mode_answers_at_its_usual_speed(model: str) -> None:
    body = ask(model, speed="fast", service_tier="priority")
    assert "speed" not in body
    assert "fast-mode-2026-02-01" not in beta_headers(body).get("anthropic-beta", "")


def test_anthropics_own_parameters_and_fields_of_tools_are_passed_on() -> None:
    own = {
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "inference_geo": "us",
        "container": "container_1",
        "top_k": 5,
    }
    fields = {"eager_input_streaming": True, "defer_loading": False}
    body = ask(FOUR_SIX, **own, tools=[{**FUNCTION, **fields}, {**PATCH, "defer_loading": "odd"}])
    assert {name: body[name] for name in own} == own
    assert beta_headers(body) == {"anthropic-beta": "context-management-2025-06-27"}
    first, second = body["tools"]
    assert {name: first[name] for name in fields} == fields
    assert "defer_loading" not in second
    odd = ask(FOUR_SIX, speed=1, context_management=[{"type": "compaction"}], inference_geo=None, top_k="x")
    assert not {"speed", "context_management", "inference_geo", "container", "top_k"} & odd.keys()
    assert "top_k" not in ask(NEWEST, top_k=5)


@pytest.mark.parametrize("name", ["speed", "inference_geo"])
def test_they_are_kept_from_openai(name: str) -> None:
    asked = ResponsesRequest(requested_model="m", stream=True, include_usage=False, body={"input": "hi", name: "x"})
    assert name not in RESPONSES.build_request(asked, "m", ResponsesQuirks())


def test_a_call_does_not_get_the_id_that_another_was_given_before() -> None:
    [numbered] = [
        block["id"] for block in messages(user(), call("1"), output("1"), call("1"), output("1"))[3]["content"]
    ]
    shell = {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}}
    sent = messages(user(), call("1"), output("1"), call(numbered), output(numbered), shell)
    ids = [block["id"] for message in sent for block in message["content"] if block["type"] == "tool_use"]
    assert ids[:2] == ["1", numbered]
    assert len(set(ids)) == 3


def test_a_hosted_tool_with_a_name_that_is_not_a_text_is_left_out() -> None:
    hosted: dict[str, Any] = {"type": "from_the_future", "name": [{}]}
    assert [tool["name"] for tool in ask(tools=[hosted, FUNCTION])["tools"]] == ["f"]


def test_parameters_without_a_counterpart_are_left_out() -> None:
    left_out: dict[str, Any] = {
        "store": False,
        "include": ["x"],
        "truncation": "auto",
        "seed": 1,
        "unknown": {},
        "text": {"verbosity": "low"},
    }
    assert ask(**left_out) == ask()


# --- the format of the answer ----------------------------------------------------------------------------------------


def formatted(schema: Any, model: str = FOUR_SEVEN, kind: str = "json_schema") -> tuple[Any, str]:
    body = ask(model, instructions="be kind", text={"format": {"type": kind, "name": "n", "schema": schema}})
    (_, *hints) = [block["text"] for block in body["system"]]
    return body.get("output_config", {}).get("format"), "".join(hints)


def test_a_schema_is_closed_and_its_bounds_are_dropped() -> None:
    inner = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": inner, "minItems": 1},
            "b": {"oneOf": [inner, {"type": "null"}]},
        },
        "$defs": {"x": {"type": "string", "maxLength": 3}},
        "additionalProperties": False,
    }
    closed = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    assert formatted(schema) == (
        {
            "type": "json_schema",
            "schema": {
                "type": "object",
                "properties": {"a": {"type": "array", "items": closed}, "b": {"anyOf": [closed, {"type": "null"}]}},
                "$defs": {"x": {"type": "string"}},
                "additionalProperties": False,
            },
        },
        "",
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "array", "items": [{}]},
        {"anyOf": [True]},
    ],
)
def test_a_schema_that_anthropic_cannot_enforce_is_requested_in_words(schema: dict[str, Any]) -> None:
    layout, hint = formatted(schema)
    assert layout is None
    assert hint.endswith(json.dumps(schema, separators=(",", ":")))


def test_older_models_and_json_without_a_schema_are_asked_in_words() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert formatted(schema, OPUS_4)[0] is None
    assert "matches this JSON Schema" in formatted(schema, OPUS_4)[1]
    assert formatted(None) == (None, "Answer with JSON and nothing else.")
    assert formatted(None, kind="json_object") == (None, "Answer with one JSON object and nothing else.")
    assert formatted(None, kind="text") == (None, "")


# --- prompt caching --------------------------------------------------------------------------------------------------


def marks(value: Any, path: str = "") -> list[str]:
    """Return the paths of all breakpoints."""
    if not isinstance(value, dict | list):
        return []
    found = [path] if isinstance(value, dict) and "cache_control" in value else []
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    return found + [mark for key, inner in entries for mark in marks(inner, f"{path}/{key}")]


def test_breakpoints_are_on_the_last_tool_the_system_and_the_last_two_turns_of_the_user() -> None:
    turns = [user("a"), assistant("b"), user("c"), assistant("d"), call("1"), output("1"), user("e")]
    body = ask(instructions="s", input=turns, tools=[PATCH, FUNCTION])
    assert marks(body) == ["/system/0", "/messages/2/content/0", "/messages/4/content/1", "/tools/1"]
    assert marks(ask()) == ["/messages/0/content/0"]


def test_the_clients_breakpoints_are_kept_and_none_are_added_if_it_marks_the_last_turns() -> None:
    long = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = ask(
        tools=[{**FUNCTION, **long}, PATCH],
        input=[
            {"role": "system", "content": "s", **CACHE},
            user([{"type": "input_text", "text": "a", **CACHE}, image(**CACHE)]),
            call("1", **CACHE),
            output("1", [{"type": "input_text", "text": "a", **long}, {"type": "input_text", "text": "b"}]),
        ],
    )
    last_four = ["/messages/0/content/0", "/messages/0/content/1", "/messages/1/content/0", "/messages/2/content/0"]
    assert marks(body) == last_four
    body = ask(
        tools=[{**FUNCTION, **long}], input=[user("a", **long), user("b", **CACHE), assistant("x"), user("c", **long)]
    )
    found = [body["tools"][0], *body["messages"][0]["content"], *body["messages"][2]["content"]]
    assert [block["cache_control"].get("ttl") for block in found] == ["1h", "1h", None, None]
    body = ask(
        input=[
            user("a"),
            call("1"),
            output("1", "x", **CACHE),
            {"role": "system", "content": "s", **CACHE},
            user(" ", **CACHE),
        ]
    )
    assert marks(body) == ["/messages/2/content/0", "/messages/2/content/1"]


@pytest.mark.parametrize(
    ("client", "ours"),
    [
        (["/system/0"], ["/messages/2/content/0", "/messages/4/content/0"]),
        (["/system/0", "/tools/0"], ["/messages/2/content/0", "/messages/4/content/0"]),
        (["/system/0", "/tools/0", "/tools/1"], ["/messages/4/content/0"]),
        (["/system/0", "/messages/0/content/0", "/tools/0", "/tools/1"], []),
        (["/messages/0/content/0"], ["/messages/2/content/0", "/messages/4/content/0"]),
        (["/messages/2/content/0"], []),  # the last user message is marked, and a call was made after it
        (["/system/0", "/messages/4/content/0"], []),
    ],
)
def test_our_breakpoints_are_added_if_the_client_does_not_mark_the_last_turns(
    client: list[str], ours: list[str]
) -> None:
    def cache(path: str) -> dict[str, Any]:
        return {"cache_control": {"type": "ephemeral", "ttl": "1h"}} if path in client else {}

    body = ask(
        tools=[{**FUNCTION, **cache("/tools/0")}, {**FUNCTION, "name": "g", **cache("/tools/1")}],
        input=[
            {"role": "system", "content": "s", **cache("/system/0")},
            user("a", **cache("/messages/0/content/0")),
            assistant("b"),
            user("c", **cache("/messages/2/content/0")),
            call("1"),
            output("1", "r", **cache("/messages/4/content/0")),
        ],
    )
    assert sorted(marks(body)) == sorted([*client, *ours])
    for block in (body["messages"][int(path.split("/")[2])]["content"][0] for path in ours):
        assert block["cache_control"] == {"type": "ephemeral"}


def test_each_addition_to_a_conversation_is_cached_once_even_if_only_the_system_prompt_is_marked() -> None:
    items = [{"role": "system", "content": "s", **CACHE}, user("a")]
    written: list[str] = []
    for number in range(8):
        found = marks(ask(input=items))
        # This request reads up to where the previous one wrote.
        assert not written or written[-1] in found
        written.append(found[-1])
        items += [call(str(number)), output(str(number))]
    assert written == [f"/messages/{2 * number}/content/0" for number in range(8)]


def test_each_turn_is_a_prefix_of_the_next_one() -> None:
    turn = [
        {"role": "system", "content": "s"},
        user("a"),
        thought(),
        assistant("b"),
        call("functions.x:1", '{"z":1,"a":2}'),
        call("2"),
        output("functions.x:1", [{"type": "input_text", "text": "t"}, image()]),
        output("2"),
    ]
    following = [thought(), assistant("c"), call("3"), output("3"), {"role": "developer", "content": "d"}, user("e")]
    for model in MODELS:
        first, second = (ask(model, input=items, tools=[PATCH, FUNCTION]) for items in (turn, turn + following))
        first, second = without_marks(first), without_marks(second)
        assert json.dumps({**second, "messages": second["messages"][: len(first["messages"])]}) == json.dumps(first)


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family", "version"),
    [
        ("claude-opus-4-5-20251101", "opus", (4, 5)),
        ("us.anthropic.claude-opus-4-6-v1", "opus", (4, 6)),
        ("claude-opus-4-20250514", "opus", (4, 0)),
        ("claude-3-7-sonnet-20250219", "sonnet", (3, 7)),
        ("claude-sonnet-4@20250514", "sonnet", (3, 7)),
        ("anthropic/claude-4.5-opus", "opus", (4, 5)),
        ("Claude-3-Opus-20240229", "opus", (0, 0)),
        ("claude-haiku-4.5", "haiku", (4, 5)),
        ("claude-opus-4-8[1m]", "opus", (4, 8)),
        ("claude-opus-4-7-v1", "opus", (4, 7)),
        ("claude-haiku-5-5-20261001", "haiku", (5, 5)),
        ("anthropic/claude-fable-5.1", "fable", (5, 1)),
        ("claude-opus-6", "opus", (5, 5)),
        ("claude-mythos-5", "mythos", (0, 0)),
    ],
)
def test_the_name_determines_the_family_and_the_version(name: str, family: str, version: tuple[int, int]) -> None:
    assert claude_model(name) is dict(CLAUDE_MODELS[family])[version]


BOUND = [
    *(f"claude-{family}-5-{minor}" for family in ("fable", "mythos") for minor in (1, 2)),
    *("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"),
]
UNBOUND = [
    *("claude-fable-5", "claude-mythos-5", "claude-opus-5", "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-4-5"),
    *("claude-x", "claude-opus-latest", FOREIGN),
]


@pytest.mark.parametrize("model", BOUND)
def test_blocks_that_no_longer_fit_are_to_be_dropped_by_the_models_that_bind_them(model: str) -> None:
    body = ask(model)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized", **BINDING}
    assert beta_headers(body) == {"anthropic-beta": "thinking-binding-controls-2026-08-01"}


@pytest.mark.parametrize("model", UNBOUND)
def test_the_setting_is_kept_from_all_other_models(model: str) -> None:
    body = ask(model, reasoning={"effort": "high"})
    assert "block_binding" not in body["thinking"]
    assert beta_headers(body) == {}


def test_only_the_account_that_made_them_can_use_the_blocks_of_two_models() -> None:
    assert [model for model in BOUND if claude_model(model).binds_account] == [SONNET, HAIKU]


def test_a_claude_without_a_version_counts_as_new_and_other_names_as_other_vendors() -> None:
    for name in ("claude-x", "claude-opus-latest"):
        model = claude_model(name)
        assert (model.no_thinking, model.takes_forced_tools, model.has_sampling) == (None, False, False)
        assert not model.has_fast
    assert claude_model("deepseek-chat").max_output is None


# --- whole bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("payload", "model"), combined(payloads(), MODELS))
def test_every_payload_gives_a_valid_body(payload: dict[str, Any], model: str) -> None:
    request = parse_body(json.dumps(payload["request"]["body"]).encode())
    body = check(anthropic_request(request, model=model))
    if "anthropic" in payload["upstream_kind"]:
        assert body == payload["expected_upstream_request"]


@pytest.mark.parametrize("payload", payloads("07"))
def test_payload_07_keeps_blocks_ids_results_first_and_the_clients_breakpoints(payload: dict[str, Any]) -> None:
    asked = payload["request"]["body"]
    body = check(anthropic_request(parse_body(json.dumps(asked).encode()), model="claude-sonnet-5"))
    system, info, question, answer, results = (message["content"] for message in asked["messages"])
    ((tool_result, go_on), listing) = results, tool_text(results)
    assert body == {
        "model": "claude-sonnet-5",
        "max_tokens": asked["max_tokens"],
        "system": system,
        "messages": [
            {"role": "user", "content": info + question},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": [{**tool_result, "content": listing}, go_on]},
        ],
        "thinking": {"type": "adaptive", "display": "summarized"},
        "tools": asked["tools"],
        "tool_choice": {"type": "auto"},
    }


def tool_text(blocks: list[Any]) -> str:
    text: str = blocks[0]["content"][0]["text"]
    return text


@pytest.mark.parametrize("payload", payloads("16"))
def test_payload_16_goes_on_after_the_assistant(payload: dict[str, Any]) -> None:
    asked = payload["request"]["body"]
    body = without_marks(check(anthropic_request(parse_body(json.dumps(asked).encode()), model=NEWEST)))
    _, greeting, answer, _, go_on, begun = (message["content"] for message in asked["messages"])
    assert body["messages"] == [
        by_user(greeting),
        by_assistant(answer),
        by_user(go_on[0]["text"]),
        by_assistant(begun),
        by_user("Continue."),
    ]
    assert not {"tool_choice", "tools", "temperature"} & body.keys()
    assert body["output_config"] == {"effort": "low"}


def readable(value: Any) -> Any:
    """Return the body with URLs that Anthropic accepts; otherwise most bodies are refused for them and test nothing."""
    if isinstance(value, list):
        return [readable(inner) for inner in value]
    if not isinstance(value, dict):
        return "https://u" if value == "u" else value
    if "file_id" in value:
        return {**value, "file_data": PNG}
    return {key: readable(inner) for key, inner in value.items()}


@given(bodies, st.sampled_from(MODELS), st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_is_accepted_gives_a_valid_body_or_a_clear_refusal(
    body: dict[str, Any], model: str, is_readable: bool
) -> None:
    if is_readable:
        body = readable(copy.deepcopy(body)) | {"previous_response_id": None}
    try:
        request = parse_body(json.dumps(body).encode())
    except BadRequest:
        event("not parsed")
        return
    try:
        result = anthropic_request(request, model=model)
    except BadRequest as refusal:
        event(f"refused: {refusal.param}")
        return
    event("sent")
    check(result)
    assert json.dumps(result) == json.dumps(anthropic_request(request, model=model))


SHELL_OUTPUT = {"type": "shell_call_output", "call_id": "1", "output": [{}]}
ITEMS = [
    *(user(), user(" "), assistant("a "), assistant(" "), thought(), {"role": "system", "content": "s"}),
    *(call("1"), call("2"), call("x.y"), {"type": "shell_call", "call_id": "1"}),
    *(output("1"), output("2"), output("x.y"), SHELL_OUTPUT),
]


@given(
    st.lists(st.sampled_from(ITEMS), min_size=1, max_size=10),
    st.sampled_from(MODELS),
    st.sampled_from([None, "none", "low", "high"]),
    st.sampled_from([None, "required"]),
)
@settings(max_examples=300, deadline=None)
def test_the_body_is_valid_in_any_order_of_items(
    items: list[dict[str, Any]], model: str, effort: str | None, choice: str | None
) -> None:
    request = ResponsesRequest(
        requested_model="m",
        stream=True,
        include_usage=False,
        body={"input": items, "reasoning": {"effort": effort}, "tools": [FUNCTION], "tool_choice": choice},
    )
    try:
        body = anthropic_request(request, model=model)
    except BadRequest as refusal:
        event(f"refused: {refusal.param}")
        return
    check(body)


@pytest.mark.parametrize("user_id", ["a@b.example", "+49 30 123456", "x" * 257, "mit leerzeichen"])
def test_a_user_id_that_anthropic_would_refuse_is_hashed(user_id: str) -> None:
    sent = ask(user=user_id)["metadata"]["user_id"]
    assert len(sent) == 64
    assert sent == ask(user=user_id)["metadata"]["user_id"]
    assert ask(user="google-oauth2|user_01HASH")["metadata"]["user_id"] == "google-oauth2|user_01HASH"


def test_thinking_blocks_are_removed_from_a_prefill_if_thinking_is_off() -> None:
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
    sent = messages(user(), thought(*blocks), assistant("Sure, "), model="claude-sonnet-4-5")
    assert sent[-1] == by_assistant(text("Sure,"))
