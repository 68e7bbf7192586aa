"""Conversations of every dialect, item by item, in Responses form."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from stages.wire.bad_request import BadRequest
from stages.wire.call_ids import short_call_id
from stages.wire.downstream.conversation import History
from stages.wire.downstream.pairing import UNKNOWN, unnamed_call_id
from stages.wire.downstream.shown_failures import failure_note
from stages.wire.tool_names import ToolNames, legal_tool_name

LONG = "call-" + "0" * 80


def flat(
    *elements: Any, field: Literal["input", "messages"] = "messages", custom: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    return mended(*elements, field=field, custom=custom)[0]


def mended(
    *elements: Any, field: Literal["input", "messages"] = "messages", custom: tuple[str, ...] = ()
) -> tuple[list[dict[str, Any]], set[str]]:
    history = History(frozenset(custom), field, ToolNames(), set())
    for index, element in enumerate(elements):
        history.add(element, f"{field}[{index}]")
    return history.items, history.mended


def chat_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "index": 0, "function": {"name": name, "arguments": arguments}}


# Messages of chat


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_a_text_message_keeps_role_and_content_and_drops_fields_of_chat(role: str) -> None:
    message = {"role": role, "content": "hi", "name": "bob", "tool_calls": [], "index": 3}
    assert flat(message) == [{"role": role, "content": "hi"}]


def test_the_type_of_text_parts_follows_from_the_role() -> None:
    parts = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"text": "b"}, "c"]
    translated: list[dict[str, Any]] = [
        {"text": "a", "cache_control": {"type": "ephemeral"}},
        {"text": "b"},
        {"text": "c"},
    ]
    assert flat({"role": "user", "content": parts}) == [
        {"role": "user", "content": [{"type": "input_text", **part} for part in translated]}
    ]
    assert flat({"role": "assistant", "content": parts}) == [
        {"role": "assistant", "content": [{"type": "output_text", **part} for part in translated]}
    ]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            {"type": "input_image", "image_url": "https://a/b.png", "detail": "low"},
        ),
        ({"type": "image_url", "image_url": {"url": "u"}}, {"type": "input_image", "image_url": "u"}),
        ({"type": "image_url", "image_url": "u"}, {"type": "input_image", "image_url": "u"}),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        ),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, {"type": "input_image", "image_url": "u"}),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:"}},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:"},
        ),
        ({"type": "input_audio", "input_audio": {"data": ""}}, {"type": "input_audio", "input_audio": {"data": ""}}),
        (
            {"type": "image_url", "image_url": "u", "detail": "high"},
            {"type": "input_image", "image_url": "u", "detail": "high"},
        ),
        ({"type": "input_image", "image_url": {"url": "u"}}, {"type": "input_image", "image_url": "u"}),
        ({"type": "input_image", "file_id": "f"}, {"type": "input_image", "file_id": "f"}),
        (
            {"type": "image", "source": {"type": "file", "file_id": "f"}, "cache_control": {"type": "ephemeral"}},
            {"type": "input_image", "file_id": "f", "cache_control": {"type": "ephemeral"}},
        ),
        (
            {"type": "file", "file": {"file_id": "f", "file_data": None}},
            {"type": "input_file", "file_id": "f"},
        ),
        (
            {
                "type": "document",
                "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"},
            },
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}},
            {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,AA"},
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "u"}},
            {"type": "input_file", "file_url": "u"},
        ),
        (
            {"type": "document", "source": {"type": "file", "file_id": "f"}},
            {"type": "input_file", "file_id": "f"},
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            {"type": "input_text", "text": "words"},
        ),
        (
            {"type": "document", "source": {"type": "content", "content": "words"}},
            {"type": "input_text", "text": "words"},
        ),
        (
            {"type": "search_result", "source": "u", "title": "t", "content": [{"type": "text", "text": "found"}]},
            {"type": "input_text", "text": "found"},
        ),
        (
            {"type": "text", "text": "a", "citations": [{"type": "char_location"}]},
            {"type": "input_text", "text": "a"},
        ),
        (
            {"type": "input_text", "text": "a", "citations": []},
            {"type": "input_text", "text": "a"},
        ),
    ],
)
def test_pictures_and_files_are_translated(part: dict[str, Any], expected: dict[str, Any]) -> None:
    assert flat({"role": "user", "content": [part]}) == [{"role": "user", "content": [expected]}]


@pytest.mark.parametrize("content", [None, "", "  \n", [], [{"type": "text", "text": " "}]])
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_blank_message_is_dropped(role: str, content: Any) -> None:
    assert flat({"role": role, "content": content}, {"role": "user", "content": "x"}) == [
        {"role": "user", "content": "x"}
    ]


def test_a_picture_without_text_is_not_blank() -> None:
    content = [{"type": "text", "text": ""}, {"type": "image_url", "image_url": "u"}]
    assert len(flat({"role": "user", "content": content})) == 1


def test_a_turn_with_tools_becomes_a_message_with_calls_and_outputs() -> None:
    assert flat(
        {"role": "assistant", "content": "Let me see.", "tool_calls": [chat_call("c1", "Read", '{"a":1}')]},
        {"role": "tool", "tool_call_id": "c1", "name": "Read", "content": "text"},
        {"role": "assistant", "content": None, "tool_calls": [chat_call("c2", "LS", None)]},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "a"}, "b"]},
        {"role": "assistant", "content": " ", "tool_calls": [chat_call("c3", "LS", {"x": [1]})]},
        {"role": "tool", "tool_call_id": "c3", "content": None},
    ) == [
        {"role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "Read", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c1", "output": "text"},
        {"type": "function_call", "call_id": "c2", "name": "LS", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "a\nb"},
        {"type": "function_call", "call_id": "c3", "name": "LS", "arguments": '{"x":[1]}'},
        {"type": "function_call_output", "call_id": "c3", "output": ""},
    ]  # fmt: skip


def test_arguments_that_are_not_json_are_kept_unchanged() -> None:
    (call,) = flat({"role": "assistant", "content": None, "tool_calls": [chat_call("c", "f", '{"a": ')]})
    assert call["arguments"] == '{"a": '


def test_a_tool_result_with_a_picture_keeps_its_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    (output,) = flat({"role": "tool", "tool_call_id": "c", "content": parts})
    assert output["output"] == [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "u"}]


def test_a_call_of_a_custom_tool_is_recognised_in_every_envelope() -> None:
    patch = "*** Begin Patch\n*** End Patch"
    expected = [
        {"type": "custom_tool_call", "call_id": "c", "name": "ApplyPatch", "input": patch},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "Done"},
    ]
    output = {"role": "tool", "tool_call_id": "c", "content": "Done"}
    in_function = {"role": "assistant", "content": None, "tool_calls": [chat_call("c", "ApplyPatch", patch)]}
    assert flat(in_function, output, custom=("ApplyPatch",)) == expected
    call = {"id": "c", "type": "custom", "custom": {"name": "ApplyPatch", "input": patch}}
    assert flat({"role": "assistant", "content": None, "tool_calls": [call]}, output) == expected
    assert flat(
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "ApplyPatch", "arguments": patch},
        {"type": "function_call_output", "call_id": "c", "output": "Done"},
        field="input",
        custom=("ApplyPatch",),
    ) == expected  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "raw"),
    [
        ('{"input": "*** Begin"}', "*** Begin"),
        ({"input": "*** Begin"}, "*** Begin"),
        ("{ not json", "{ not json"),
        ('{"input": 5}', '{"input": 5}'),
        ('{"input": "a", "more": 1}', '{"input": "a", "more": 1}'),
        ('{"patch": "a"}', '{"patch": "a"}'),
        ("{" * 5000, "{" * 5000),
        ("*** Begin", "*** Begin"),
    ],
)
def test_a_custom_call_is_unwrapped_from_the_arguments_of_other_upstreams(arguments: Any, raw: str) -> None:
    call = {"role": "assistant", "tool_calls": [chat_call("c", "ApplyPatch", arguments)]}
    assert flat(call, custom=("ApplyPatch",))[0]["input"] == raw
    block = {"type": "tool_use", "id": "c", "name": "ApplyPatch", "input": arguments}
    if isinstance(arguments, dict):
        assert flat({"role": "assistant", "content": [block]}, custom=("ApplyPatch",))[0]["input"] == raw


def test_legacy_function_calls_are_paired_by_their_order() -> None:
    assert flat(
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "2"},
    ) == [
        {"type": "function_call", "call_id": "call_legacy_1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_legacy_1", "output": "1"},
        {"type": "function_call", "call_id": "call_legacy_2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_legacy_2", "output": "2"},
    ]  # fmt: skip


def test_a_refusal_and_a_phase_are_kept() -> None:
    refusal = {"type": "refusal", "refusal": "I will not."}
    assert flat({"role": "assistant", "content": None, "refusal": "I will not."}) == [
        {"role": "assistant", "content": [refusal]}
    ]
    assert flat({"role": "assistant", "content": "Well.", "refusal": "I will not."}) == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Well."}, refusal]}
    ]
    assert flat({"role": "assistant", "content": "x", "phase": "commentary"}) == [
        {"role": "assistant", "content": "x", "phase": "commentary"}
    ]


# Anthropic's blocks


def test_tool_blocks_become_items_and_results_come_before_the_text_beside_them() -> None:
    assert flat(
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Listing."},
                {"type": "tool_use", "id": "t1", "name": "LS", "input": {"dir": "."}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "go on"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a.py"}]},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t2", "name": "LS", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": "b.py"}]},
    ) == [
        {
            "type": "reasoning",
            "summary": [],
            "anthropic_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "Listing."}]},
        {"type": "function_call", "call_id": "t1", "name": "LS", "arguments": '{"dir":"."}'},
        {"type": "function_call_output", "call_id": "t1", "output": "a.py"},
        {"role": "user", "content": [{"type": "input_text", "text": "go on"}]},
        {"type": "function_call", "call_id": "t2", "name": "LS", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "t2", "output": "b.py"},
    ]  # fmt: skip


def test_thinking_after_text_keeps_its_place() -> None:
    thoughts = [{"type": "thinking", "thinking": "", "signature": f"s{n}"} for n in range(3)]
    texts = [{"type": "text", "text": name} for name in "ab"]
    call: dict[str, Any] = {"type": "tool_use", "id": "t1", "name": "LS", "input": {}}
    items = [{"type": "reasoning", "summary": [], "anthropic_blocks": [block]} for block in thoughts]
    said = [{"role": "assistant", "content": [{"type": "output_text", "text": name}]} for name in "ab"]
    content = [thoughts[0], texts[0], thoughts[1], texts[1], thoughts[2], call]
    assert flat({"role": "assistant", "content": content, "reasoning_content": "not again"}) == [
        *(items[0], said[0], items[1], said[1], items[2]),
        {"type": "function_call", "call_id": "t1", "name": "LS", "arguments": "{}"},
    ]


CACHE = {"cache_control": {"type": "ephemeral"}}


def test_fields_that_only_anthropic_accepts_are_kept_for_it() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True, **CACHE}
    text = [{"type": "text", "text": "a", **CACHE}, {"type": "text", "text": "b"}]
    assert flat(
        {"role": "system", "content": "s", **CACHE},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "LS", "input": {}, **CACHE}]},
        {"role": "user", "content": [result]},
        {"role": "tool", "tool_call_id": "t2", "content": text, "is_error": False},
        {"role": "tool", "tool_call_id": "t3", "content": "x", **CACHE},
    ) == [
        {"role": "system", "content": "s", **CACHE},
        {"type": "function_call", "call_id": "t1", "name": "LS", "arguments": "{}", **CACHE},
        {"type": "function_call_output", "call_id": "t1", "output": "no", "is_error": True, **CACHE},
        {"type": "function_call_output", "call_id": "t2", "output": "a\nb", **CACHE},
        {"type": "function_call_output", "call_id": "t3", "output": "x", **CACHE},
    ]  # fmt: skip


def test_a_result_with_a_picture_keeps_its_parts() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    content = [{"type": "text", "text": "a"}, {"type": "image", "source": source}]
    (output,) = flat({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": content}]})
    assert output["output"] == [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]


def test_calls_that_anthropic_executed_itself_are_left_out() -> None:
    content = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found it."},
    ]
    assert flat({"role": "assistant", "content": content}) == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "Found it."}]}
    ]
    assert flat({"role": "assistant", "content": content[:2]}) == []


def reasoning(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    ("message", "thought"),
    [
        ({"content": "a", "reasoning_content": "hm"}, [reasoning("hm")]),
        ({"content": "a", "reasoning": "hm"}, [reasoning("hm")]),
        ({"content": "a", "reasoning_details": [{}]},
         [{"type": "reasoning", "summary": [], "reasoning_details": [{}]}]),
        ({"content": "a", "reasoning_content": ""}, []),
        ({"content": "a", "reasoning_content": 5}, []),
        ({"content": [*[{"type": "thinking", "thinking": text} for text in "xy"], "a"]}, [reasoning("x\n\ny")]),
        ({"content": [{"type": "thinking", "thinking": [{}], "signature": ""}, "a"]}, []),
        ({"content": [{"type": "redacted_thinking"}, "a"]}, []),
        (
            {"content": [{"type": "redacted_thinking", "data": "x"}, "a"]},
            [{"type": "reasoning", "summary": [], "anthropic_blocks": [{"type": "redacted_thinking", "data": "x"}]}],
        ),
    ],
)  # fmt: skip
def test_reasoning_that_a_client_sends_back_comes_before_its_result(
    field: Literal["input", "messages"], message: dict[str, Any], thought: list[Any]
) -> None:
    *before, message_item = flat({"role": "assistant", **message}, field=field)
    assert before == thought
    assert message_item in (
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    )


SHOWN = "<think>\nhm\n</think>\n\n"


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    ("content", "left"),
    [
        (f"{SHOWN}a", "a"),
        (SHOWN, None),
        ([f"{SHOWN}a"], [{"type": "output_text", "text": "a"}]),
        ([{"text": f"{SHOWN}a"}], [{"type": "output_text", "text": "a"}]),
        ([{"type": "from_the_future"}, SHOWN], [{"type": "from_the_future"}, {"type": "output_text", "text": SHOWN}]),
        ([{"type": "text", "text": f"{SHOWN}a"}, "b"], [{"type": "output_text", "text": one} for one in "ab"]),
        ([{"type": "output_text", "text": SHOWN}, SHOWN, "b"], [{"type": "output_text", "text": "b"}]),
        ([{"type": "output_text", "text": SHOWN}], None),
        (["b", SHOWN], [{"type": "output_text", "text": one} for one in ("b", SHOWN)]),
    ],
)
def test_shown_reasoning_is_stripped_from_the_assistants_text(
    field: Literal["input", "messages"], content: Any, left: Any
) -> None:
    items = flat({"role": "assistant", "content": content}, {"role": "user", "content": "x"}, field=field)
    assert items[:-1] == ([] if left is None else [{"role": "assistant", "content": left}])


def test_reasoning_that_a_user_quotes_is_not_stripped() -> None:
    assert flat({"role": "user", "content": f"{SHOWN}a"}) == [{"role": "user", "content": f"{SHOWN}a"}]


def test_a_text_document_in_an_assistants_message_becomes_text() -> None:
    part = {"type": "document", "source": {"type": "text", "data": "words"}}
    assert flat({"role": "assistant", "content": [part]}) == [
        {"role": "assistant", "content": [{"type": "output_text", "text": "words"}]}
    ]


def test_an_empty_list_of_parts_is_dropped() -> None:
    assert flat({"role": "assistant", "content": []}, field="input") == []


# Items of the Responses API


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": " "},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi", "unknown": 1}], "id": "m"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}], "phase": "p"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "u"}, {"type": "from_the_future"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "P", "input": ""},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"},
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "computer_call", "call_id": "c", "action": {}},
        {"type": "from_the_future", "call_id": 5},
    ],
)
def test_an_item_in_responses_form_is_kept_as_the_same_object(item: dict[str, Any]) -> None:
    (passed,) = flat(item, field="input")
    assert passed is item


@pytest.mark.parametrize("message", [{"role": "user", "content": "hi"}, {"id": "msg_1"}])
def test_a_type_that_is_null_is_left_out(message: dict[str, Any]) -> None:
    assert flat({"type": None, **message}, field="input") == [message]


def test_chat_fields_in_an_item_are_translated_and_the_rest_of_the_item_is_kept() -> None:
    assert flat(
        {"role": "user", "content": [{"type": "text", "text": "a"}], "id": "m1", "name": "bob"},
        {"role": "assistant", "content": [{"type": "input_text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [chat_call("c", "f", "{}")]},
        {"role": "tool", "tool_call_id": "c", "content": "r"},
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        field="input",
    ) == [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}], "id": "m1"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ]  # fmt: skip


@pytest.mark.parametrize("item_id", ["call_1", "", 5])
def test_an_item_id_that_is_invalid_for_a_function_call_is_dropped(item_id: Any) -> None:
    item = {"type": "function_call", "id": item_id, "call_id": "c", "name": "f", "arguments": "{}", "extra": 1}
    assert flat(item, field="input") == [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "extra": 1}
    ]


def test_long_call_ids_are_shortened_the_same_in_every_kind_of_item() -> None:
    items = flat(
        {"type": "function_call", "call_id": LONG, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": LONG, "output": ""},
        {"type": "custom_tool_call", "call_id": LONG, "name": "P", "input": ""},
        {"type": "custom_tool_call_output", "call_id": LONG, "output": ""},
        {"type": "shell_call", "call_id": LONG, "action": {}},
        {"role": "assistant", "content": None, "tool_calls": [chat_call(LONG, "f", "{}")]},
        {"role": "tool", "tool_call_id": LONG, "content": ""},
        field="input",
    )
    assert [item["call_id"] for item in items] == [short_call_id(LONG)] * 7
    assert items[4]["action"] == {}


# What is mended


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    "damaged",
    [
        None,
        " ",
        {"role": "assistant", "tool_calls": [5, {"id": "c"}, {"id": "c", "function": {}}]},
        {"role": "assistant", "tool_calls": 5},
        {"role": "assistant", "tool_calls": [{"id": "c", "custom": {"input": "x"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c"}]},
        {"role": "assistant", "function_call": 5},
        {"role": "assistant", "content": None},
        {"type": "function_call", "call_id": "c", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c", "input": "x"},
        {"role": "user", "content": [{"type": "image_url"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": None}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": None}]},
        {"role": "user", "content": [{"type": "image", "source": {}}]},
        {"role": "user", "content": [{"type": "image", "source": None}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": ""}}]},
        {"role": "user", "content": [{"type": "file"}]},
        {"role": "user", "content": [{"type": "text", "text": None}, None, {}]},
    ],
)
def test_what_holds_nothing_is_left_out(damaged: Any, field: Literal["input", "messages"]) -> None:
    items, words = mended(said("hi"), damaged, field=field)
    assert (items, words) == ([said("hi")], {"empty_part"})


def test_an_image_with_an_id_keeps_it_without_its_empty_url() -> None:
    part = {"type": "input_image", "file_id": "f", "image_url": None}
    assert flat({"role": "user", "content": [part]}, field="input") == [
        {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}
    ]


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    ("damaged", "whole"),
    [
        ("hi", said("hi")),
        ({"role": " User", "content": "hi"}, said("hi")),
        ({"role": "human", "content": "hi"}, said("hi")),
        ({"role": "model", "content": "hi"}, {"role": "assistant", "content": "hi"}),
        ({"type": "input_text", "text": "hi"}, {"role": "user", "content": [{"type": "input_text", "text": "hi"}]}),
        (
            {"role": "assistant", "tool_calls": [chat_call("c", "f", [1])]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"},
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "P", "input": {"input": "raw"}},
            {"type": "custom_tool_call", "call_id": "c", "name": "P", "input": "raw"},
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "custom": {"name": "P"}}]},
            {"type": "custom_tool_call", "call_id": "c", "name": "P", "input": ""},
        ),
    ],
)
def test_an_odd_value_is_read_as_what_it_stands_for(
    damaged: Any, whole: dict[str, Any], field: Literal["input", "messages"]
) -> None:
    assert mended(damaged, field=field) == ([whole], {"odd_value"})


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, ""),
        (5, "5"),
        (True, "true"),
        ({"ok": 1}, '{"ok":1}'),
        ([{"type": "file", "name": "a.py"}], '[{"type":"file","name":"a.py"}]'),
        ([1, 2], "[1,2]"),
        ([{"type": "input_text", "text": 5}], '[{"type":"input_text","text":5}]'),
        ([{"text": 5}], '[{"text":5}]'),
    ],
)
def test_an_output_that_is_not_content_becomes_json_text(output: Any, text: str) -> None:
    whole = {"type": "function_call_output", "call_id": "c", "output": text}
    given = {"type": "function_call_output", "call_id": "c", "output": output}
    assert mended(given, field="input") == ([whole], {"odd_value"})
    assert mended({"role": "tool", "tool_call_id": "c", "content": output}) == ([whole], {"odd_value"})


def test_an_output_that_is_one_part_is_its_text() -> None:
    part = {"type": "text", "text": "a"}
    given = {"type": "function_call_output", "call_id": "c", "output": part}
    assert flat({"role": "tool", "tool_call_id": "c", "content": [part, None, "b"]})[0]["output"] == "a\nb"
    assert flat({"role": "tool", "tool_call_id": "c", "content": part})[0]["output"] == "a"
    assert flat(given, field="input")[0]["output"] == [{"type": "input_text", "text": "a"}]


@pytest.mark.parametrize("call_id", [None, "", "  ", 5])
def test_calls_without_an_id_are_numbered_and_their_outputs_wait_for_their_call(call_id: Any) -> None:
    items, words = mended(
        {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"},
        {"role": "assistant", "tool_calls": [chat_call(call_id, "g", "{}")]},
        {"type": "custom_tool_call", "call_id": call_id, "name": "P", "input": ""},
        {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": "h", "input": {}}]},
        {"type": "function_call_output", "call_id": call_id, "output": "1"},
        {"role": "tool", "tool_call_id": call_id, "content": "2"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "3"}]},
        {"role": "function", "name": "f", "content": "4"},
        field="input",
    )
    assert [item["call_id"] for item in items] == [*map(unnamed_call_id, range(1, 5)), *[UNKNOWN] * 4]
    assert words == {"missing_call_id"}


def test_names_that_an_upstream_refuses_are_replaced_everywhere() -> None:
    names, dotted, long = ToolNames(), "fs.read", "m" * 65
    history = History(frozenset({names.legal(dotted)}), "input", names, set())
    elements: list[dict[str, Any]] = [
        {"type": "function_call", "call_id": "1", "name": long, "arguments": "{}", "namespace": "a.b"},
        {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}", "namespace": "ab"},
        {"type": "custom_tool_call", "call_id": "3", "name": dotted, "input": "x"},
        {"role": "assistant", "tool_calls": [chat_call("4", dotted, "raw")]},
    ]
    for element in elements:
        history.add(element, "input[0]")
    first, second, *customs = history.items
    assert (first["name"], first["namespace"]) == (legal_tool_name(long), legal_tool_name("a.b"))
    assert second is elements[1]
    assert [(item["type"], item["name"]) for item in customs] == [("custom_tool_call", legal_tool_name(dotted))] * 2
    assert names.clients == {legal_tool_name(name): name for name in (dotted, long, "a.b")}
    assert all(len(name) <= 64 and "." not in name for name in names.clients)


NOTE = failure_note("upstream_error", "It broke.\n\nReally.")
TOO_LONG = failure_note("context_length_exceeded", "This model's maximum context length is 9 tokens.\n\nToo long.")
ONLY_TOO_LONG = failure_note("context_length_exceeded", "Too long.", is_first=True)


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    ("content", "left"),
    [
        ("Let me" + NOTE, "Let me"),
        (NOTE, None),
        (NOTE.strip(), None),
        ("Let me" + TOO_LONG, "Let me"),
        ("Let\n\nme" + TOO_LONG, "Let\n\nme"),
        (ONLY_TOO_LONG, None),
        ("Let me" + NOTE + "\n", "Let me"),
        ([{"type": "output_text", "text": "a" + NOTE}], [{"type": "output_text", "text": "a"}]),
        (
            [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": NOTE}],
            [{"type": "output_text", "text": "a"}],
        ),
        ([{"type": "output_text", "text": NOTE}], None),
        ("[no answer: the upstream's answer is empty; try again]", None),
        ("\n\n [no answer: the model refused to answer (cyber): It [sic] is\n\nan attack.]\n", None),
    ],
)
def test_our_own_error_text_is_removed_from_the_assistants_message(
    content: Any, left: Any, field: Literal["input", "messages"]
) -> None:
    items, words = mended(said("hi"), {"role": "assistant", "content": content}, field=field)
    assert items[1:] == ([] if left is None else [{"role": "assistant", "content": left}])
    assert "own_error_text" in words


@pytest.mark.parametrize(
    "content",
    [
        *["It says [upstream error: x: y]", "See [1]", "It says [no answer: x]", "[no answer: x] is what it says"],
        [{"type": "output_text", "text": "It says:"}, {"type": "output_text", "text": "[no answer: x]"}],
        *[f"A{NOTE}\n\nAnd more.", [{"type": "refusal", "refusal": ""}]],
    ],
)
def test_other_text_in_brackets_stays(content: Any) -> None:
    assert mended({"role": "assistant", "content": content}, field="input") == (
        [{"role": "assistant", "content": content}],
        set(),
    )
    assert flat({"role": "user", "content": f"Why {NOTE}"}) == [said(f"Why {NOTE}")]


def test_our_sentence_for_an_empty_answer_is_removed_after_blank_parts() -> None:
    content = [{"type": "output_text", "text": " "}, {"type": "output_text", "text": "[no answer: x]"}]
    assert mended({"role": "assistant", "content": content}) == ([], {"empty_part", "own_error_text"})


# Content of a wrong type

JPEG = {"data": "/9j/AA=="}


@pytest.mark.parametrize("field", ["messages", "input"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (said("x")["content"], "x"),
        ({"type": "text", "text": "x"}, [{"type": "input_text", "text": "x"}]),
        (5, "5"),
        (True, "true"),
        ([5], [{"type": "input_text", "text": "5"}]),
        ([["x"]], [{"type": "input_text", "text": '["x"]'}]),
        ([{"type": "text", "text": 5}], [{"type": "input_text", "text": "5"}]),
        ([{"type": "input_text", "text": {"a": 1}}], [{"type": "input_text", "text": '{"a":1}'}]),
        ([{"type": 5, "text": "x"}], [{"type": "input_text", "text": "x"}]),
        ([{"image_url": {"url": "u"}}], [{"type": "input_image", "image_url": "u"}]),
        ([{"source": {"url": "u"}}], [{"type": "input_image", "image_url": "u"}]),
        ([{"file": {"file_id": "f"}}], [{"type": "input_file", "file_id": "f"}]),
        ([{"size": 1}], [{"type": "input_text", "text": '{"size":1}'}]),
        ({"type": "document", "source": {"type": "content", "content": 5}}, [{"type": "input_text", "text": "5"}]),
    ],
)
def test_content_of_a_wrong_type_is_read_as_what_it_stands_for(
    content: Any, parts: Any, field: Literal["input", "messages"]
) -> None:
    items, words = mended({"role": "user", "content": content}, field=field)
    assert items == [{"role": "user", "content": parts}]
    assert words == (set() if content == parts else {"odd_value"})


@pytest.mark.parametrize(
    ("source", "start"),
    [
        (JPEG, "data:image/jpeg;base64,/9j/"),
        ({**JPEG, "type": "base64", "media_type": 5}, "data:image/jpeg;base64,/9j/"),
        ({"data": "AA=="}, "data:image/png;base64,AA"),
    ],
)
def test_an_image_without_a_media_type_has_that_of_its_first_bytes(source: Any, start: str) -> None:
    ((part,),) = (item["content"] for item in flat({"role": "user", "content": [{"type": "image", "source": source}]}))
    assert part["image_url"].startswith(start)


def test_a_document_without_a_media_type_is_a_pdf() -> None:
    ((part,),) = (item["content"] for item in flat({"role": "user", "content": [{"type": "document", "source": JPEG}]}))
    assert part == {
        "type": "input_file",
        "filename": "document.pdf",
        "file_data": "data:application/pdf;base64,/9j/AA==",
    }


NO_DATA = "data:image/png;base64,"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": NO_DATA}},
        {"type": "image_url", "image_url": f"{NO_DATA} "},
        {"type": "input_image", "image_url": NO_DATA},
        {"type": "input_image", "image_url": "DATA:,"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": 5}},
        {"type": "document", "source": {"type": "url", "url": 5}},
        {"type": "image", "source": None},
        {"type": "document", "source": "x"},
        {"type": "image_url", "image_url": 5},
    ],
)
def test_an_image_without_data_is_left_out(part: Any) -> None:
    assert mended({"role": "user", "content": ["see", part]}, field="input") == (
        [{"role": "user", "content": [{"type": "input_text", "text": "see"}]}],
        {"empty_part"},
    )


def test_a_message_of_one_block_is_that_block() -> None:
    call = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
    items, words = mended({"role": "assistant", "content": call}, {"role": "user", "content": result})
    assert [item["type"] for item in items] == ["function_call", "function_call_output"]
    assert words == {"odd_value"}
    (refused,) = flat({"role": "assistant", "content": 5, "refusal": "no"})
    assert [part["type"] for part in refused["content"]] == ["output_text", "refusal"]


def test_a_role_on_an_output_does_not_make_a_message_of_it() -> None:
    call = {"type": "custom_tool_call", "call_id": "p", "name": "P", "input": "x"}
    output = {"type": "custom_tool_call_output", "call_id": "p", "output": "ok"}
    assert mended(call, {**output, "role": "user"}, field="input") == ([call, output], {"odd_value"})


def test_a_role_on_a_reference_does_not_make_a_message_of_it() -> None:
    reference = {"type": "item_reference", "id": "msg_1"}
    assert mended({**reference, "role": "user"}, field="input") == ([reference], {"odd_value"})


# Refusals


@pytest.mark.parametrize(
    ("element", "param"),
    [
        (5, "messages[0]"),
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
    ],
)
def test_a_message_whose_meaning_is_unclear_is_refused_with_its_field(element: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        flat(element)
    assert caught.value.param == param
