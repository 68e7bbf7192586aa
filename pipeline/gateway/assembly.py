"""The only place that knows which stages make up a route, and in what order.

A request passes through two pipelines. The first reads it and decides which deployment answers; the second, for a
client that streams or for one that does not, gets the answer. There are two because the body says which the second must
be (ADR 0003).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Never, TypeVar, cast

import msgspec
from msgspec import Struct

from pipeline import Pipeline, Stage
from pipeline.gateway.config.settings import Execution, StageSettings
from pipeline.registry import AnyPlugin, PluginError, build
from stages.authenticate import Keys, authenticate
from stages.call_upstream import call_upstream
from stages.choose_deployment import Deployments, choose_deployment
from stages.collect_completion import collect_completion
from stages.decode_events import decode_events
from stages.encode_chunks import encode_chunks
from stages.events import StreamEvent
from stages.keep_alive import keep_alive
from stages.parse_request import parse_request
from stages.principal import Principal
from stages.reasoning.store import ReasoningStore
from stages.remember_reasoning import remember_reasoning
from stages.request import ResponsesRequest
from stages.restore_reasoning import restore_reasoning
from stages.upstreams import Upstream, UpstreamCall, UpstreamKind
from stages.write_json import write_json
from stages.write_sse import write_sse

In = TypeVar("In")
Out = TypeVar("Out")

PLACES: dict[str, object] = {
    "authenticate": bytes,
    "parse_request": ResponsesRequest,
    "choose_deployment": UpstreamCall,
    "decode_events": StreamEvent,
    "encode_chunks": bytes,
}
"""The stages after which a plugin can be inserted, and the type of what flows there."""

BUILT_IN = frozenset(PLACES) | {
    "restore_reasoning",
    "call_upstream",
    "remember_reasoning",
    "collect_completion",
    "keep_alive",
    "write_json",
    "write_sse",
}
"""The names of the built-in stages."""


class Assembly(Struct, frozen=True):
    """The pipelines of the chat route."""

    accept: Pipeline[bytes, UpstreamCall]
    stream: Pipeline[UpstreamCall, Never]
    whole: Pipeline[UpstreamCall, Never]


def assemble(
    *,
    keys: Keys,
    deployments: Deployments,
    upstreams: Mapping[UpstreamKind, Upstream[Any]],  # Any: each prepares its own
    max_body_bytes: int,
    keep_alive_interval_s: float,
    execution: Execution,
    reasoning: ReasoningStore | None = None,
    anonymous: Principal | None = None,
    insertions: Sequence[StageSettings] = (),
    plugins: Mapping[str, AnyPlugin] | None = None,
) -> Assembly:
    """Build the pipelines, once, at startup.

    Without a store for ``reasoning``, reasoning is neither remembered nor restored.

    Raises:
        PluginError: if a configured stage does not exist, or does not fit in its place.
    """
    inserted = _build(insertions, plugins or {})

    def with_plugins(chain: Pipeline[In, Out], place: str) -> Pipeline[In, Out]:
        for stage in inserted.get(place, ()):
            chain = chain.then(stage)
        return chain

    reading = with_plugins(Pipeline(authenticate(keys, anonymous=anonymous)), "authenticate")
    parsed = with_plugins(reading.then(parse_request(max_body_bytes)), "parse_request")
    chosen = with_plugins(parsed.then(choose_deployment(deployments)), "choose_deployment")
    accept = chosen.then(restore_reasoning(reasoning))

    decoded = Pipeline(call_upstream(upstreams)).then(decode_events)
    if reasoning is not None:
        decoded = decoded.then(remember_reasoning(reasoning))
    events = with_plugins(decoded, "decode_events")
    frames = with_plugins(events.then(encode_chunks), "encode_chunks")
    if keep_alive_interval_s > 0:
        frames = frames.then(keep_alive(keep_alive_interval_s))
    stream = frames.then(write_sse)
    whole = events.then(collect_completion).then(write_json)
    if execution == "fused":
        return Assembly(accept.fused(), stream.fused(), whole.fused())
    return Assembly(accept, stream, whole)


def _build(insertions: Sequence[StageSettings], plugins: Mapping[str, AnyPlugin]) -> dict[str, list[Stage[Any, Any]]]:
    built: dict[str, list[Stage[Any, Any]]] = {}
    taken = set(BUILT_IN)
    for insertion in insertions:
        if (plugin := plugins.get(insertion.use)) is None:
            known = ", ".join(sorted(plugins)) or "none is installed"
            raise PluginError(
                f"{insertion.where}: no stage named {insertion.use!r} is installed (installed: {known}): "
                "install the distribution that provides it in the same environment as headrace"
            )
        if insertion.after not in PLACES:
            raise PluginError(
                f"{insertion.where}: stage {insertion.use!r} cannot follow {insertion.after!r}: "
                f"choose one of {', '.join(PLACES)}"
            )
        try:
            stage = build(plugin, insertion.options, flowing=PLACES[insertion.after], convert=_convert)
        except PluginError as error:
            raise PluginError(f"{insertion.where}: {error}") from error
        if stage.name in taken:
            raise PluginError(
                f"{insertion.where}: another stage is already named {stage.name!r}, and the log could not distinguish "
                "them: use each stage once"
            )
        taken.add(stage.name)
        built.setdefault(insertion.after, []).append(stage)
    return built


def _convert(options: Mapping[str, object], kind: type[Any]) -> Any:
    """Convert options to a dataclass or Struct; refuse unknown names, which msgspec alone ignores."""
    known = {field.name for field in cast("Any", msgspec.inspect.type_info(kind)).fields}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"there is no option {unknown[0]!r} (options: {', '.join(sorted(known)) or 'none'})")
    return msgspec.convert(dict(options), kind)
