"""Fields that choose another model or name something stored are sent only where the operator wants it."""

from __future__ import annotations

from typing import Any

import pytest

from stages.request import ResponsesRequest
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.forwarding import FORWARDABLE, only_forwarded, only_own

HI = {"role": "user", "content": "hi"}
LOST = {"type": "function_call_output", "call_id": "a", "output": "r"}


def request(**body: Any) -> ResponsesRequest:
    return ResponsesRequest(requested_model="m", stream=True, include_usage=False, body={"input": [HI], **body})


def test_a_request_without_such_fields_is_returned_itself() -> None:
    plain = request(temperature=1)
    assert only_forwarded(plain, frozenset()) is plain
    assert plain.mended == set()


def test_a_request_whose_fields_are_all_allowed_is_returned_itself() -> None:
    allowed = request(models=["a"], conversation="c")
    assert only_forwarded(allowed, FORWARDABLE) is allowed
    assert allowed.mended == set()


def test_other_fields_are_left_out() -> None:
    given = request(models=["a"], provider={}, temperature=1)
    assert only_forwarded(given, frozenset({"provider"})).body == {"input": [HI], "provider": {}, "temperature": 1}
    assert given.mended == {"unforwarded_field"}
    assert "models" in given.body


def test_outputs_of_stored_calls_are_left_out_with_the_reference_to_their_conversation() -> None:
    given = request(input=[LOST, HI], previous_response_id="resp_1")
    assert only_forwarded(given, frozenset()).body == {"input": [HI]}
    assert given.mended == {"unforwarded_field", "unpaired_call"}
    whole = request(input="hi", previous_response_id="resp_1")
    assert only_forwarded(whole, frozenset()).body == {"input": "hi"}
    paired = request(conversation="conv_1")
    assert only_forwarded(paired, frozenset()).body["input"] is paired.body["input"]
    stored = request(input=[LOST, {"type": "item_reference", "id": "fc_1"}], conversation="conv_1")
    assert only_forwarded(stored, frozenset()).body["input"] == stored.body["input"]


def test_nothing_but_a_reference_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        only_forwarded(request(input=[LOST], conversation="conv_1"), frozenset())
    assert caught.value.param == "input"


REFERENCE = {"type": "item_reference", "id": "msg_other"}
SEARCH = {"type": "file_search", "vector_store_ids": ["vs_other"]}
PAINT = {"type": "image_generation", "model": "gpt-image-large", "size": "auto"}
READ = {"type": "function", "name": "Read", "model": "x", "parameters": {}}


def test_a_limited_key_names_nothing_stored_and_no_other_model_within_items_and_tools() -> None:
    late = {"type": "additional_tools", "tools": [PAINT, READ]}
    given = request(
        input=[REFERENCE, LOST, late, {**late, "tools": [SEARCH]}, HI],
        tools=[SEARCH, PAINT, READ],
        tool_choice={"type": "file_search"},
    )
    plain = {"type": "image_generation", "size": "auto"}
    assert only_own(given, frozenset()).body == {
        "input": [{**late, "tools": [plain, READ]}, HI],
        "tools": [plain, READ],
    }
    assert given.mended == {"unforwarded_field", "unpaired_call"}


def test_a_limited_key_may_name_what_is_stored_where_that_is_forwarded() -> None:
    given = request(input=[REFERENCE, HI], tools=[SEARCH, {"type": "image_generation"}], tool_choice="auto")
    assert only_own(given, frozenset({"conversation"})) is given
    assert only_own(request(input="hi"), frozenset()).mended == set()


def test_a_request_whose_only_tool_is_left_out_has_none() -> None:
    given = request(input="hi", tools=[SEARCH], tool_choice="auto", parallel_tool_calls=False)
    assert only_own(given, frozenset()).body == {"input": "hi"}
    kept = request(tools=[SEARCH, READ], tool_choice="auto")
    assert only_own(kept, frozenset()).body == {"input": [HI], "tools": [READ], "tool_choice": "auto"}


def test_a_limited_key_with_nothing_but_references_is_refused() -> None:
    with pytest.raises(BadRequest):
        only_own(request(input=[REFERENCE]), frozenset())
