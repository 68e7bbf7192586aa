"""The files of the page at ``/latency``: small, separate, and without anything that its policy refuses."""

from __future__ import annotations

import hashlib
import re
import tracemalloc

import pytest
from kit.page.stand_in import FOLDER

from pipeline.gateway.admin.page_files import page_answer

MOST_BYTES = 120 * 1024
"""Of all that a browser loads. uPlot alone is 51 KB."""
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
OURS = [path for path in FILES if not path.name.startswith("uPlot")]
SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")


def test_all_that_is_loaded_is_small() -> None:
    loaded = [path.name for path in FILES if path.name not in ("uPlot.LICENSE.txt", "uPlot.sha256")]
    answers = [page_answer(name, None) for name in loaded]
    assert sum(len(answer.body) for answer in answers if answer is not None) <= MOST_BYTES


def test_comments_are_not_served_and_all_else_is() -> None:
    answer = page_answer("slots.js", None)
    assert answer is not None
    assert b"/**" not in answer.body
    lines = (FOLDER / "slots.js").read_bytes().splitlines(keepends=True)
    assert answer.body == b"".join(line for line in lines if not line.lstrip().startswith((b"/**", b" *", b"*")))


def test_names_of_no_file_are_not_kept() -> None:
    page_answer("slots.js", None)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert [page_answer(f"{number:0200}.js", None) for number in range(500)] == [None] * 500
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


def test_uplot_is_what_its_checksums_say() -> None:
    lines = (FOLDER / "uPlot.sha256").read_text().splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert set(sums) == {"uPlot.iife.min.js", "uPlot.LICENSE.txt"}
    for name, digest in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", [path.name for path in OURS])
def test_nothing_is_inline_or_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert SERVED.fullmatch(name)
    assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text) == []
    if name.endswith(".html"):
        assert re.findall(r"\sstyle=|\son\w+=|<style|<script(?! (?:defer|type=\"module\") src=)", text) == []


@pytest.mark.parametrize("name", [path.name for path in OURS if path.suffix == ".js"])
def test_a_module_begins_with_its_idea_and_is_short(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert text.startswith("/**")
    assert text.count("\n") <= 300
