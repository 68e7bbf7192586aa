"""How many examples hypothesis tries: 100 of each property; ``HYPOTHESIS_PROFILE=ci`` 500, ``nightly`` 20 000.

A test that fixes ``max_examples`` itself keeps its number. ``HYPOTHESIS_PROFILE=written`` tries only the examples that
a test spells out with ``@example``, usually none: `make coverage` must not depend on what is drawn.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None)
settings.register_profile(
    "nightly", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("written", phases=[Phase.explicit])
settings.load_profile(PROFILE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PROFILE == "nightly":
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # none: twenty thousand examples take their time
