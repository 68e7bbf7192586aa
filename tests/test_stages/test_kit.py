"""The kit for the authors of arounds, and of stages that read what the gateway leaves: it finds each mistake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from kit.service.arounds import FunctionAround, pass_on
from msgspec.structs import fields

from pipeline import (
    ClientFault,
    Host,
    Inlet,
    Outlet,
    Overloaded,
    Plugin,
    RequestContext,
    StageBug,
    UpstreamFault,
    codec_stage,
)
from pipeline.gateway.request_record import RequestRecord
from pipeline.registry import NoOptions
from pipeline.testing import check_plugin, new_record
from stages.answer import Answer, Next
from stages.events import Failed, Finished, Heartbeat, Started, StreamEvent, TextDelta, Usage
from stages.routing.router import ROUTE
from stages.slots import ATTEMPTS, CALL, HEAD, PRINCIPAL, PROFILE
from stages.testing import check_around, contexts_of, new_call, new_principal, new_request_context, soak_around
from stages.upstreams import Deployment, UpstreamCall

DOWN = UpstreamFault("it is down", code="upstream_error")
GOOD: list[StreamEvent] = [TextDelta("Hello"), TextDelta(" there"), Finished("stop")]


async def try_again(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    async with AsyncExitStack() as opened:
        try:
            answer = await opened.enter_async_context(next(call))
        except UpstreamFault:
            with next.outside():
                await trio.sleep(3600)
            answer = await opened.enter_async_context(next(new_call(model="other")))
        yield answer


async def race(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    """Ask twice at the same time, and answer with the whole of what is complete first."""
    complete: list[list[StreamEvent]] = []
    is_complete = trio.Event()

    async def ask() -> None:
        async with next(call) as answer:
            complete.append([event async for batch in answer for event in batch])
            is_complete.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        with next.outside():
            await is_complete.wait()
        nursery.cancel_scope.cancel()
    yield Answer.of_events(call, complete[0])


# What tests are made of.


def test_a_call_says_the_text_and_its_parts_can_be_changed() -> None:
    plain = new_call()
    assert plain.request.body == {"input": "Hello"}
    assert (plain.model, plain.request.requested_model, plain.deployment.id) == ("gpt-5", "gpt-5", "gpt-5-1")
    changed = new_call("Bye", model="small", stream=False, id="one", kind="chat")
    assert (changed.request.body, changed.request.stream) == ({"input": "Bye"}, False)
    assert (changed.deployment.id, changed.deployment.kind, changed.model) == ("one", "chat", "small")
    other = new_call(deployment=changed.deployment, request=plain.request, target_model="large")
    assert (other.deployment, other.model) == (changed.deployment, "small")
    assert (other.request.requested_model, other.request.target_model) == ("gpt-5", "large")


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^neither a call nor its request nor its deployment has a field 'colour'$"):
        new_call(colour="red")


def test_a_context_is_filled_as_the_gateway_fills_it() -> None:
    ctx = new_request_context()
    assert (ctx[CALL], ctx[PRINCIPAL], ctx[HEAD].headers) == (new_call(), new_principal("me"), {})
    assert ctx[PROFILE].name == "openai"
    ben = new_principal("ben", models=("gpt-*",))
    ctx = new_request_context(new_call("Bye"), ben, {b"x-team": b"blue"})
    assert (ctx[CALL].request.body, ctx[PRINCIPAL]) == ({"input": "Bye"}, ben)
    assert ctx[HEAD].headers == {b"x-team": b"blue"}


def test_the_record_for_observers_has_every_field_of_the_gateways() -> None:
    assert sorted(vars(new_record())) == sorted(field.name for field in fields(RequestRecord))


class Greet:
    """Greets the owner of the key before the first text; it knows whom by what the test chooses."""

    def __init__(self, ctx: RequestContext, greeted: dict[str, str]) -> None:
        self._name = greeted.setdefault("name", ctx[PRINCIPAL].name) if greeted else ctx[PRINCIPAL].name

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        return [TextDelta(f"{self._name}, {event.text}") if isinstance(event, TextDelta) else event for event in batch]

    def flush(self) -> list[StreamEvent]:
        return []


def test_what_one_owner_sees_of_another_is_caught() -> None:
    good: Any = codec_stage("greet", lambda ctx: Greet(ctx, {}), codec=Greet)
    assert check_plugin(good, None, *GOOD, contexts=contexts_of("ann", "ben"))[0] == TextDelta("ann, Hello")


class GreetFirst:
    """Keeps the first owner in the stage, which all requests share."""

    name = "greet"
    owner = ""

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        self.owner = self.owner or ctx[PRINCIPAL].name
        async for batch in inlet:
            await outlet.send([TextDelta(self.owner) for _ in batch])


@pytest.mark.parametrize("plugin", [Plugin("greet", lambda _: GreetFirst(), NoOptions), GreetFirst()])
def test_what_is_kept_of_the_first_owner_is_caught(plugin: Any) -> None:
    with pytest.raises(AssertionError, match=r"greet confuses requests .* request 2 of 3 got .*'ann'.* alone .*'ben'"):
        check_plugin(plugin, None, *GOOD, contexts=contexts_of("ann", "ben"))


def test_what_depends_on_who_comes_last_is_caught() -> None:
    latest: list[str] = []

    class GreetLatest(Greet):
        def __init__(self, ctx: RequestContext) -> None:
            latest[:] = [ctx[PRINCIPAL].name]

        @property
        def _name(self) -> str:  # type: ignore[override]  # the mistake that is to be found
            return latest[0]

    with pytest.raises(AssertionError, match=r"greet confuses requests .* request 1 of 3 got .*'cem, Hello'"):
        check_plugin(codec_stage("greet", GreetLatest), None, *GOOD, contexts=contexts_of("ann", "ben", "cem"))


# Good arounds.


def test_an_answer_is_passed_on_with_what_was_asked() -> None:
    call = new_call("Bye")
    given = check_around(FunctionAround(pass_on), GOOD, call=call)
    assert given == GOOD
    [attempt] = given.attempts
    assert (attempt.call, attempt.given, attempt.closes, attempt.error) == (call, GOOD, 1, None)


def test_an_attempt_that_fails_is_made_again_elsewhere_and_both_are_reported() -> None:
    given = check_around(FunctionAround(try_again), DOWN, GOOD)
    assert given == GOOD
    first, second = given.attempts
    assert (first.call.model, first.error, first.closes) == ("gpt-5", DOWN, 0)
    assert (second.call.model, second.given, second.closes) == ("other", GOOD, 1)


def test_attempts_side_by_side_are_all_left() -> None:
    given = check_around(FunctionAround(race), [TextDelta("slow"), 60, Finished("stop")], [1.5, *GOOD])
    assert given == GOOD
    assert [attempt.closes for attempt in given.attempts] == [1, 1]
    assert given.attempts[0].given == [TextDelta("slow")]


def test_an_answer_without_an_attempt_passes() -> None:
    async def answer(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        yield Answer.of_events(call, GOOD)

    given = check_around(FunctionAround(answer))
    assert (given, given.attempts) == (GOOD, [])


def test_a_failure_that_the_around_lets_through_is_raised() -> None:
    with pytest.raises(UpstreamFault) as failed:
        check_around(FunctionAround(try_again), DOWN, UpstreamFault("it is still down"))
    assert str(failed.value) == "it is still down"


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ([Started("r", "m", 0), Overloaded("full")], Overloaded, "full"),
        ([Started("r", "m", 0), Heartbeat(), Failed("upstream_error", "broken")], UpstreamFault, "broken"),
        ([Started("r", "m", 0)], UpstreamFault, "the upstream's answer was empty"),
        ([], UpstreamFault, "the upstream's answer was empty"),
        ([TextDelta("a"), ClientFault("no")], ClientFault, "no"),
    ],
)
def test_attempts_fail_as_those_of_the_gateway_do(script: list[Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}$"):
        check_around(FunctionAround(pass_on), script)


def test_what_is_known_before_the_first_text_is_given_with_it() -> None:
    begun: list[int] = []

    async def count(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call) as answer:
            batches = [len(batch) async for batch in answer]
            begun[:] = [*batches, len(next.ctx[ATTEMPTS])]
            yield Answer.of_events(call, GOOD)

    script: list[Any] = [Started("r", "m", 0), Heartbeat(), TextDelta("a"), 5, Failed("upstream_error", "broken")]
    assert check_around(FunctionAround(count), script) == GOOD
    assert begun == [3, 1, 1]


@dataclass(frozen=True)
class Limit:
    deployments: int = 1


def test_a_plugin_with_a_lifetime_is_open_for_all_runs() -> None:
    lived: list[object] = []

    @asynccontextmanager
    async def serve(options: Limit, host: Host) -> AsyncIterator[FunctionAround]:
        assert len(host.deployments) == options.deployments
        lived.append("opened")
        yield FunctionAround(pass_on)
        lived.append("closed")

    plugin = Plugin("around", serve=serve, options=Limit, kind="around")
    one: dict[str, Deployment] = {"one": new_call().deployment}
    assert check_around(plugin, GOOD, options=Limit(1), deployments=one, principal=new_principal("ben")) == GOOD
    assert lived == ["opened", "closed"]


def test_a_stage_is_for_another_check() -> None:
    with pytest.raises(TypeError, match=r"'greet' does not stand around the call: use pipeline\.testing\.check_plugin"):
        check_around(codec_stage("greet", lambda ctx: Greet(ctx, {}), codec=Greet))
    with pytest.raises(TypeError, match=r"use pipeline\.testing\.soak"):
        soak_around(codec_stage("greet", lambda ctx: Greet(ctx, {}), codec=Greet))


# Bad ones.


async def leak(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    yield await next(call).__aenter__()


async def leak_if_cancelled(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    attempt = next(call)
    answer = await attempt.__aenter__()
    with next.outside():
        await trio.sleep(1)
    try:
        yield answer
    finally:
        await attempt.__aexit__(None, None, None)


async def leak_if_left(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    attempt = next(call)
    answer = await attempt.__aenter__()
    events = [event async for batch in answer for event in batch]

    class Both:
        def __init__(self) -> None:
            self.left = [[event] for event in events]

        def __aiter__(self) -> Both:
            return self

        async def __anext__(self) -> list[StreamEvent]:
            if len(self.left) == 1:
                await attempt.__aexit__(None, None, None)
            return self.left.pop(0)

    yield Answer(call, Both())


async def close_twice(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    attempt = next(call)
    async with attempt as answer:
        yield answer
    await attempt.__aexit__(None, None, None)


async def answer_too_late(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    async with next(call) as answer:
        pass
    yield answer


async def ask_too_often(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    with suppress(UpstreamFault):
        async with next(call):
            pass
    async with next(call) as answer:
        yield answer


async def wait_quietly(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    await trio.sleep(2)
    async with next(call) as answer:
        yield answer


async def answer_when_cancelled(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    with suppress(trio.Cancelled):
        async with next(call) as answer:
            events = [event async for batch in answer for event in batch]
            yield Answer.of_events(call, events)
            return
    yield Answer.of_events(call, GOOD)


async def break_off(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    yield Answer.of_events(call, GOOD[:1])


async def give_an_empty_batch(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    class Batches:
        def __init__(self) -> None:
            self.left: list[list[StreamEvent]] = [[], [*GOOD]]

        def __aiter__(self) -> Batches:
            return self

        async def __anext__(self) -> list[StreamEvent]:
            return self.left.pop(0)

    yield Answer(call, Batches())


@pytest.mark.parametrize(
    ("around", "fault"),
    [
        (leak, "around left attempt 1 0 times, not once, when its answer was left after the first batch"),
        (leak_if_cancelled, "around left attempt 1 0 times, not once, when it was cancelled"),
        (leak_if_left, "around left attempt 1 0 times, not once, when its answer was left after the first batch"),
        (close_twice, "around left attempt 1 2 times, not once, when its answer was left after the first batch"),
        (answer_too_late, "around reads from an attempt that it has left, when its answer was left after the first"),
        (ask_too_often, "around asked for attempt 2, and the test has scripted only 1, when its answer was left"),
        (wait_quietly, "around waited 2 s without saying so: put it in `with next.outside():`"),
        (answer_when_cancelled, "around was cancelled and "),
        (break_off, "around gave an answer whose last event is neither Finished nor Failed, when its answer was compl"),
        (give_an_empty_batch, "around gave an empty batch, when its answer was left after the first batch"),
    ],
)
def test_a_bad_around_is_caught(around: Any, fault: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_around(FunctionAround(around), GOOD)
    assert str(caught.value).startswith(fault)


async def raise_when_cancelled(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    with suppress(BaseException):
        async with next(call) as answer:
            yield answer


def test_an_around_that_swallows_everything_is_told_the_rule() -> None:
    with pytest.raises(AssertionError, match=r"^around was cancelled and .*: let trio.Cancelled pass, and catch Exc"):
        check_around(FunctionAround(raise_when_cancelled), GOOD)


def test_an_around_that_remembers_earlier_requests_is_caught_unless_it_says_so() -> None:
    class Counts(FunctionAround):
        def __init__(self) -> None:
            super().__init__(self._count)
            self.asked = 0

        async def _count(self, call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
            self.asked += 1
            yield Answer.of_events(call, [TextDelta(str(self.asked)), Finished("stop")])

    with pytest.raises(AssertionError, match=r"^around remembers earlier requests: first it answered .*'1'"):
        check_around(Counts())
    assert check_around(Counts(), shares_between_requests=True)[1:] == [Finished("stop")]


def test_a_bug_of_an_around_names_it_and_its_cause() -> None:
    async def fail(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        known: dict[StreamEvent, StreamEvent] = {}
        async with next(call) as answer:
            yield answer.changed(lambda batch: [known[event] for event in batch])

    with pytest.raises(StageBug) as caught:
        check_around(FunctionAround(fail), [Usage(1, 2, 3), *GOOD])
    assert str(caught.value).startswith("stage 'around' raised KeyError(Usage(")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_around_may_ask_another_deployment_of_the_same_name() -> None:
    async def ask_another(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        [other] = next.ctx[ROUTE].others(trio.current_time())
        async with next(other.called(call)) as answer:
            yield answer

    there = {"b": new_call(id="b").deployment, "c": new_call(model="other").deployment}
    given = check_around(FunctionAround(ask_another), GOOD, deployments=there)
    assert (given, [attempt.call.deployment.id for attempt in given.attempts]) == (GOOD, ["b"])


def test_an_around_that_keeps_something_of_each_request_is_caught_by_a_soak() -> None:
    kept: list[UpstreamCall] = []

    async def hoard(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        kept.append(call.at(call.deployment))
        async with next(call) as answer:
            yield answer

    soak_around(FunctionAround(try_again), DOWN, GOOD, rounds=10)
    with pytest.raises(AssertionError, match=r"around keeps [0-9]+ bytes of each run"):
        soak_around(FunctionAround(hoard), GOOD, rounds=10)
