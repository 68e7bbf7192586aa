"""Large JSON, read and written in small steps, is what msgspec reads and writes in one."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

import stages.wire.sliced_json as sliced_json
from stages.wire.sliced_json import NotUtf8, TooDeep, decode_sliced, encode_sliced

DOCUMENTS = [
    b'{"a":1,"b":[1,2,{"c":"x\\"y,]"}],"d":null}',
    b' { "a" : [ 1 , 2 ] , "b" : { } } ',
    b"[]",
    b"{}",
    b'"abc"',
    b" 1 ",
    b"[[[[[[[[1],2],3],4],5],6],7],8]",
    b'[{"a":[[[[[[{"b":"]]"}]]]]]]},1,[[[[[[]]]]]]]',
    b'{"a":{"a":{"a":{"a":{"a":{"b":[1,{"z":"\\\\"}]}}}}},"q":"abc","long key of an object":[true,false]}',
    b'{"twice":1,"other":2,"twice":{"long":"enough for a window of its own"}}',
    '["é😀\\n\\"ß",{"schlüssel":"日本語日本語日本語日本語\\\\"},"\\ud83d\\ude00\\u00e9"]'.encode(),
]
BAD = [
    b"",
    b"[1,2,]",
    b"[,1]",
    b'{"a":1,}',
    b'{,"a":1}',
    b"[1}",
    b'{"a":1]',
    b'{"a" 1}',
    b"{1:2}",
    b'{"a":tru}',
    b"[1 2]",
    b"[1] 2",
    b"[",
    b"{",
    b'{"a":',
    b'{"a"',
    b'["abc',
    b'["abc\\',
    b'["abc\\"',
    b'["a long string, \\"quoted\\", that does not end ',
    b'[{"a long key": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, 1]',
    b'["\\x", "and some more that is valid"]',
]
WINDOWS = (13, 16, 24, 64, 1000)


def read(data: bytes | bytearray, window_bytes: int = 13, *, max_levels: int = 200) -> Any:
    """Read with small windows; the mended words are dropped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_json, "FIRST_WINDOW_BYTES", window_bytes)
        patch.setattr(sliced_json, "WINDOW_BYTES", 2 * window_bytes)
        patch.setattr(sliced_json, "MAX_STRING_BYTES", 2 * window_bytes)
        return decode_sliced(data, max_levels=max_levels, mended=set(), pause=lambda: None)


def is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("window_bytes", WINDOWS)
@pytest.mark.parametrize("data", DOCUMENTS)
def test_a_document_is_read_as_in_one_step(data: bytes, window_bytes: int) -> None:
    assert read(data, window_bytes) == msgspec.json.decode(data)
    assert read(bytearray(data), window_bytes) == msgspec.json.decode(data)


@pytest.mark.parametrize("window_bytes", WINDOWS)
@pytest.mark.parametrize("data", BAD)
def test_what_is_not_json_is_refused(data: bytes, window_bytes: int) -> None:
    assert not is_json(data)
    with pytest.raises(msgspec.DecodeError):
        read(data, window_bytes)


def test_a_damaged_document_is_refused_if_and_only_if_msgspec_refuses_it() -> None:
    choose = random.Random(66)
    for _ in range(4000):
        data = bytearray(choose.choice(DOCUMENTS))
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(data))
            data[at : at + choose.randrange(2)] = choose.choice(
                [b"", b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"1"]
            )
            if not data:
                break
        try:
            read_here = read(bytes(data), choose.choice(WINDOWS))
        except ValueError:
            # Halves of surrogate pairs are mended here; nothing else that msgspec reads is refused.
            assert not is_json(bytes(data)), data
        else:
            assert not is_json(bytes(data)) or read_here == msgspec.json.decode(bytes(data)), data


def test_the_place_of_a_fault_is_that_in_the_whole_document() -> None:
    data = b'{"a": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, nothing]}'
    with pytest.raises(msgspec.DecodeError) as in_one_step:
        msgspec.json.decode(data)
    with pytest.raises(msgspec.DecodeError) as refusal:
        read(data)
    assert str(refusal.value) == str(in_one_step.value)


@pytest.mark.parametrize("before", [b"", b"x" * 40])
def test_halves_of_surrogate_pairs_are_replaced(before: bytes) -> None:
    mended = set[str]()
    data = b'{"a":"%b\\ud83d","b":["%b\\ude00 \\ud83d\\ude00","x"]}' % (before, before)
    read_here = decode_sliced(data, max_levels=200, mended=mended, pause=lambda: None)
    assert read_here == {"a": before.decode() + "�", "b": [before.decode() + "� 😀", "x"]}
    assert mended == {"lone_surrogate"}
    assert read(data) == read_here


def test_a_half_beside_what_is_not_json_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        read(b'["\\ud83d", nothing]', 1000)


def test_what_is_not_utf8_is_refused_without_the_document_in_the_error() -> None:
    with pytest.raises(NotUtf8) as refusal:
        read(b'{"a":"secret","b":"\xff"}', 1000)
    assert not refusal.value.args
    assert refusal.value.__context__ is None


@pytest.mark.parametrize(("levels", "is_read"), [(20, True), (21, False)])
@pytest.mark.parametrize("inner", [b"", b'"' + b"x" * 100 + b'"'], ids=["small", "large"])
def test_a_deep_document_is_read_up_to_the_limit(levels: int, is_read: bool, inner: bytes) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        content = inner or (b"" if opening == b"[" else b"1")
        data = opening * levels + content + closing * levels
        if is_read:
            assert read(data, max_levels=20) == msgspec.json.decode(data)
            continue
        with pytest.raises(TooDeep):
            read(data, max_levels=20)
    for data in (b"[" + b"[" * 30 + b"]" * 30 + b"]", (b"[" + b" " * 100) * 21):
        with pytest.raises(TooDeep):
            read(data, 50, max_levels=20)


def test_a_document_is_read_in_steps_of_a_window() -> None:
    """Many small elements, many keys, and a string with an escape every few bytes."""
    for value in (
        [{"a": n} for n in range(50_000)],
        {f"k{n}": n for n in range(50_000)},
        ['"\n'] * 10 + ['"\n' * 200_000],
    ):
        data = msgspec.json.encode(value)
        pauses: list[None] = []
        assert decode_sliced(data, max_levels=200, mended=set(), pause=lambda: pauses.append(None)) == value  # noqa: B023 - called at once
        assert len(pauses) >= len(data) // sliced_json.WINDOW_BYTES


VALUES: list[Any] = [
    None,
    "a",
    [],
    {},
    [[], {}, [1], {"a": []}],
    {"a": 1, "é": "😀\n", "b": {"c": [1, 2.5, True, None]}},
    [{"role": "user", "content": [{"type": "text", "text": "x" * 40}] * 3}] * 200,
    {f"k{n}": [n] for n in range(3000)},
    ["x" * 100_000, *range(1000), "y" * 100_000, "z"],
    [[[[[[[[1]]]]]]]],
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_is_written_as_in_one_step(value: Any) -> None:
    assert encode_sliced(value, lambda: None) == msgspec.json.encode(value)


def test_a_long_string_is_written_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced_json, "MAX_STRING_BYTES", 100)
    monkeypatch.setattr(sliced_json, "WINDOW_BYTES", 16)
    pauses: list[None] = []
    for value in ('é"\n😀' * 50, ["a" * 101]):
        assert encode_sliced(value, lambda: pauses.append(None)) == msgspec.json.encode(value)
    assert len(pauses) >= (200 + 101) // 16


def test_a_value_is_written_in_steps() -> None:
    pauses: list[None] = []
    encode_sliced([{"a": n} for n in range(50_000)], lambda: pauses.append(None))
    assert len(pauses) >= 50_000 // sliced_json.GROUP_ELEMENTS
