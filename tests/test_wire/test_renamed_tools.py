"""Answers have the client's names of its tools, whatever the upstream calls them."""

from __future__ import annotations

import pytest

from stages.events import Failed, Finished, StreamEvent, TextDelta, ToolCallStarted
from stages.wire.answers.renamed_tools import RenamingDecoder
from stages.wire.tool_names import ToolNames, legal_tool_name


class Scripted:
    """A decoder that gives the same events whatever it is given."""

    is_complete = True

    def __init__(self, *events: StreamEvent) -> None:
        self._events = events

    def feed(self, batch: list[bytes], /) -> list[StreamEvent]:
        return list(self._events)

    def flush(self) -> list[StreamEvent]:
        return list(self._events)

    def break_off(self, failed: Failed, /) -> list[StreamEvent]:
        return [*self._events, failed]


def test_the_calls_of_renamed_tools_get_the_clients_names_and_nothing_else_changes() -> None:
    names = ToolNames()
    legal = names.legal("fs.read")
    others: list[StreamEvent] = [TextDelta("fs_read"), ToolCallStarted(1, "b", "Read"), Finished("tool_calls")]
    decoder = RenamingDecoder(Scripted(ToolCallStarted(0, "a", legal, is_custom=True), *others), names.clients)
    expected = [ToolCallStarted(0, "a", "fs.read", is_custom=True), *others]
    failed = Failed("upstream_error", "x")
    assert decoder.is_complete
    assert decoder.feed([b"x"]) == expected
    assert decoder.flush() == expected
    assert decoder.break_off(failed) == [*expected, failed]


@pytest.mark.parametrize("name", ["Read", "a" * 64, "mcp__x-y_Z9"])
def test_a_name_that_every_upstream_accepts_stays(name: str) -> None:
    names = ToolNames()
    assert names.legal(name) == name
    assert names.clients == {}


@pytest.mark.parametrize("name", ["a" * 65, "fs.read", "fs/read", "lesen ä"])
def test_another_name_gets_a_form_of_its_own_that_depends_on_it_alone(name: str) -> None:
    legal = legal_tool_name(name)
    assert 0 < len(legal) <= 64
    assert legal_tool_name(legal) == legal
    assert legal == legal_tool_name(name) != legal_tool_name(f"{name}x")
