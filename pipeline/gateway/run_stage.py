"""``headrace run-stage``: one stage, alone, on the stream that an upstream was recorded with.

The recording is cut after each of its events, as most upstreams send them, and decoded by the built-in decoder. The
stage gets what would pass at its place. What it finds in the slots of `stages.slots` belongs to no real request.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from msgspec import Struct

from pipeline import Host, Inlet, Outlet, Pipeline, PipelineError, RequestContext
from pipeline.channel import Sink
from pipeline.gateway.command_error import CommandError
from pipeline.gateway.insertions import PLACES, convert
from pipeline.registry import GROUP, AnyPlugin, check, load, members_of, opened
from stages.decode_events import decode_events
from stages.events import Failed, StreamEvent
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import CALL, HEAD, IS_STREAM, PRINCIPAL, PROFILE, ReceivedHead
from stages.upstreams import Deployment, UpstreamCall, UpstreamKind
from stages.upstreams.apis import APIS
from stages.wire.downstream.profiles import OPENAI
from stages.wire.foreign_json import Json, is_object
from stages.wire.sse import MAX_EVENT_BYTES, MIB, EventTooLarge, Parser

_NAME: Final = "run-stage"
"""Of the key, the model and the deployment of the request that does not exist."""

_EVENT_END: Final = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)|(?<=\r\r)")

_EVENTS: Final = (members_of(StreamEvent) or frozenset()) - {Failed}
"""The kinds of events that do not pass among bytes too."""

_ANTHROPIC_TYPES: Final = frozenset(
    {
        *("message_start", "message_delta", "message_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)


class Ran(Struct, frozen=True):
    """What came of it.

    Attributes:
        lines: what the stage gave, each event as JSON.
        figures: what it took, what it gave, and how long it worked.
        failure: why it failed, if it did; ``lines`` is then what it gave before.
    """

    lines: list[str]
    figures: str
    failure: str | None = None


def run_stage(target: str, recording: str, options: str = "{}") -> Ran:
    """Run a stage on a recording.

    Args:
        target: ``module:stage``, as in an entry point; the current folder is searched too.
        recording: the file.
        options: of the plugin, a JSON object.

    Raises:
        CommandError: if the stage or the recording cannot be used.
        PluginError: if the stage cannot be loaded, or its options do not fit.
    """
    plugin = _load(target)
    flowing = _flowing(plugin)
    # What it gives may be of any type: nothing comes after it.
    converted = check(replace(plugin, emits=None), _options(options), flowing=flowing, convert=convert)
    text = _read(recording)
    ctx = _context(_api_of(text, recording))
    chunks = [chunk for chunk in _EVENT_END.split(text) if chunk]
    batches: list[list[Any]] = [[chunk] for chunk in chunks] if flowing is not StreamEvent else _decoded(chunks, ctx)
    given: list[Any] = []
    failure: PipelineError | None = None

    async def run() -> None:
        async with opened(plugin, converted, Host(plugin.name)) as stage:
            await _pipeline(stage).run_into(Sink(given), batches, ctx)

    try:
        trio.run(run)
    except PipelineError as error:
        failure = error
    why = None if failure is None else _failed(plugin.name, failure)
    return Ran([_line(item) for item in given], _figures(plugin.name, ctx), why)


class _Relaying:
    """Passes every batch on: a stage that ticks could not be woken while it waits for the source."""

    name = "relay"

    async def run(self, inlet: Inlet[Any], outlet: Outlet[Any], ctx: RequestContext) -> None:
        async for batch in inlet:
            await outlet.send(batch)


# Any: whatever the stage takes and gives.
def _pipeline(stage: Any) -> Pipeline[Any, Any]:
    if getattr(stage, "tick_s", None) is not None:
        return Pipeline(_Relaying()).then(stage)
    return Pipeline(stage)


def _load(target: str) -> AnyPlugin:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise CommandError(
            f"{target!r} does not name a stage: write MODULE:STAGE, such as shout:shout, as in an entry point"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    plugin = load(EntryPoint(name, target, GROUP))
    if plugin.kind != "stage":
        raise CommandError(f"{target} is an {plugin.kind}, and only a stage can be run on a recording")
    return plugin


def _flowing(plugin: AnyPlugin) -> object:
    """Return the type of what the stage gets: the place where what it takes flows, and events if it does not say."""
    taken = members_of(plugin.accepts)
    if taken is None or any(_takes(taken, kind) for kind in _EVENTS):
        return StreamEvent
    if _takes(taken, bytes):
        return PLACES["upstream_bytes" if _takes(taken, Failed) else "client_bytes"]
    words = ", ".join(sorted(getattr(kind, "__name__", str(kind)) for kind in taken))
    raise CommandError(f"stage {plugin.name!r} takes {words}, but a recording has only events and bytes")


def _takes(taken: frozenset[object], kind: object) -> bool:
    return not taken.isdisjoint(kind.__mro__ if isinstance(kind, type) else (kind,))


def _options(text: str) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise CommandError(f"--options is not a JSON object such as '{{\"marks\": 2}}': {error}") from error


def _read(recording: str) -> bytes:
    try:
        return Path(recording).read_bytes()
    except OSError as error:
        raise CommandError(f"the recording {recording} cannot be read: {error.strerror}") from error


def _api_of(text: bytes, recording: str) -> UpstreamKind:
    """Return the API whose stream this is."""
    parser = Parser()
    try:
        found = [*parser.feed([text]), *parser.flush()] if text else []
    except EventTooLarge:
        raise CommandError(f"{recording} has an event of over {MAX_EVENT_BYTES // MIB} MiB, which is refused") from None
    for data in found:
        try:
            event: Json = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # `[DONE]`, or a broken event
        if is_object(event):
            kind = event.get("type")
            if isinstance(kind, str) and kind.startswith("response."):
                return "responses"
            if kind in _ANTHROPIC_TYPES:
                return "anthropic"
            if "choices" in event or event.get("object") == "chat.completion.chunk":
                return "chat"
    if not found:
        what = "is one JSON document" if text.lstrip()[:1] == b"{" else "has no `data:` line"
        raise CommandError(f"{recording} {what}: it must be a stream of server-sent events, as an upstream sends them")
    count = "1 event, but it is" if len(found) == 1 else f"{len(found)} events, but they are"
    raise CommandError(f"{recording} has {count} of none of the known APIs: {', '.join(APIS)}")


def _context(api: UpstreamKind) -> RequestContext:
    """Return the context of a request that a deployment with this API answers."""
    ctx = RequestContext(_NAME)
    ctx[HEAD] = ReceivedHead({}, int(time.time()))  # noqa: TID251 - the wall clock of a request: `created`
    ctx[PROFILE] = OPENAI
    ctx[PRINCIPAL] = Principal(_NAME)
    ctx[CALL] = UpstreamCall(
        request=ResponsesRequest(requested_model=_NAME, stream=True, include_usage=True, body={}),
        deployment=Deployment(id=_NAME, model_name=_NAME, model=_NAME, provider=_NAME, kind=api, url=""),
        model=_NAME,
    )
    ctx[IS_STREAM] = True
    return ctx


def _decoded(chunks: list[bytes], ctx: RequestContext) -> list[list[StreamEvent]]:
    def batches() -> Iterator[list[StreamEvent]]:
        decoder = decode_events.open(ctx)
        for chunk in chunks:
            yield decoder.feed([chunk])
            if decoder.done:
                return
        yield decoder.flush()

    return [batch for batch in batches() if batch]


def _line(item: object) -> str:
    """Return an item as one line of JSON."""
    if isinstance(item, bytes):
        item = {"type": "bytes", "data": item.decode("utf-8", "backslashreplace")}
    return msgspec.json.encode(item, enc_hook=repr).decode()


def _figures(name: str, ctx: RequestContext) -> str:
    times = next(times for lane in ctx.lanes for times in lane.stages if times.name == name)
    busy_us, flush_us = times.busy_ns / 1000, times.flush_ns / 1000
    per_event = f" ({busy_us / times.events_in:.2f} us per event)" if times.events_in else ""
    return (
        f"{name}: took {times.events_in} events in {times.batches_in} batches, "
        f"gave {times.events_out} events in {times.batches_out} batches\n"
        f"busy {busy_us:.1f} us{per_event}, of which {flush_us:.1f} us at the end; "
        f"outside {times.outside_ns / 1e6:.1f} ms"
    )


def _failed(name: str, failure: PipelineError) -> str:
    """Return why the stage failed; what it did not declare comes with the place where it happened."""
    cause = failure.__cause__
    if failure.code != "internal_error" or cause is None:
        return f"headrace: stage {name!r} failed with {type(failure).__name__} ({failure.code}): {failure}"
    where = "".join(traceback.format_exception(cause)).rstrip()
    return f"headrace: stage {name!r} failed with what no stage may raise:\n{where}"
