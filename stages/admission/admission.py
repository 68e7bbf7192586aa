"""What a request needs to come in: a part of the quota of its key, a turn, and a part of the key's quota of the model.

The master key has no limits of its own; it only needs a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline import Overloaded, RequestContext, Slot
from stages.admission.counts import Counts, CountsFullError
from stages.admission.quota import Full, Quota, Taken
from stages.admission.refusals import Headers, key_is_full, rate_limit_headers
from stages.admission.turns import Turns
from stages.events import Usage
from stages.limits import NO_LIMITS, Limits
from stages.principal import Principal


class Admission:
    """Decides whether a request may come in; one for each generation of the configuration.

    Args:
        counts: where it is counted. They outlive a generation.
        keys: what each key that has limits may have in all, by its name.
        key_limits: what each key may have of a model unless it says otherwise itself, by the model's configured name.
        turns: the requests that may run at a time; None if that is not limited.

    Raises:
        CountsFullError: if there is no room in ``counts``.
    """

    def __init__(
        self,
        counts: Counts,
        *,
        keys: Mapping[str, Limits] | None = None,
        key_limits: Mapping[str, Limits] | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.turns = turns
        self._counts = counts
        self._key_limits = key_limits or {}
        self._of_keys = {
            name: Quota(counts, f"key {name}", f"the API key {name!r}", limits, shows=True)
            for name, limits in (keys or {}).items()
        }
        self._of_models: dict[tuple[str, str], Quota] = {}  # by key and model

    async def begin(self, principal: Principal, ctx: RequestContext) -> None:
        """Let a request come in, or refuse it, before its body is read; `Admitted.end` must follow in any case.

        Raises:
            RateLimited: if its key has reached a limit.
            Overloaded: if it does not get a turn in time.
        """
        admitted = ctx[ADMITTED] = Admitted(self, principal)
        if not principal.is_master and (quota := self._of_keys.get(principal.name)) is not None:
            admitted.take(quota)
        if (turns := self.turns) is not None:
            turn = turns.take_nowait()
            if turn is None:
                admitted.is_waiting = True
                turn = await turns.wait()
                admitted.is_waiting = False
                ctx.timeline.mark("admitted")
            admitted.turn = turn

    def quota_of_model(self, principal: Principal, model: str, names: Sequence[str]) -> Quota | None:
        """Return what a key may have of a model; None if that is not limited.

        Args:
            principal: the key.
            model: the model's configured name.
            names: all names that the request has for it; the key may have limits for any of them.

        Raises:
            Overloaded: if there is no room to count it.
        """
        own = principal.model_limits
        name = next((name for name in names if name in own), None) if own else None
        limits = own[name] if name is not None else self._key_limits.get(model)
        if limits is None or limits == NO_LIMITS:
            return None
        key = principal.name, name or model
        if (found := self._of_models.get(key)) is None:
            of = f"the API key {key[0]!r} with the model {key[1]!r}"
            try:
                found = Quota(self._counts, f"key {key[0]}\0model {key[1]}", of, limits, shows=True)
            except CountsFullError as full:
                raise Overloaded(f"this request cannot be counted: {full}") from None
            self._of_models[key] = found
        return found


class Admitted:
    """What one request has taken.

    Attributes:
        turn: its turn, if there are any.
        is_waiting: whether it waits for one.
    """

    __slots__ = ("_admission", "_full", "_principal", "_taken", "is_waiting", "turn")

    def __init__(self, admission: Admission, principal: Principal) -> None:
        self._admission = admission
        self._principal = principal
        self._taken: list[Taken] = []
        self._full: Full | None = None
        self.turn: Taken | None = None
        self.is_waiting = False

    def take(self, quota: Quota, tokens: int = 0) -> None:
        """Take a part of a quota.

        Raises:
            RateLimited: if nothing is left.
        """
        taken = quota.take(tokens)
        if isinstance(taken, Full):
            self._full = taken
            raise key_is_full(taken)
        self._taken.append(taken)

    def ask_for(self, model: str, names: Sequence[str], size_of: Callable[[], int]) -> None:
        """Take what the request needs of its key once its model and its body are known.

        Args:
            model: the model's configured name.
            names: all names that the request has for it.
            size_of: returns an estimate of the tokens of its prompt.

        Raises:
            RateLimited: if nothing is left.
            Overloaded: if there is no room to count it.
        """
        if self._principal.is_master:
            return
        for taken in self._taken:
            if taken.quota.limits.tpm is not None:
                full = taken.quota.reserve(taken, size_of())
                if full is not None:
                    self._full = full
                    raise key_is_full(full)
        quota = self._admission.quota_of_model(self._principal, model, names)
        if quota is not None:
            self.take(quota, 0 if quota.limits.tpm is None else size_of())

    def headers(self) -> Headers:
        """Return the headers that show what is left."""
        found = [(one.quota.limits, one.standing) for one in (*self._taken, self._full) if one is not None]
        return rate_limit_headers((limits, standing) for limits, standing in found if standing is not None)

    def end(self, usage: Usage | None, *, was_refused: bool) -> None:
        """Note that the request has ended.

        Args:
            usage: what it has used, if that is known.
            was_refused: whether it was turned away before a deployment was chosen: then it does not count.
        """
        for taken in self._taken:
            if was_refused or self.is_waiting:
                taken.undo()
            else:
                taken.end(None if usage is None else usage.prompt_tokens + usage.completion_tokens)
        self._taken = []
        if self.turn is not None and self._admission.turns is not None:
            turn, self.turn = self.turn, None
            self._admission.turns.end(turn)


ADMITTED: Slot[Admitted] = Slot("admitted")
"""Filled by the gateway before the first stage, if anything limits the requests that come in."""
