"""The doubles themselves: each rule has a body that it refuses and one that it accepts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pytest
from kit.vendors.claude import BINDING_BETA, Claude5, Claude45, Claude52, Claude55
from kit.vendors.deepseek import DeepSeek
from kit.vendors.double import ACCOUNT, Answer, Double, Issued, Json, Made, Part
from kit.vendors.gemini import Gemini
from kit.vendors.openai_chat import Gpt5Chat, Gpt6, Gpt6Chat
from kit.vendors.openai_responses import Gpt5Responses, Gpt6Responses, Gpt62Responses
from kit.vendors.openrouter import OpenRouter, details_key
from kit.vendors.vendors import GPT_6_CHAT, VENDORS
from kit.vendors.vllm import Vllm

MODEL: Final = "model-1"
THOUGHT: Final = "I must look."
IMAGE: Final = "data:image/png;base64,AAAA"
SCHEMA: Final[Json] = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
DETAILS: Final = [{"type": "reasoning.text", "text": THOUGHT, "index": 0}]

RESPONSES: Final[Json] = {
    "model": MODEL,
    "stream": True,
    "input": [
        {"role": "system", "content": "You help."},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": IMAGE}],
        },
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "token"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "Read", "arguments": "{}"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "Patch", "input": "x"},
        {"type": "function_call_output", "call_id": "call_1", "output": "text"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "Done"}]},
        {"role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "So."}]},
        {"role": "user", "content": "go on"},
    ],
    "tools": [
        {"type": "function", "name": "Read", "parameters": SCHEMA},
        {"type": "custom", "name": "Patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start:"}},
    ],
    "tool_choice": "auto",
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "low", "summary": "auto"},
    "stream_options": {"include_obfuscation": False},
    "max_output_tokens": 16,
    "metadata": {"a": "b"},
}

CHAT: Final[Json] = {
    "model": MODEL,
    "stream": True,
    "messages": [
        {"role": "system", "content": "You help."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "Read", "arguments": "{}"}},
                {"id": "call_2", "type": "function", "function": {"name": "Read", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "text"},
        {"role": "tool", "tool_call_id": "call_2", "content": "text"},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "go on"},
    ],
    "tools": [{"type": "function", "function": {"name": "Read", "parameters": SCHEMA}}],
    "tool_choice": "auto",
    "stream_options": {"include_usage": True},
}

MESSAGES: Final[Json] = {
    "model": MODEL,
    "max_tokens": 4096,
    "stream": True,
    "system": [{"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": THOUGHT, "signature": "token"},
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "text"}]},
    ],
    "tools": [{"name": "Read", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "low"},
}

HEADERS: Final = {"anthropic-version": "2023-06-01", "x-api-key": "sk-1", "authorization": "Bearer sk-1"}
Change = Callable[[Json], Any]


def good_body(kind: type[Double]) -> Json:
    """Return a body that every rule of a double accepts."""
    if issubclass(kind, Gpt5Responses):
        return copy.deepcopy(RESPONSES)
    if issubclass(kind, Claude45):
        body = copy.deepcopy(MESSAGES)
        if not issubclass(kind, Claude5):
            body["thinking"] = {"type": "enabled", "budget_tokens": 1024}
            del body["output_config"]
        return body
    body = copy.deepcopy(CHAT)
    message = body["messages"][2]
    if kind is Gpt6Chat:
        del body["tools"], body["tool_choice"]
    elif kind is Gemini:
        message["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "token"}}
    elif kind is DeepSeek:
        message["reasoning_content"] = THOUGHT
    elif kind is OpenRouter:
        message["reasoning_details"] = copy.deepcopy(DETAILS)
    return body


def double_of(kind: type[Double], **settings: Any) -> Double:
    """Return a double that has already answered the turn that `good_body` replays."""
    double = kind((MODEL,), **settings)
    double.made.append(Made(0, MODEL, [Part("thought", THOUGHT), Part("call", "{}", "call_1", "Read")], ["token"]))
    bound_to: Any = None
    body = good_body(kind)
    if isinstance(double, Claude45):
        double.issued["token"] = Issued(0, ACCOUNT, MODEL, {}, is_sent=True)
        bound_to = {"start": double._starts(body)[1], "before": [], "text": THOUGHT}
    elif isinstance(double, Gpt5Responses):
        bound_to = double._places(body)[2]
    elif kind is DeepSeek:
        bound_to = THOUGHT
    elif kind is OpenRouter:
        bound_to = details_key(DETAILS)
    double.issued["token"] = Issued(0, ACCOUNT, MODEL, bound_to, is_sent=True)
    return double


def post(double: Double, body: Json, *, path: str | None = None, **headers: str) -> Answer:
    given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return double("POST", path or double.PATH, given, json.dumps(body).encode())


def put(**fields: Any) -> Change:
    return lambda body: body.update(fields)


def item(number: int, **fields: Any) -> Change:
    return lambda body: body["input"][number].update(fields)


def message(number: int, **fields: Any) -> Change:
    return lambda body: body["messages"][number].update(fields)


def block(number: int, place: int, **fields: Any) -> Change:
    return lambda body: body["messages"][number]["content"][place].update(fields)


def call(**fields: Any) -> Change:
    return lambda body: body["messages"][2]["tool_calls"][0].update(fields)


def named(name: str) -> Change:
    return lambda body: (body["tools"][0].get("function") or body["tools"][0]).update(name=name)


def without(*path: Any) -> Change:
    def change(body: Any) -> None:
        for step in path[:-1]:
            body = body[step]
        del body[path[-1]]

    return change


def schema(body: Json) -> None:
    (body["tools"][0].get("function") or body["tools"][0])["parameters"] = {}


def many_marks(body: Json) -> None:
    for place in range(4):
        body["messages"][0]["content"].append(
            {"type": "text", "text": f"{place}", "cache_control": {"type": "ephemeral"}}
        )


def no_thinking_first(body: Json) -> None:
    del body["messages"][1]["content"][0]


def prefill(body: Json) -> None:
    body["messages"].append({"role": "assistant", "content": "So"})


def two_results(body: Json) -> None:
    body["messages"][2]["content"] *= 2


def same_calls(body: Json) -> None:
    body["messages"][1]["content"] *= 2


class Case(NamedTuple):
    """A rule, and changes of a good body that it refuses; ``accepted`` are some that come close."""

    rule: str
    refused: Sequence[Change]
    accepted: Sequence[Change] = ()


nothing: Final[Change] = lambda body: None  # noqa: E731

SHARED_RESPONSES: Final = [
    Case("path", []),
    Case("parameters are known", [put(messages=[])], [put(truncation="auto")]),
    Case("stream_options has no include_usage", [put(stream_options={"include_usage": True})]),
    Case("model exists", [put(model="other")]),
    Case("at least 16 output tokens", [put(max_output_tokens=15)]),
    Case("metadata is short", [put(metadata={"a": 1}), put(metadata={"a": "x" * 513})]),
    Case("include is known", [put(include=["x"])]),
    Case("tool_choice only with tools", [without("tools")]),
    Case("tools are flat", [schema, put(tools=[{"type": "function", "function": {"name": "f"}}])]),
    Case("input is a list", [put(input="hi"), put(input=[])]),
    Case("names have 64 characters", [named("x" * 65), named("a.b"), item(3, name="a b")], [named("x" * 64)]),
    Case("items are known", [item(3, index=0), item(3, type="tool_call"), item(3, arguments={})]),
    Case("item ids have their prefix", [item(3, id="call_1"), item(4, id="fc_1")], [without("input", 3, "id")]),
    Case(
        "parts are known",
        [
            item(0, content=None),
            item(0, role="tool"),
            item(1, content=[{"type": "text", "text": "x"}]),
            item(1, content=[{"type": "input_image", "image_url": {"url": "x"}}]),
            item(7, content=[{"type": "input_text", "text": "x"}]),
        ],
        [item(1, content=[{"type": "input_image", "image_url": "x", "detail": "original"}])],
    ),
    Case("call ids have 64 characters", [item(3, call_id="x" * 65), without("input", 3, "call_id")]),
    Case("a call id occurs once", [item(4, call_id="call_1")]),
    Case("an output has its call", [without("input", 3), item(6, call_id="call_1"), item(5, call_id="call_2")]),
    Case("a call has its output", [without("input", 5)]),
    Case(
        "nothing is stored",
        [
            put(previous_response_id="resp_1"),
            without("input", 2, "encrypted_content"),
            lambda body: body["input"].append({"type": "item_reference", "id": "rs_9"}),
        ],
    ),
    Case("reasoning is this account's", [item(2, encrypted_content="made up"), without("input", 2, "summary")]),
    Case("reasoning leads to its item", [lambda body: body["input"].insert(2, body["input"].pop(1))]),
]

SHARED_CHAT: Final = [
    Case("path", []),
    Case("messages are there", [put(messages=[])]),
    Case("parameters are known", [put(input=[])]),
    Case("model exists", [put(model="other")]),
    Case("tools are nested", [schema, put(tools=[{"type": "function", "name": "f", "parameters": SCHEMA}])]),
    Case("tool_choice only with tools", [lambda body: (body.pop("tools", None), body.update(tool_choice="auto"))]),
    Case(
        "message fields are known",
        [message(0, x=1), message(0, role="function"), call(index=0), message(5, tool_calls=[])],
    ),
    Case("names have 64 characters", [call(function={"name": "a.b", "arguments": "{}"})]),
    Case(
        "parts are known",
        [
            message(5, content=None),
            message(1, content=[{"type": "input_text", "text": "x"}]),
            message(1, content=[{"type": "image_url", "image_url": {"url": "x", "detail": "original"}}]),
            message(1, content=[{"type": "image_url", "image_url": None}]),
        ],
    ),
    Case("call ids have 64 characters", [call(id="x" * 65), call(id=""), without("messages", 3, "tool_call_id")]),
    Case("outputs follow their calls", [without("messages", 3), without("messages", 2), call(id="call_2")]),
]
ARGUMENTS: Final = Case(
    "arguments are an object",
    [
        call(function={"name": "Read", "arguments": '{"a'}),
        call(function={"name": "Read", "arguments": '"a"'}),
        call(function={"name": "Read", "arguments": ""}),
    ],
)

SHARED_CLAUDE: Final = [
    Case("path", []),
    Case("version and key", []),
    Case("parameters are known", [put(reasoning={}), put(speed="fast")]),
    Case("model exists", [put(model="other")]),
    Case("max_tokens is there", [without("max_tokens"), put(max_tokens=0)]),
    Case("roles alternate", [without("messages", 0), put(messages=[]), message(2, content=[])]),
    Case(
        "blocks are known",
        [
            block(1, 1, input="{}"),
            block(1, 1, index=0),
            block(0, 0, type="input_text"),
            block(0, 0, type="image", source={"type": "data"}),
            block(1, 0, cache_control={"type": "ephemeral"}),
        ],
    ),
    Case(
        "texts are not empty",
        [block(0, 0, text=""), block(0, 0, text=" \n"), put(system=[{"type": "text", "text": ""}])],
    ),
    Case("ids are legal and unique", [block(1, 1, id="a:1"), same_calls]),
    Case(
        "results follow at once",
        [
            block(2, 0, tool_use_id="toolu_2"),
            two_results,
            message(2, content="hi"),
            lambda body: body["messages"][2]["content"].insert(0, {"type": "text", "text": "hi"}),
        ],
        [lambda body: body["messages"][2]["content"].append({"type": "text", "text": "hi"})],
    ),
    Case("at most four cache marks", [many_marks]),
    Case("thinking leads to something", [lambda body: body["messages"][1]["content"].reverse()]),
    Case("tools are defined", [without("tools"), put(tools=[{"name": "a.b", "input_schema": SCHEMA}]), schema]),
    Case(
        "block_binding with its beta only",
        [put(thinking={"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}})],
    ),
    Case("signatures are valid", [block(1, 0, signature="made up"), block(1, 0, thinking="changed")]),
]
ADAPTIVE: Final = [
    Case("no sampling", [put(temperature=0), put(top_p=1)]),
    Case("no prefill", [lambda body: body["messages"].append({"role": "assistant", "content": "So"})]),
    Case(
        "thinking is adaptive",
        [put(thinking={"type": "enabled", "budget_tokens": 1024}), put(output_config={"effort": "none"})],
    ),
]
BOUND: Final = Case(
    "thinking is bound to its prefix",
    [
        put(system="It is 10:01."),
        named("Write"),
        block(0, 0, text="hello"),
        lambda body: body["messages"][1]["content"].insert(0, {"type": "text", "text": "First."}),
    ],
    # Marks for the cache may move, and what comes after it may change.
    [block(0, 0, cache_control={"type": "ephemeral"}), block(2, 0, content="other")],
)
GPT_5_SAMPLING: Final = Case("no sampling", [put(temperature=0)], [put(temperature=0, reasoning={"effort": "none"})])

CASES: Final[Mapping[type[Double], list[Case]]] = {
    Gpt5Responses: [*SHARED_RESPONSES, GPT_5_SAMPLING, Case("efforts of GPT-5", [put(reasoning={"effort": "max"})])],
    Gpt6Responses: [
        *SHARED_RESPONSES,
        Case("no sampling", [put(temperature=0), put(include=["message.output_text.logprobs"])]),
        Case("efforts of GPT-6", [put(reasoning={"effort": "none"})], [put(reasoning={"effort": "max"})]),
    ],
    Gpt62Responses: [
        *SHARED_RESPONSES,
        Case("no sampling", [put(top_p=1), put(top_logprobs=1)]),
        Case("efforts of GPT-6", [put(reasoning={"effort": "minimal"})]),
        Case("no flex tier", [put(service_tier="flex")], [put(service_tier="priority")]),
    ],
    Gpt5Chat: [
        *SHARED_CHAT,
        Case("no sampling", [put(temperature=0)], [put(temperature=0, reasoning_effort="none")]),
        Case("max_completion_tokens", [put(max_tokens=5)], [put(max_completion_tokens=5)]),
        Case("efforts of GPT-5", [put(reasoning_effort="max")]),
        Case("metadata only if stored", [put(metadata={"a": "b"})], [put(metadata={"a": "b"}, store=True)]),
    ],
    Gpt6Chat: [
        *(case for case in SHARED_CHAT if case.rule != "tools are nested"),
        Case("tools are nested", [put(tools=[{"type": "function", "name": "f"}])]),
        Case("no sampling", [put(temperature=0, reasoning_effort="low"), put(logprobs=True)]),
        Case("max_completion_tokens", [put(max_tokens=5)]),
        Case("efforts of GPT-6", [put(reasoning_effort="none")]),
        Case("metadata only if stored", [put(metadata={"a": "b"})]),
        Case("function tools only on /responses", [put(tools=CHAT["tools"])]),
    ],
    Claude45: [
        *SHARED_CLAUDE[:-2],
        Case(
            "block_binding with its beta only",
            [put(thinking={"type": "enabled", "budget_tokens": 1024, "block_binding": {}})],
        ),
        SHARED_CLAUDE[-1],
        Case("one sampling parameter", [put(temperature=1, top_p=1)], [put(temperature=1)]),
        Case(
            "thinking has a budget",
            [
                put(thinking={"type": "adaptive"}),
                put(thinking={"type": "enabled", "budget_tokens": 4096}),
                put(temperature=0),
                put(tool_choice={"type": "any"}),
            ],
            [put(thinking={"type": "disabled"}, temperature=0)],
        ),
        Case("tool turns start with thinking", [no_thinking_first], [put(thinking={"type": "disabled"})]),
    ],
    Claude5: [*SHARED_CLAUDE, *ADAPTIVE],
    Claude52: [
        *SHARED_CLAUDE,
        *ADAPTIVE,
        Case("thinking stays on", [put(thinking={"type": "disabled"}), put(tool_choice={"type": "any"})]),
        BOUND,
    ],
    Claude55: [*SHARED_CLAUDE, *ADAPTIVE, Case("thinking is this account's", []), BOUND],
    Gemini: [
        *SHARED_CHAT,
        Case("efforts", [put(reasoning_effort="max")], [put(reasoning_effort="minimal")]),
        ARGUMENTS,
        Case("calls are signed", [without("messages", 2, "tool_calls", 0, "extra_content")]),
        Case(
            "signatures are valid",
            [call(extra_content={"google": {"thought_signature": "made up"}})],
            [call(extra_content={"google": {"thought_signature": "skip_thought_signature_validator"}})],
        ),
    ],
    DeepSeek: [
        *SHARED_CHAT,
        Case("efforts", [put(reasoning_effort="none")], [put(reasoning_effort="max")]),
        Case(
            "reasoning of tool turns comes back",
            [without("messages", 2, "reasoning_content")],
            [message(2, reasoning_content=""), message(5, reasoning_content="x")],
        ),
    ],
    OpenRouter: [
        *SHARED_CHAT,
        ARGUMENTS,
        Case("details of tool turns come back", [without("messages", 2, "reasoning_details")]),
        Case("details are unchanged", [message(2, reasoning_details=[{"type": "reasoning.text", "text": "x"}])]),
    ],
    Vllm: [
        *SHARED_CHAT,
        ARGUMENTS,
        Case("system comes first", [lambda body: body["messages"].append({"role": "system", "content": "x"})]),
        Case("a user asks", [lambda body: (body["messages"].pop(6), body["messages"].pop(1))]),
    ],
}
"""By double: a case for each of its rules."""

ROWS: Final = [
    pytest.param(kind, case, id=f"{kind.__name__}: {case.rule}") for kind, cases in CASES.items() for case in cases
]


@pytest.mark.parametrize("kind", CASES)
def test_every_rule_has_a_source_and_a_case(kind: type[Double]) -> None:
    assert all(rule.source for rule in kind.RULES)
    assert sorted(rule.name for rule in kind.RULES) == sorted(case.rule for case in CASES[kind])


def test_every_double_has_cases() -> None:
    used = {vendor.double for vendor in VENDORS.values()}
    assert used <= set(CASES)
    assert GPT_6_CHAT.double is Gpt6


@pytest.mark.parametrize(("kind", "case"), ROWS)
def test_a_rule_refuses_and_accepts(kind: type[Double], case: Case) -> None:
    for change in (nothing, *case.accepted):
        body = good_body(kind)
        change(body)
        double = double_of(kind)
        assert post(double, body).status == 200, double.refusals
    for change in case.refused:
        body = good_body(kind)
        change(body)
        double = double_of(kind)
        answer = post(double, body)
        assert [(refused.rule, refused.status) for refused in double.refusals] == [(case.rule, answer.status)]
        assert 400 <= answer.status < 500
        assert b"message" in answer.body


@pytest.mark.parametrize("kind", CASES)
def test_another_path_is_not_found(kind: type[Double]) -> None:
    double = double_of(kind)
    assert post(double, good_body(kind), path="/other").status == 404
    assert [refused.rule for refused in double.refusals] == ["path"]


@pytest.mark.parametrize("header", ["anthropic_version", "x_api_key"])
def test_claude_needs_a_version_and_a_key(header: str) -> None:
    double = double_of(Claude55)
    missing = {header: "", "authorization": ""}
    assert post(double, good_body(Claude55), **missing).status in (400, 401)
    assert [refused.rule for refused in double.refusals] == ["version and key"]


def test_a_lone_surrogate_is_refused_and_a_pair_is_not() -> None:
    double = double_of(Vllm)
    body = good_body(Vllm)
    body["messages"][6]["content"] = "\ud83d"
    assert post(double, body).status == 400
    body["messages"][6]["content"] = "\ud83d\ude00"
    assert post(double, body).status == 200


# Binding


@pytest.mark.parametrize("kind", [Gpt5Responses, Gpt62Responses])
def test_encrypted_reasoning_of_another_account_is_refused(kind: type[Double]) -> None:
    double = double_of(kind)
    double.account = "account-2"
    assert json.loads(post(double, good_body(kind)).body)["error"]["code"] == "invalid_encrypted_content"


def test_thinking_of_another_account_is_refused_by_the_models_that_check_it() -> None:
    for kind, status in ((Claude55, 400), (Claude52, 200), (Claude5, 200)):
        double = double_of(kind)
        double.account = "account-2"
        assert post(double, good_body(kind)).status == status


def test_gpt_6_2_drops_reasoning_without_an_error_if_its_prefix_changed() -> None:
    for change, dropped in (
        (nothing, 0),
        (item(0, content="It is 10:01."), 1),
        (named("Write"), 1),
        (item(8, content="x"), 0),
    ):
        body = good_body(Gpt62Responses)
        change(body)
        double = double_of(Gpt62Responses)
        assert post(double, body).status == 200
        assert double.dropped == dropped
        assert double.seen == (set() if dropped else {0})
    double = double_of(Gpt6Responses)
    body = good_body(Gpt6Responses)
    item(0, content="It is 10:01.")(body)
    assert post(double, body).status == 200
    assert double.seen == {0}


DROP: Final = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}


@pytest.mark.parametrize("kind", [Claude52, Claude55])
def test_claude_drops_thinking_if_it_is_asked_to(kind: type[Double]) -> None:
    for change, dropped in ((nothing, 0), *((change, 1) for change in BOUND.refused)):
        body = good_body(kind)
        change(body)
        double = double_of(kind)
        assert post(double, body | {"thinking": DROP}, anthropic_beta=f"x, {BINDING_BETA}").status == 200
        assert double.dropped == dropped
        assert double.seen == (set() if dropped else {0})


def test_models_without_a_binding_do_not_know_the_setting() -> None:
    double = double_of(Claude5)
    assert post(double, good_body(Claude5) | {"thinking": DROP}, anthropic_beta=BINDING_BETA).status == 400


# The context limit

TOO_LONG: Final[Mapping[type[Double], str]] = {
    Gpt5Responses: '"code":"context_length_exceeded"',
    Gpt5Chat: '"code":"context_length_exceeded"',
    Claude45: "prompt is too long: ",
    Gemini: "exceeds the maximum number of tokens allowed (50)",
    DeepSeek: "This model's maximum context length is 50 tokens. However,",
    OpenRouter: "This endpoint's maximum context length is 50 tokens. However,",
    Vllm: "This model's maximum context length is 50 tokens. However,",
}


@pytest.mark.parametrize("kind", TOO_LONG)
def test_a_request_over_the_limit_is_refused_in_the_vendors_own_words(kind: type[Double]) -> None:
    double = double_of(kind, limit_tokens=50)
    answer = post(double, good_body(kind))
    assert answer.status == 400
    assert TOO_LONG[kind] in answer.body.decode()
    assert double.too_long == 1
    assert double.refusals == []


# The answers


@pytest.mark.parametrize("kind", CASES)
def test_the_same_seed_gives_the_same_answers(kind: type[Double]) -> None:
    streams = [[post(double_of(kind, seed=seed), good_body(kind)).body for _ in range(2)] for seed in (1, 2)]
    assert streams[0][0] == streams[0][1]
    assert streams[0] != streams[1]


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind is not Gpt6Chat])
def test_answers_have_thinking_text_and_parallel_calls(kind: type[Double]) -> None:
    double = double_of(kind)
    for _ in range(40):
        assert post(double, good_body(kind)).status == 200
    kinds = {part.kind for made in double.made for part in made.parts}
    assert kinds == {"thought", "text", "call"}
    assert max(len(made.calls) for made in double.made) == 3
    if issubclass(kind, Gpt5Responses):
        assert any(part.is_custom for made in double.made for part in made.calls)
    if issubclass(kind, Claude52):
        orders = [[part.kind for part in made.parts[:3]] for made in double.made]
        assert ["thought", "text", "thought"] in orders
    if kind is Gemini:
        assert b'"index":1' not in post(double, good_body(kind)).body
