"""The right deployment answers."""

from __future__ import annotations

import math

import pytest
import trio
from kit.service.contexts import context, deployment, request

from pipeline import ClientFault, RequestContext, UpstreamFault
from pipeline.testing import check_stage, collect
from stages.choose_deployment import Deployments, choose_deployment
from stages.principal import Principal
from stages.routing.router import ROUTE
from stages.routing.settings import DEFAULT_ROUTING, RoutingSettings
from stages.slots import CALL

MODELS = Deployments(
    [
        deployment("gpt-5", "gpt-5-2025", id="a"),
        deployment("gpt-5", "gpt-5-2026", id="b"),
        deployment("openai/*", "*", id="wild"),
        deployment("openai/o*", "o*-latest", id="wilder"),
        deployment("*-mini", "small", id="end"),
    ]
)


def answering(models: Deployments, requested: str) -> tuple[str, str] | None:
    found = models.match(requested)
    if found is None:
        return None
    chosen = found.candidates[0]
    return chosen.deployment.id, chosen.model


def test_it_passes_every_check() -> None:
    ((given,),) = [check_stage(choose_deployment(MODELS), request("x-mini"), context=context)]
    assert (given.deployment.id, given.model, given.request.requested_model) == ("end", "small", "x-mini")


async def test_each_conversation_has_one_of_the_deployments_of_a_name() -> None:
    stage = choose_deployment(Deployments([deployment("m", id="a"), deployment("m", id="b")]))
    asked = [request("m", body={"input": f"Question {number % 20}"}) for number in range(40)]
    given = [(await collect(stage, one, context=context))[0].deployment.id for one in asked]
    assert given[:20] == given[20:]
    assert set(given) == {"a", "b"}


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        ("openai/gpt-4", ("wild", "gpt-4")),
        ("openai/o3", ("wilder", "o3-latest")),
        ("a-mini", ("end", "small")),
        ("openai/", ("wild", "")),
    ],
)
def test_a_wildcard_is_replaced_and_the_longest_one_wins(requested: str, chosen: tuple[str, str]) -> None:
    assert answering(MODELS, requested) == chosen


def test_a_wildcard_answers_on_responses_for_models_whose_tools_are_there() -> None:
    twin = deployment("gpt-*", "gpt-*", id="wild", kind="responses")
    models = Deployments([deployment("gpt-*", "gpt-*", id="wild", kind="chat", on_responses=twin)])
    names = ("gpt-4.1", "gpt-5.4", "gpt-6-sol")
    taken = {name: found.candidates[0] for name in names if (found := models.match(name))}
    assert {name: (chosen.deployment.kind, chosen.model) for name, chosen in taken.items()} == {
        "gpt-4.1": ("chat", "gpt-4.1"),
        "gpt-5.4": ("responses", "gpt-5.4"),
        "gpt-6-sol": ("responses", "gpt-6-sol"),
    }


def test_an_exact_name_wins_over_a_wildcard() -> None:
    models = Deployments([deployment("*", "*", id="wild"), deployment("gpt-5", id="exact")])
    assert answering(models, "gpt-5") == ("exact", "gpt-5")


ALIASES = {"old": "m", "mine": "openai/gpt-5", "lost": "gone", "loop": "loop-high"}


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        ("old", ("m", None)),
        ("old-thinking-high", ("m", "high")),
        ("mine", ("gpt-5", None)),
        ("mine:low", ("gpt-5", "low")),
    ],
)
async def test_an_alias_has_variants_too(requested: str, chosen: tuple[str, str | None]) -> None:
    models = Deployments([deployment("m", "m"), deployment("openai/*", "*")], RoutingSettings(aliases=ALIASES))
    ((call,)) = await collect(choose_deployment(models), request(requested), context=context)
    assert (call.model, call.request.body.get("reasoning", {}).get("effort")) == chosen
    limited = Principal(name="k", models=("old", "mine"))
    assert await collect(choose_deployment(models), request(requested), context=lambda: context(principal=limited))


def test_an_alias_of_nothing_is_not_found_and_not_listed() -> None:
    models = Deployments([deployment("m", "m")], RoutingSettings(aliases=ALIASES))
    assert [models.match(name) for name in ("lost", "loop", "lost:high", "loop:low")] == [None] * 4
    assert models.names == ("m", "old")


async def test_an_effort_in_the_body_does_not_lead_from_an_alias_to_another_name() -> None:
    models = Deployments([deployment("m-high", "secret")], RoutingSettings(aliases=ALIASES))
    asked = request("old", body={"input": "hi", "reasoning": {"effort": "high"}})
    with pytest.raises(ClientFault, match="does not exist"):
        await collect(choose_deployment(models), asked, context=context)


async def test_a_wildcard_has_only_chat_models() -> None:
    models = Deployments([deployment("openai/*", "*", id="wild"), deployment("any/*", "*", id="any", is_chat=True)])
    with pytest.raises(
        ClientFault, match="'openai/whisper-1' is for transcription: this gateway serves chat"
    ) as caught:
        await collect(choose_deployment(models), request("openai/whisper-1"), context=context)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert answering(models, "any/whisper-1") == ("any", "whisper-1")
    assert answering(models, "openai/gpt-4o-audio-preview") == ("wild", "gpt-4o-audio-preview")


def test_of_one_wildcard_only_the_deployments_for_chats_answer() -> None:
    models = Deployments([deployment("*", "*", id="wild"), deployment("*", "gpt-5", id="one")])
    found = models.match("whisper-1")
    assert found is not None
    assert [one.deployment.id for one in found.candidates] == ["one"]


async def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ClientFault, match="model 'nope' does not exist") as refusal:
        await collect(choose_deployment(MODELS), request("nope"), context=context)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


async def test_a_model_that_the_key_may_not_use_is_forbidden_whether_it_exists_or_not() -> None:
    def limited() -> RequestContext:
        return context(principal=Principal("bob", models=("*-mini",)))

    for model in ("gpt-5", "nope"):
        with pytest.raises(ClientFault) as refusal:
            await collect(choose_deployment(MODELS), request(model), context=limited)
        assert refusal.value.code == "model_forbidden"


async def test_the_call_is_stored_for_later_stages() -> None:
    ctx = context()
    (given,) = await collect(choose_deployment(MODELS), request("gpt-5"), context=lambda: ctx)
    assert ctx[CALL] is given


def test_a_key_sees_the_names_that_it_may_use_in_their_order() -> None:
    assert MODELS.visible_to(Principal("all")) == ["gpt-5", "openai/*", "openai/o*", "*-mini"]
    assert MODELS.visible_to(Principal("some", models=("gpt-5",))) == ["gpt-5"]


# Variants of a model


VARIED = Deployments(
    [
        deployment("gpt-5", "gpt-5-2025", id="five"),
        deployment("gpt-5-fast", "gpt-5-fast-2025", id="fast"),
        deployment("kimi-k2-thinking", id="thinking"),
        deployment("kimi-k2", id="kimi"),
        deployment("gpt-5.1-codex-max", id="max"),
        deployment("claude-*", "anthropic-*", id="wild"),
        deployment("xai/*", "*", id="xai"),
        deployment("*-mini", "small", id="mini"),
    ]
)


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        ("gpt-5-high", "five"),
        ("gpt-5-thinking-high", "five"),
        ("gpt-5:low", "five"),
        ("gpt-5-fast", "fast"),
        ("gpt-5-fast-medium", "fast"),
        ("gpt-5-high-fast", "five"),
        ("kimi-k2-thinking", "thinking"),
        ("kimi-k2-thinking-high", "thinking"),
        ("kimi-k2-fast", "kimi"),
        ("gpt-5.1-codex-max", "max"),
        ("gpt-5.1-codex-max-high", "max"),
        ("o4-mini-high", "mini"),
    ],
)
def test_the_longest_configured_name_that_fits_answers(requested: str, chosen: str) -> None:
    answers = answering(VARIED, requested)
    assert answers is not None
    assert answers[0] == chosen


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        ("claude-opus-5-thinking-high", ("wild", "anthropic-opus-5")),
        ("claude-opus-5-thinking-high-fast", ("wild", "anthropic-opus-5")),
        ("xai/grok-4-fast", ("xai", "grok-4-fast")),
        ("xai/grok-4-high", ("xai", "grok-4-high")),
        ("xai/kimi-k2-thinking", ("xai", "kimi-k2-thinking")),
    ],
)
def test_a_wildcard_matches_whole_names_except_for_thinking_with_an_effort(
    requested: str, chosen: tuple[str, str]
) -> None:
    assert answering(VARIED, requested) == chosen


@pytest.mark.parametrize("requested", ["gpt-5-thinking", "gpt-5-max", "gpt-5-high-low", "nope-high", "-high", "nope"])
async def test_a_name_that_is_not_a_variant_is_not_found(requested: str) -> None:
    with pytest.raises(ClientFault) as refusal:
        await collect(choose_deployment(VARIED), request(requested), context=context)
    assert refusal.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("requested", "body", "sent"),
    [
        ("gpt-5-thinking-high", {}, {"reasoning": {"effort": "high"}}),
        ("gpt-5-extra", {}, {"reasoning": {"effort": "xhigh"}}),
        ("gpt-5-high", {"reasoning": {"effort": "low"}}, {"reasoning": {"effort": "low"}}),
        ("gpt-5-high", {"reasoning": {"summary": "auto"}}, {"reasoning": {"summary": "auto", "effort": "high"}}),
        ("kimi-k2-fast", {}, {"service_tier": "priority", "speed": "fast"}),
        ("kimi-k2-fast", {"speed": "standard"}, {"service_tier": "priority", "speed": "standard"}),
        ("kimi-k2-fast", {"service_tier": "flex"}, {"service_tier": "flex"}),
        ("gpt-5-fast", {}, {}),
        ("gpt-5", {}, {}),
    ],
)
async def test_the_effort_and_tier_in_the_name_are_sent_unless_the_body_sets_them(
    requested: str, body: dict[str, object], sent: dict[str, object]
) -> None:
    given = request(requested, body={"input": "hi", **body})
    (call,) = await collect(choose_deployment(VARIED), given, context=context)
    assert call.request.body == {"input": "hi", **sent}
    assert call.request.requested_model == requested
    assert given.body == {"input": "hi", **body}


@pytest.mark.parametrize(
    ("scope", "requested", "is_allowed"),
    [
        ("gpt-5", "gpt-5-high", True),
        ("gpt-5-high", "gpt-5-high", True),
        ("gpt-5-high", "gpt-5", False),
        ("gpt-5-high", "gpt-5-low", False),
        ("gpt-5", "gpt-5-fast", False),
        ("gpt-5", "nope-high", False),
    ],
)
async def test_a_key_for_a_model_is_a_key_for_its_variants(scope: str, requested: str, is_allowed: bool) -> None:
    stage = choose_deployment(VARIED)
    limited = lambda: context(principal=Principal("bob", models=(scope,)))  # noqa: E731
    if is_allowed:
        (call,) = await collect(stage, request(requested), context=limited)
        assert call.deployment.id == "five"
        return
    with pytest.raises(ClientFault) as refusal:
        await collect(stage, request(requested), context=limited)
    assert refusal.value.code == "model_forbidden"


async def test_a_refused_request_does_not_use_up_a_turn() -> None:
    stage = choose_deployment(Deployments([deployment("m", id="a"), deployment("m", id="b")]))
    with pytest.raises(ClientFault):
        await collect(stage, request("m"), context=lambda: context(principal=Principal("bob", models=("x",))))
    assert (await collect(stage, request("m"), context=context))[0].deployment.id == "a"


def test_a_name_whose_effort_cursor_removed_is_found() -> None:
    models = Deployments(
        [deployment("sol-fast-medium", id="dropped"), deployment("sol", id="shorter"), deployment("own", id="own")]
    )

    def found(model: str, effort: str | None) -> str | None:
        match = models.match(model, effort=effort)
        return None if match is None else match.candidates[0].deployment.id

    assert found("sol-fast", "medium") == "dropped"
    assert found("sol-fast", "high") == "shorter"
    assert found("sol-fast", None) == "shorter"
    assert found("own", "medium") == "own"
    assert found("other", "medium") is None


def test_an_alias_whose_effort_cursor_removed_is_found() -> None:
    models = Deployments(
        [deployment("sol", id="sol"), deployment("sun-*", id="wild")],
        RoutingSettings(aliases={"moon-high": "sol", "sun-low": "sol"}),
    )
    found = {(name, effort): models.match(name, effort) for name in ("moon", "sun") for effort in ("high", "low")}
    assert {asked: match and match.alias for asked, match in found.items()} == {
        ("moon", "high"): "moon-high",
        ("moon", "low"): None,
        ("sun", "high"): None,
        ("sun", "low"): "sun-low",
    }


@pytest.mark.parametrize(
    ("effort", "models", "chosen"),
    [
        ("high", ("gpt-5", "gpt-5-high"), "named"),
        ("high", ("gpt-5-high",), "named"),
        ("high", ("gpt-5",), "plain"),
        ("pro", ("gpt-5",), "plain"),
        ("pro", ("gpt-5", "gpt-5-pro"), "plain"),
    ],
)
async def test_an_effort_in_the_body_leads_only_to_models_that_the_key_may_use(
    effort: str, models: tuple[str, ...], chosen: str
) -> None:
    names = {"*": "plain", "gpt-5-high": "named", "gpt-5-pro": "other"}
    stage = choose_deployment(Deployments([deployment(name, id=id) for name, id in names.items()]))
    asked = request("gpt-5", body={"input": "hi", "reasoning": {"effort": effort}})
    given = await collect(stage, asked, context=lambda: context(principal=Principal("bob", models=models)))
    assert given[0].deployment.id == chosen


def test_cursors_older_word_order_is_tried_last() -> None:
    todays = deployment("claude-opus-4-6", "t", id="todays")
    assert answering(Deployments([todays]), "claude-4.6-opus-high-thinking") == ("todays", "t")
    both = Deployments([todays, deployment("claude-4.6-opus", "m", id="older")])
    assert answering(both, "claude-4.6-opus-high-thinking") == ("older", "m")
    wild = Deployments([deployment("*", "*", id="wild")])
    assert answering(wild, "claude-4.6-opus") == ("wild", "claude-4.6-opus")


# Windows


def windowed(settings: RoutingSettings, **windows: int | None) -> Deployments:
    """Return groups ``small`` and ``large`` whose deployments have these windows, by their ids."""
    return Deployments(
        [
            deployment(id.partition("_")[0], id=id, max_input_tokens=window, order=order)
            for order, (id, window) in enumerate(windows.items())
        ],
        settings,
    )


async def chosen(models: Deployments, text: str) -> str:
    (given,) = await collect(choose_deployment(models), request("small", body={"input": text}), context=context)
    return given.deployment.id


CHECKED = RoutingSettings(checks_windows=True)
LONG = "word " * 1000


async def test_a_deployment_with_too_small_a_window_is_not_asked() -> None:
    models = windowed(CHECKED, small_1=100, small_2=5000)
    assert (await chosen(models, "hi"), await chosen(models, LONG)) == ("small_1", "small_2")
    assert await chosen(windowed(DEFAULT_ROUTING, small_1=100, small_2=5000), LONG) == "small_1"
    assert await chosen(windowed(CHECKED, small_1=100, small_2=None), LONG) == "small_2"


async def test_one_that_was_left_out_is_not_asked_after_a_failure_either() -> None:
    ctx = context()
    models = windowed(CHECKED, small_1=5000, small_2=100)
    await collect(choose_deployment(models), request("small", body={"input": LONG}), context=lambda: ctx)
    down = UpstreamFault("it is down", code="upstream_unauthorized")
    assert ctx[ROUTE].failed(down, trio.current_time(), deadline_s=math.inf) is None


async def test_if_all_are_too_small_the_fallbacks_for_that_follow() -> None:
    fallbacks = {"small": ("missing", "tiny", "large")}
    settings = RoutingSettings(checks_windows=True, context_window_fallbacks=fallbacks, fallbacks={"small": ("tiny",)})
    models = windowed(settings, small_1=100, tiny_1=50, large_1=99, large_2=5000)
    assert await chosen(models, LONG) == "large_2"


async def test_if_nothing_is_large_enough_the_request_is_too_long() -> None:
    with pytest.raises(ClientFault) as refusal:
        await chosen(windowed(CHECKED, small_1=100, small_2=200), LONG)
    assert (refusal.value.code, refusal.value.public) == (
        "context_length_exceeded",
        "This model's maximum context length is 200 tokens. However, your messages resulted in 1000 tokens. "
        "Please reduce the length of the messages.",
    )


LEFT_OUT = Deployments(
    [deployment("*", "*"), deployment("spare")],
    RoutingSettings(fallbacks={"gone": ("lost", "spare")}, aliases={"other": "gone"}),
    left_out=["gone", "lost"],
)


@pytest.mark.parametrize("requested", ["gone", "gone-high", "other"])
async def test_the_fallbacks_of_a_name_that_is_left_out_answer(requested: str) -> None:
    (given,) = await collect(choose_deployment(LEFT_OUT), request(requested), context=context)
    assert given.deployment.model_name == "spare"


@pytest.mark.parametrize("requested", ["lost", "lost-high"])
async def test_no_wildcard_answers_to_a_name_that_is_left_out(requested: str) -> None:
    with pytest.raises(ClientFault, match="'lost' is in this gateway's configuration, but is left out") as refusal:
        await collect(choose_deployment(LEFT_OUT), request(requested), context=context)
    assert refusal.value.code == "model_not_found"
