"""``headrace run-stage``: one stage on a recorded stream."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import Host, Inlet, Outlet, Plugin, RequestContext, UpstreamFault, codec_stage, per_event
from pipeline.gateway import cli
from stages.events import Failed, Finished, StreamEvent, TextDelta
from stages.request import ResponsesRequest
from stages.slots import CALL, HEAD, PRINCIPAL, PROFILE

STREAMS = Path(__file__).parents[1] / "data" / "streams"
TEXT = STREAMS / "responses" / "text.sse"

Printed = Callable[[], tuple[str, str]]


@dataclass(frozen=True)
class Options:
    mark: str
    times: int = 1


def make_mark(options: Options) -> Any:
    """Mark the end."""
    if options.times > 5:
        raise ValueError("times is over 5")

    @per_event
    def mark(event: StreamEvent) -> Iterator[StreamEvent]:
        if isinstance(event, Finished):
            yield TextDelta(options.mark * options.times)
        yield event

    return mark


mark = Plugin("mark", make_mark, Options, StreamEvent, StreamEvent)


@asynccontextmanager
async def serve_mark(options: Options, host: Host) -> AsyncGenerator[Any]:
    """Mark the end, with a lifetime."""
    host.counter("opened_total").inc()
    yield make_mark(options)


served = Plugin("mark", serve=serve_mark, options=Options, accepts=StreamEvent, emits=StreamEvent)


@asynccontextmanager
async def serve_nothing(options: Options, host: Host) -> AsyncGenerator[Any]:
    """Cannot be opened."""
    raise OSError("the disk is full")
    yield


unopenable = Plugin("unopenable", serve=serve_nothing, options=Options)


@per_event
def count_bytes(chunk: bytes | Failed) -> Iterator[bytes]:
    yield b"%d" % len(chunk) if isinstance(chunk, bytes) else b""


@per_event
def client_bytes(chunk: bytes) -> Iterator[bytes]:
    yield chunk


@per_event
def ask_less(request: ResponsesRequest) -> Iterator[ResponsesRequest]:
    yield request


@per_event
def break_at_text(event: StreamEvent) -> Iterator[StreamEvent]:
    if isinstance(event, TextDelta):
        raise KeyError("a bug")
    yield event


@per_event
def blame_upstream(event: StreamEvent) -> Iterator[StreamEvent]:
    if isinstance(event, Finished):
        raise UpstreamFault("that is too much")
    yield event


class ReadSlots:
    name = "read_slots"

    async def run(self, inlet: Inlet[StreamEvent], outlet: Outlet[StreamEvent], ctx: RequestContext) -> None:
        async for _ in inlet:
            pass
        names = [ctx[PRINCIPAL].name, ctx[CALL].deployment.kind, ctx[PROFILE].name, str(ctx[HEAD].headers)]
        await outlet.send([TextDelta(" ".join(names))])


read_slots = ReadSlots()


class Ticking:
    def __init__(self, ctx: RequestContext) -> None: ...

    def feed(self, batch: list[StreamEvent], /) -> list[StreamEvent]:
        return batch

    def flush(self) -> list[StreamEvent]:
        return []

    def tick(self) -> list[StreamEvent]:
        return []


tick = codec_stage("tick", Ticking, tick_s=60)


class Near:
    """Stands around the call, as far as the registry looks."""

    name = "near"

    def call(self, call: Any, next: Any) -> Any: ...


near = Near()
not_a_stage = 5


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


@pytest.fixture(autouse=True)
def this_module_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)


def lines_of(out: str) -> list[str]:
    """Split what was printed at line breaks only: JSON may hold other separators."""
    return out.removesuffix("\n").split("\n")


def run(stage: str, recording: Path | str = TEXT, *more: str) -> int:
    target = stage if ":" in stage or not stage.isidentifier() else f"test_run_stage:{stage}"
    return cli.main(["run-stage", target, str(recording), *more])


@pytest.mark.parametrize("api", ["responses", "chat", "anthropic"])
def test_the_events_of_every_api_are_decoded(api: str, printed: Printed) -> None:
    for recording in sorted((STREAMS / api).glob("*.sse")):
        assert run("shout:shout", recording, "--show", "events") == 0, recording
        out, err = printed()
        events = [json.loads(line) for line in lines_of(out)]
        assert events[-1]["type"] in ("Finished", "Failed"), recording
        assert err == ""
        texts = [event["text"] for event in events if event["type"] == "TextDelta"]
        assert texts == [text.upper() for text in texts]


def test_the_api_is_found_by_the_content(printed: Printed) -> None:
    for api, name in (("responses", "text"), ("chat", "two_calls"), ("anthropic", "text")):
        assert run("read_slots", STREAMS / api / f"{name}.sse", "--show", "events") == 0
        assert json.loads(printed()[0]) == {"type": "TextDelta", "text": f"run-stage {api} openai {{}}"}


def test_events_and_figures_are_shown(printed: Printed) -> None:
    assert run("shout:shout") == 0
    *lines, took, busy = lines_of(printed()[0])
    assert {"type": "TextDelta", "text": "GRÜSSE"} in [json.loads(line) for line in lines]
    assert took == "shout: took 8 events in 7 batches, gave 8 events in 7 batches"
    assert re.fullmatch(
        r"busy \d+\.\d us \(\d+\.\d\d us per event\), of which \d+\.\d us at the end; outside 0\.0 ms", busy
    )
    assert run("shout:shout", TEXT, "--show", "figures") == 0
    assert lines_of(printed()[0])[:-1] == [took]


@pytest.mark.parametrize("stage", ["mark", "served"])
def test_a_plugin_gets_its_options(stage: str, printed: Printed) -> None:
    assert run(stage, TEXT, "--show", "events", "--options", '{"mark": "!", "times": 3}') == 0
    *_, marked, end = lines_of(printed()[0])
    assert (json.loads(marked)["text"], json.loads(end)["type"]) == ("!!!", "Finished")


def test_a_stage_of_upstream_bytes_gets_each_event_as_it_was_sent(printed: Printed) -> None:
    assert run("count_bytes", TEXT, "--show", "events") == 0
    sizes = [int(json.loads(line)["data"]) for line in lines_of(printed()[0])]
    assert sum(sizes) == TEXT.stat().st_size
    assert len(sizes) > 10


def test_a_stage_of_client_bytes_gets_the_bytes_too(printed: Printed) -> None:
    assert run("client_bytes", TEXT, "--show", "events") == 0
    parts = [json.loads(line) for line in lines_of(printed()[0])]
    assert {part["type"] for part in parts} == {"bytes"}
    assert "".join(part["data"] for part in parts).encode() == TEXT.read_bytes()


def test_line_ends_of_every_kind_end_an_event(tmp_path: Path, printed: Printed) -> None:
    for end in (b"\r\n", b"\r"):
        (recording := tmp_path / "crlf.sse").write_bytes(TEXT.read_bytes().replace(b"\n", end))
        assert run("shout:shout", recording, "--show", "figures") == 0
        assert "took 8 events in 7 batches" in printed()[0]


def test_built_in_stages_can_be_run(printed: Printed) -> None:
    assert run("stages.decode_events:decode_events") == 0
    assert "gave 8 events in 7 batches" in printed()[0]
    assert run("stages.encode_chunks:encode_chunks", TEXT, "--show", "events") == 0
    assert "data: [DONE]" in printed()[0]


def test_a_stage_that_ticks_can_be_run(printed: Printed) -> None:
    assert run("tick") == 0
    assert "tick: took 8 events in 7 batches" in printed()[0]


def test_a_stage_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    (tmp_path / "stage_of_this_folder.py").write_text(
        "from collections.abc import Iterator\nfrom pipeline import per_event\n\n"
        "@per_event\ndef here(event: object) -> Iterator[object]:\n    yield event, 'seen'\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")  # what the command adds goes when this does
    monkeypatch.chdir(tmp_path)
    assert run("stage_of_this_folder:here", TEXT, "--show", "events") == 0
    assert all(json.loads(line)[1] == "seen" for line in lines_of(printed()[0]))


def test_a_bug_of_the_stage_is_shown_with_its_place_after_what_it_gave(printed: Printed) -> None:
    assert run("break_at_text") == 1
    out, err = printed()
    assert [json.loads(line)["type"] for line in lines_of(out)[:-2]] == ["Started"]
    assert err.startswith("headrace: stage 'break_at_text' failed with what no stage may raise:\nTraceback")
    assert 'raise KeyError("a bug")' in err


def test_a_failure_that_a_stage_declares_is_one_line(printed: Printed) -> None:
    assert run("blame_upstream") == 1
    assert printed()[1] == (
        "headrace: stage 'blame_upstream' failed with UpstreamFault (upstream_error): that is too much\n"
    )


WRONG = {
    ("shout",): "'shout' does not name a stage: write MODULE:STAGE",
    ("shout:",): "'shout:' does not name a stage",
    ("no_such_module:stage",): "'no_such_module:stage' cannot be imported: ModuleNotFoundError",
    ("shout:whisper",): "'shout:whisper' cannot be imported: AttributeError",
    ("test_run_stage:not_a_stage",): "is not a stage: it must load to",
    ("test_run_stage:near",): "test_run_stage:near is an around, and only a stage can be run on a recording",
    ("test_run_stage:ask_less",): "stage 'ask_less' takes ResponsesRequest, but a recording has only events and bytes",
    ("test_run_stage:mark",): "the options of stage 'mark' do not fit: the option 'mark' is missing: it has no default",
    ("test_run_stage:mark", "--options", '{"mark": "!", "times": 9}'): "times is over 5",
    ("test_run_stage:mark", "--options", '{"marc": "!"}'): "there is no option 'marc' (options: mark, times)",
    ("test_run_stage:mark", "--options", "[1]"): "--options is not a JSON object such as",
    ("test_run_stage:mark", "--options", "{mark"): "--options is not a JSON object such as",
    ("test_run_stage:unopenable", "--options", '{"mark": "!"}'): "could not be opened: OSError: the disk is full",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_a_stage_that_cannot_be_run_is_one_line(arguments: tuple[str, ...], printed: Printed) -> None:
    stage, *more = arguments
    assert cli.main(["run-stage", stage, str(TEXT), *more]) == 2
    out, err = printed()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("headrace: ")
    assert WRONG[arguments] in err


FILES = {
    b"": "has no `data:` line",
    b"just text\n": "has no `data:` line",
    b'{"object": "response"}': "is one JSON document: it must be a stream of server-sent events",
    b"data: [DONE]\n\n": "has 1 event, but it is of none of the known APIs: responses, chat, anthropic",
    b'data: {"type": "other"}\n\ndata: 5\n\n': "has 2 events, but they are of none of the known APIs",
    b"data: " + b"x" * (17 << 20): "has an event of over 16 MiB",
}


@pytest.mark.parametrize("content", FILES, ids=["empty", "text", "document", "done", "unknown", "large"])
def test_a_file_that_is_not_a_recording_is_one_line(content: bytes, tmp_path: Path, printed: Printed) -> None:
    (recording := tmp_path / "it.sse").write_bytes(content)
    assert run("shout:shout", recording) == 2
    out, err = printed()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{recording} {FILES[content]}" in err


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, printed: Printed) -> None:
    assert run("shout:shout", tmp_path / "none.sse") == 2
    assert printed()[1] == f"headrace: the recording {tmp_path}/none.sse cannot be read: No such file or directory\n"
    assert run("shout:shout", tmp_path) == 2
    assert "cannot be read: Is a directory" in printed()[1]
