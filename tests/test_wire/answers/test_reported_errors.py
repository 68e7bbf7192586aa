"""What an error document says, in each of the shapes that upstreams use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stages.wire.answers.reported_errors import Reported, reported_in, reported_in_text


def nested(times: int) -> dict[str, Any]:
    error: dict[str, Any] = {"message": "bottom"}
    for _ in range(times):
        error = {"message": "", "metadata": {"raw": json.dumps({"error": error})}}
    return {"error": error}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"error": {"message": "a", "type": "t", "param": "p", "code": "c"}}, Reported("a", "c", "t", "p")),
        ({"error": {"message": "a", "type": None, "param": None, "code": 400}}, Reported("a", "400")),
        ({"error": {"error": {"message": "a", "code": "c"}}}, Reported("a", "c")),
        ({"error": "a", "code": "c"}, Reported("a", "c")),
        ({"object": "error", "message": "a", "code": True}, Reported("a")),
        ({"detail": "a"}, Reported("a")),
        ({"detail": [{"loc": [], "msg": "a", "type": "t"}]}, Reported("a", kind="t")),
        ({"detail": []}, Reported()),
        ({"detail": {"message": "a", "code": "c"}}, Reported("a", "c")),
        ([{"error": {"code": 400, "message": "a", "status": "INVALID_ARGUMENT"}}], Reported("a", "400")),
        ({"error": {"message": "a", "status": "INVALID_ARGUMENT"}}, Reported("a", "INVALID_ARGUMENT")),
        ({"status": "fail", "message": "a"}, Reported("a")),
        ({"error": {"message": "a", "metadata": {"raw": "b"}}}, Reported("a: b")),
        (
            {"error": {"message": "a.", "code": 400, "metadata": {"raw": '{"error": "b", "code": "c"}'}}},
            Reported("a: b", "c"),
        ),
        ({"error": {"message": "a", "metadata": {"raw": {"type": "t", "message": "b"}}}}, Reported("a: b", kind="t")),
        ({"error": {"message": "a b", "metadata": {"raw": '"b"'}}}, Reported("a b")),
        ({"error": {"message": "a", "metadata": {"raw": '{"error": "b'}}}, Reported("a")),
        ({"error": {"message": "a", "metadata": {"raw": None}}}, Reported("a")),
        ({"error": {"message": "a", "metadata": []}}, Reported("a")),
        (nested(3), Reported("bottom")),
        (nested(4), Reported()),
        ([], Reported()),
        (7, Reported()),
    ],
)
def test_each_shape_is_understood(document: Any, said: Reported) -> None:
    assert reported_in(document) == said


def test_a_text_is_the_message_unless_it_is_a_document() -> None:
    assert reported_in_text(" a\n") == Reported("a")
    assert reported_in_text('"a"') == Reported("a")
    assert reported_in_text('{"message": "a"}') == Reported("a")
    assert reported_in_text("<html>") == reported_in_text("[" * 9999) == reported_in_text("7") == Reported()
    assert reported_in_text("\ud83d") == Reported("\ud83d")
