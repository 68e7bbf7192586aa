"""Where added stages stand, in what order, for which requests; and what is refused at start-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from kit.clients.chat_posts import ask, good_answer
from kit.service.running import KEY, model, serving
from kit.upstreams.scripted import scripted_upstream
from msgspec.structs import replace

from pipeline import Plugin, RequestContext, per_event
from pipeline.gateway.config.settings import StageSettings, When
from pipeline.gateway.insertions import PLACES, Asked, applies, plan
from pipeline.registry import AnyPlugin, NoOptions, PluginError
from stages.answer import Answer, Next
from stages.events import Finished, StreamEvent
from stages.request import ResponsesRequest
from stages.upstreams import UpstreamCall


def passing(name: str, kind: object) -> AnyPlugin:
    """Return a plugin whose stage passes everything on."""

    def keep(item: Any) -> Iterator[Any]:
        yield item

    keep.__name__ = name
    return Plugin(name, lambda _: per_event(keep), NoOptions, kind, kind)


class Watch:
    def on_start(self, ctx: RequestContext) -> None: ...

    def on_end(self, record: object) -> None: ...


PLUGINS: dict[str, AnyPlugin] = {
    **{name: passing(name, StreamEvent) for name in ("a", "b", "c", "d")},
    "asked": passing("asked", ResponsesRequest),
    "called": passing("called", UpstreamCall),
    "anything": passing("anything", None),
    "watch": Plugin("watch", lambda _: Watch(), NoOptions, kind="observer"),
}


def planned(*insertions: dict[str, Any]) -> list[tuple[str, str | None]]:
    found = plan([StageSettings(**insertion, where="here") for insertion in insertions], PLUGINS)
    return [(one.plugin.name, one.place) for one in found]


def test_a_stage_stands_where_what_it_takes_flows() -> None:
    found = planned({"use": "a"}, {"use": "asked"}, {"use": "called"}, {"use": "watch"})
    assert found == [("a", "events"), ("asked", "request"), ("called", "call"), ("watch", None)]


@pytest.mark.parametrize("place", PLACES)
def test_a_stage_may_say_where_it_stands(place: str) -> None:
    assert planned({"use": "anything", "at": place}) == [("anything", place)]


def test_the_built_in_stage_before_a_place_names_it_too() -> None:
    assert planned({"use": "a", "after": "decode_events"}) == [("a", "events")]
    assert planned({"use": "anything", "after": "call_upstream"}) == [("anything", "upstream_bytes")]


def test_stages_stand_in_the_order_of_the_file_unless_one_names_another() -> None:
    def names(*insertions: dict[str, Any]) -> str:
        return "".join(name for name, _ in planned(*insertions))

    assert names({"use": "b"}, {"use": "a"}, {"use": "c"}) == "bac"
    assert names({"use": "b"}, {"use": "a"}, {"use": "c", "before": "b"}) == "cba"
    assert names({"use": "b", "after": "c"}, {"use": "a"}, {"use": "c"}) == "acb"
    assert names({"use": "a"}, {"use": "b"}, {"use": "c", "after": "a"}, {"use": "d", "before": "c"}) == "adcb"
    assert names({"use": "a", "after": "b"}, {"use": "b", "after": "c"}, {"use": "c"}) == "cba"
    assert names({"use": "a", "before": "b", "after": "c"}, {"use": "b"}, {"use": "c"}) == "cab"
    assert names({"use": "b"}, {"use": "c"}, {"use": "a", "after": "c", "before": "d"}, {"use": "d"}) == "bcad"


def test_an_order_that_cannot_be_is_refused() -> None:
    said = "here: `before` and `after` of the stages a, b contradict each other: leave one out"
    with pytest.raises(PluginError, match=said):
        planned({"use": "a", "after": "b"}, {"use": "b", "after": "a"}, {"use": "c"})
    with pytest.raises(PluginError, match="of the stages a, b, c contradict"):
        planned({"use": "a", "after": "b"}, {"use": "b", "after": "c"}, {"use": "c", "before": "b", "after": "a"})
    with pytest.raises(PluginError, match="stage 'a' cannot stand next to 'a'"):
        planned({"use": "a", "after": "a"})


@pytest.mark.parametrize(
    ("insertion", "said"),
    [
        (
            {"use": "anything"},
            "'anything' does not say what it takes: add `at`, one of",
        ),
        ({"use": "a", "at": "eventz"}, "stage 'a' cannot stand at 'eventz': choose one of request_bytes, request"),
        ({"use": "a", "at": "request"}, "stage 'a' does not take ResponsesRequest"),
        ({"use": "a", "before": "z"}, "stage 'a' cannot stand next to 'z': there is no such added stage at the same"),
        ({"use": "a", "after": "keep_alive"}, "stage 'a' cannot follow 'keep_alive': choose one of authenticate"),
        ({"use": "watch", "at": "events"}, "'watch' is an observer, which has no place: leave out at"),
        (
            {"use": "watch", "when": When(stream=True)},
            "'watch' is an observer, which is told of every request: leave out when",
        ),
        ({"use": "watch", "on_error": "skip"}, "'watch' is an observer: on_error: skip is for stages"),
        (
            {"use": "anything", "at": "request_bytes", "when": When(stream=True)},
            "stage 'anything' is asked before the body is read: `when` can name keys and profile",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(insertion: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as refused:
        planned(insertion)
    assert str(refused.value).startswith("here: ")
    assert said in str(refused.value)


def test_a_condition_names_what_matters() -> None:
    asked = Asked(key="team-a", model="gpt-5-mini", stream=True, profile="cursor")
    assert applies(When(), asked)
    assert applies(When(keys=("x", "team-*"), models=("gpt-5*",), stream=True, profile="cursor"), asked)
    for other in (When(keys=("team",)), When(models=("gpt-5",)), When(stream=False), When(profile="openai")):
        assert not applies(other, asked)
    assert not applies(When(models=("*",)), Asked(key="team-a"))


# --- In the service ---------------------------------------------------------------------------------------------------


@per_event
def to_other(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
    yield replace(request, target_model="other")


SEEN = {"to_other": Plugin("to_other", lambda _: to_other, NoOptions, ResponsesRequest, ResponsesRequest)}
KEYS = f"""\
    - {{name: anna, key: sk-anna-0123456789abcdef, models: [up]}}
    - {{name: bob, key: {KEY}-of-bob}}
"""


@pytest.mark.parametrize(
    ("place", "name"),
    [("request_bytes", "bytes_in"), ("request", "asked"), ("call", "called"), ("upstream_bytes", "bytes_up"),
     ("events", "a"), ("client_bytes", "bytes_out")],
)  # fmt: skip
async def test_a_stage_is_only_in_the_pipelines_of_the_requests_that_it_is_for(place: str, name: str) -> None:
    plugins = {**PLUGINS, **{each: passing(each, None) for each in ("bytes_in", "bytes_up", "bytes_out")}}
    pipeline = f"{KEYS}  stages: [{{use: {name}, at: {place}, when: {{keys: [b*]}}}}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), pipeline, plugins=plugins) as service,
    ):
        for key in (f"{KEY}-of-bob", "sk-anna-0123456789abcdef", f"{KEY}-of-bob"):
            assert (await service.post(ask(), key=key)).status_code == 200
        records = [await service.record(number) for number in range(3)]
    assert [record["key"] for record in records] == ["bob", "anna", "bob"]
    assert [name in record["stages"] for record in records] == [True, False, True]
    assert {"authenticate", "parse_request", "choose_deployment", "restore_reasoning"} <= records[1]["stages"].keys()


async def test_a_stage_may_be_for_some_models_and_for_streams_only() -> None:
    pipeline = "  stages: [{use: a, when: {models: [up*], stream: true}}, {use: asked, when: {models: [down]}}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url) + model("down", upstream.url), pipeline, plugins=PLUGINS) as service,
    ):
        for name, stream in (("up", True), ("up", False), ("down", True)):
            assert (await service.post(ask(name, stream=stream))).status_code == 200
        records = [await service.record(number) for number in range(3)]
    assert ["a" in record["stages"] for record in records] == [True, False, False]
    assert ["asked" in record["stages"] for record in records] == [False, False, True]


@pytest.mark.parametrize("place", ["request", "call", "events"])
async def test_no_spelling_of_a_model_leads_around_a_stage_that_is_for_it(place: str) -> None:
    plugins: dict[str, AnyPlugin] = {"every": passing("every", None)}
    pipeline = f"  stages: [{{use: every, at: {place}, when: {{models: [up]}}}}]"
    names = ("up", "up-fast", "up:high", "up-thinking-high", "upper")
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url) + model("upper", upstream.url), pipeline, plugins=plugins) as service,
    ):
        for name in names:
            assert (await service.post(ask(name))).status_code == 200
        records = [await service.record(number) for number in range(len(names))]
    assert ["every" in record["stages"] for record in records] == [True, True, True, True, False]


@pytest.mark.parametrize("when", ["", ", when: {profile: openai}"])
@pytest.mark.parametrize("place", ["request", "call"])
async def test_a_stage_that_drops_the_request_is_named(place: str, when: str, caplog: pytest.LogCaptureFixture) -> None:
    @per_event
    def drops(item: Any) -> Iterator[Any]:
        yield from ()

    plugins: dict[str, AnyPlugin] = {"drops": Plugin("drops", lambda _: drops, NoOptions)}
    plugins |= {"every": passing("every", None)}
    pipeline = f"  stages: [{{use: drops, at: {place}{when}}}, {{use: every, at: call}}]"
    async with serving(pipeline=pipeline, plugins=plugins) as service:
        answered = await service.post(ask("echo"))
    assert answered.status_code == 500
    assert "stage drops failed" in caplog.text


async def test_an_answer_that_a_stage_breaks_off_is_not_recorded_as_complete() -> None:
    @per_event
    def endless(event: StreamEvent) -> Iterator[StreamEvent]:
        if not isinstance(event, Finished):
            yield event

    plugins: dict[str, AnyPlugin] = {
        "endless": Plugin("endless", lambda _: endless, NoOptions, StreamEvent, StreamEvent)
    }
    async with serving(pipeline="  stages: [{use: endless}]", plugins=plugins) as service:
        for stream in (True, False):
            answered = await service.post(ask("echo", stream=stream))
            assert "ended before it was complete" in answered.text
        records = [await service.record(number) for number in range(2)]
    assert [(record["end"], record["error"]) for record in records] == [("UP", "upstream_protocol")] * 2


async def test_a_stage_may_be_for_one_variant_only() -> None:
    pipeline = "  stages: [{use: a, when: {models: [up-fast]}}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), pipeline, plugins=PLUGINS) as service,
    ):
        for name in ("up", "up-fast"):
            assert (await service.post(ask(name))).status_code == 200
        records = [await service.record(number) for number in range(2)]
    assert ["a" in record["stages"] for record in records] == [False, True]


async def test_a_stage_leads_elsewhere_what_a_client_cannot() -> None:
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(
            model("up", upstream.url) + model("other", upstream.url, upstream="openai/gpt-6"),
            f"{KEYS}  stages: [{{use: to_other, when: {{models: [up]}}}}]",
            plugins=SEEN,
        ) as service,
    ):
        led = await service.post(ask("up"), key="sk-anna-0123456789abcdef")
        assert (led.status_code, upstream.requests[0].json()["model"]) == (200, "gpt-6")
        assert b'"model":"up"' in led.content
        for body in (ask("other"), {**ask("other"), "requested_model": "up"}, {**ask("other"), "target_model": "up"}):
            refused = await service.post(body, key="sk-anna-0123456789abcdef")
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_forbidden")
        record = await service.record(0)
    assert (record["model"], record["target_model"], record["deployment"]) == ("up", "other", "other")


async def test_no_field_of_a_client_leads_elsewhere() -> None:
    odd = {"target_model": "other", "requested_model": "other", "metadata": {"target_model": "other"}}
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url) + model("other", upstream.url, upstream="openai/gpt-6"), KEYS) as service,
    ):
        answer = await service.post({**ask("up"), **odd}, key="sk-anna-0123456789abcdef", x_target_model="other")
        assert (answer.status_code, upstream.requests[0].json()["model"]) == (200, "gpt-5")


async def test_a_model_that_a_stage_has_chosen_and_that_does_not_exist_is_named() -> None:
    async with serving(model("up", "http://127.0.0.1:1"), "  stages: [{use: to_other}]", plugins=SEEN) as service:
        refused = await service.post(ask("up"))
    said = "the model 'other', which a stage of this gateway chose for 'up', does not exist"
    assert refused.json()["error"]["message"].startswith(said)


class Around:
    """Passes the call on, if its reasoning is yet to be restored."""

    name = "around"

    def call(self, call: UpstreamCall, next: Next) -> AbstractAsyncContextManager[Answer]:
        assert "prompt_cache_key" not in call.request.body
        return next(call)


AROUND: AnyPlugin = Plugin("around", lambda _: Around(), NoOptions, kind="around")


@pytest.mark.parametrize("is_read_in_parts", [False, True])
async def test_reasoning_is_restored_once_whether_an_around_is_for_the_request_or_not(is_read_in_parts: bool) -> None:
    plugins = {**PLUGINS, "around": AROUND}
    more = ", {use: asked, when: {keys: [bob]}}" if is_read_in_parts else ""
    stages = f"  stages: [{{use: around, when: {{stream: true}}}}{more}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), KEYS + stages, plugins=plugins) as service,
    ):
        for stream in (True, False):
            assert (await service.post(ask(stream=stream), key=f"{KEY}-of-bob")).status_code == 200
        around, plain = [await service.record(number) for number in range(2)]
    [attempt] = around["attempts"]
    assert list(attempt["stages"]) == ["restore_reasoning", "call_upstream", "decode_events"]
    assert ("answer_call" in around["stages"], "answer_call" in plain["stages"]) == (True, False)
    assert "attempts" not in plain
    assert all("prompt_cache_key" in asked.json() for asked in upstream.requests)


@per_event
def to_document(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
    yield replace(request, stream=False)


async def test_what_a_stage_makes_of_the_request_decides_what_is_around_the_call() -> None:
    plugins = {
        **PLUGINS,
        "around": AROUND,
        "to_document": Plugin("to_document", lambda _: to_document, NoOptions, ResponsesRequest, ResponsesRequest),
    }
    stages = "  stages: [{use: around, when: {stream: true}}, {use: to_document, when: {keys: [master]}}]"
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), stages, plugins=plugins) as service,
    ):
        assert (await service.post(ask())).json()["object"] == "chat.completion"
        record = await service.record()
    assert ("restore_reasoning" in record["stages"], "answer_call" in record["stages"]) == (True, False)


async def test_a_profile_is_a_condition_at_each_place() -> None:
    places = {"request_bytes": "one", "request": "two", "call": "three", "events": "four"}
    plugins = {name: passing(name, None) for name in places.values()}
    stages = "".join(f"    - {{use: {use}, at: {at}, when: {{profile: cursor}}}}\n" for at, use in places.items())
    async with (
        scripted_upstream(*good_answer()) as upstream,
        serving(model("up", upstream.url), f"  stages:\n{stages}", plugins=plugins) as service,
    ):
        for agent in ("Cursor/1.0", "openai-python/2.0"):
            assert (await service.post(ask(), user_agent=agent)).status_code == 200
        of_cursor, of_other = [await service.record(number) for number in range(2)]
    assert plugins.keys() <= of_cursor["stages"].keys()
    assert plugins.keys().isdisjoint(of_other["stages"])


async def test_a_refused_key_is_refused_before_any_stage_that_has_a_condition() -> None:
    stages = "  stages: [{use: anything, at: request_bytes, when: {keys: ['*']}}]"
    async with serving(pipeline=stages, plugins=PLUGINS) as service:
        refused = await service.post(ask("echo"), key="sk-nobody")
        assert (refused.status_code, (await service.record())["stages"].keys()) == (401, {"authenticate"})


async def test_only_so_many_pipelines_are_kept() -> None:
    names = [f"s{number}" for number in range(7)]
    plugins = {name: passing(name, StreamEvent) for name in names}
    # Each key is for another combination: its number in binary.
    keys = "".join(f"    - {{name: 'k{number:07b}', key: sk-key-{number:07b}-0123456789}}\n" for number in range(70))
    stages = "".join(
        f"    - {{use: {name}, when: {{keys: [{', '.join(f'k{n:07b}' for n in range(70) if n >> at & 1)}]}}}}\n"
        for at, name in enumerate(names)
    )
    async with serving(pipeline=f"{keys}  stages:\n{stages}", plugins=plugins) as service:
        for at, number in enumerate([*range(70), 0]):
            answer = await service.post(ask("echo"), key=f"sk-key-{number:07b}-0123456789")
            assert answer.status_code == 200
            stages_of = (await service.record(at))["stages"]
            assert [name in stages_of for name in names] == [bool(number >> bit & 1) for bit in range(7)]
