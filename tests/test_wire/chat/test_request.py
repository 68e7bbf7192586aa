"""A request in normal form becomes one that each Chat Completions server accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.recordings import combined, payloads
from kit.upstreams.providers import providers_with_quirks

from stages.events import ToolCallDelta
from stages.request import ResponsesRequest
from stages.upstreams.providers import quirks_in
from stages.wire.answers.request_traits import RequestTraits
from stages.wire.bad_request import BadRequest
from stages.wire.call_ids import nine_character_call_id, numbered_call_id
from stages.wire.chat.api import CHAT
from stages.wire.chat.decoder import decode_chat_document
from stages.wire.chat.request import chat_request
from stages.wire.downstream.request import parse_body

PNG = "data:image/png;base64,AAAA"
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
PATCH = {
    "type": "custom",
    "name": "ApplyPatch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: PATCH"},
}


def ask(provider: str = "hosted_vllm", model: str = "m", *, stream: bool = False, **body: Any) -> dict[str, Any]:
    body.setdefault("input", "hi")
    before = json.dumps(body)
    request = ResponsesRequest(
        requested_model="alias",
        stream=stream,
        include_usage=False,
        body=body,
        wants_logprobs="message.output_text.logprobs" in body.get("include", ()),
    )
    result = chat_request(request, model=model, quirks=quirks_in(CHAT, provider, model))
    assert json.dumps(body) == before, "the request was changed"
    return result


def messages(*items: dict[str, Any], provider: str = "hosted_vllm", model: str = "m", **body: Any) -> list[Any]:
    sent: list[Any] = ask(provider, model, input=list(items), **body)["messages"]
    return sent


def user(content: Any = "u") -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def call(call_id: str, arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": arguments, **more}


def output(call_id: str, text: Any = "r") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}], "summary": []}


def made(*call_ids: str, content: str | None = "", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    tool_calls = [{"id": call_id, "type": "function", "function": function} for call_id in call_ids]
    return {"role": "assistant", "content": content, **more, "tool_calls": tool_calls}


def result(call_id: str, text: str = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def refused(**request: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        ask(**request)
    return caught.value


# --- messages --------------------------------------------------------------------------------------------------------


def test_instructions_come_first_and_a_string_is_a_user_message() -> None:
    assert ask(instructions="be kind") == {
        "model": "m",
        "messages": [{"role": "system", "content": "be kind"}, user("hi")],
    }


def test_developer_messages_become_system_messages_except_for_openai() -> None:
    items = [{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}, user()]
    assert [it["role"] for it in messages(*items)] == ["system", "system", "user"]
    assert [it["role"] for it in messages(*items, provider="openai")] == ["developer", "system", "user"]


def test_text_becomes_one_string_and_images_become_parts() -> None:
    texts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    image = {"type": "input_image", "image_url": PNG}
    (first, second) = messages(user(texts), user([*texts, image, {**image, "detail": "low"}, {"type": "new"}]))
    assert first == user("a\n\nb")
    assert second == user(
        [
            {"type": "text", "text": "a"},
            {"type": "text", "text": "b"},
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        ]
    )


@pytest.mark.parametrize(("detail", "sent"), [("low", "low"), ("original", "high"), ("ultra", "auto"), (["x"], "auto")])
def test_the_detail_of_an_image_is_one_that_chat_has(detail: Any, sent: str) -> None:
    image = {"type": "input_image", "image_url": PNG, "detail": detail}
    (message,) = messages(user([image]))
    assert message["content"][0]["image_url"] == {"url": PNG, "detail": sent}


def test_an_early_result_of_a_native_call_goes_to_its_call() -> None:
    shell = {"type": "shell_call", "call_id": "1", "action": {}}
    early = {"type": "shell_call_output", "call_id": "1", "output": "r"}
    roles = [message["role"] for message in messages(user(), early, shell, user())]
    assert roles == ["user", "assistant", "tool", "user"]


def test_the_tools_that_items_declare_are_merged_and_the_last_declaration_of_a_name_counts() -> None:
    def tool(name: str, description: str) -> dict[str, Any]:
        return {"type": "function", "name": name, "description": description}

    late = {"type": "additional_tools", "role": "developer", "tools": [tool("B", "2"), tool("C", "2")]}
    body = ask(input=[user(), late], tools=[tool("A", "1"), tool("B", "1")])
    described = [(one["function"]["name"], one["function"]["description"]) for one in body["tools"]]
    assert described == [("A", "1"), ("B", "2"), ("C", "2")]
    assert body["messages"] == [{"role": "user", "content": "u"}]


def test_files_and_audio_are_passed_on() -> None:
    file = {"type": "input_file", "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf", "x": 1}
    sound = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}
    assert messages(user([file, sound]))[0]["content"] == [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
        sound,
    ]
    by_id = {"type": "input_file", "file_id": "file_1"}
    assert messages(user([by_id]), provider="openai")[0]["content"] == [{"type": "file", "file": {"file_id": "file_1"}}]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_image", "file_id": "file_1"}, "input[1].content[0].file_id"),
        ({"type": "input_file", "file_id": "file_1"}, "input[1].content[0].file_data"),
        ({"type": "input_file", "file_url": "https://x"}, "input[1].content[0].file_data"),
    ],
)
def test_references_to_what_openai_stores_are_refused(part: dict[str, Any], param: str) -> None:
    assert refused(input=[user(), user([part])]).param == param


def test_the_assistants_text_becomes_one_string_and_a_refusal_is_kept_for_openai() -> None:
    item = {
        "role": "assistant",
        "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}, {"type": "refusal"}],
    }
    assert messages(item) == [{"role": "assistant", "content": "ano"}]
    assert messages(item, provider="azure") == [{"role": "assistant", "refusal": "no", "content": "a"}]
    assert messages({"role": "assistant", "content": "a"}, user()) == [{"role": "assistant", "content": "a"}, user()]
    assert messages(assistant(""), {"role": "assistant"}, assistant("a"), user()) == [
        {"role": "assistant", "content": "a"},
        user(),
    ]


# --- calls -----------------------------------------------------------------------------------------------------------


def test_calls_of_one_turn_form_one_message_with_the_text_before_them() -> None:
    assert messages(
        user(), assistant("a"), call("1"), call("2"), output("2", "two"), output("1", "one"), assistant("b")
    ) == [
        user(),
        made("1", "2", content="a"),
        result("1", "one"),
        result("2", "two"),
        {"role": "assistant", "content": "b"},
    ]


def test_successive_calls_form_two_messages() -> None:
    assert messages(call("1"), output("1"), call("2"), output("2")) == [made("1"), result("1"), made("2"), result("2")]


def test_items_between_a_call_and_its_result_move_before_the_call() -> None:
    assert messages(user("a"), call("1"), assistant("t"), user("b"), call("2"), output("1"), output("2")) == [
        user("a"),
        user("b"),
        made("1", "2", content="t"),
        result("1"),
        result("2"),
    ]


def test_a_result_that_comes_after_the_next_call_is_moved_to_its_own_call() -> None:
    assert messages(call("1"), call("2"), output("1"), call("3"), output("2"), output("3"), user()) == [
        made("1", "2"),
        result("1"),
        result("2"),
        made("3"),
        result("3"),
        user(),
    ]


def test_a_call_without_a_result_gets_an_empty_one_and_a_result_without_a_call_is_dropped() -> None:
    assert messages(output("0"), call("1"), user(), output("2"), call("3"), output("3"), output("3", "again")) == [
        made("1"),
        result("1", ""),
        user(),
        made("3"),
        result("3"),
    ]
    assert messages(call("1"), assistant("b"), user()) == [
        made("1"),
        result("1", ""),
        {"role": "assistant", "content": "b"},
        user(),
    ]


def test_a_repeated_call_id_is_paired_with_its_own_result() -> None:
    second = numbered_call_id("1", 2)
    assert messages(call("1"), output("1", "a"), call("1"), output("1", "b")) == [
        made("1"),
        result("1", "a"),
        made(second),
        result(second, "b"),
    ]


def test_images_of_a_result_follow_in_a_user_message() -> None:
    image = {"type": "input_image", "image_url": PNG}
    listed = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}, image]
    picture = {"type": "image_url", "image_url": {"url": PNG}}
    assert messages(call("1"), call("2"), output("1", listed), output("2", [image])) == [
        made("1", "2"),
        result("1", "a\nb"),
        result("2", "The result is in the next message."),
        user(
            [
                {"type": "text", "text": "From the tool call 1:"},
                picture,
                {"type": "text", "text": "From the tool call 2:"},
                picture,
            ]
        ),
    ]
    assert refused(input=[call("1"), output("1", [{"type": "input_image"}])]).param == "input[1].output[0].file_id"


@pytest.mark.parametrize("arguments", ['{"x', "[1]", '"x"', "[" * 100_000], ids=range(4))
def test_arguments_that_cannot_be_parsed_do_not_block_the_conversation(arguments: str) -> None:
    (message, _) = messages(call("1", arguments))
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"input": arguments}
    (message, _) = messages(call("1", arguments), provider="openai")
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_missing_arguments_become_an_empty_object() -> None:
    assert messages(call("1", ""), provider="openai")[0] == made("1", content=None)
    assert messages(call("1", " "))[0] == made("1")


def test_a_custom_call_becomes_a_function_with_one_string_except_for_openai() -> None:
    items = (
        {"type": "custom_tool_call", "call_id": "1", "name": "ApplyPatch", "input": '"*** Begin'},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "ok"},
    )
    (message, answer) = messages(*items, tools=[PATCH])
    (entry,) = message["tool_calls"]
    assert (entry["id"], entry["type"], entry["function"]["name"]) == ("1", "function", "ApplyPatch")
    assert json.loads(entry["function"]["arguments"]) == {"input": '"*** Begin'}
    assert answer == result("1", "ok")
    (message, _) = messages(*items, provider="openai", model="gpt-5", tools=[PATCH])
    custom = {"name": "ApplyPatch", "input": '"*** Begin'}
    assert message["tool_calls"] == [{"id": "1", "type": "custom", "custom": custom}]
    (message, _) = messages(*items, provider="openai", model="gpt-4o", tools=[PATCH])
    assert message["tool_calls"] == [entry]


def test_calls_that_the_client_executes_become_functions() -> None:
    action = {"command": ["ls"]}
    listed = [{"stdout": "x", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    got = messages(
        {"type": "local_shell_call", "call_id": "1", "action": action},
        {"type": "local_shell_call_output", "id": "1", "output": "a"},
        {"type": "shell_call", "call_id": "2", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "2", "output": listed},
        {"type": "apply_patch_call", "call_id": "3", "operation": {"type": "delete_file", "path": "p"}},
        {"type": "apply_patch_call_output", "call_id": "3", "status": "completed"},
        {"type": "computer_call", "call_id": "4"},
        {"type": "computer_call_output", "call_id": "4", "output": {"type": "computer_screenshot", "image_url": PNG}},
    )
    calls = [it["tool_calls"][0]["function"] for it in got if "tool_calls" in it]
    assert [(it["name"], json.loads(it["arguments"])) for it in calls] == [
        ("local_shell", action),
        ("shell", {"commands": ["ls"]}),
        ("apply_patch", {"type": "delete_file", "path": "p"}),
        ("computer", {}),
    ]
    contents = [it["content"] for it in got if it["role"] == "tool"]
    assert contents == ["a", json.dumps(listed, separators=(",", ":")), "", "The result is in the next message."]
    assert got[-1]["content"][1] == {"type": "image_url", "image_url": {"url": PNG}}


def test_items_of_tools_that_another_upstream_executed_are_dropped() -> None:
    hosted = [{"type": kind} for kind in ("web_search_call", "mcp_list_tools", "file_search_call", "program", "new")]
    assert messages(user(), *hosted, {"type": "item_reference", "id": "rs_1"}, {"id": "rs_2"}, user()) == [
        user(),
        user(),
    ]


@pytest.mark.parametrize(
    "item",
    [{"type": "item_reference", "id": "msg_1"}, {"id": "fc_1"}, {"type": "compaction", "encrypted_content": "x"}],
)
def test_references_to_items_stored_by_another_upstream_are_refused(item: dict[str, Any]) -> None:
    bad = refused(input=[user(), item])
    assert bad.param == "input[1]"
    assert "msg_1" not in bad.message


def test_a_conversation_without_anything_to_answer_is_refused() -> None:
    assert refused(input=[{"type": "web_search_call"}]).param == "input"


# --- reasoning -------------------------------------------------------------------------------------------------------


def test_reasoning_is_sent_back_to_servers_that_accept_it() -> None:
    items = [
        user(),
        thought("I "),
        thought("see"),
        assistant("a"),
        thought("more"),
        call("1"),
        output("1"),
        thought("x"),
        user(),
    ]
    assert messages(*items, provider="deepseek") == [
        user(),
        made("1", content="a", reasoning_content="I seemore"),
        result("1"),
        user(),
    ]
    assert messages(*items) == [user(), made("1", content="a"), result("1"), user()]
    assert messages(*items, provider="groq", model="deepseek-r1") == messages(*items)
    assert messages(*items, model="DeepSeek-V4") == messages(*items, provider="deepseek")


def test_a_summary_replaces_missing_reasoning() -> None:
    summary = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}, {"type": "summary_text"}]
    item = {"type": "reasoning", "encrypted_content": "x", "summary": summary}
    (message,) = messages(item, {"type": "reasoning"}, assistant("c"), provider="moonshot")
    assert message["reasoning_content"].strip() == "a\n\nb"


@pytest.mark.parametrize(
    ("provider", "model", "filler"),
    [("deepseek", "m", ""), ("moonshot", "m", " "), ("hosted_vllm", "Kimi-K2", " "), ("openrouter", "x/y", "")],
)
def test_lost_reasoning_of_a_call_is_filled_in_as_the_upstream_requires(provider: str, model: str, filler: str) -> None:
    (calling, _, plain) = messages(call("1"), output("1"), assistant("a"), provider=provider, model=model)
    assert calling["reasoning_content"] == filler
    assert "reasoning_content" not in plain


@pytest.mark.parametrize(
    ("provider", "model"),
    [("zai", "glm-5"), ("dashscope", "qwen3.7-max"), ("hosted_vllm", "Qwen/Qwen4"), ("minimax", "MiniMax-M3")],
)
def test_models_that_can_do_without_their_reasoning_get_it_if_it_is_known(provider: str, model: str) -> None:
    (calling, _, answer) = messages(
        thought("t"), call("1"), output("1"), assistant("a"), provider=provider, model=model
    )
    assert calling["reasoning_content"] == "t"
    assert "reasoning_content" not in answer
    (calling, _) = messages(call("1"), output("1"), provider=provider, model=model)
    assert "reasoning_content" not in calling


DETAILS = [
    {"type": "reasoning.text", "index": 0, "text": "think", "signature": "S", "format": "x"},
    {"type": "reasoning.encrypted", "index": 1, "data": "E", "id": "call_1"},
]


@pytest.mark.parametrize("provider", ["openrouter", "minimax"])
def test_reasoning_details_are_given_back_whole_and_instead_of_the_text(provider: str) -> None:
    remembered = {**thought("think"), "reasoning_details": DETAILS[:1]}
    later = {"type": "reasoning", "summary": [], "reasoning_details": DETAILS[1:]}
    (calling, _, _) = messages(remembered, call("1"), later, call("2"), output("1"), output("2"), provider=provider)
    assert calling["reasoning_details"] == DETAILS
    assert "reasoning_content" not in calling
    (said, _) = messages(remembered, assistant("a"), user(), provider=provider)
    assert said == {"role": "assistant", "content": "a", "reasoning_details": DETAILS[:1]}
    assert "reasoning_details" not in json.dumps(messages(remembered, call("1"), output("1"), provider="deepseek"))
    orphan = messages(remembered, user(), assistant("a"), provider=provider)
    assert "reasoning_details" not in json.dumps(orphan)


def test_details_that_a_client_sends_back_reach_the_upstream() -> None:
    said = {"role": "assistant", "content": "a", "reasoning": "think", "reasoning_details": DETAILS}
    body = {"model": "m", "messages": [user(), said, user("v")]}
    request = parse_body(json.dumps(body).encode())
    sent = chat_request(request, model="x/y", quirks=quirks_in(CHAT, "openrouter", "x/y"))["messages"]
    assert sent[1] == {"role": "assistant", "content": "a", "reasoning_details": DETAILS}
    sent = chat_request(request, model="m", quirks=quirks_in(CHAT, "zai", "m"))["messages"]
    assert sent[1] == {"role": "assistant", "content": "a", "reasoning_content": "think"}


def test_geminis_calls_are_signed() -> None:
    signature = {"google": {"thought_signature": "EjQK"}}
    signed = {"type": "reasoning", "summary": [], "extra_content": signature}
    items = [signed, call("1"), call("2"), output("1"), output("2"), call("3"), output("3"), signed, user(), call("4")]
    got = messages(*items, provider="gemini", model="gemini-3-pro")
    extras = [it.get("extra_content") for message in got for it in message.get("tool_calls", ())]
    dummy = {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert extras == [signature, None, dummy, dummy]
    for provider, model in (("gemini", "gemini-2.5-pro"), ("groq", "gemini-3")):
        got = messages(*items[2:], provider=provider, model=model)
        assert not any("extra_content" in it for message in got for it in message.get("tool_calls", ()))
    assert "extra_content" not in json.dumps(messages(*items, provider="groq"))


def test_mistral_gets_ids_of_nine_characters_and_an_assistant_message_after_tools() -> None:
    items = [call("call_1"), output("call_1"), user(), call("gSIMJiOkT"), output("gSIMJiOkT")]
    got = messages(*items, provider="mistral")
    short = got[0]["tool_calls"][0]["id"]
    assert len(short) == 9
    assert short.isalnum()
    assert got == [
        made(short),
        result(short),
        {"role": "assistant", "content": "Done."},
        user(),
        made("gSIMJiOkT"),
        result("gSIMJiOkT"),
    ]


def test_short_ids_of_many_calls_are_all_different_and_always_the_same() -> None:
    ids = {nine_character_call_id(f"call_{number}") for number in range(20_000)}
    assert len(ids) == 20_000
    assert nine_character_call_id("call_0") == "45JoVn4qR"  # in every process: a prefix that changes is not cached


# --- tools -----------------------------------------------------------------------------------------------------------


def test_functions_are_nested() -> None:
    strict = {"type": "function", "name": "g", "strict": True, "defer_loading": True}
    got = ask(tools=[{**FUNCTION, "strict": False}, strict], tool_choice="auto", parallel_tool_calls=False)
    empty = {"type": "object", "properties": {}}
    assert got["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": empty}},
        {"type": "function", "function": {"name": "g", "parameters": empty, "strict": True}},
    ]
    assert got["tool_choice"] == "auto"
    assert got["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in ask(tools=[FUNCTION], parallel_tool_calls=True)
    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(
        ask(tool_choice="auto", parallel_tool_calls=False)
    )


def test_a_custom_tool_becomes_a_function_with_one_string_and_its_grammar_in_the_description() -> None:
    (tool,) = ask(tools=[PATCH])["tools"]
    function = tool["function"]
    assert function["name"] == "ApplyPatch"
    assert function["description"].startswith("Edit files.\n\n")
    assert "lark" in function["description"]
    assert function["description"].endswith("start: PATCH")
    assert function["parameters"]["required"] == ["input"]
    assert function["parameters"]["properties"]["input"]["type"] == "string"
    bare = {"type": "custom", "name": "x"}
    (tool, other) = ask(tools=[bare, {**PATCH, "description": None}])["tools"]
    assert "description" not in tool["function"]
    assert other["function"]["description"].startswith("The input must follow this lark grammar:")


def test_a_custom_tool_stays_custom_where_the_server_has_custom_tools() -> None:
    text = {"type": "custom", "name": "x", "format": {"type": "text"}}
    bare = {"type": "custom", "name": "y"}
    got = ask("openai", "gpt-5", tools=[PATCH, text, bare], tool_choice={"type": "custom", "name": "ApplyPatch"})
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: PATCH"}}
    assert got["tools"] == [
        {"type": "custom", "custom": {"name": "ApplyPatch", "description": "Edit files.", "format": grammar}},
        {"type": "custom", "custom": {"name": "x", "format": {"type": "text"}}},
        {"type": "custom", "custom": {"name": "y"}},
    ]
    assert got["tool_choice"] == {"type": "custom", "custom": {"name": "ApplyPatch"}}
    assert ask("openai", "gpt-4o", tools=[PATCH])["tools"][0]["type"] == "function"


def test_tools_of_a_namespace_are_flattened_with_distinct_names() -> None:
    space = {"type": "namespace", "name": "ns", "tools": [FUNCTION, {**FUNCTION, "name": "g"}, 5, {"type": "mcp"}]}
    got = ask(tools=[FUNCTION, space, {"type": "namespace", "name": "no"}], input=[call("1", namespace="ns")])
    assert [tool["function"]["name"] for tool in got["tools"]] == ["f", "ns__f", "g"]
    assert got["messages"][0]["tool_calls"][0]["function"]["name"] == "ns__f"


def test_a_custom_tool_of_a_namespace_is_also_called_with_raw_text() -> None:
    space = {"type": "namespace", "name": "ns", "tools": [PATCH, {"type": "custom", "name": "f"}]}
    request = parse_body(json.dumps({"model": "m", "input": "hi", "tools": [FUNCTION, space]}).encode())
    declared = chat_request(request, model="m", quirks=quirks_in(CHAT, "hosted_vllm", "m"))["tools"]
    assert [tool["function"]["name"] for tool in declared] == ["f", "ApplyPatch", "ns__f"]
    for name, arguments in (("ApplyPatch", "*** Begin"), ("ns__f", "*** Begin"), ("f", '{"input":"*** Begin"}')):
        function = {"name": name, "arguments": '{"input":"*** Begin"}'}
        message = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
        answer = {"id": "r", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
        events = decode_chat_document(json.dumps(answer).encode(), RequestTraits(custom_tools=request.custom_tools))
        assert [event.arguments for event in events if isinstance(event, ToolCallDelta)] == [arguments]


def test_tools_that_the_client_executes_become_functions() -> None:
    tools = [{"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}, {"type": "apply_patch"}]
    container = {"type": "shell", "environment": {"type": "container_auto"}}
    got = ask(tools=[*tools, container], tool_choice={"type": "shell"})
    assert [tool["function"]["name"] for tool in got["tools"]] == ["local_shell", "shell", "apply_patch"]
    assert all(tool["function"]["parameters"]["required"] for tool in got["tools"])
    assert got["tool_choice"] == {"type": "function", "function": {"name": "shell"}}


def test_hosted_tools_are_dropped_unless_no_tool_is_left() -> None:
    hosted = {"type": "web_search"}
    assert len(ask(tools=[FUNCTION, hosted])["tools"]) == 1
    assert "tools" not in ask(tools=[hosted], tool_choice="none")
    assert refused(tools=[hosted, {"type": "mcp"}]).param == "tools"
    assert refused(tools=[FUNCTION, hosted], tool_choice=hosted).param == "tool_choice"
    got = ask("openai", "gpt-5-search-api", tools=[{"type": "web_search_preview"}])
    assert got["web_search_options"] == {}


def test_tool_choices() -> None:
    def choice(value: Any, provider: str = "hosted_vllm") -> Any:
        return ask(provider, tools=[FUNCTION, PATCH], tool_choice=value)["tool_choice"]

    assert choice("required") == "required"
    assert choice("required", "mistral") == "any"
    assert choice({"type": "function", "name": "f"}) == {"type": "function", "function": {"name": "f"}}
    assert choice({"type": "custom", "name": "ApplyPatch"}) == {"type": "function", "function": {"name": "ApplyPatch"}}


def test_allowed_tools_are_passed_to_openai_and_for_others_replace_the_tools() -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "ApplyPatch"}, 5]}
    got = ask(tools=[FUNCTION, PATCH], tool_choice=allowed)
    assert got["tool_choice"] == "required"
    assert [tool["function"]["name"] for tool in got["tools"]] == ["ApplyPatch"]
    got = ask("openai", "gpt-5", tools=[FUNCTION, PATCH], tool_choice={**allowed, "mode": "auto"})
    custom = {"type": "custom", "custom": {"name": "ApplyPatch"}}
    assert got["tool_choice"] == {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [custom]}}
    assert len(got["tools"]) == 2
    for none in ([], "x", [{"type": "mcp"}]):
        assert refused(tools=[FUNCTION], tool_choice={**allowed, "tools": none}).param == "tool_choice.tools"


# --- parameters ------------------------------------------------------------------------------------------------------


def test_a_stream_is_requested_with_usage_except_from_mistral() -> None:
    assert ask(stream=True)["stream_options"] == {"include_usage": True}
    assert ask(stream=True)["stream"] is True
    assert "stream_options" not in ask("mistral", stream=True)
    assert {"stream", "stream_options"}.isdisjoint(ask())


def test_parameters_get_their_chat_names() -> None:
    got = ask(
        temperature=0,
        top_p=0.5,
        max_output_tokens=9,
        top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        reasoning={"effort": "xhigh", "summary": "auto"},
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        stop=["x"],
        seed=1,
        top_k=4,
        user="u",
        store=False,
        truncation="auto",
        max_tool_calls=1,
        metadata={"a": "b"},
        service_tier="flex",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        safety_identifier="s",
        context_management=[],
        unknown=1,
    )
    assert got == {
        "model": "m",
        "messages": [user("hi")],
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "high",
        "response_format": {"type": "json_object"},
        "stop": ["x"],
        "seed": 1,
        "top_k": 4,
        "user": "u",
    }


def test_openai_gets_the_parameters_that_only_openai_knows() -> None:
    body: dict[str, Any] = {
        "max_output_tokens": 9,
        "text": {"verbosity": "low"},
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "reasoning": {"effort": "xhigh"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    got = ask("openai", "gpt-5", temperature=0, **body)
    assert got == {
        "model": "gpt-5",
        "messages": [user("hi")],
        "max_completion_tokens": 9,
        "verbosity": "low",
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "reasoning_effort": "xhigh",
    }
    assert "metadata" not in ask("openai", "gpt-5", metadata={"a": "b"}, store=False)
    assert ask("openai", "gpt-5.1", temperature=0, top_p=1, reasoning={"effort": "none"})["temperature"] == 0
    assert ask("openai", "gpt-4o", temperature=0)["temperature"] == 0
    assert ask("some_gateway", "openai/gpt-5", max_output_tokens=9)["max_completion_tokens"] == 9


def test_a_schema_is_nested() -> None:
    layout = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "description": None}
    nested = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert ask(text={"format": layout})["response_format"] == {"type": "json_schema", "json_schema": nested}
    for plain in ({"type": "text"}, {}, None):
        assert "response_format" not in ask(text={"format": plain})


@pytest.mark.parametrize(
    ("provider", "model", "effort", "sent"),
    [
        *(
            ("deepseek", "deepseek-v4-pro", asked, {"reasoning_effort": given})
            for asked, given in (
                ("minimal", "low"),
                ("low", "low"),
                ("medium", "high"),
                ("high", "high"),
                ("xhigh", "max"),
                ("max", "max"),
            )
        ),
        ("deepseek", "m", "none", {"thinking": {"type": "disabled"}}),
        ("moonshot", "kimi-k3", "high", {}),
        ("moonshot", "kimi-k3", "none", {"thinking": {"type": "disabled"}}),
        ("mistral", "m", "high", {}),
        ("groq", "llama", "high", {}),
        ("groq", "openai/gpt-oss-120b", "max", {"reasoning_effort": "high"}),
        ("xai", "grok-3-mini", "medium", {"reasoning_effort": "high"}),
        ("xai", "grok-4", "medium", {}),
        ("gemini", "m", "minimal", {"reasoning_effort": "minimal"}),
        ("gemini", "m", "xhigh", {"reasoning_effort": "high"}),
        *(
            ("openai", model, asked, {"reasoning_effort": "low"})
            for model in ("gpt-6-sol", "gpt-6.2-astra")
            for asked in ("none", "minimal", "low")
        ),
        ("openai", "gpt-6.1-terra", "max", {"reasoning_effort": "max"}),
        ("openai", "chat-latest", "high", {}),
        ("openai", "gpt-chat-latest", "none", {}),
        ("minimax", "MiniMax-M3", "low", {"reasoning_effort": "low", "reasoning_split": True}),
        ("ollama", "qwen", "high", {}),
        ("ollama", "qwen", "none", {"reasoning_effort": "none"}),
        ("openrouter", "m", "xhigh", {"reasoning_effort": "xhigh"}),
        ("unknown", "m", "none", {}),
        ("unknown", "m", "minimal", {"reasoning_effort": "low"}),
        ("unknown", "m", 5, {}),
    ],
)
def test_the_effort_is_translated_to_the_providers_value(
    provider: str, model: str, effort: Any, sent: dict[str, Any]
) -> None:
    got = ask(provider, model, reasoning={"effort": effort})
    assert {key: value for key, value in got.items() if key not in ("model", "messages")} == sent
    assert ask("deepseek", reasoning={"effort": "none"}, thinking={"type": "enabled"})["thinking"] == {
        "type": "enabled"
    }


SAMPLING: dict[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "top_logprobs": 2,
    "include": ["message.output_text.logprobs"],
}


@pytest.mark.parametrize("effort", [None, "none", "low", "max"])
@pytest.mark.parametrize("model", ["gpt-6-astra", "gpt-6.1-sol", "gpt-6.2-sol", "chat-latest", "gpt-chat-latest"])
def test_gpt_6_and_chat_latest_get_no_sampling_parameters_at_any_effort(model: str, effort: str | None) -> None:
    got = ask("openai", model, **SAMPLING, reasoning={"effort": effort})
    assert got.keys() <= {"model", "messages", "reasoning_effort"}
    assert ask("openai", "gpt-4.1", include=SAMPLING["include"])["logprobs"] is True
    at_none = ask("openai", "gpt-5.2", **SAMPLING, reasoning={"effort": "none"})
    assert at_none.keys() >= {"temperature", "top_p", "logprobs", "top_logprobs"}


@pytest.mark.parametrize(("model", "tier"), [("gpt-6.2-sol", None), ("gpt-6.1-sol", "flex"), ("gpt-5.4", "flex")])
def test_gpt_6_2_is_not_asked_for_the_tier_flex(model: str, tier: str | None) -> None:
    assert ask("openai", model, service_tier="flex").get("service_tier") == tier
    assert ask("openai", model, service_tier="priority")["service_tier"] == "priority"


def test_openai_is_asked_to_leave_the_obfuscation_out() -> None:
    assert ask("openai", stream=True)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert ask("azure", stream=True)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    for provider in ("azure dated", "hosted_vllm", "openrouter"):
        assert ask(provider, stream=True)["stream_options"] == {"include_usage": True}


# What Gemini's endpoint gets for an effort: its own parameter only if the thoughts are not shown.
THINKING: list[tuple[str, str | None, Any]] = [
    ("gemini-3-pro-preview", None, {}),
    ("gemini-3-pro-preview", "minimal", {"thinking_level": "low"}),
    ("gemini-3-pro-preview", "medium", {"thinking_level": "high"}),
    ("gemini-3.1-pro", "medium", {"thinking_level": "medium"}),
    ("models/gemini-3.1-pro", "minimal", {"thinking_level": "low"}),
    ("gemini-3.8-flash", "minimal", {"thinking_level": "minimal"}),
    ("gemini-3.8-flash", "max", {"thinking_level": "high"}),
    ("gemini-flash-latest", "low", {"thinking_level": "low"}),
    ("gemini-3.8-flash", "from_the_future", {}),
    ("gemini-2.5-pro", "medium", {"thinking_budget": 8192}),
    ("gemini-2.5-flash", "from_the_future", {}),
    ("gemini-2.5-flash", None, {}),
    ("gemini-2.5-flash-lite", "low", {"thinking_budget": 1024}),
    ("gemini-2.5-flash-lite", None, None),
    ("gemini-2.5-flash", "none", None),
    ("gemini-2.5-flash-image", "low", None),
    ("gemini-2.0-flash", "low", None),
    ("gemma-4", "low", None),
]


@pytest.mark.parametrize(("model", "effort", "config"), THINKING)
def test_gemini_is_asked_to_show_the_thoughts_that_it_has_anyway(model: str, effort: str | None, config: Any) -> None:
    got = ask("gemini", model, reasoning={"effort": effort} if effort is not None else {})
    if config is None:
        assert "extra_body" not in got
        assert got.get("reasoning_effort") == effort
    else:
        assert "reasoning_effort" not in got, "400: Expected one of either"
        assert got["extra_body"] == {"google": {"thinking_config": {"include_thoughts": True, **config}}}


# --- arbitrary input -------------------------------------------------------------------------------------------------

_ids = st.sampled_from(["1", "2", "3"])
_items = st.one_of(
    st.builds(user),
    st.builds(assistant, st.sampled_from(["a", ""])),
    st.builds(thought, st.just("t")),
    st.builds(call, _ids),
    st.builds(output, _ids),
    st.builds(output, _ids, st.just([{"type": "input_image", "image_url": PNG}])),
    st.builds(lambda call_id: {"type": "custom_tool_call", "call_id": call_id, "name": "T", "input": "x"}, _ids),
    st.builds(lambda call_id: {"type": "custom_tool_call_output", "call_id": call_id, "output": "x"}, _ids),
    st.just({"role": "system", "content": "s"}),
    st.just({"type": "web_search_call"}),
)


@settings(max_examples=100)
@given(st.lists(_items, max_size=12), st.sampled_from(providers_with_quirks(CHAT)))
def test_every_call_is_followed_by_its_results_and_nothing_is_lost(items: list[dict[str, Any]], provider: str) -> None:
    """Check what OpenAI checks: the tool messages follow the message with their calls, one for each call."""
    got = messages(user("first"), *items, provider=provider)
    waiting: list[str] = []
    for message in got:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
        else:
            assert waiting == []
            waiting = [it["id"] for it in message.get("tool_calls", ())]
            assert message["content"] or waiting
    assert waiting == []
    kinds = [item.get("type") for item in items]
    calls = sum(len(message.get("tool_calls", ())) for message in got)
    assert calls == kinds.count("function_call") + kinds.count("custom_tool_call")
    assert sum(it == user() for it in got) == sum(it == user() for it in items)
    json.dumps(got)


def test_calls_of_different_types_with_one_id_get_ids_of_their_own() -> None:
    shell = {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}}
    for provider in ("hosted_vllm", "mistral"):
        message, *results = messages(user(), shell, call("1"), output("1"), provider=provider)[1:]
        ids = [one["id"] for one in message["tool_calls"]]
        assert len(set(ids)) == 2
        assert [result["tool_call_id"] for result in results] == ids


def test_a_message_of_which_nothing_is_left_is_not_sent() -> None:
    unknown = {"type": "from_the_future", "text": "x"}
    assert messages(user([unknown]), user()) == [user()]
    with pytest.raises(BadRequest, match="holds nothing"):
        messages(user([unknown]))


# --- payloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", payloads("08"))
def test_payload_08_gives_deepseek_what_it_expects_when_the_reasoning_is_restored(payload: dict[str, Any]) -> None:
    request = parse_body(json.dumps(payload["request"]["body"]).encode())
    items = list(request.body["input"])
    place = next(i for i, item in enumerate(items) if item.get("type") == "function_call")
    kept = [item for item in items[:place] if item["role"] != "assistant"]  # the mirrored thinking, taken out elsewhere
    deltas = payload["mock_upstream_http"]["turn1_stream_deltas"]
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    items = [*kept, thought(reasoning), *items[place:]]
    restored = ResponsesRequest(
        requested_model=request.requested_model,
        stream=request.stream,
        include_usage=True,
        body={**request.body, "input": items},
    )
    assert (
        chat_request(restored, model="deepseek-v4-pro", quirks=quirks_in(CHAT, "deepseek", "deepseek-v4-pro"))
        == payload["expected_upstream_request"]
    )


@pytest.mark.parametrize(("payload", "provider"), combined(payloads(), [*providers_with_quirks(CHAT), "hosted_vllm"]))
def test_every_cursor_payload_has_a_form_for_every_provider(payload: dict[str, Any], provider: str) -> None:
    body = payload["request"]["body"]
    request = parse_body(json.dumps({**body, "previous_response_id": None}).encode())
    got = chat_request(request, model="m", quirks=quirks_in(CHAT, provider, "m"))
    json.dumps(got)
    assert got["messages"][-1]["role"] in ("user", "tool", "assistant")
    assert len(got.get("tools", ())) == len(body.get("tools") or ())
