from typing import Any

from steer import Options, make_steer

from pipeline.testing import check_stage
from stages.request import ResponsesRequest

ROUTES = {"@deep": "gpt-5", "haiku": "claude-haiku"}


def asked(conversation: Any, **body: Any) -> ResponsesRequest:
    return ResponsesRequest(
        requested_model="fast", stream=True, include_usage=False, body={"input": conversation, **body}
    )


def steered(request: ResponsesRequest, options: Options) -> ResponsesRequest:
    [given] = check_stage(make_steer(options), request)
    return given


def test_a_word_of_the_user_chooses_the_model_and_the_client_sees_its_own() -> None:
    given = steered(asked("Think @deep, please"), Options(routes=ROUTES))
    assert (given.requested_model, given.target_model) == ("fast", "gpt-5")


def test_only_whole_words_of_the_last_user_text_count() -> None:
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "Write a haiku"},
        {"role": "assistant", "content": "haiku"},
        {"role": "user", "content": [{"type": "input_image"}, {"type": "input_text", "text": "And now a @deeper one"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "@deep"},
    ]
    assert steered(asked(conversation), Options(routes=ROUTES)).target_model is None
    conversation[2]["content"] = "A Haiku!"
    assert steered(asked(conversation), Options(routes=ROUTES)).target_model == "claude-haiku"


def test_the_instructions_come_after_those_of_the_client() -> None:
    options = Options(instructions="Answer in French.")
    assert steered(asked("hi"), options).body == {"input": "hi", "instructions": "Answer in French."}
    given = steered(asked("hi", instructions="Be brief."), options)
    assert given.body["instructions"] == "Be brief.\n\nAnswer in French."


def test_without_instructions_the_body_is_passed_on_as_it_is() -> None:
    request = asked([{"role": "user", "content": "hi"}])
    assert steered(request, Options(routes=ROUTES)).body is request.body
