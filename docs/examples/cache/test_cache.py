from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cache import Cache, cache

from pipeline import Host, UpstreamFault
from stages.events import Failed, Finished, StreamEvent, TextDelta, Usage
from stages.testing import check_around, new_call, new_principal

ANSWER: list[StreamEvent] = [TextDelta("Hello"), Usage(3, 1, 4), Finished("stop")]
OTHER: list[StreamEvent] = [TextDelta("Bye"), Finished("stop")]


def test_a_repeated_request_gets_the_same_events_without_the_upstream(tmp_path: Path) -> None:
    assert check_around(Cache(str(tmp_path)), ANSWER) == ANSWER
    assert check_around(Cache(str(tmp_path))) == ANSWER  # there is no attempt that it could make
    assert check_around(Cache(str(tmp_path)), call=new_call(stream=False)) == ANSWER


def test_another_question_model_or_key_is_asked_anew(tmp_path: Path) -> None:
    check_around(Cache(str(tmp_path)), ANSWER)
    assert check_around(Cache(str(tmp_path)), OTHER, call=new_call("Bye")) == OTHER
    assert check_around(Cache(str(tmp_path)), OTHER, call=new_call(model="gpt-4")) == OTHER
    assert check_around(Cache(str(tmp_path)), OTHER, principal=new_principal("bob")) == OTHER


def test_what_did_not_end_well_is_not_stored(tmp_path: Path) -> None:
    broken: list[StreamEvent] = [TextDelta("Hel"), Failed("upstream_connection", "it broke")]
    assert check_around(Cache(str(tmp_path)), broken) == broken
    with pytest.raises(UpstreamFault):
        check_around(Cache(str(tmp_path)), UpstreamFault("it is down", code="upstream_connection"))
    assert list(tmp_path.iterdir()) == []


def test_the_files_are_bounded_in_number_and_in_size(tmp_path: Path) -> None:
    for number in range(10):
        check_around(Cache(str(tmp_path), max_files=2), ANSWER, call=new_call(str(number)))
    assert len(list(tmp_path.iterdir())) == 2
    check_around(Cache(str(tmp_path / "none"), max_file_bytes=50), ANSWER)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("spoil", [lambda data: data[:-5], lambda data: b"", lambda data: data + data])
def test_a_file_that_is_only_half_written_is_written_anew(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    check_around(Cache(str(tmp_path)), ANSWER)
    [file] = tmp_path.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    assert check_around(Cache(str(tmp_path)), OTHER) == OTHER
    assert check_around(Cache(str(tmp_path))) == OTHER


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    assert check_around(Cache(str(tmp_path / "missing")), ANSWER) == ANSWER


def test_the_folder_is_made_when_the_service_starts(tmp_path: Path) -> None:
    async def run() -> None:
        async with cache(Cache(str(tmp_path / "deep" / "folder")), Host("cache")) as opened:
            assert opened.name == "cache"

    trio.run(run)
    assert (tmp_path / "deep" / "folder").is_dir()
