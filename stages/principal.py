"""The authenticated key of a request, and the models that it may use."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from stages.limits import NO_LIMITS, Limits


class Principal(Struct, frozen=True):
    """One authenticated key.

    Attributes:
        name: the key's name in the configuration; a log field and a metric label.
        is_master: whether it is the master key, which may use everything.
        models: the names that it may use, each with any number of ``*``; None means every model.
        limits: what it may have in all.
        model_limits: what it may have of each model, by the model's configured name.
        reads_metrics: whether it may read ``/metrics``; the master key always may.
        may_trace: whether it may ask for a trace of its requests; the master key always may.
    """

    name: str
    is_master: bool = False
    models: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS
    model_limits: Mapping[str, Limits] = {}
    reads_metrics: bool = False
    may_trace: bool = False

    def may_use(self, model: str) -> bool:
        """Return whether this key may use ``model``; names are compared whole, and case matters."""
        return self.is_master or self.models is None or any(matches(pattern, model) for pattern in self.models)


def matches(pattern: str, model: str) -> bool:
    """Return whether a name is one of those that a pattern with any number of ``*`` means."""
    # Not fnmatch: `[` and `?` are ordinary characters in model names, and it compiles and caches a regular expression.
    # Matching each inner piece at its first occurrence is correct for `*`, and takes linear time.
    first, *inner = pattern.split("*")
    if not inner:
        return model == pattern
    last = inner.pop()
    if len(model) < len(first) + len(last) or not model.startswith(first) or not model.endswith(last):
        return False
    at, end = len(first), len(model) - len(last)
    for piece in inner:
        found = model.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
