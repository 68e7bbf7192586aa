"""Long work on one request is done in slices, whatever is long about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from stages.principal import Principal
from stages.reasoning.keys import Scope, prompts_of
from stages.reasoning.turns import TurnPlaces
from stages.testing import new_call
from stages.upstreams.apis import APIS
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.request import parse_body
from stages.wire.sliced_json import encode_sliced
from stages.wire.slices import STEP_ITEMS, current_pause, drop, paced, sliced

T = TypeVar("T")

MAX_CALLS = 60_000
"""Between two pauses: about 6 ms. A whole conversation of those below takes 400 000 to a million."""
MODELS = {"responses": "gpt-5", "chat": "gpt-5", "anthropic": "claude-sonnet-4-5"}


def in_slices(work: Callable[[], T]) -> tuple[T, int]:
    """Return the result, and the most calls of functions between two pauses: they do not depend on the machine."""
    largest = calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    def pause() -> None:
        nonlocal largest, calls
        largest, calls = max(largest, calls), 0

    with sliced(pause):
        sys.setprofile(count)
        try:
            result = work()
        finally:
            sys.setprofile(None)
    return result, max(largest, calls)


def _messages() -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": f"word {n} and more words"} for n in range(8000)]}


def _pairs(*, is_broken: bool = False) -> dict[str, Any]:
    items: list[Any] = [{"role": "user", "content": "go"}]
    for n in range(4000):
        items.append({"type": "function_call", "call_id": f"c{n}", "name": "f", "arguments": "{}"})
        if not (is_broken and n % 2):
            items.append({"type": "function_call_output", "call_id": f"c{n}", "output": "ok"})
    return {"input": items}


def _images() -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,iVBORw{'A' * 200_000}"}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, image]}] * 5}


CONVERSATIONS = {
    "images": _images(),
    "messages": _messages(),
    "call pairs": _pairs(),
    "broken pairs": _pairs(is_broken=True),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_row_66_no_step_of_the_work_on_a_large_body_is_long(name: str) -> None:
    """One large body beside running streams: it is worked on in slices, between which all others have their turn."""
    body = msgspec.json.encode({"model": "m", **CONVERSATIONS[name]})
    request, calls = in_slices(lambda: parse_body(body))
    assert calls < MAX_CALLS
    assert request == parse_body(body)
    items = request.body["input"]
    digest, calls = in_slices(lambda: prompts_of(items))
    assert (digest, calls < MAX_CALLS) == (prompts_of(items), True)
    scope = Scope(Principal("one"), new_call(), "chat")
    places, calls = in_slices(lambda: TurnPlaces(items, scope))
    assert (places.keys, calls < MAX_CALLS) == (TurnPlaces(items, scope).keys, True)
    _, calls = in_slices(lambda: places.restored({}))
    assert calls < MAX_CALLS
    for kind, api in APIS.items():
        quirks = api.usual_quirks(MODELS[kind])
        built, calls = in_slices(lambda: api.build_request(request, MODELS[kind], quirks))  # noqa: B023 - called at once
        assert (kind, calls < MAX_CALLS) == (kind, True)
        assert built == api.build_request(request, MODELS[kind], quirks)
        encoded, calls = in_slices(lambda: encode_sliced(built, current_pause() or pytest.fail("not sliced")))  # noqa: B023
        assert (kind, calls < MAX_CALLS, bytes(encoded)) == (kind, True, msgspec.json.encode(built))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model": "m", "messages": [1, 2', "not valid JSON: Input data was truncated"),
        (b'{"model": "\xff"}', "not valid UTF-8"),
        (b'{"model": "m", "input": %b%b}' % (b"[" * 201, b"]" * 201), "nested too deeply: 200 levels"),
        (b"[1]", "must be a JSON object, not an array"),
    ],
)
def test_a_large_bad_body_gets_the_same_refusal(body: bytes, message: str) -> None:
    with sliced(lambda: None), pytest.raises(BadRequest, match=message):
        parse_body(body)


def test_lone_surrogates_of_a_large_body_are_mended() -> None:
    body = b'{"model": "m", "input": "cut \\ud83d"}'
    with sliced(lambda: None):
        request = parse_body(body)
    assert (request.body["input"], request.mended) == ("cut �", {"lone_surrogate"})
    assert request == parse_body(body)


def test_few_items_and_other_work_are_not_paced() -> None:
    few, many = [1] * (STEP_ITEMS - 1), [1] * STEP_ITEMS
    assert paced(many) is many
    with sliced(lambda: None):
        assert paced(few) is few
        assert list(paced(many)) == many
    assert current_pause() is None


def test_a_list_is_emptied_in_steps() -> None:
    pauses: list[None] = []
    items = [0] * (3 * STEP_ITEMS + 1)
    drop(items, lambda: pauses.append(None))
    assert (items, len(pauses)) == ([], 4)
