"""Why a file cannot be read or written, as a sentence that says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.study.files import unreadable, unwritable


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "a.jsonl: there is no such file"),
        (errno.EISDIR, "a.jsonl is a folder"),
        (errno.EACCES, "a.jsonl cannot be read (Permission denied): check its permissions"),
    ],
)
def test_what_cannot_be_read(number: int, words: str) -> None:
    assert unreadable("a.jsonl", error(number)).startswith(words)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EEXIST, "a.jsonl exists: name another file"),
        (errno.EISDIR, "a.jsonl is a folder"),
        (errno.EACCES, "a.jsonl cannot be written (Permission denied): check the permissions of its folder"),
        (errno.ENOSPC, "a.jsonl cannot be written (No space left on device): make room"),
    ],
)
def test_what_cannot_be_written(number: int, words: str) -> None:
    assert unwritable("a.jsonl", error(number)).startswith(words)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    said = unwritable(f"{tmp_path}/no/a.jsonl", error(errno.ENOENT))
    assert f"there is no folder {tmp_path}/no: make it first" in said
    # The folder exists, and refuses, as /proc does.
    assert "there is no folder" not in unwritable(f"{tmp_path}/a.jsonl", error(errno.ENOENT))
