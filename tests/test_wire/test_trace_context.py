"""W3C Trace Context, level 1: what is honoured, what is ignored, and what is passed on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.wire.trace_context import MAX_TRACESTATE_BYTES, TraceContext, read_trace_context

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()
STATE = b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


def test_a_call_has_the_same_trace_and_a_parent_of_its_own() -> None:
    context = read_trace_context(PARENT, STATE)
    assert context is not None
    assert context == TraceContext(TRACE_ID, True, STATE)
    (name, parent), state = context.headers()
    assert name == b"traceparent"
    assert re.fullmatch(rb"00-4bf92f3577b34da6a3ce929d0e0e4736-(?!00f067aa0ba902b7)[0-9a-f]{16}-01", parent)
    assert state == (b"tracestate", STATE)
    assert parent != context.headers()[0][1]


@pytest.mark.parametrize(("flags", "sent"), [(b"00", b"00"), (b"01", b"01"), (b"ff", b"01"), (b"08", b"00")])
def test_flags_that_this_version_does_not_know_become_zero(flags: bytes, sent: bytes) -> None:
    context = read_trace_context(PARENT[:-2] + flags)
    assert context is not None
    [(_, parent)] = context.headers()
    assert parent[-2:] == sent


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        PARENT.upper(),
        PARENT + b"-",
        PARENT + b"-more",
        PARENT + b"1",
        PARENT[:-1],
        b"ff" + PARENT[2:],
        b"0g" + PARENT[2:],
        b"00-" + b"0" * 32 + PARENT[35:],
        b"00-" + TRACE_ID.encode() + b"-" + b"0" * 16 + b"-01",
        b"00-" + TRACE_ID.encode()[:-1] + PARENT[35:],
        PARENT.replace(b"-", b"_"),
        b" " + PARENT,
        b"cc" + PARENT[2:] + b"01",
    ],
)
def test_what_is_not_valid_is_ignored_with_its_state(parent: bytes) -> None:
    assert read_trace_context(parent, STATE) is None


@pytest.mark.parametrize("more", [b"", b"-", b"-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_it_is_known_and_sent_as_ours(more: bytes) -> None:
    context = read_trace_context(b"cc" + PARENT[2:] + more)
    assert context is not None
    assert context == TraceContext(TRACE_ID, True)
    [(_, parent)] = context.headers()
    assert parent.startswith(b"00-" + TRACE_ID.encode())


@pytest.mark.parametrize(
    "state",
    [
        b"a=1",
        b"a=1 , \tb=2",
        b"a=1,,b=2",
        b"tenant@system=x",
        b"1tenant@system=x",
        b"a*_-/0=!~ {}",
        b"k" * 256 + b"=" + b"v" * 200,
        b",".join(b"k%d=v" % at for at in range(32)),
    ],
)
def test_a_valid_state_is_passed_on_unchanged(state: bytes) -> None:
    assert read_trace_context(PARENT, state) == TraceContext(TRACE_ID, True, state)


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b" ,",
        b"a",
        b"a=",
        b"a=b ,A=b",
        b"a=b=c",
        b"a=b\x00",
        b"a=b\r\nx: y",
        "a=é".encode(),
        b"1a=b",
        b"a@1=b",
        b"a=" + b"v" * 257,
        b"k" * 257 + b"=v",
        b",".join(b"k%d=v" % at for at in range(33)),
    ],
)
def test_a_state_that_is_not_valid_is_left_out(state: bytes) -> None:
    assert read_trace_context(PARENT, state) == TraceContext(TRACE_ID, True)


def test_a_long_state_loses_its_long_entries_and_then_its_last_ones() -> None:
    short = [b"k%02d=%b" % (at, b"v" * 40) for at in range(15)]
    long = b"long=" + b"x" * 200
    context = read_trace_context(PARENT, b",".join([short[0], long, *short[1:]]))
    assert context is not None
    assert context.tracestate == b",".join(short[:11])
    assert len(context.tracestate) <= MAX_TRACESTATE_BYTES < len(b",".join(short[:12]))
    fits = b",".join([*short[:2], long, long])
    assert read_trace_context(PARENT, fits) == TraceContext(TRACE_ID, True, fits)


@given(parent=st.binary(max_size=80), state=st.binary(max_size=700))
def test_whatever_comes_what_is_sent_is_valid(parent: bytes, state: bytes) -> None:
    context = read_trace_context(PARENT, state)
    assert context is not None
    assert len(context.tracestate) <= MAX_TRACESTATE_BYTES
    assert re.fullmatch(rb"[\x20-\x7e\t]*", context.tracestate)
    for name, value in context.headers():
        if name == b"traceparent":
            assert read_trace_context(value) == TraceContext(TRACE_ID, True)
    read_trace_context(parent, state)
