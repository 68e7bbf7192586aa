"""Around the call: attempts that fail, that are made again or elsewhere, at once, or not at all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from kit.clients.chat_fold import fold_stream
from kit.clients.chat_posts import ask, begun, good_answer
from kit.service.arounds import FunctionAround, pass_on
from kit.service.bridges import Browser, FakeUpstream, bridge_to
from kit.service.records import assert_sums
from kit.service.running import model, serving
from kit.upstreams.kinds import ANSWERS
from kit.upstreams.scripted import Script, error, in_turn, scripted_upstream, stall
from msgspec.structs import replace

from pipeline import ClientFault, Outcome, Overloaded, PipelineError, Plugin, UpstreamFault, codec_stage
from pipeline.gateway.config.settings import Execution
from pipeline.registry import AnyPlugin, NoOptions
from pipeline.testing import assert_cancels_cleanly
from stages.answer import Answer, Around, Next
from stages.answer_call import END_LIMIT_S
from stages.events import Failed, Finished, StreamEvent, TextDelta, Usage
from stages.upstreams import UpstreamAnswer, UpstreamCall

CHAT = ANSWERS["chat"]
TEXT, FINISH, END = b"".join(CHAT.text), b"".join(CHAT.finish), b"".join(CHAT.end)
DOWN = UpstreamFault("it is down", code="upstream_error", status_hint=503)

both_ways = pytest.mark.parametrize("stream", [True, False], ids=["streaming", "not streaming"])
each_execution = pytest.mark.parametrize("execution", ["fused", "tasks"])


class InTurn(FakeUpstream):
    """A different upstream for each call."""

    def __init__(self, *upstreams: FakeUpstream) -> None:
        super().__init__()
        self._upstreams = list(upstreams)

    async def __call__(self, call: UpstreamCall) -> UpstreamAnswer:
        self.calls.append(call)
        return await self._upstreams[len(self.calls) - 1](call)


def around(call: Any, name: str = "around") -> tuple[None, Plugin[NoOptions]]:
    made: Around = FunctionAround(call, name)
    return None, Plugin(name, lambda _: made, NoOptions, kind="around")


async def asked(
    upstream: FakeUpstream, insertion: Any = None, *, stream: bool = True, execution: Execution = "fused"
) -> tuple[Browser, dict[str, Any]]:
    bridge, records = bridge_to(upstream, kind="chat", insertion=insertion, execution=execution)
    browser = Browser(bridge, ask(stream=stream))
    await browser.ask()
    [record] = records
    assert_sums(record)
    return browser, record


async def try_twice(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    async with AsyncExitStack() as opened:
        try:
            answer = await opened.enter_async_context(next(call))
        except UpstreamFault:
            with next.outside():
                await trio.sleep(3)
            answer = await opened.enter_async_context(next(call))
        yield answer


def without_ids(body: bytes) -> bytes:
    return re.sub(rb'chatcmpl-\w+|"created":\d+', b"", body)


@both_ways
@each_execution
async def test_an_around_that_does_nothing_changes_no_byte(
    stream: bool, execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    def upstream() -> FakeUpstream:
        return FakeUpstream(1.0, TEXT, 1.0, FINISH, END)

    plain, _ = await asked(upstream(), stream=stream, execution=execution)
    passed, record = await asked(upstream(), around(pass_on), stream=stream, execution=execution)
    assert without_ids(passed.body) == without_ids(plain.body)
    assert record["arounds_ms"] == {"around": 0, "route_call": 0}
    [attempt] = record["attempts"]
    assert (attempt["end"], attempt["deployment"], attempt["began_ms"], attempt["ms"]) == ("OK", "up-1", 0, 2000)
    lanes = ["restore_reasoning", "call_upstream", "decode_events"]
    assert list(attempt["lanes"]) == lanes
    for lane in attempt["lanes"].values():
        states = [ms for state, ms in lane.items() if state not in ("stages", "life_ms")]
        assert sum(states) == pytest.approx(lane["life_ms"], abs=0.01)
    assert "answer_call" in record["stages"]
    assert record["party_ms"] == {"client": 0, "ours": 0, "upstream": 2000}
    assert (record["prompt_tokens"], record["completion_tokens"]) == (3, 2)


@both_ways
async def test_a_failed_attempt_is_made_again(stream: bool, autojump_clock: trio.testing.MockClock) -> None:
    upstream = InTurn(FakeUpstream(before_head=(2.0, DOWN)), FakeUpstream(TEXT, FINISH, END))
    browser, record = await asked(upstream, around(try_twice), stream=stream)
    assert browser.status == 200
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_error", "OK"]
    assert [attempt["began_ms"] for attempt in record["attempts"]] == [0, 5000]
    assert record["party_ms"] == {"client": 0, "ours": 3000, "upstream": 2000}
    assert record["stages"]["answer_call"]["outside_ms"] == 3000
    assert (record["end"], "error" in record) == ("OK", False)


async def test_the_last_failure_is_what_the_client_gets(autojump_clock: trio.testing.MockClock) -> None:
    upstream = InTurn(FakeUpstream(before_head=(DOWN,)), FakeUpstream(before_head=(DOWN,)))
    browser, record = await asked(upstream, around(try_twice))
    assert browser.status == 502
    assert (record["end"], record["error"]) == ("UE", "upstream_error")
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_error"] * 2


async def test_an_attempt_that_breaks_off_before_it_said_anything_is_made_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    started = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    broken = UpstreamFault("the connection broke", code="upstream_protocol")
    upstream = InTurn(FakeUpstream(started, 1.0, broken), FakeUpstream(TEXT, FINISH, END))
    browser, record = await asked(upstream, around(try_twice))
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_protocol", "OK"]
    assert fold_stream(browser.body).error is None


async def test_a_failure_after_the_first_event_is_in_its_place(autojump_clock: trio.testing.MockClock) -> None:
    broken = UpstreamFault("the connection broke", code="upstream_protocol")
    upstream = InTurn(FakeUpstream(TEXT, 1.0, broken))
    browser, record = await asked(upstream, around(try_twice))
    assert (record["end"], record["status"], record["error"]) == ("UP", 200, "upstream_protocol")
    assert fold_stream(browser.body).content == "Hello"
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_protocol"]


async def test_another_deployment_may_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def elsewhere(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        other = replace(call, deployment=replace(call.deployment, id="other"), model="gpt-6")
        async with next(other) as answer:
            yield answer

    upstream = FakeUpstream(TEXT, FINISH, END)
    browser, record = await asked(upstream, around(elsewhere))
    assert (record["model"], record["deployment"], record["attempts"][0]["model"]) == ("up", "other", "gpt-6")
    assert b'"model":"up"' in browser.body
    assert upstream.calls[0].deployment.id == "other"


@both_ways
async def test_an_answer_needs_no_upstream_and_keeps_its_usage(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def from_memory(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        yield Answer.of_events(call, [TextDelta("as before"), Usage(7, 5, 12), Finished("stop")])

    browser, record = await asked(FakeUpstream(), around(from_memory), stream=stream)
    assert b"as before" in browser.body
    assert (record["prompt_tokens"], record["completion_tokens"], record["end"]) == (7, 5, "OK")
    assert "attempts" not in record
    assert record["events"] == 3


async def test_the_events_of_an_answer_are_counted_once(autojump_clock: trio.testing.MockClock) -> None:
    upstream = InTurn(FakeUpstream(before_head=(DOWN,)), FakeUpstream(TEXT, FINISH, END))
    _, record = await asked(upstream, around(try_twice))
    assert record["events"] == record["attempts"][1]["events"] == record["stages"]["answer_call"]["events_out"] > 0
    _, plain = await asked(FakeUpstream(TEXT, FINISH, END))
    assert plain["events"] == record["events"]


async def test_an_answer_can_be_changed_on_its_way(autojump_clock: trio.testing.MockClock) -> None:
    def louder(batch: list[StreamEvent]) -> list[StreamEvent]:
        return [TextDelta(event.text.upper()) if isinstance(event, TextDelta) else event for event in batch]

    async def loud(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call) as answer:
            yield answer.changed(louder)

    browser, _ = await asked(FakeUpstream(TEXT, FINISH, END), around(loud))
    assert fold_stream(browser.body).content == "HELLO"


async def test_two_attempts_may_race_each_in_a_task_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async def race(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        send, receive = trio.open_memory_channel[Any](0)
        winner: list[Answer] = []

        async def attempt(pause_s: float) -> None:
            with next.outside():  # declares nothing: only the task that runs the around is measured
                await trio.sleep(pause_s)
            async with next(call) as answer:
                winner.append(answer)
                if winner[0] is answer:
                    async for batch in answer:
                        await send.send(batch)
                    await send.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, 0)
            nursery.start_soon(attempt, 0.5)
            yield Answer(call, aiter(receive))
            nursery.cancel_scope.cancel()

    upstream = InTurn(FakeUpstream(before_head=(60.0,)), FakeUpstream(1.0, TEXT, FINISH, END))
    browser, record = await asked(upstream, around(race))
    assert fold_stream(browser.body).content == "Hello"
    assert {attempt["end"] for attempt in record["attempts"]} == {"OK", "given_up"}
    assert record["total_ms"] == 1500
    assert record["lanes"]["answer_call"]["outside_ms"] == 0
    assert [name for name in record["lanes"] if "attempt" in name] == ["answer_call.attempt 1", "answer_call.attempt 2"]


async def test_an_answer_that_another_task_has_opened_is_still_the_upstreams_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def hedge(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        answers: list[Answer] = []
        is_open = trio.Event()

        async def attempt() -> None:
            async with next(call) as answer:
                answers.append(answer)
                is_open.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)
            with next.outside():
                await is_open.wait()
            yield answers[0]
            nursery.cancel_scope.cancel()

    browser, record = await asked(FakeUpstream(1.0, TEXT, 3.0, FINISH, END), around(hedge))
    assert fold_stream(browser.body).content == "Hello"
    assert record["party_ms"] == {"client": 0, "ours": 1000, "upstream": 3000}
    assert (record["first_token_ms"], record["total_ms"]) == (1000, 4000)
    assert record["stages"]["answer_call"]["busy_ms"] == 0


@pytest.mark.parametrize("begins", [True, False])
async def test_what_fails_in_a_nursery_of_an_around_reaches_others_without_its_group(
    begins: bool, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[Exception] = []

    async def inner(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with trio.open_nursery(), next(call) as answer:
            yield answer

    async def outer(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        try:
            async with next(call) as answer:
                yield answer
                raise UpstreamFault("it was not good enough", code="upstream_error")
        except Exception as error:
            seen.append(error)
            raise

    upstream = FakeUpstream(TEXT, FINISH, END) if begins else FakeUpstream(before_head=(DOWN,))
    await asked(upstream, [around(outer, "outer"), around(inner, "inner")])
    [error] = seen
    assert isinstance(error, UpstreamFault)
    assert error.code == "upstream_error"


async def test_the_record_has_the_own_time_of_each_around(autojump_clock: trio.testing.MockClock) -> None:
    async def patient(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call) as answer:
            with next.outside():
                await trio.sleep(4)
            yield answer
            await trio.sleep(1)

    async def twice(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        await trio.sleep(2)
        is_begun = [trio.Event(), trio.Event()]
        answers: list[Answer] = []

        async def attempt(at: int) -> None:
            async with next(call) as answer:
                answers.append(answer)
                is_begun[at].set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            for at in (0, 1):
                nursery.start_soon(attempt, at)
            for event in is_begun:
                await event.wait()
            yield answers[0]
            nursery.cancel_scope.cancel()

    upstream = InTurn(FakeUpstream(8.0, TEXT, 16.0, FINISH, END), FakeUpstream(32.0, TEXT, FINISH, END))
    _, record = await asked(upstream, [around(patient, "patient"), around(twice, "twice")])
    assert record["arounds_ms"] == {"patient": 5000, "twice": 2000, "route_call": 0}


async def test_a_cancellation_that_ends_an_attempt_first_ends_its_reader_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ends: list[str] = []

    async def read_late(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        answers: list[Answer] = []
        is_open, is_left = trio.Event(), trio.Event()

        async def attempt() -> None:
            async with next(call) as answer:
                answers.append(answer)
                is_open.set()
                await trio.sleep(1)
            is_left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt)
            await is_open.wait()
            await is_left.wait()
            with trio.CancelScope() as scope:
                scope.cancel()
                ends.append("given" if [batch async for batch in answers[0]] else "ended")
            ends.append("cancelled" if scope.cancelled_caught else "not cancelled")
            yield Answer.of_events(call, [Finished("stop")])

    await asked(FakeUpstream(TEXT, 100.0, FINISH, END), around(read_late))
    assert ends == ["cancelled"]


@both_ways
async def test_an_answer_that_was_made_has_its_first_token_too(
    stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def make(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        with next.outside():
            await trio.sleep(2)
        yield Answer.of_events(call, [TextDelta("Hi"), Finished("stop")])

    _, record = await asked(FakeUpstream(), around(make), stream=stream)
    assert (record["first_token_ms"], record["party_ms"]["ours"]) == (2000, 2000)


async def test_an_empty_batch_is_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async def stutter(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        send, receive = trio.open_memory_channel[Any](3)
        for batch in ([], [TextDelta("Hi")], [Finished("stop")]):
            send.send_nowait(batch)
        async with receive:
            yield Answer(call, aiter(receive))

    browser, record = await asked(FakeUpstream(), around(stutter))
    assert (fold_stream(browser.body).content, record["end"]) == ("Hi", "OK")


@each_execution
async def test_a_stage_that_blames_the_upstream_in_mid_answer_ends_it(
    execution: Execution, autojump_clock: trio.testing.MockClock
) -> None:
    class Strict:
        def __init__(self) -> None:
            self.fed = 0

        def feed(self, batch: list[bytes | Failed], /) -> list[bytes | Failed]:
            self.fed += 1
            if self.fed > 1:
                raise UpstreamFault("it sends too much", code="upstream_protocol")
            return batch

        def flush(self) -> list[bytes | Failed]:
            return []

    async def once_more(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        try:
            async with next(call) as answer:
                yield answer
        except UpstreamFault:
            async with next(call) as answer:  # it must not come to this: the client has seen the first one
                yield answer

    strict = codec_stage("strict", lambda ctx: Strict(), codec=Strict)
    plugin = Plugin("strict", lambda _: strict, NoOptions, accepts=bytes | Failed, emits=bytes | Failed)
    bridge, records = bridge_to(
        FakeUpstream(TEXT, 1.0, FINISH, END),
        kind="chat",
        insertion=[around(once_more), ("call_upstream", plugin)],
        execution=execution,
    )
    browser = Browser(bridge, ask())
    await browser.ask()
    [record] = records
    assert_sums(record)
    folded = fold_stream(browser.body)
    assert folded.content == "Hello"
    assert folded.error is not None
    assert folded.error["code"] == "upstream_protocol"
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_protocol"]


@pytest.mark.parametrize("after_s", [0.5, 1.5])
async def test_a_client_that_leaves_closes_every_attempt_at_once(
    after_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    upstream = FakeUpstream(1.0, TEXT, 1000.0)
    bridge, records = bridge_to(upstream, kind="chat", insertion=around(try_twice))
    browser = Browser(bridge, ask())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(browser.ask)
        await trio.sleep(after_s)
        browser.disconnected.set()
    [record] = records
    assert_sums(record)
    assert (record["end"], record["total_ms"], upstream.open) == ("DC", after_s * 1000, 0)
    assert record["attempts"][0]["end"] == "given_up"


async def test_an_around_that_fails_is_a_bug_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async def fail(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call):
            raise OSError("the disk is full")
        yield

    upstream = FakeUpstream(TEXT, FINISH, END)
    browser, record = await asked(upstream, around(fail))
    assert (browser.status, record["end"], record["stage"], upstream.open) == (500, "ST", "around", 0)


async def test_the_first_of_several_is_the_outermost(autojump_clock: trio.testing.MockClock) -> None:
    steps: list[str] = []

    def noting(name: str) -> AnyPlugin:
        async def note(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
            steps.append(f"{name} asks")
            async with next(call) as answer:
                steps.append(f"{name} answers")
                yield answer
            steps.append(f"{name} ends")

        made = FunctionAround(note, name)
        return Plugin(name, lambda _: made, NoOptions, kind="around")

    async with serving(pipeline="  stages: [{use: b}, {use: a}]", plugins={n: noting(n) for n in "ab"}) as service:
        assert (await service.post(ask("echo"))).status_code == 200
    assert steps == ["b asks", "a asks", "a answers", "b answers", "a ends", "b ends"]


class Counts:
    """Passes the upstream's bytes on, and notes how each attempt ended."""

    def __init__(self, told: list[Outcome]) -> None:
        self._told = told

    def feed(self, batch: list[bytes | Failed], /) -> list[bytes | Failed]:
        return batch

    def flush(self) -> list[bytes | Failed]:
        return []

    def close(self, outcome: Outcome) -> None:
        self._told.append(outcome)


async def test_a_codec_in_an_attempt_is_told_how_that_has_ended() -> None:
    async def leave_the_second(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        with pytest.raises(UpstreamFault):
            async with next(call):
                pass
        async with next(call):
            pass
        async with next(call) as answer:
            yield answer

    told: list[Outcome] = []
    counts = codec_stage("counts", lambda ctx: Counts(told), codec=Counts)
    _, thrice = around(leave_the_second)
    plugins: dict[str, AnyPlugin] = {
        "around": thrice,
        "counts": Plugin("counts", lambda _: counts, NoOptions, bytes | Failed, bytes | Failed),
    }
    scripts: list[Script] = [[error(500)], [*begun("Hel"), stall()], good_answer()]
    stages = "  stages: [{use: around}, {use: counts, at: upstream_bytes}]"
    async with (
        scripted_upstream(in_turn(*scripts)) as upstream,
        serving(model("up", upstream.url), stages, plugins=plugins) as service,
    ):
        assert fold_stream((await service.post(ask())).content).content == "Hello"
        record = await service.record()
    assert [attempt["end"] for attempt in record["attempts"]] == ["upstream_error", "given_up", "OK"]
    assert [(outcome.is_complete, outcome.is_cancelled) for outcome in told] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert ["counts" in attempt["stages"] for attempt in record["attempts"]] == [True, True, True]


async def try_at_once(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
    async with AsyncExitStack() as opened:
        try:
            answer = await opened.enter_async_context(next(call))
        except UpstreamFault:
            answer = await opened.enter_async_context(next(call))
        yield answer


async def test_an_attempt_that_is_given_up_is_closed_before_the_next_one_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slow, quick = FakeUpstream(TEXT, 60.0, FINISH, END), FakeUpstream(TEXT, FINISH, END)
    open_at_second: list[int] = []

    async def leave_the_first(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call) as answer:
            async for _ in answer:
                break
        open_at_second.append(slow.open)
        async with next(call) as answer:
            yield answer

    _, record = await asked(InTurn(slow, quick), around(leave_the_first))
    assert open_at_second == [0]
    assert [attempt["end"] for attempt in record["attempts"]] == ["given_up", "OK"]
    assert record["total_ms"] == 0


async def test_the_answer_of_an_around_need_not_be_read_to_its_end(autojump_clock: trio.testing.MockClock) -> None:
    async def goes_on(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        yield Answer(call, aiter(Endless()))

    browser, record = await asked(FakeUpstream(), around(goes_on))
    assert (fold_stream(browser.body).content, record["end"]) == ("Hi", "OK")


class Endless:
    """Events after the end, which nobody wants."""

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> list[StreamEvent]:
        await trio.lowlevel.checkpoint()
        return [TextDelta("Hi"), Finished("stop")]


@pytest.mark.parametrize("fault", [UpstreamFault("no"), ClientFault("no"), Overloaded("no")])
async def test_an_around_may_refuse_in_the_name_of_whoever_is_to_blame(
    fault: PipelineError, autojump_clock: trio.testing.MockClock
) -> None:
    async def refuse(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        raise fault
        yield

    browser, record = await asked(FakeUpstream(), around(refuse))
    assert (record["error"], record["stage"]) == (fault.code, "around")
    assert browser.status is not None
    assert browser.status >= 400
    assert "attempts" not in record


@pytest.mark.parametrize("execution", ["fused", "tasks"])
async def test_an_attempt_can_be_cancelled_at_each_of_its_steps(execution: Execution) -> None:
    upstreams: list[FakeUpstream] = []

    async def once() -> None:
        upstreams.append(FakeUpstream(TEXT, FINISH, END))
        bridge, records = bridge_to(
            InTurn(FakeUpstream(before_head=(DOWN,)), upstreams[-1]),
            kind="chat",
            insertion=around(try_at_once),
            execution=execution,
        )
        try:
            await Browser(bridge, ask()).ask()
        finally:
            assert upstreams[-1].open == 0
            for record in records:
                assert_sums(record)

    assert await assert_cancels_cleanly(once) > 5


@both_ways
@each_execution
@pytest.mark.parametrize(("takes_s", "is_kept"), [(END_LIMIT_S - 1, True), (END_LIMIT_S + 1, False)])
async def test_what_an_around_does_after_the_answer_has_its_time(
    stream: bool, execution: Execution, takes_s: float, is_kept: bool, autojump_clock: trio.testing.MockClock
) -> None:
    kept: list[UpstreamCall] = []

    async def keep(call: UpstreamCall, next: Next) -> AsyncIterator[Answer]:
        async with next(call) as answer:
            yield answer
        with next.outside():
            await trio.sleep(takes_s)
        kept.append(call)

    browser, record = await asked(
        FakeUpstream(TEXT, FINISH, 1.0, END), around(keep), stream=stream, execution=execution
    )
    assert (len(kept), record["end"]) == (is_kept, "OK")
    assert browser.sent[-1][0] <= 1  # the client does not wait for that


class Fails:
    """An around that fails in one of its parts."""

    name = "fails"

    def __init__(self, where: str) -> None:
        self._where = where

    @asynccontextmanager
    async def call(self, call: UpstreamCall, next: Next, /) -> AsyncIterator[Answer]:
        if self._where == "before":
            raise KeyError("the prompt was: hello")
        async with next(call) as answer:
            yield answer.changed(self.change) if self._where == "within" else answer
        if self._where == "after":
            raise KeyError("the prompt was: hello")

    def change(self, batch: list[StreamEvent]) -> list[StreamEvent]:
        raise KeyError("the prompt was: hello")


@pytest.mark.parametrize("where", ["before", "within", "after"])
async def test_a_failure_of_an_around_is_blamed_on_it_with_its_lines(
    where: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    plugin: Plugin[NoOptions] = Plugin("fails", lambda _: Fails(where), NoOptions, kind="around")
    _, record = await asked(FakeUpstream(TEXT, FINISH, END), (None, plugin))
    assert (record["end"], record["stage"]) == ("ST", "fails")
    [message] = caplog.messages
    assert message.startswith("stage fails failed in request ")
    assert f"{__file__}:" in message
    assert "hello" not in message
