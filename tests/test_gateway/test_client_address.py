"""Whose address a request has: the connection's, or what proxies report whom we trust."""

from __future__ import annotations

import pytest

from pipeline.gateway.client_address import MAX_HOPS, Proxies

PROXY = "10.0.0.1"


def client(allowed: list[str], peer: str | None, *headers: tuple[bytes, bytes]) -> str | None:
    return Proxies(allowed).client_of(peer, headers)


def x(value: str) -> tuple[bytes, bytes]:
    return b"x-forwarded-for", value.encode()


def forwarded(value: str) -> tuple[bytes, bytes]:
    return b"forwarded", value.encode()


@pytest.mark.parametrize("allowed", [[], ["10.0.0.2", "fd00::/8"]])
@pytest.mark.parametrize(
    ("peer", "shown"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"),
     ("fe80::1%eth0", "fe80::1"), (None, None), ("testclient", "testclient"), ("a:b", "a:b")],
)  # fmt: skip
def test_what_a_stranger_reports_is_not_believed(allowed: list[str], peer: str | None, shown: str | None) -> None:
    assert client(allowed, peer, x("1.2.3.4"), forwarded("for=1.2.3.4")) == shown


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], PROXY),
        ([x("192.0.2.7")], "192.0.2.7"),
        ([x("6.6.6.6, 192.0.2.7")], "192.0.2.7"),
        ([x("6.6.6.6, 192.0.2.7 ,10.9.9.9")], "192.0.2.7"),
        ([x("6.6.6.6"), x("192.0.2.7"), x("10.9.9.9")], "192.0.2.7"),
        ([x("10.9.9.9, 10.9.9.8")], "10.9.9.9"),
        ([x("192.0.2.7:51234")], "192.0.2.7"),
        ([x("[2001:db8::7]:51234")], "2001:db8::7"),
        ([x("2001:DB8::7")], "2001:db8::7"),
        ([x("::ffff:192.0.2.7")], "192.0.2.7"),
        ([x("6.6.6.6, unknown")], PROXY),
        ([x("6.6.6.6, nonsense, 10.9.9.9")], "10.9.9.9"),
        ([x("6.6.6.6,")], PROXY),
        ([x("9" * 100)], PROXY),
        ([forwarded("for=192.0.2.7")], "192.0.2.7"),
        ([forwarded('for=6.6.6.6, proto=https; For="[2001:db8::7]:4711";by=10.0.0.1')], "2001:db8::7"),
        ([forwarded("for=6.6.6.6, for=_hidden")], PROXY),
        ([forwarded("for=6.6.6.6, proto=https")], PROXY),
        ([forwarded('for="6.6.6.6, for=192.0.2.7')], "192.0.2.7"),  # a quote that the client has left open
        ([forwarded("for=6.6.6.6"), x("192.0.2.7")], "192.0.2.7"),
        ([(b"x-real-ip", b"6.6.6.6")], PROXY),
    ],
)
def test_the_client_is_the_rightmost_that_is_not_a_proxy(headers: list[tuple[bytes, bytes]], expected: str) -> None:
    assert client(["10.0.0.0/8"], PROXY, *headers) == expected


def test_if_everything_is_trusted_the_leftmost_counts() -> None:
    assert client(["*"], "192.0.2.1", x("1.2.3.4, 5.6.7.8")) == "1.2.3.4"
    assert client(["*"], None, x("1.2.3.4")) == "1.2.3.4"


def test_a_long_chain_is_looked_at_in_part() -> None:
    chain = ", ".join(["6.6.6.6", *["10.9.9.9"] * MAX_HOPS])
    assert client(["10.0.0.0/8"], PROXY, x(chain)) == "10.9.9.9"


def test_an_entry_with_host_bits_is_its_network() -> None:
    assert client(["10.1.2.3/8"], PROXY, x("192.0.2.7")) == "192.0.2.7"
