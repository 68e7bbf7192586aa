"""docs/reliability.md is up to date, and every row of the list of faults has a test."""

from __future__ import annotations

from kit.reliability_page import PAGE, ROWS, page, row_tests, rows_of


def test_the_page_is_generated_from_the_tests() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/reliability.md is stale: run `make docs`"


def test_every_row_has_a_test() -> None:
    shown = {row for test in row_tests() for row in test.rows}
    assert shown <= set(ROWS)
    assert set(ROWS) == shown


def test_every_test_of_a_row_says_in_one_line_what_happens_and_what_the_outcome_is() -> None:
    assert [test.name for test in row_tests() if not test.outcome.endswith(".")] == []


def test_the_rows_are_read_from_a_tests_name() -> None:
    assert rows_of("test_row_12_an_upstream_fails") == (12,)
    assert rows_of("test_row_07_400_of_them") == (7,)
    assert rows_of("test_rows_15_16_an_upstream_breaks_off") == (15, 16)
    assert rows_of("test_rows_are_read") == ()
    assert rows_of("test_two_rows_15_16_x") == ()
