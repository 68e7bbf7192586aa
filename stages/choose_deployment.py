"""Choose the deployment that answers: of those of the requested model that are healthy, the conversation's own.

A name that is not configured may be that of a variant (``gpt-5-thinking-high``, ``gpt-5-fast``). Then the model itself
answers, and the effort and the tier in the name are put into the body, unless the body sets them. The client still sees
the name that it asked for.

Fields that choose another model are removed unless the deployment forwards them, and always if the key is limited to
some models: only the name that the client asked for is checked.

The models of ``headrace doctor`` (`stages.upstreams.canned.probes`) are for the master key alone, and have nothing to
do with the configured ones.

If the key, or the deployments, have limits, the request takes its part of them here (`stages.admission`).

Takes: ResponsesRequest. Gives: UpstreamCall, 1:1. Fills: CALL, ROUTE.
Holds: nothing. Waits: for nothing.
Raises: ClientFault ``model_forbidden`` if the key may use neither the name nor the model that it is a variant of,
``model_not_found`` if no deployment has it or it is not for chats, ``invalid_request`` if the request only refers to
what is stored elsewhere, ``context_length_exceeded`` if it is too long for all of them, if that is checked.
RateLimited if the key, or each deployment that may answer, has reached a limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from weakref import WeakMethod

import trio
from msgspec import Struct
from msgspec.structs import replace

from pipeline import ClientFault, RequestContext, Stage, codec_stage
from stages.admission.admission import ADMITTED
from stages.principal import Principal
from stages.reasoning.keys import conversation_of
from stages.request import ResponsesRequest
from stages.routing.health import Change
from stages.routing.known_names import usable
from stages.routing.router import ROUTE, Candidate, Route, Router
from stages.routing.settings import DEFAULT_ROUTING, RoutingSettings
from stages.routing.windows import estimated_tokens, fitting
from stages.slots import CALL, HEAD, PRINCIPAL
from stages.upstreams import Deployment, UpstreamCall
from stages.upstreams.apis import APIS
from stages.upstreams.canned.probes import is_probe, probe_deployment
from stages.upstreams.client_headers import passed_on
from stages.upstreams.model_modes import other_mode
from stages.wire.answers.context_length import CONTEXT_LENGTH_EXCEEDED, sentence_of
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.forwarding import MODEL_FIELDS, only_forwarded, only_own
from stages.wire.downstream.model_variants import Variant, variants, with_variant
from stages.wire.foreign_json import Json, is_object
from stages.wire.normal_form import EFFORTS
from stages.wire.openai_models import family_of

MATCH_CACHE_SIZE = 1024
"""How many names are cached with their match; a name has at most 512 characters."""


class Match(Struct, frozen=True):
    """The deployments that answer to a name.

    Attributes:
        name: the name in the configuration, perhaps with a ``*``.
        candidates: the deployments, in the order of the configuration; none if it has an ``other_mode``.
        variant: how the name was read.
        forwards: the fields that any of them forwards; each attempt leaves out what its own deployment does not.
        other_mode: what the model is for that a ``*`` matched, if its name says that it is not for chats.
        alias: the alias that was read, if one was.
    """

    name: str
    candidates: tuple[Candidate, ...]
    variant: Variant
    forwards: frozenset[str]
    other_mode: str | None = None
    alias: str | None = None

    def is_for(self, principal: Principal) -> bool:
        """Return whether a key may use the model that was found, by its name or the alias."""
        return principal.may_use(self.variant.name) or (self.alias is not None and principal.may_use(self.alias))


def _candidate(deployment: Deployment, star: str | None) -> Candidate:
    """Return a deployment with the upstream's name for the model.

    Args:
        deployment: one of those that a name matched.
        star: the text that the ``*`` in their name matched; None if their name has no ``*``.
    """
    if star is None:
        return Candidate(deployment, deployment.model)
    model = deployment.model.replace("*", star, 1)
    if deployment.on_responses is not None and not family_of(model).tools_on_chat:
        deployment = deployment.on_responses
    return Candidate(deployment, model)


def _match(name: str, candidates: tuple[Candidate, ...], variant: Variant) -> Match:
    return Match(
        name, candidates, variant, frozenset[str]().union(*(one.deployment.forward_fields for one in candidates))
    )


class Deployments:
    """All deployments by the name that clients use; built at startup.

    An exact name wins over a wildcard, a longer wildcard over a shorter one.

    Args:
        deployments: all of them.
        routing: which of those of one name is asked, and what follows if it fails.
        left_out: names in the configuration none of whose deployments can be used. Their fallbacks answer, and no
            wildcard does: what is meant for one vendor must not be sent to another.
        on_change: called when one of them was ejected, and when it is back.

    Attributes:
        left_out: the names that are left out, without wildcards.
        names: the configured names and aliases, in the order of the configuration, without the hidden ones.
        router: what is known of the deployments' health.
        match: `find` with a cache, as clients ask for the same few names again and again.
    """

    def __init__(
        self,
        deployments: Iterable[Deployment],
        routing: RoutingSettings = DEFAULT_ROUTING,
        *,
        left_out: Collection[str] = (),
        on_change: Callable[[Change], object] | None = None,
    ) -> None:
        groups: dict[str, list[Deployment]] = {}
        for deployment in (deployments := tuple(deployments)):
            groups.setdefault(deployment.model_name, []).append(deployment)
        self.router = Router(routing, deployments, on_change=on_change)
        self._aliases = routing.aliases
        self._routed_names = routing.names()
        self.match = lru_cache(MATCH_CACHE_SIZE)(_weakly(self.find))
        self._exact = {name: group for name, group in groups.items() if "*" not in name}
        self.left_out = frozenset(name for name in left_out if "*" not in name and name not in groups)
        self._exact.update((name, []) for name in self.left_out)
        self._wild: list[tuple[str, str, list[Deployment]]] = []
        for name in sorted(groups, key=len, reverse=True):
            start, star, end = name.partition("*")
            if star:
                self._wild.append((start, end, groups[name]))
        shown = (name for name in self._aliases if name not in {*groups, *routing.hidden_aliases})
        self.names = (*groups, *(name for name in shown if (found := self.find(name)) and found.candidates))

    def find(self, model: str, effort: str | None = None) -> Match | None:
        """Find the deployments for ``model``, or for the model that it is a variant of; None if there are none.

        Cursor removes a trailing effort from a name and sends it in the body (orchidfiles/ungate b56ddac). So with
        ``effort``, the configured name or alias that ends in it is tried right after the name itself.

        The order is: a configured name, a variant of one, a wildcard, a variant that a wildcard matches. A wildcard
        comes before its variants because it may match a model whose own name looks like a variant (``grok-4-fast``).
        No model's name ends in ``-thinking-<effort>``, so that suffix is removed before wildcards are tried. An alias
        comes before all of these, and a variant of one after the variants of configured names.
        """
        if (target := self._aliases.get(model)) is not None:
            found = self._find(target, None)
            return None if found is None else replace(found, alias=model)
        return self._find(model, effort)

    def _find(self, model: str, effort: str | None) -> Match | None:
        asked = Variant(model)
        if (found := self._find_exact(asked)) is not None:
            return found
        if effort is not None:
            whole = f"{model}-{effort}"
            if (found := self._find_exact(Variant(whole))) is not None:
                return found
            if whole in self._aliases:
                return self.find(whole)
        readings = variants(model)
        in_order = (
            *map(self._find_exact, readings),
            *map(self._find_alias, readings),
            *(self._find_wild(reading) for reading in readings if reading.is_certain),
            self._find_wild(asked),
            *map(self._find_wild, readings),
        )
        return next((found for found in in_order if found is not None), None)

    def _find_exact(self, reading: Variant) -> Match | None:
        group = self._exact.get(reading.name)
        return None if group is None else _match(reading.name, tuple(_candidate(one, None) for one in group), reading)

    def _find_alias(self, reading: Variant) -> Match | None:
        if (target := self._aliases.get(reading.name)) is None:
            return None
        asked = replace(reading, name=target)
        found = self._find_exact(asked) or self._find_wild(asked)
        return None if found is None else replace(found, alias=reading.name)

    def _find_wild(self, reading: Variant) -> Match | None:
        model = reading.name
        for start, end, group in self._wild:
            if len(model) >= len(start) + len(end) and model.startswith(start) and model.endswith(end):
                star = model[len(start) : len(model) - len(end)]
                candidates = [_candidate(one, star) for one in group]
                chat = tuple(one for one in candidates if one.deployment.is_chat or other_mode(one.model) is None)
                found = _match(f"{start}*{end}", chat, reading)
                return found if chat else replace(found, other_mode=other_mode(candidates[0].model))
        return None

    def route(
        self,
        match: Match,
        request: ResponsesRequest,
        headers: Mapping[bytes, bytes],
        size_of: Callable[[], int] | None = None,
    ) -> Route:
        """Return the way of a request through the deployments that answer to its name.

        Args:
            match: the deployments.
            request: the request.
            headers: those that it came with.
            size_of: returns an estimate of the tokens of its prompt, if it was made before.

        Raises:
            ClientFault: ``context_length_exceeded`` if it is too long for all of them, if that is checked.
        """
        name_of = partial(conversation_of, request, headers)
        name = match.name
        if routed := self._routed_names:
            # LiteLLM: by the name that was asked for. It may be an alias, or one that a wildcard matches.
            names = (request.target_model or request.requested_model, match.alias, match.variant.name)
            name = next((one for one in names if one in routed), name)
        if self.router.settings.checks_windows:
            return self._route_by_window(name, match, size_of or PromptSize(request.body), name_of)
        if self.router.quotas:
            route = Route(
                self.router, name, match.candidates, name_of, self._group_of, size_of or PromptSize(request.body)
            )
        else:
            route = Route(self.router, name, match.candidates, name_of, self._group_of)
        if not match.candidates and route.go_elsewhere("auth", trio.current_time()) is None:
            raise route.refusal() or _left_out(name)
        return route

    def _route_by_window(
        self, group: str, match: Match, size_of: Callable[[], int], name_of: Callable[[], str]
    ) -> Route:
        """Return the way of a request through the deployments, and the fallbacks, that it is not too long for."""
        tokens = size_of()

        def group_of(name: str) -> Sequence[Candidate] | None:
            return fitting(self._group_of(name) or (), tokens)

        route = Route(self.router, group, fitting(match.candidates, tokens), name_of, group_of, size_of)
        if not route.has_candidates and route.go_elsewhere("context_window", trio.current_time()) is None:
            if (refusal := route.refusal()) is not None:
                raise refusal
            if not match.candidates:
                raise _left_out(group)
            window = max(one.deployment.max_input_tokens or 0 for one in match.candidates)
            raise ClientFault(sentence_of(window, tokens), code=CONTEXT_LENGTH_EXCEEDED)
        return route

    def _group_of(self, name: str) -> tuple[Candidate, ...] | None:
        match = self.match(name)
        return None if match is None else match.candidates

    def model_of(self, request: ResponsesRequest) -> str | None:
        """Return the configured name, or what a wildcard matched, that a requested name is read as; None if unknown."""
        match = self.match(request.requested_model, _effort(request))
        return None if match is None else match.variant.name

    def visible_to(self, principal: Principal) -> list[str]:
        """Return the names that a key may use, in the order of the configuration."""
        return [name for name in self.names if principal.may_use(name)]

    def not_found(self, model: str, principal: Principal, where: str = "") -> ClientFault:
        """Return the failure of a request for a model that does not exist, or not for this key.

        Args:
            model: the name.
            principal: whose key it is.
            where: what is to be said of the name, in parentheses or between commas.
        """
        instead = usable(self.visible_to(principal), model)
        return ClientFault(
            f"the model {model!r}{where} does not exist: {instead}", code="model_not_found", param="model"
        )


def _left_out(model: str) -> ClientFault:
    return ClientFault(
        f"the model {model!r} is in this gateway's configuration, but is left out: its operator sees why in the log, "
        "or by `headrace check-config`",
        code="model_not_found",
        param="model",
    )


def _weakly(find: Callable[[str, str | None], Match | None]) -> Callable[..., Match | None]:
    """Return a method without its object: a cache that holds its owner is garbage that only the collector frees.

    Each reload of the configuration makes other deployments.
    """
    weak = WeakMethod(find)

    def found(model: str, effort: str | None = None) -> Match | None:
        method = weak()
        assert method is not None  # who calls has its object
        return method(model, effort)

    return found


class PromptSize:
    """An estimate of the tokens of a prompt, made when somebody asks for it, and once."""

    __slots__ = ("_body", "_tokens")

    def __init__(self, body: Mapping[str, Json]) -> None:
        self._body = body
        self._tokens: int | None = None

    def __call__(self) -> int:
        """Return it."""
        if self._tokens is None:
            self._tokens = estimated_tokens(self._body)
        return self._tokens


class _Choose:
    def __init__(self, deployments: Deployments, ctx: RequestContext) -> None:
        self._deployments = deployments
        self._ctx = ctx

    def feed(self, batch: list[ResponsesRequest], /) -> list[UpstreamCall]:
        return [self._choose(request) for request in batch]

    def _choose(self, request: ResponsesRequest) -> UpstreamCall:
        principal = self._ctx[PRINCIPAL]
        asked, target = request.requested_model, request.target_model
        effort = _effort(request)
        deployments = (
            _probes(asked) if target is None and principal.is_master and is_probe(asked) else self._deployments
        )
        match = deployments.match(asked, effort)
        if effort is not None and match is not None and not match.is_for(principal):
            # The body may have led to another configured name, which the key may not use.
            match = deployments.match(asked)
        # Scopes are about models: a key for a model may use its variants, and a key may be limited to one variant.
        if not principal.may_use(asked) and (match is None or not match.is_for(principal)):
            instead = usable(self._deployments.visible_to(principal), asked)
            raise ClientFault(
                f"this API key may not use the model {asked!r}{self._named_where()}: {instead}",
                code="model_forbidden",
                param="model",
            )
        if target is not None:
            match = self._deployments.match(target, effort)
        if match is None:
            described = f", which a stage of this gateway chose for {asked!r}," if target else self._named_where()
            raise self._deployments.not_found(target or asked, principal, described)
        if match.other_mode is not None:
            raise ClientFault(
                f"the model {target or asked!r} is for {match.other_mode}: this gateway serves chat models only",
                code="model_not_found",
                param="model",
            )
        if (earlier := self._ctx.get(ROUTE)) is not None:  # of another request that an added stage has made
            earlier.hand_over()
            earlier.end()
        size_of = None
        if (admitted := self._ctx.get(ADMITTED)) is not None:
            size_of = PromptSize(request.body)
            names = (target or asked, match.alias or asked, match.variant.name, match.name)
            admitted.ask_for(match.name, names, size_of)
        route = self._ctx[ROUTE] = deployments.route(match, request, self._ctx[HEAD].headers, size_of)
        now_s = trio.current_time()
        chosen = route.begin(now_s)
        allowed = match.forwards
        is_limited = principal.models is not None and not principal.is_master
        if is_limited:
            allowed -= MODEL_FIELDS
        try:
            request = only_forwarded(request, allowed)
            if is_limited:
                request = only_own(request, allowed)
        except BadRequest as bad:
            raise ClientFault(bad.message, param=bad.param, code=bad.code) from None
        is_own = chosen.deployment.is_transparent  # then a name is passed on as it is, whatever it looks like
        body = request.body if is_own else with_variant(request.body, match.variant)
        if body is not request.body:
            request = replace(request, body=body)
        total_s = chosen.deployment.timeouts.total_s
        deadline_s = math.inf if total_s is None else now_s + total_s
        call = UpstreamCall(request=request, deployment=chosen.deployment, model=chosen.model, deadline_s=deadline_s)
        if is_own:
            headers = passed_on(self._ctx[HEAD].headers.items(), APIS[chosen.deployment.kind])
            call = replace(call, model=target or asked, client_headers=headers)
        self._ctx[CALL] = call
        return call

    def _named_where(self) -> str:
        """Return where the model's name is, if a client's user would look for it in the wrong place."""
        return "" if self._ctx[HEAD].model_in_path is None else " (the deployment that the path names)"

    def flush(self) -> list[UpstreamCall]:
        return []


def _probes(model: str) -> Deployments:
    """Return the deployment of a model of ``headrace doctor``, with a router of its own."""
    try:
        return Deployments([probe_deployment(model)])
    except ValueError as error:
        raise ClientFault(f"the model {model!r}: {error}", code="model_not_found", param="model") from error


def _effort(request: ResponsesRequest) -> str | None:
    reasoning = request.body.get("reasoning")
    effort = reasoning.get("effort") if is_object(reasoning) else None
    return effort if effort in EFFORTS else None


def choose_deployment(deployments: Deployments) -> Stage[ResponsesRequest, UpstreamCall]:
    """Return the stage."""
    return codec_stage("choose_deployment", lambda ctx: _Choose(deployments, ctx), codec=_Choose)
