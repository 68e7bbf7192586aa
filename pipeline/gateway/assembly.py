"""The only place that knows which stages make up a route, and in what order.

A request passes through two pipelines. The first reads it and decides which deployment answers; the second, for a
client that streams or for one that does not, gets the answer. There are two because the body says which the second must
be (ADR 0003). Where stages are added for some requests only, there is one pipeline for each combination that occurs.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, Never
from weakref import WeakMethod

from msgspec import Struct

from pipeline import Observer, Pipeline, PipelineError, RequestContext, Stage
from pipeline.gateway.config.settings import Execution
from pipeline.gateway.insertions import ACCEPTING, Asked, Installed, applies
from pipeline.graph import TaskDescription
from stages.admission.admission import Admission
from stages.answer import Around
from stages.answer_call import answer_call
from stages.authenticate import Keys, authenticate, identify, key_names
from stages.call_upstream import call_upstream
from stages.choose_deployment import Deployments, choose_deployment
from stages.collect_completion import collect_completion
from stages.decode_events import decode_events
from stages.encode_chunks import encode_chunks
from stages.events import Usage
from stages.keep_alive import keep_alive
from stages.parse_request import parse_request
from stages.principal import Principal
from stages.reasoning.store import ReasoningStore
from stages.remember_reasoning import remember_reasoning
from stages.request import ResponsesRequest
from stages.restore_reasoning import restore_reasoning
from stages.routing.around import RouteCall
from stages.slots import CALL, HEAD, PRINCIPAL, PROFILE, USAGE
from stages.upstreams import Upstream, UpstreamCall, UpstreamKind
from stages.write_json import write_json
from stages.write_sse import write_sse

MAX_PIPELINES: Final = 64
"""For combinations of stages that are for some requests only; the one that was built first goes first."""

MAX_ASKED: Final = 1024
"""So many kinds of requests are known with the stages that are for them; a model's name has at most 512 characters."""

# Any: a chain's item types differ from place to place, and `insertions.plan` has checked them.
AnyStage = Stage[Any, Any]
AnyPipeline = Pipeline[Any, Any]


class Parts(Struct, frozen=True, kw_only=True):
    """What the built-in stages are made of; see `Assembly`."""

    keys: Keys
    deployments: Deployments
    upstreams: Mapping[UpstreamKind, Upstream[Any]]  # Any: each prepares its own
    max_body_bytes: int
    keep_alive_interval_s: float
    execution: Execution
    reasoning: ReasoningStore | None = None
    anonymous: Principal | None = None
    key_header: str | None = None
    keeps_sent: bool = False
    """Whether a request's body is also kept as the client has sent it."""
    admission: Admission | None = None
    """What limits the requests that come in; None if nothing does."""


class Assembly:
    """The pipelines of the chat route.

    Args:
        parts: what the built-in stages are made of. Without a store for ``reasoning``, reasoning is neither remembered
            nor restored.
        installed: what the user adds, in order.

    Attributes:
        observers: who is told of each request.
        added: the names of the stages that the user adds.
    """

    def __init__(self, parts: Parts, installed: Sequence[Installed] = ()) -> None:
        self._parts = parts
        self.observers: tuple[Observer, ...] = tuple(
            one.made for one in installed if one.planned.plugin.kind == "observer"
        )
        stages = [one for one in installed if one.planned.plugin.kind != "observer"]
        self.added = frozenset(one.planned.plugin.name for one in stages)
        self._accepting = [one for one in stages if one.planned.place in ACCEPTING]
        self._answering = [one for one in stages if one.planned.place not in ACCEPTING]
        self._is_split = any(one.planned.is_conditional for one in self._accepting)
        self._pipelines: dict[tuple[str, tuple[bool, ...]], AnyPipeline] = {}
        self._has_choice = any(one.planned.is_conditional for one in self._answering)
        self._arounds = [one.planned for one in self._answering if one.planned.plugin.kind == "around"]
        # Not a method: a cache that holds its owner is garbage that only the collector would free, after each reload.
        self._flags_of = lru_cache(MAX_ASKED)(partial(_flags, self._answering))
        # Built now: then what does not fit together fails at start-up.
        self._accept = self._built(self._accept_stages(self._accepting))
        self._stream = self._built(self._answer_stages(self._answering, is_stream=True))
        self._whole = self._built(self._answer_stages(self._answering, is_stream=False), is_stream=False)

    async def accept(self, body: AsyncIterable[list[bytes]], ctx: RequestContext) -> list[UpstreamCall]:
        """Read a request, and return what is to be asked of which deployment.

        Raises:
            PipelineError: as `Pipeline.run` does.
        """
        if self._parts.admission is not None:
            await self._admit(self._parts.admission, ctx)
        if not self._is_split:
            return await self._accept.run(body, ctx)
        parts = self._parts
        await Pipeline(authenticate(parts.keys, anonymous=parts.anonymous, key_header=parts.key_header)).run([], ctx)
        asked = Asked(key=ctx[PRINCIPAL].name, profile=ctx[PROFILE].name)
        reading = self._chosen("read", self._of("request_bytes"), asked, lambda added: [*added, self._parse()])
        requests: list[ResponsesRequest] = await reading.run(body, ctx)
        if not requests:
            return []
        asked = self._asked(requests[0], ctx)
        placed = {place: self._of(place) for place in ("request", "call")}

        def stages(_: Sequence[AnyStage]) -> list[AnyStage]:
            chosen = {
                place: [one.made for one in ones if applies(one.planned.settings.when, asked)]
                for place, ones in placed.items()
            }
            return [*chosen["request"], choose_deployment(parts.deployments), *chosen["call"], *self._restore()]

        choosing = self._chosen("choose", [*placed["request"], *placed["call"]], asked, stages)
        calls: list[UpstreamCall] = await choosing.run([requests], ctx)
        return calls

    async def _admit(self, admission: Admission, ctx: RequestContext) -> None:
        """Identify the client, and let it in or refuse it: before anything of the body is read.

        Not in a stage, because a stage asks for the body's first part first, and that may have to wait for memory.
        """
        parts = self._parts
        try:
            ctx[PRINCIPAL] = identify(ctx[HEAD], parts.keys, parts.anonymous, key_names(parts.key_header))
        except PipelineError as error:
            error.stage = "authenticate"
            raise
        await admission.begin(ctx[PRINCIPAL], ctx)

    def answer(
        self, call: UpstreamCall, ctx: RequestContext, *, is_again: bool = False
    ) -> Pipeline[UpstreamCall, Never]:
        """Return the pipeline that answers a call; if ``is_again``, one that restores its reasoning first."""
        is_stream = call.request.stream
        if not self._has_choice and not is_again:
            return self._stream if is_stream else self._whole
        flags = self._flags_of(self._asked(call.request, ctx))
        added = [one for one, is_for_it in zip(self._answering, flags, strict=True) if is_for_it]
        kind = f"{'stream' if is_stream else 'whole'}{' again' if is_again else ''}"
        return self._cached(
            (kind, flags),
            lambda: self._answer_stages(added, is_stream=is_stream, is_again=is_again),
            is_stream=is_stream,
        )

    def routes_within(self, call: UpstreamCall, ctx: RequestContext) -> bool:
        """Return whether its pipeline asks further deployments itself, because something is around the call."""
        return bool(self._arounds) and self._has_around(call, ctx)

    def describe(self) -> dict[str, tuple[TaskDescription, ...]]:
        """Return what is known of its pipelines, with all that may be added in each, in the order in which they run."""
        described = {"accept": self._accept.describe()} if not self._is_split else self._describe_split()
        if self._arounds:
            described["attempt"] = self._attempt(self._answering).describe()
        for name, is_stream in (("stream", True), ("whole", False)):
            added = [one for one in self._answering if one.planned.settings.when.stream in (None, is_stream)]
            described[name] = self._built(
                self._answer_stages(added, is_stream=is_stream), is_stream=is_stream
            ).describe()
        return described

    def _describe_split(self) -> dict[str, tuple[TaskDescription, ...]]:
        parts = self._parts
        placed = {place: [one.made for one in self._of(place)] for place in ACCEPTING}
        pipelines: dict[str, AnyPipeline] = {
            "authenticate": Pipeline(authenticate(parts.keys, anonymous=parts.anonymous, key_header=parts.key_header)),
            "read": self._built([*placed["request_bytes"], self._parse()]),
            "choose": self._built(
                [*placed["request"], choose_deployment(parts.deployments), *placed["call"], *self._restore()]
            ),
        }
        return {name: pipeline.describe() for name, pipeline in pipelines.items()}

    def _asked(self, request: ResponsesRequest, ctx: RequestContext) -> Asked:
        return Asked(
            key=ctx[PRINCIPAL].name,
            model=request.requested_model,
            variant_of=self._parts.deployments.model_of(request),
            stream=request.stream,
            profile=ctx[PROFILE].name,
        )

    def _of(self, place: str) -> list[Installed]:
        return [one for one in self._accepting if one.planned.place == place]

    def _chosen(
        self,
        kind: str,
        candidates: Sequence[Installed],
        asked: Asked,
        stages: Callable[[Sequence[AnyStage]], Sequence[AnyStage]],
    ) -> AnyPipeline:
        flags = tuple(applies(one.planned.settings.when, asked) for one in candidates)
        made = [one.made for one, is_for_it in zip(candidates, flags, strict=True) if is_for_it]
        return self._cached((kind, flags), lambda: stages(made))

    def _cached(
        self, key: tuple[str, tuple[bool, ...]], stages: Callable[[], Sequence[AnyStage]], *, is_stream: bool = True
    ) -> AnyPipeline:
        if (found := self._pipelines.get(key)) is None:
            if len(self._pipelines) >= MAX_PIPELINES:
                del self._pipelines[next(iter(self._pipelines))]
            found = self._pipelines[key] = self._built(stages(), is_stream=is_stream)
        return found

    def _built(self, stages: Sequence[AnyStage], *, is_stream: bool = True) -> AnyPipeline:
        first, *others = stages
        chain: AnyPipeline = Pipeline(first)
        for stage in others:
            chain = chain.then(stage)
        if self._parts.execution != "fused":
            return chain
        # Nothing of a document is written before all of it is read: no stage has to work ahead.
        return chain.fused() if is_stream else chain.fused().pulled()

    def _accept_stages(self, added: Sequence[Installed]) -> list[AnyStage]:
        parts = self._parts

        def at(place: str) -> list[AnyStage]:
            return [one.made for one in added if one.planned.place == place]

        return [
            authenticate(parts.keys, anonymous=parts.anonymous, key_header=parts.key_header),
            *at("request_bytes"),
            self._parse(),
            *at("request"),
            choose_deployment(parts.deployments),
            *at("call"),
            *self._restore(),
        ]

    def _parse(self) -> AnyStage:
        return parse_request(self._parts.max_body_bytes, keeps_sent=self._parts.keeps_sent)

    def _restore(self) -> list[AnyStage]:
        """Return what restores reasoning, unless each attempt does: it must be done anew for another deployment."""
        if any(not planned.is_conditional for planned in self._arounds):
            return []
        if not self._arounds:
            return [restore_reasoning(self._parts.reasoning)]
        weak = WeakMethod(self._has_around)

        def has_around(call: UpstreamCall, ctx: RequestContext) -> bool:
            method = weak()
            assert method is not None  # a request that runs holds its assembly
            return method(call, ctx)

        return [restore_reasoning(self._parts.reasoning, has_around)]

    def _has_around(self, call: UpstreamCall, ctx: RequestContext) -> bool:
        flags = self._flags_of(self._asked(call.request, ctx))
        return any(
            is_for_it and one.planned.plugin.kind == "around"
            for one, is_for_it in zip(self._answering, flags, strict=True)
        )

    def _attempt(self, added: Sequence[Installed]) -> AnyPipeline:
        """Return the pipeline of one attempt, which is run inside what is around the call."""
        return self._built([restore_reasoning(self._parts.reasoning), *self._call_stages(added)])

    def _call_stages(self, added: Sequence[Installed]) -> list[AnyStage]:
        before = [one.made for one in added if one.planned.place == "upstream_bytes"]
        return [call_upstream(self._parts.upstreams), *before, decode_events]

    def _answer_stages(self, added: Sequence[Installed], *, is_stream: bool, is_again: bool = False) -> list[AnyStage]:
        parts = self._parts

        def at(place: str) -> list[AnyStage]:
            return [one.made for one in added if one.planned.place == place]

        arounds: list[Around] = [one.made for one in added if one.planned.plugin.kind == "around"]
        events: list[AnyStage] = self._call_stages(added)
        if arounds:
            events = [answer_call([*arounds, RouteCall(_usage_of)], self._attempt(added))]
        elif is_again:
            events.insert(0, restore_reasoning(parts.reasoning))
        if parts.reasoning is not None:
            events.append(remember_reasoning(parts.reasoning))
        events += at("events")
        if not is_stream:
            return [*events, collect_completion, write_json]
        frames = [*events, encode_chunks, *at("client_bytes")]
        if parts.keep_alive_interval_s > 0:
            frames.append(keep_alive(parts.keep_alive_interval_s))
        return [*frames, write_sse]


def _flags(added: Sequence[Installed], asked: Asked) -> tuple[bool, ...]:
    """Return which of the stages that may be added to an answer are for such a request."""
    return tuple(applies(one.planned.settings.when, asked) for one in added)


def _usage_of(ctx: RequestContext, call: UpstreamCall) -> Usage | None:
    """Return what a call has used, if its answer is the one that is passed on and says so."""
    return ctx.get(USAGE) if ctx.get(CALL) is call else None
