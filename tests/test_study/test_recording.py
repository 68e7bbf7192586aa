"""Recordings are read line by line, whatever else is in the file, and written so that they can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.study.made import request_line, stall_line, timestamp

from pipeline.study.recording import Recording, RecordingHeader, StudyError, create_recording, open_recording
from pipeline.study.records import RecordedRequest, RecordedStall

HEADER = b'{"event":"recording","format":1,"headrace":"0.1.0","workers":2,"began":"2026-11-30T12:00:00.000Z"}\n'


def encoded(*lines: dict[str, Any]) -> list[bytes]:
    return [json.dumps(line).encode() + b"\n" for line in lines]


def test_a_plain_log_is_a_recording() -> None:
    message = {"ts": timestamp(0), "level": "info", "logger": "headrace", "message": "is up"}
    recording = Recording([*encoded(message, request_line("r-7"), stall_line(9, 101.5)), b"plain text\n", b"\n"])
    request, stall = recording
    assert isinstance(request, RecordedRequest)
    assert isinstance(stall, RecordedStall)
    assert (request.request_id, stall.ms, recording.unreadable, recording.header) == ("r-7", 101.5, 1, None)
    assert recording.notes == ["the recording: 1 lines are not JSON objects of headrace, and were ignored"]


def test_the_header_is_read_and_unknown_events_and_fields_are_ignored() -> None:
    recording = Recording([HEADER, *encoded({"event": "news"}, {**request_line(), "new_field": [1]})])
    assert len(list(recording)) == 1
    assert recording.header == RecordingHeader(headrace="0.1.0", workers=2, began="2026-11-30T12:00:00.000Z")


def test_a_last_line_that_was_cut_is_ignored_with_a_note() -> None:
    [whole, other] = encoded(request_line("r-1"), request_line("r-2"))
    recording = Recording([whole, other[:200]], "a.jsonl")
    assert [event.request_id for event in recording] == ["r-1"]
    assert recording.notes == ["a.jsonl: the last line is incomplete, and was ignored"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"2026-01-31T12:00:00.000Z request OK 200\n"], "has no record of a request"),
        ([b'{"event":"recording","format":2}\n'], "has format 2, and this version of headrace reads formats up to 1"),
    ],
)
def test_what_cannot_be_used_says_why(lines: list[bytes], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        list(Recording(lines))


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.zst"])
def test_what_was_written_can_be_read(tmp_path: Path, name: str, real: list[dict[str, Any]]) -> None:
    file = str(tmp_path / name)
    with create_recording(file, RecordingHeader(headrace="0.1.0", source="http://h")) as writer:
        writer.write(json.dumps(line).encode() for line in real)
    with open_recording(file) as recording:
        read = list(recording)
    assert [event.request_id for event in read] == [line["request_id"] for line in real]
    assert recording.header == RecordingHeader(headrace="0.1.0", source="http://h")
    assert (Path(file).read_bytes()[:4] == b"\x28\xb5\x2f\xfd") is name.endswith(".zst")
    assert Path(file).stat().st_mode & 0o777 == 0o600


def test_a_recording_that_exists_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("precious")
    with pytest.raises(StudyError, match=r"x\.jsonl exists"), create_recording(str(file), RecordingHeader()):
        pass
    assert file.read_text() == "precious"


def test_a_damaged_compressed_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.zst").write_bytes(b"not compressed at all")
    with pytest.raises(StudyError, match="is damaged"), open_recording(str(tmp_path / "x.zst")) as recording:
        list(recording)


def test_a_missing_file_says_so() -> None:
    with pytest.raises(StudyError, match="nowhere: there is no such file"), open_recording("nowhere"):
        pass


ODD = [*encoded(request_line()), b'{"event":"request","total_ms":"x"}']


@given(st.lists(st.binary(max_size=60) | st.sampled_from(ODD)))
def test_garbage_is_never_an_error_beside_a_request(lines: list[bytes]) -> None:
    [good] = encoded(request_line())
    recording = Recording([*lines, good])
    assert sum(isinstance(event, RecordedRequest) for event in recording) >= 1
