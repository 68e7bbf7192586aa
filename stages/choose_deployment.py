"""Choose the deployment that answers: those of the requested model take turns.

A name that is not configured may be that of a variant (``gpt-5-thinking-high``, ``gpt-5-fast``). Then the model itself
answers, and the effort and the tier in the name are put into the body, unless the body sets them. The client still sees
the name that it asked for.

Fields that choose another model are removed unless the deployment forwards them, and always if the key is limited to
some models: only the name that the client asked for is checked.

Takes: ResponsesRequest. Gives: UpstreamCall, 1:1. Fills: CALL.
Holds: nothing. Waits: for nothing.
Raises: ClientFault ``model_forbidden`` if the key may use neither the name nor the model that it is a variant of,
``model_not_found`` if no deployment has it, ``invalid_request`` if the request only refers to what is stored elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import cycle

from msgspec import Struct
from msgspec.structs import replace

from pipeline import ClientFault, RequestContext, Stage, codec_stage
from stages.principal import Principal
from stages.request import ResponsesRequest
from stages.slots import CALL, PRINCIPAL
from stages.upstreams import Deployment, UpstreamCall
from stages.wire.bad_request import BadRequest
from stages.wire.downstream.forwarding import MODEL_FIELDS, only_forwarded, only_own
from stages.wire.downstream.model_variants import Variant, variants, with_variant
from stages.wire.foreign_json import is_object
from stages.wire.normal_form import EFFORTS
from stages.wire.openai_models import family_of

MATCH_CACHE_SIZE = 1024
"""How many names are cached with their match; a name has at most 512 characters."""


class Match(Struct, frozen=True):
    """The deployments that answer to a name.

    Attributes:
        group: the deployments, which take turns.
        star: the text that the ``*`` in their name matched; None if their name has no ``*``.
        variant: how the name was read.
    """

    group: cycle[Deployment]
    star: str | None
    variant: Variant

    def take_turn(self) -> tuple[Deployment, str]:
        """Return the deployment whose turn it is, and the upstream's name for the model."""
        chosen = next(self.group)
        if self.star is None:
            return chosen, chosen.model
        model = chosen.model.replace("*", self.star, 1)
        if chosen.on_responses is not None and not family_of(model).tools_on_chat:
            chosen = chosen.on_responses
        return chosen, model


class Deployments:
    """All deployments by the name that clients use; built at startup.

    An exact name wins over a wildcard, a longer wildcard over a shorter one. Deployments of one name take turns.

    Attributes:
        names: the configured names, in the order of the configuration.
        match: `find` with a cache, as clients ask for the same few names again and again.
    """

    def __init__(self, deployments: Iterable[Deployment]) -> None:
        groups: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            groups.setdefault(deployment.model_name, []).append(deployment)
        self.names = tuple(groups)
        self.match = lru_cache(MATCH_CACHE_SIZE)(self.find)
        self._exact = {name: cycle(group) for name, group in groups.items() if "*" not in name}
        self._wild: list[tuple[str, str, cycle[Deployment]]] = []
        for name in sorted(groups, key=len, reverse=True):
            start, star, end = name.partition("*")
            if star:
                self._wild.append((start, end, cycle(groups[name])))

    def find(self, model: str, effort: str | None = None) -> Match | None:
        """Find the deployments for ``model``, or for the model that it is a variant of; None if there are none.

        Cursor removes a trailing effort from a name and sends it in the body (orchidfiles/ungate b56ddac). So with
        ``effort``, the configured name that ends in it is tried right after the name itself.

        The order is: a configured name, a variant of one, a wildcard, a variant that a wildcard matches. A wildcard
        comes before its variants because it may match a model whose own name looks like a variant (``grok-4-fast``).
        No model's name ends in ``-thinking-<effort>``, so that suffix is removed before wildcards are tried.
        """
        asked = Variant(model)
        if (found := self._find_exact(asked)) is not None:
            return found
        if effort is not None and (found := self._find_exact(Variant(f"{model}-{effort}"))) is not None:
            return found
        readings = variants(model)
        in_order = (
            *map(self._find_exact, readings),
            *(self._find_wild(reading) for reading in readings if reading.is_certain),
            self._find_wild(asked),
            *map(self._find_wild, readings),
        )
        return next((found for found in in_order if found is not None), None)

    def _find_exact(self, reading: Variant) -> Match | None:
        group = self._exact.get(reading.name)
        return None if group is None else Match(group, None, reading)

    def _find_wild(self, reading: Variant) -> Match | None:
        model = reading.name
        for start, end, group in self._wild:
            if len(model) >= len(start) + len(end) and model.startswith(start) and model.endswith(end):
                return Match(group, model[len(start) : len(model) - len(end)], reading)
        return None

    def model_of(self, request: ResponsesRequest) -> str | None:
        """Return the configured name, or what a wildcard matched, that a requested name is read as; None if unknown."""
        match = self.match(request.requested_model, _effort(request))
        return None if match is None else match.variant.name

    def visible_to(self, principal: Principal) -> list[str]:
        """Return the names that a key may use, in the order of the configuration."""
        return [name for name in self.names if principal.may_use(name)]


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
        match = self._deployments.match(asked, effort)
        if (
            effort is not None
            and match is not None
            and match.variant.name == f"{asked}-{effort}"
            and not principal.may_use(match.variant.name)
        ):  # the body would lead to another configured name, which the key may not use
            match = self._deployments.match(asked)
        # Scopes are about models: a key for a model may use its variants, and a key may be limited to one variant.
        if not principal.may_use(asked) and (match is None or not principal.may_use(match.variant.name)):
            raise ClientFault(
                f"this API key may not use the model {asked!r}: GET /cursor/models lists the allowed models",
                code="model_forbidden",
                param="model",
            )
        if target is not None:
            match = self._deployments.match(target, effort)
        if match is None:
            chosen = "" if target is None else f", which a stage of this gateway chose for {asked!r},"
            raise ClientFault(
                f"the model {target or asked!r}{chosen} does not exist: GET /cursor/models lists the available models",
                code="model_not_found",
                param="model",
            )
        deployment, model = match.take_turn()
        allowed = deployment.forward_fields
        is_limited = principal.models is not None and not principal.is_master
        if is_limited:
            allowed -= MODEL_FIELDS
        try:
            request = only_forwarded(request, allowed)
            if is_limited:
                request = only_own(request, allowed)
        except BadRequest as bad:
            raise ClientFault(bad.message, param=bad.param, code=bad.code) from None
        body = with_variant(request.body, match.variant)
        if body is not request.body:
            request = replace(request, body=body)
        call = UpstreamCall(request=request, deployment=deployment, model=model)
        self._ctx[CALL] = call
        return call

    def flush(self) -> list[UpstreamCall]:
        return []


def _effort(request: ResponsesRequest) -> str | None:
    reasoning = request.body.get("reasoning")
    effort = reasoning.get("effort") if is_object(reasoning) else None
    return effort if effort in EFFORTS else None


def choose_deployment(deployments: Deployments) -> Stage[ResponsesRequest, UpstreamCall]:
    """Return the stage."""
    return codec_stage("choose_deployment", lambda ctx: _Choose(deployments, ctx), codec=_Choose)
