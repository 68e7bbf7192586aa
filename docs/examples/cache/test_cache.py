from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import trio
from cache import Cache, cache

from pipeline import Host, Party, RequestContext
from stages.answer import Answer
from stages.events import Failed, Finished, StreamEvent, TextDelta, Usage
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import PRINCIPAL
from stages.upstreams import Deployment, UpstreamCall

ANSWER: list[StreamEvent] = [TextDelta("Hello"), Usage(3, 1, 4), Finished("stop")]


class OneByOne:
    """Batches of one event."""

    def __init__(self, events: Iterable[StreamEvent]) -> None:
        self._events = iter(events)

    def __aiter__(self) -> "OneByOne":
        return self

    async def __anext__(self) -> list[StreamEvent]:
        for event in self._events:
            return [event]
        raise StopAsyncIteration


class FromUpstream:
    """What is asked next: it counts how often."""

    def __init__(self, *events: StreamEvent, key: str = "alice") -> None:
        self.events = events or tuple(ANSWER)
        self.times = 0
        self.ctx = RequestContext("test")
        self.ctx[PRINCIPAL] = Principal(key)

    @asynccontextmanager
    async def __call__(self, call: UpstreamCall, /) -> AsyncIterator[Answer]:
        self.times += 1
        yield Answer(call, OneByOne(self.events))

    def outside(self, party: Party = Party.OURS) -> Any:
        without_figures: AbstractContextManager[None] = nullcontext()
        return without_figures


def call(said: str = "hi", model: str = "gpt-5", *, stream: bool = True) -> UpstreamCall:
    request = ResponsesRequest(requested_model="m", stream=stream, include_usage=True, body={"input": said})
    deployment = Deployment(id="m-1", model_name="m", model=model, provider="openai", kind="responses", url="")
    return UpstreamCall(request=request, deployment=deployment, model=model)


def answers(options: Cache, *asked: tuple[UpstreamCall, FromUpstream]) -> list[list[StreamEvent]]:
    """Return the answers to calls, one after the other."""

    async def run() -> list[list[StreamEvent]]:
        given: list[list[StreamEvent]] = []
        async with cache(options, Host("cache")) as opened:
            for one, upstream in asked:
                async with opened.call(one, upstream) as answer:
                    given.append([event async for batch in answer for event in batch])
        return given

    return trio.run(run)


def test_a_repeated_request_gets_the_same_events_without_the_upstream(tmp_path: Path) -> None:
    upstream = FromUpstream()
    options = Cache(str(tmp_path / "answers"))
    assert answers(options, (call(), upstream), (call(stream=False), upstream)) == [ANSWER, ANSWER]
    assert answers(options, (call(), upstream)) == [ANSWER]  # also after a restart
    assert upstream.times == 1


def test_another_question_model_or_key_is_asked_anew(tmp_path: Path) -> None:
    alice, bob = FromUpstream(), FromUpstream(key="bob")
    answers(Cache(str(tmp_path)), (call(), alice), (call("other"), alice), (call(model="gpt-4"), alice), (call(), bob))
    assert (alice.times, bob.times) == (3, 1)


def test_an_answer_that_failed_is_not_stored(tmp_path: Path) -> None:
    upstream = FromUpstream(TextDelta("Hel"), Failed("upstream_connection", "it broke"))
    answers(Cache(str(tmp_path)), (call(), upstream), (call(), upstream))
    assert upstream.times == 2
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_left_before_its_end_is_not_stored(tmp_path: Path) -> None:
    async def run() -> None:
        async with Cache(str(tmp_path)).call(call(), FromUpstream()) as answer:
            await anext(aiter(answer))

    trio.run(run)
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_bounded_in_number_and_in_size(tmp_path: Path) -> None:
    upstream = FromUpstream()
    answers(Cache(str(tmp_path), max_files=2), *((call(str(at)), upstream) for at in range(20)))
    assert len(list(tmp_path.iterdir())) == 2
    answers(Cache(str(tmp_path / "small"), max_file_bytes=50), (call(), upstream))
    assert list((tmp_path / "small").iterdir()) == []


def cut(data: bytes) -> bytes:
    return data[:-5]


def test_a_file_that_is_only_half_written_is_written_anew(tmp_path: Path) -> None:
    upstream = FromUpstream()
    spoil: list[Callable[[bytes], bytes]] = [cut, lambda _: b"", lambda data: data + data]
    for change in spoil:
        answers(Cache(str(tmp_path)), (call(), upstream))
        [file] = tmp_path.iterdir()
        file.write_bytes(change(file.read_bytes()))
    assert answers(Cache(str(tmp_path)), (call(), upstream), (call(), upstream)) == [ANSWER, ANSWER]
    assert upstream.times == 4


def test_it_is_stored_even_if_the_request_is_over_with_the_last_event(tmp_path: Path) -> None:
    async def run() -> None:
        with trio.CancelScope() as request:
            async with Cache(str(tmp_path)).call(call(), FromUpstream()) as answer:
                async for _ in answer:
                    pass
                request.cancel()

    trio.run(run)
    assert len(list(tmp_path.iterdir())) == 1
