"""The providers whose requests differ, for tests of request builders."""

from __future__ import annotations

from stages.upstreams.providers import PROVIDERS
from stages.wire.api import Api, QuirksT

UNKNOWN = "somebody"
"""A provider that is not in the table."""


def providers_with_quirks(api: Api[QuirksT]) -> list[str]:
    """Return the providers that take something differently in an API, and one that is not in the table."""
    named = [name for name, row in PROVIDERS.items() if any(isinstance(quirks, api.quirks) for quirks in row.quirks)]
    return [*named, UNKNOWN]
