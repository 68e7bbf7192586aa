"""Where the requests that a command looks at come from: a recording, or the flight recorder of a running service."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from pipeline.study.live import key_from, records
from pipeline.study.recording import Recording, StudyError, open_recording


@contextmanager
def open_source(name: str | None, url: str | None, key: str | None) -> Generator[Recording]:
    """Open the recording ``name``, or what the service at ``url`` has kept; exactly one of both.

    Raises:
        StudyError: if that cannot be opened, or both are named, or neither.
        LiveError: if the service cannot be read.
    """
    if (name is None) is (url is None):
        raise StudyError("name a recording, or a running service with --url")
    if name is not None:
        with open_recording(name) as recording:
            yield recording
    elif url is not None:
        yield Recording(_kept_lines(url, key_from(key)), url)


def _kept_lines(url: str, key: str) -> Iterator[bytes]:
    after = ""
    while True:
        fetched = records(url, key, after)
        for line in fetched.lines:
            yield line + b"\n"
        if not fetched.has_more:
            return
        after = fetched.cursor
