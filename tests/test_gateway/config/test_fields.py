"""A section is read into a Struct, field by field: lenient as LiteLLM is, and each mistake has its place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from pipeline.gateway.config.fields import Environment, Section
from pipeline.gateway.config.kinds import HIDDEN, KEY, names_of
from pipeline.gateway.config.litellm_sections import (
    GeneralSettings,
    LitellmParams,
    LitellmSettings,
    ModelEntry,
    ModelInfo,
    RouterSettings,
)
from pipeline.gateway.config.problems import ConfigError, Problems
from pipeline.gateway.config.settings import PipelineSettings
from pipeline.gateway.config.yaml_tree import Node, read_yaml


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    word: Annotated[str, Meta(description="a word")]
    where: str = ""


class Outer(Struct, frozen=True, kw_only=True):
    text: Annotated[str, Meta(description="a text such as a")] | None = None
    whole: Annotated[int, Meta(ge=1, le=100, description="a whole number from 1")] | None = None
    number: Annotated[float, Meta(gt=0, description="a number, more than 0")] | None = None
    flag: bool | None = None
    choice: Literal["one", "two"] | None = None
    names: Annotated[tuple[str, ...], Meta(description="a list such as [a]")] = ()
    key: Annotated[str, Meta(description="a key"), KEY] | None = None
    hidden: Annotated[int, Meta(description="a number that nobody sees"), HIDDEN] | None = None
    numbers: Annotated[dict[str, Annotated[int, Meta(description="a number")]], Meta(description="a mapping")] = {}
    anything: Annotated[dict[str, Any], Meta(description="a mapping")] = {}
    inner: Inner | None = None
    inners: Annotated[tuple[Inner, ...], Meta(description="a list of inners")] = ()
    node: Node | None = None


def read(text: str, **environ: str) -> Outer:
    """Read a section from YAML.

    Raises:
        ConfigError: if anything is wrong with it.
    """
    problems = Problems()
    section = Section(read_yaml(text, "c", problems), Environment(environ, problems))
    found = section.read(Outer)
    problems.raise_errors()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("text: ' a b '", "text", "a b"),
        ("text: os.environ/T", "text", "of the environment"),
        ("text: 2024-05-01", "text", "2024-05-01"),
        ("whole: 7", "whole", 7),
        ("whole: 7.0", "whole", 7),
        ("whole: '7.0'", "whole", 7),
        ("whole: 1e1", "whole", 10),
        ("whole: os.environ/N", "whole", 5),
        ("number: ' 0.5 '", "number", 0.5),
        ("flag: 'True'", "flag", True),
        ("flag: 'off'", "flag", False),
        ("flag: '1'", "flag", True),
        ("flag: os.environ/F", "flag", False),
        ("choice: two", "choice", "two"),
        ("names: [a, os.environ/T]", "names", ("a", "of the environment")),
        ("key: os.environ/K", "key", "sk-1"),
        ("numbers: {a: '1', b: null, c: os.environ/N}", "numbers", {"a": 1, "c": 5}),
        ("anything: {a: [1, null, {b: os.environ/T}]}", "anything", {"a": [1, None, {"b": "of the environment"}]}),
        ("inner: {word: a}", "inner", Inner("a", "c:1: inner")),
        ("inners: [{word: a}, {word: b}]", "inners", (Inner("a", "c:1: inners[0]"), Inner("b", "c:1: inners[1]"))),
        ("text: null", "text", None),
        ("text: ' '", "text", None),
        ("key: ''", "key", None),
        ("unknown: 5", "text", None),
    ],
)
def test_a_value_is_read_in_the_type_of_its_field(written: str, field: str, value: object) -> None:
    found = read(written, T="of the environment", N="5", F="false", K="sk-1")
    assert getattr(found, field) == value


def test_a_field_with_a_reader_of_its_own_is_left_as_it_is() -> None:
    node = read("node: [a]").node
    assert node is not None
    assert (str(node.place), node.found()) == ("c:1: node", "found a list")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("text: 5", "text: found 5 (a number), expected a text such as a"),
        ("whole: 1.5", "whole: found 1.5 (a number), expected a whole number from 1"),
        ("whole: 101", "whole: found 101 (a number), expected a whole number from 1, and at most 100"),
        ("whole: true", "whole: found true (a yes/no value), expected a whole number from 1"),
        ("whole: os.environ/W", "whole: found text, expected a whole number from 1"),
        ("whole: os.environ/NONE", "whole: the environment variable NONE is not set, or is empty: set it, or write the "
         "value here"),
        ("number: .inf", "number: found .inf (a number), expected a number, more than 0"),
        ("number: .nan", "number: found .nan (a number), expected a number, more than 0"),
        ("flag: 1", "flag: found 1 (a number), expected true or false"),
        ("choice: tow", 'choice: found "tow" (text), expected one of: one, two; did you mean two?'),
        ("names: a", 'names: found "a" (text), expected a list such as [a]'),
        ("names: [a, 5, []]", "names[1]: found 5 (a number), expected text"),
        ("names: ['']", "names[0]: found empty text, expected text"),
        ("key: 1234", "key: found a number, expected a key; put quotes around it"),
        ("key: a b", "key: the key contains a space, line break or control character: copy the key again, on one line"),
        ("hidden: hunter2", "hidden: found text, expected a number that nobody sees"),
        ("numbers: [1]", "numbers: found a list, expected a mapping"),
        ("numbers: {a: 1, b: x}", 'numbers.b: found "x" (text), expected a number'),
        ("anything: 5", "anything: found 5 (a number), expected a mapping"),
        ("inner: 5", "inner: found a number, expected a mapping (name: value lines, indented)"),
        ("inner: {word: ''}", "inner.word: found empty text, expected a word"),
        ("names: ''", "names: found empty text, expected a list such as [a]"),
        ("inner: {}", "inner: has no word: expected a word"),
        ("inner: {word: a, wrd: b}", "inner.wrd: is not a setting; did you mean word?"),
        ("inner: {word: a, other: b}", "inner.other: is not a setting: expected word"),
        ("inners: {}", "inners: found a mapping, expected a list of inners"),
        ("inners: [a]", "inners[0]: found text, expected a mapping (name: value lines, indented)"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place_and_what_is_expected(written: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(written, W="hunter2")
    assert caught.value.problems == (f"c:1: {problem}",)


@given(st.dictionaries(st.sampled_from(Outer.__struct_fields__), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=5,
), max_size=4))  # fmt: skip
def test_whatever_is_written_is_read_or_reported(values: dict[str, Any]) -> None:
    problems: tuple[str, ...] = ()
    try:
        read(msgspec.json.encode(values).decode())
    except ConfigError as error:
        problems = error.problems
    assert all(problem.startswith("c:") for problem in problems)


@pytest.mark.parametrize(
    "struct",
    [GeneralSettings, LitellmSettings, RouterSettings, ModelEntry, LitellmParams, ModelInfo, PipelineSettings],
)
def test_an_empty_section_has_every_default_and_each_field_says_what_it_expects(struct: type[Struct]) -> None:
    from pipeline.gateway.config.kinds import kinds_of

    assert names_of(struct) == kinds_of(struct).keys()
    for name, kind in kinds_of(struct).items():
        is_read_elsewhere = kind.bare is Node and not kind.is_required
        assert is_read_elsewhere or kind.bare in (str, bool) or kind.struct or kind.expected() != "text", name
        if kind.bare is str:
            assert kind.meta is not None, name
