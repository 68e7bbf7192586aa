"""The lock is read completely, and says who needs what."""

from __future__ import annotations

import pytest
from kit.release.lock import BUILD, closure, read_lock

DIGEST, OTHER = "0" * 64, "f" * 64
LOCK = f"""\
hatchling==1.33.0 \\
    --hash=sha256:{DIGEST}
    # via {BUILD}
quart==0.22.0 ; python_full_version < '3.13' \\
    --hash=sha256:{OTHER} \\
    --hash=sha256:{DIGEST}
    # via quart-trio
quart==0.23.1 ; python_full_version >= '3.13' \\
    --hash=sha256:{DIGEST}
    # via
    #   -c requirements/run.txt
    #   quart-trio
quart-trio==0.12.0 ; python_full_version < '3.13' \\
    --hash=sha256:{DIGEST}
    # via headrace (pyproject.toml)
typing-extensions==4.16.0 ; python_full_version < '3.15' \\
    --hash=sha256:{DIGEST}
    # via quart
"""


def test_each_package_has_its_version_marker_hashes_and_reasons() -> None:
    hatchling, quart, newer, trio, typing = read_lock(LOCK)
    assert (hatchling.reference, hatchling.marker) == ("pkg:pypi/hatchling@1.33.0", "")
    assert hatchling.via == {BUILD}
    assert (quart.version, quart.marker, quart.hashes) == ("0.22.0", "python_full_version < '3.13'", (DIGEST, OTHER))
    assert newer.via == {"-c requirements/run.txt", "quart-trio"}
    assert trio.name == "quart-trio"
    assert trio.via == {"headrace"}
    assert typing.name == "typing-extensions"


def test_what_a_package_needs_is_what_fits_the_same_pythons() -> None:
    packages = read_lock(LOCK)
    reached = closure(["quart-trio"], packages)
    assert [package.reference for package in reached] == [
        "pkg:pypi/quart@0.22.0",
        "pkg:pypi/quart-trio@0.12.0",
        "pkg:pypi/typing-extensions@4.16.0",
    ]


def test_a_line_of_another_form_is_not_passed_over() -> None:
    for line in ("-e .", "quart>=1", "    --hash=sha512:00", "quart==1"):
        with pytest.raises(ValueError, match="line 19 is not of a lock"):
            read_lock(f"{LOCK}{line}\n")
