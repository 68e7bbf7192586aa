"""Generated chats of an agent against strict doubles of the vendors: no turn is refused, and nothing is lost.

``HEADRACE_CHATS`` is how many chats are played against each double, ``HEADRACE_TURNS`` how long each is; `make nightly`
plays 100. A chat is the same in each run: a fault names its seed and its turn.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Final

import pytest
from kit.chats.pipeline import Way, models_of
from kit.chats.play import USUAL, Habits
from kit.chats.runner import CHANGED, GARBLED, Fault, Figures, Runner
from kit.chats.sockets import Line
from kit.service.running import serving
from kit.upstreams.scripted import scripted_upstream
from kit.vendors.vendors import GPT_6_CHAT, VENDORS, Vendor

CHATS: Final = int(os.environ.get("HEADRACE_CHATS", "3"))
TURNS: Final = int(os.environ.get("HEADRACE_TURNS", "200"))
LEAST_RESTORED: Final = 0.95

RESTORED: Final = "less than 95 % of the reasoning is restored"

limit = pytest.mark.timeout(120 + CHATS * TURNS)


async def play(vendor: Vendor, *, habits: Habits = USUAL, chats: int = CHATS, turns: int = TURNS) -> Figures:
    """Play some chats through the pipeline; the double and the service of each are new."""
    figures = Figures()
    for seed in range(chats):
        double = vendor.double(vendor.models, seed=seed)
        route = Way(vendor, double)
        await Runner(vendor, double, route.ask, seed=seed, figures=figures, habits=habits).run(turns)
    return figures


def summary_of(faults: list[Fault]) -> str:
    """Return how often each kind of fault occurred, with its first occurrence."""
    first = {fault.rule: fault for fault in reversed(faults)}
    counts = Counter(fault.rule for fault in faults)
    return "\n".join(f"{count} x {first[rule]}" for rule, count in counts.most_common())


def report(request: pytest.FixtureRequest, name: str, figures: Figures) -> None:
    """Show the figures in the output of every run."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(figures.row(name))


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
    report(request, name, figures)
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
    report(request, "over sockets", figures)
    assert figures.turns == TURNS
    assert not figures.faults, summary_of(figures.faults)


async def test_a_row_for_chat_completions_reaches_models_that_have_tools_only_on_responses() -> None:
    figures = await play(GPT_6_CHAT, chats=1, turns=5)
    check("gpt-6 chat", figures)


async def test_a_chat_survives_a_key_of_another_account() -> None:
    figures = await play(VENDORS["claude 5.5"], habits=Habits(account=0.05), chats=1)
    check("claude 5.5, accounts", figures)


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
