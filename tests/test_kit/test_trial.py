"""A trial fails with what was printed, and does not pass what is incomplete."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kit.release.trial import TrialFailed, check_packages, events, run, talk_to


def test_a_command_that_fails_is_named_with_what_it_printed(tmp_path: Path) -> None:
    said = "no wheel for this Python"
    with pytest.raises(TrialFailed, match=rf"could not install it: exit status 3\n{said}"):
        run("install it", [sys.executable, "-c", f"print({said!r}); raise SystemExit(3)"], cwd=tmp_path)


def test_a_stream_without_its_end_fails() -> None:
    assert events(b'data: {"choices": []}\n\ndata: [DONE]\n\n') == [{"choices": []}]
    for stream in (b"", b'data: {"choices": []}\n\n'):
        with pytest.raises(TrialFailed, match="the stream ended with"):
            events(stream)


def test_a_service_that_does_not_start_or_answer_fails() -> None:
    with pytest.raises(TrialFailed, match=r"printed no address and key:\nTraceback"):
        talk_to("Traceback")
    with pytest.raises(TrialFailed, match="a request to headrace demo failed"):
        talk_to("http://127.0.0.1:1\n\n  key     sk-0\n")


def test_a_folder_without_one_wheel_and_one_sdist_fails(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="run `make dist`"):
        check_packages(tmp_path, tmp_path)
