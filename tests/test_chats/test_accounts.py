"""Accounts that get into trouble and are back: at any time one is in order, and each has its own prompt cache."""

from __future__ import annotations

import json
import math
from typing import Final

import pytest
from kit.vendors.accounts import KINDS, Accounts, Trouble, troubles
from kit.vendors.vllm import Vllm

NAMES: Final = ("account-1", "account-2", "account-3")


@pytest.mark.parametrize("count", [2, 3])
def test_at_any_time_an_account_is_in_order(count: int) -> None:
    for seed in range(20):
        found = troubles(str(seed), NAMES[:count])
        for moment in (one.since_s for one in found):
            assert len({one.account for one in found if one.since_s <= moment < one.until_s}) < count


def test_everything_happens_and_the_same_seed_brings_the_same() -> None:
    found = troubles("1", NAMES)
    assert {one.kind for one in found} == set(KINDS)
    assert {one.account for one in found} == set(NAMES)
    assert found == troubles("1", NAMES) != troubles("2", NAMES)
    ends = {one.until_s for one in found}
    assert any(one.since_s in ends for one in found)  # one is back in the moment in which another gets into trouble


class World:
    """A vendor, its accounts, and a clock."""

    def __init__(self) -> None:
        self.double = Vllm(("m",), seed=0)
        self.now_s = 0.0
        self.accounts = Accounts(self.double, lambda: self.now_s, seed="1")

    def enter(self, account: str) -> Trouble | None:
        return self.accounts.enter({"authorization": f"Bearer sk-{account}-secret"})

    def cached(self, account: str, *texts: str) -> bool:
        """Ask, and return whether the account knew the beginning."""
        self.enter(account)
        messages = [{"role": "user", "content": text} for text in texts]
        body = json.dumps({"model": "m", "messages": messages, "stream": True}).encode()
        assert self.double("POST", "/v1/chat/completions", {}, body).status == 200, self.double.refusals
        size = self.accounts.keep()
        assert 0 <= self.accounts.cached <= size
        return self.accounts.cached > len(self.double.declared)


def test_an_account_is_in_trouble_for_a_while_and_back() -> None:
    world = World()
    trouble = Trouble("account-1", "late", 100.0, 130.0)
    world.accounts.troubles = [trouble]
    found: list[Trouble | None] = []
    wells: list[float] = []
    for world.now_s in (50.0, 150.0, 175.0, 180.0, 200.0):  # it counts from the first
        found.append(world.enter("account-1"))
        wells.append(world.accounts.well_s("account-1"))
    assert found == [None, trouble, trouble, None, None]
    assert wells == [math.inf, 0, 0, 0, 20]
    assert world.accounts.attempts == [(moment, "account-1") for moment in (0, 100, 125, 130, 150)]
    assert world.accounts.was_one_in_order()  # the other one


def test_a_request_may_find_none_in_order_that_was_so_all_the_time() -> None:
    world = World()
    world.accounts.troubles = [Trouble("account-1", "late", 0.0, 10.0), Trouble("account-2", "failing", 10.0, 20.0)]
    world.enter("account-1")
    assert world.accounts.was_one_in_order()
    world.now_s = 15.0
    world.enter("account-2")
    assert not world.accounts.was_one_in_order()


def test_each_account_has_its_own_cache() -> None:
    world = World()
    asked = [("account-1", "a"), ("account-2", "a"), ("account-1", "a", "b"), ("account-2", "c", "b")]
    assert [world.cached(*one) for one in asked] == [False, False, True, False]
