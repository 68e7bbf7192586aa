"""The places of one request at the deployments that have limits: one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.admission.quota import Full, Quota, Taken
from stages.admission.refusals import RateLimited, all_are_full
from stages.events import Usage


class Places:
    """What one way through the deployments holds of their quotas.

    Args:
        quotas: of the deployments that have limits, by id.
        size_of: returns an estimate of the tokens of the prompt; it is asked if a deployment limits them.
    """

    __slots__ = ("_fulls", "_held", "_id", "_quotas", "_size_of")

    def __init__(self, quotas: Mapping[str, Quota], size_of: Callable[[], int]) -> None:
        self._quotas = quotas
        self._size_of = size_of
        self._id = ""
        self._held: Taken | None = None
        self._fulls: list[Full] = []

    def take(self, id: str) -> bool:
        """Take a place at a deployment, unless it is held already; return whether it may be asked."""
        if self._held is not None and self._id == id:
            return True
        self.undo()
        if (quota := self._quotas.get(id)) is None:
            return True
        taken = quota.take(0 if quota.limits.tpm is None else self._size_of())
        if isinstance(taken, Full):
            self._fulls.append(taken)
            return False
        self._id, self._held = id, taken
        return True

    def has_room(self, id: str) -> bool:
        """Return whether a deployment would be asked now."""
        quota = self._quotas.get(id)
        return quota is None or quota.has_room()

    def end(self, usage: Usage | None, *, has_answered: bool) -> None:
        """Note that the deployment is not asked any more.

        Args:
            usage: what it has used, if that is known.
            has_answered: whether it has begun to answer; else it has used nothing, as far as is known.
        """
        if (held := self._held) is not None:
            self._held = None
            used = None if has_answered else 0
            held.end(used if usage is None else usage.prompt_tokens + usage.completion_tokens)

    def undo(self) -> None:
        """Return the place: the deployment was not asked."""
        if (held := self._held) is not None:
            self._held = None
            held.undo()

    def passed_on(self) -> Places:
        """Return the places of a way that goes on with this one's place."""
        other = Places(self._quotas, self._size_of)
        other._id, other._held, self._held = self._id, self._held, None
        return other

    def refusal(self, model: str) -> RateLimited | None:
        """Return the failure of a request that nobody has had room for; None if nobody was full."""
        return all_are_full(model, self._fulls) if self._fulls else None
