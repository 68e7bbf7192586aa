"""Generated chats of an agent against strict doubles of the vendors: no turn is refused, and nothing is lost.

``HEADRACE_CHATS`` is how many chats are played against each double, ``HEADRACE_TURNS`` how long each is (with several
accounts, a quarter of it); `make nightly` plays 100. A chat is the same in each run: a fault names its seed and its
turn. To play only the chat of seed 7:

    HEADRACE_SEED=7 HEADRACE_CHATS=1 pytest tests/test_chats -k "accounts and gpt-5"
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Final

import pytest
import trio
import trio.testing
from kit.chats.pipeline import Way, models_of
from kit.chats.play import USUAL, Habits
from kit.chats.runner import AWAY, CHANGED, GARBLED, Fault, Figures, Runner
from kit.chats.sockets import TROUBLES, Line
from kit.service.running import routed, serving
from kit.upstreams.scripted import scripted_upstream
from kit.vendors.accounts import Accounts
from kit.vendors.vendors import GPT_6_CHAT, VENDORS, Vendor

CHATS: Final = int(os.environ.get("HEADRACE_CHATS", "1"))
CHATS_WITH_ACCOUNTS: Final = max(CHATS, 3)
"""Shares of fewer chats depend on chance. A chat that is repeated by its seed is the first one."""
TURNS: Final = int(os.environ.get("HEADRACE_TURNS", "200"))
FIRST: Final = int(os.environ.get("HEADRACE_SEED", "0"))
LEAST_RESTORED: Final = 0.95
LEAST_KEPT: Final = 0.6
"""Of the reasoning that only one of two accounts can read, if a chat keeps its account; at random it is a half."""
LEAST_CACHED: Final = 0.75
"""Much of a request is new: the chats are short, as their context limit is."""

RESTORED: Final = "less than 95 % of the reasoning is restored"

limit = pytest.mark.timeout(120 + CHATS * TURNS)


async def play(vendor: Vendor, *, habits: Habits = USUAL, chats: int = CHATS, turns: int = TURNS) -> Figures:
    """Play some chats through the pipeline; the double and the service of each are new."""
    figures = Figures()
    for seed in range(FIRST, FIRST + chats):
        double = vendor.double(vendor.models, seed=seed)
        route = Way(vendor, double)
        await Runner(vendor, double, route.ask, seed=seed, figures=figures, habits=habits).run(turns)
    return figures


def summary_of(faults: list[Fault]) -> str:
    """Return how often each kind of fault occurred, with its first occurrence."""
    first = {fault.rule: fault for fault in reversed(faults)}
    counts = Counter(fault.rule for fault in faults)
    return "\n".join(f"{count} x {first[rule]}" for rule, count in counts.most_common())


def report(request: pytest.FixtureRequest, *rows: str) -> None:
    """Show figures in the output of every run."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            for row in rows:
                reporter.write_line(row)


def check(name: str, figures: Figures) -> None:
    found = {fault.rule for fault in figures.faults}
    if figures.restored_share < LEAST_RESTORED:
        found.add(RESTORED)
    if figures.identical != figures.comparable:
        found.add(CHANGED)
    assert not found, f"{figures.row(name)}\n{summary_of(figures.faults)}\n{figures.changes[:3]}"


@limit
@pytest.mark.parametrize("name", VENDORS)
async def test_a_long_chat_of_an_agent_never_dies(name: str, request: pytest.FixtureRequest) -> None:
    figures = await play(VENDORS[name])
    report(request, figures.row(name))
    assert figures.turns == CHATS * TURNS
    check(name, figures)
    assert figures.asked_again == 0


async def test_a_chat_over_real_sockets_never_dies(request: pytest.FixtureRequest) -> None:
    vendor = VENDORS["gpt-5"]
    figures = Figures()
    double = vendor.double(vendor.models)
    line = Line(double)
    async with scripted_upstream(line.answer) as up, serving(models_of(vendor, up.url)) as line.service:
        await Runner(vendor, double, line.ask, seed=0, figures=figures).run(TURNS)
    report(request, figures.row("over sockets"))
    assert figures.turns == TURNS
    assert not figures.faults, summary_of(figures.faults)


async def test_a_row_for_chat_completions_reaches_models_that_have_tools_only_on_responses() -> None:
    figures = await play(GPT_6_CHAT, chats=1, turns=5)
    check("gpt-6 chat", figures)


async def test_a_chat_survives_a_key_of_another_account() -> None:
    figures = await play(VENDORS["claude 5.5"], habits=Habits(account=0.05), chats=1)
    check("claude 5.5, accounts", figures)


async def play_with_accounts(
    vendor: Vendor,
    *,
    count: int,
    has_affinity: bool = True,
    returns_home: bool | None = None,
    routing: str = "{}",
    chats: int = CHATS_WITH_ACCOUNTS,
) -> Figures:
    """Play some chats with several accounts, of which one is always in order; in virtual time."""
    figures = Figures()
    for seed in range(FIRST, FIRST + chats):
        double = vendor.double(vendor.models, seed=seed)
        accounts = Accounts(double, trio.current_time, count=count, seed=f"{vendor.double.__name__} {seed}")
        way = Way(vendor, double, accounts=accounts, has_affinity=has_affinity, seed=seed, routing=routing)
        home = has_affinity if returns_home is None else returns_home
        runner = Runner(vendor, double, way.ask, seed=seed, figures=figures, accounts=accounts, returns_home=home)
        await runner.run(TURNS // 4)
    return figures


def check_accounts(name: str, figures: Figures, *, count: int) -> None:
    check(name, figures)
    assert figures.hopeless <= 0.01 * figures.turns
    assert figures.asked_again == 0  # reasoning that only another account can read was never sent
    assert figures.most_attempts <= count + 2  # each of them, and num_retries


@limit
@pytest.mark.parametrize(("name", "count"), [("gpt-5", 2), ("claude 5.5", 2), ("deepseek", 3)])
async def test_no_chat_dies_while_one_of_its_accounts_lives(
    name: str, count: int, request: pytest.FixtureRequest, autojump_clock: trio.testing.MockClock
) -> None:
    vendor = VENDORS[name]
    kept = await play_with_accounts(vendor, count=count, has_affinity=True)
    by_chance = await play_with_accounts(vendor, count=count, has_affinity=False)
    rows = [f"{name}, own account", f"{name}, at random"]
    report(request, kept.accounts_row(rows[0]), by_chance.accounts_row(rows[1]))
    for row, figures in zip(rows, (kept, by_chance), strict=True):
        check_accounts(row, figures, count=count)
    assert kept.cached_share >= max(LEAST_CACHED, by_chance.cached_share)
    assert kept.moves < by_chance.moves
    if vendor.double.binds_account:
        assert kept.kept_share >= max(LEAST_KEPT, by_chance.kept_share)
    else:
        assert min(kept.kept_share, by_chance.kept_share) >= LEAST_RESTORED


@limit
async def test_a_strategy_that_depends_on_the_moment_keeps_a_chat_at_its_account(
    autojump_clock: trio.testing.MockClock,
) -> None:
    routing = "{routing_strategy: latency-based-routing}"
    figures = await play_with_accounts(VENDORS["gpt-5"], count=2, returns_home=False, routing=routing)
    check_accounts("latency-based-routing", figures, count=2)
    assert figures.kept_share >= LEAST_KEPT


async def test_with_accounts_that_fail_over_real_sockets_no_chat_dies(request: pytest.FixtureRequest) -> None:
    vendor, figures = VENDORS["gpt-5"], Figures()
    double = vendor.double(vendor.models)
    # Here the troubles come and go by the number of answers. They are few: to ask what is left out is limited in time.
    accounts = Accounts(double, lambda: len(double.made) * 20, seed="sockets", kinds=TROUBLES)
    line = Line(double, accounts)
    async with (
        scripted_upstream(line.answer) as up,
        serving(models_of(vendor, up.url, accounts.names), config=routed("{cooldown_time: 0.1}")) as line.service,
    ):
        runner = Runner(vendor, double, line.ask, seed=0, figures=figures, accounts=accounts, returns_home=False)
        await runner.run(TURNS // 2)
        records = line.service.records
    report(request, figures.accounts_row("gpt-5, over sockets"))
    assert sum(accounts.met.values()) > 0
    check("over sockets", figures)
    assert max(len(record.get("attempts", ())) for record in records) <= 2 + 2


async def test_the_same_seed_plays_the_same_chat() -> None:
    rows: list[str] = []
    for _ in range(2):
        figures = await play(VENDORS["deepseek"], chats=1, turns=30)
        rows.append(figures.row("deepseek") + summary_of(figures.faults))
    assert rows[0] == rows[1]


async def test_lost_reasoning_is_noticed() -> None:
    vendor, figures = VENDORS["gpt-5"], Figures()
    double = vendor.double(vendor.models)
    await Runner(vendor, double, Way(vendor, double, remembers=False).ask, seed=0, figures=figures).run(20)
    assert figures.restorable > 0
    assert figures.restored == 0


async def test_a_chat_that_does_not_return_to_its_account_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    figures = await play_with_accounts(VENDORS["gpt-5"], count=2, has_affinity=False, returns_home=True, chats=1)
    assert {fault.rule for fault in figures.faults} == {AWAY}


async def test_a_changed_text_is_noticed() -> None:
    vendor, figures = VENDORS["vllm"], Figures()
    double = vendor.double(vendor.models)
    route = Way(vendor, double)

    async def ask(body: object, *, stops_after: int | None = None) -> tuple[int, bytes]:
        status, response = await route.ask(body, stops_after=stops_after)
        return status, response.replace(b"Step", b"Stop")

    await Runner(vendor, double, ask, seed=0, figures=figures).run(20)
    assert {fault.rule for fault in figures.faults} == {GARBLED}


async def test_a_changed_beginning_is_noticed() -> None:
    vendor, figures = VENDORS["vllm"], Figures()
    double = vendor.double(vendor.models)
    route = Way(vendor, double)
    turn = 0

    async def ask(body: dict[str, Any], *, stops_after: int | None = None) -> tuple[int, bytes]:
        nonlocal turn
        turn += 1
        first = body["messages"][1]["content"][0]
        first["text"] += f" {turn}"
        return await route.ask(body, stops_after=stops_after)

    await Runner(vendor, double, ask, seed=0, figures=figures).run(20)
    assert figures.comparable > 0
    assert figures.identical == 0
