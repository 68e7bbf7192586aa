"""The limit of open files: each stream needs two, and a common default is 1024."""

from __future__ import annotations

import logging
import resource

SPARE_FILES = 64
"""Descriptors besides those of streams, which need one to the client and one to the upstream."""

log = logging.getLogger("headrace")


def files_needed(max_connections: int) -> int:
    """Return how many files may be open at the same time with so many connections of clients."""
    return 2 * max_connections + SPARE_FILES


def allow_many_files(max_connections: int) -> None:
    """Raise the limit to what the system allows, and warn if that is too low for so many connections.

    Processes that are started from here inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        log.info("the limit of open files was %d and is now %d", soft, hard)
    if 0 < hard < files_needed(max_connections):
        log.warning(
            "at most %d files may be open, but max_connections: %d can need %d: raise the limit (ulimit -n, systemd's "
            "LimitNOFILE, docker's --ulimit nofile), or set max_connections to at most %d",
            hard,
            max_connections,
            files_needed(max_connections),
            max(1, (hard - SPARE_FILES) // 2),
        )
