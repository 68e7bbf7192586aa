"""How wrong keys are counted, and how long their answers are delayed."""

from __future__ import annotations

import logging

import pytest

from pipeline.gateway.wrong_keys import FORGET_S, LONGEST_DELAY_S, MAX_ADDRESSES, WrongKeys

ADDRESS = "192.0.2.7"


def delays(keys: WrongKeys, times: int, *, address: str | None = ADDRESS, now_s: float = 0.0) -> list[float]:
    return [keys.note(address, now_s) for _ in range(times)]


def test_after_a_few_wrong_keys_each_further_one_is_answered_later_up_to_a_bound() -> None:
    keys = WrongKeys()
    assert delays(keys, 8) == [0, 0, 0, 0.25, 0.5, 1, 2, 2]
    assert set(delays(keys, 2000)) == {LONGEST_DELAY_S}
    assert keys.total == 2008


def test_each_address_has_a_count_of_its_own_and_begins_anew_after_a_quiet_minute() -> None:
    keys = WrongKeys()
    delays(keys, 5)
    assert delays(keys, 1, address="192.0.2.8") == [0]
    assert delays(keys, 1, address=None) == [0]
    assert delays(keys, 1, now_s=FORGET_S - 1) == [1]
    assert delays(keys, 1, now_s=2 * FORGET_S - 1) == [0]


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    keys = WrongKeys()
    assert [keys.note(f"2001:db8::{n}", 0) for n in range(1, 5)] == [0, 0, 0, 0.25]
    assert keys.note("2001:db8:0:1::1", 0) == 0
    assert keys.note("a:b", 0) == 0  # some other server's idea of an address


def test_the_address_that_was_silent_for_the_longest_is_forgotten_first() -> None:
    keys = WrongKeys()
    delays(keys, 4, address="first")
    for n in range(MAX_ADDRESSES - 1):
        keys.note(f"10.0.{n // 256}.{n % 256}", 0)
    assert delays(keys, 1, address="first") == [0.5]
    keys.note("one more", 0)
    keys.note("10.0.0.0", 0)
    assert delays(keys, 1, address="first") == [1]


def test_an_address_is_logged_once_a_minute_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    keys = WrongKeys()
    with caplog.at_level(logging.WARNING, logger="headrace"):
        delays(keys, 3)
        assert caplog.messages == []
        for second in range(130):
            keys.note(ADDRESS, second)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "4 wrong API keys from 192.0.2.7 within a minute",
        "60 wrong API keys from 192.0.2.7 within a minute",
        "60 wrong API keys from 192.0.2.7 within a minute",
    ]
