"""Who is asking: the key that a request came with, and the models that it may use."""

from __future__ import annotations

from msgspec import Struct


class Principal(Struct, frozen=True):
    """One authenticated key.

    Attributes:
        name: what the configuration calls the key; a log field and a metric label.
        is_master: whether it is the master key, which may do everything.
        models: the names it may use, each with any number of ``*``; None is every model.
    """

    name: str
    is_master: bool = False
    models: tuple[str, ...] | None = None

    def may_use(self, model: str) -> bool:
        """Return whether this key may ask for ``model``, which is compared by case and as a whole."""
        return self.is_master or self.models is None or any(_matches(pattern, model) for pattern in self.models)


def _matches(pattern: str, model: str) -> bool:
    # Not fnmatch: `[` and `?` are ordinary characters in model names, and it compiles and caches a regular expression.
    # Taking each inner piece at its first occurrence is right for `*`, and linear.
    first, *rest = pattern.split("*")
    if not rest:
        return model == pattern
    last = rest.pop()
    if len(model) < len(first) + len(last) or not model.startswith(first) or not model.endswith(last):
        return False
    at, end = len(first), len(model) - len(last)
    for piece in rest:
        found = model.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
