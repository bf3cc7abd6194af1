from __future__ import annotations

import json

import pytest

from tests.bench.book import Book
from tests.bench.lines import LINES, SECTIONS, Line
from tests.bench.report import number, to_json, to_markdown

TIME = Line("run.x", "a time", ratio=1 / 10)
RATE = Line("net.x", "a rate", "MB/s", more_is_better=True, ratio=1)
BOTH = Line("start.x", "two budgets", other_series="start.boot", ratio=1 / 20, absolute=0.5)
ALONE = Line("start.y", "nobody to compare with", other="", absolute=0.2)


def row_of(line: Line, ours: list[float], theirs: list[float]) -> tuple[float | None, bool | None]:
    book = Book()
    book.add(line.series, "pybox", *ours)
    if theirs:
        book.add(line.theirs, line.other, *theirs)
    (row,) = book.rows([line])
    return row.ratio, row.reached


def test_ratio_of_times_is_by_their_medians() -> None:
    ratio, reached = row_of(TIME, [0.2, 0.1, 9.0], [2.0, 4.0, 3.0])
    assert ratio == pytest.approx(0.2 / 3)
    assert reached is True


def test_ratio_of_rates_is_below_1_where_pybox_is_faster() -> None:
    assert row_of(RATE, [200.0], [100.0]) == (0.5, True)
    assert row_of(RATE, [50.0], [100.0]) == (2.0, False)


def test_every_budget_of_a_line_must_hold() -> None:
    assert row_of(BOTH, [0.4], [13.0])[1] is True
    assert row_of(BOTH, [0.6], [13.0])[1] is False
    assert row_of(BOTH, [0.4], [7.0])[1] is False


def test_a_line_without_the_other_side() -> None:
    assert row_of(TIME, [1.0], []) == (None, None)
    assert row_of(ALONE, [0.1], []) == (None, True)


def test_only_what_was_tried_has_a_row() -> None:
    book = Book()
    book.add("run.x", "pybox", 1.0)
    book.skip("net.x", "stock", "there is no network")
    rows = book.rows([TIME, RATE, BOTH])
    assert [row.line for row in rows] == [TIME, RATE]
    assert rows[1].missing == "stock: there is no network"


def test_a_reason_does_not_take_values_away() -> None:
    book = Book()
    book.add("run.x", "pybox", 1.0)
    book.add("run.x", "stock", 20.0)
    book.skip("run.x", "stock", "it broke later")
    (row,) = book.rows([TIME])
    assert (row.reached, row.missing) == (True, "")


def test_budgets_in_words() -> None:
    assert BOTH.budget() == "ratio 1/20, 0.5 s"
    assert RATE.budget() == "ratio 1"
    assert Line("cli.x", "x", ratio=3).budget() == "ratio 3"
    assert Line("folder.x", "x", ratio=1.5).budget() == "ratio 1.5"
    assert Line("run.y", "x").budget() == ""


def test_lines_are_told_apart_and_belong_to_sections() -> None:
    places = [(line.series, line.other) for line in LINES]
    assert len(set(places)) == len(places)
    assert {line.section for line in LINES} == set(SECTIONS)


def test_table_and_json() -> None:
    book = Book()
    book.add("run.bridge", "pybox", 0.2, 0.3, 0.4)
    book.add("run.bridge", "stock", 2.0, 2.5)
    book.add("exec.true", "pybox", 0.2)
    book.add("exec.true", "stock", 0.8)
    book.skip("start.qemu", "pybox", "no clock")
    page = to_markdown(book, {"QEMU": "7.2"}, "scripts/bench")
    assert "* QEMU: 7.2" in page
    (line,) = [line for line in page.splitlines() if line.startswith("| create, start") and "bridge" in line]
    assert "| 300 ms (200 ms–400 ms) | stock: 2.25 s (2 s–2.5 s) | 0.133 | ratio 1/10 | **no** | 3/2 |" in line
    assert "not measured: pybox: no clock" in page
    assert "Not reached, and what the profiles say of it:" in page and "* exec of `true` (stock): three API calls" in page
    found = json.loads(to_json(book, {"QEMU": "7.2"}))
    assert found["values"]["run.bridge"]["stock"] == [2.0, 2.5]
    (entry,) = [entry for entry in found["lines"] if entry["series"] == "run.bridge"]
    assert entry["pybox"] == {"median": 0.3, "min": 0.2, "max": 0.4, "n": 3}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (2.345, "s", "2.35 s"), (123.4, "MB", "123 MB"), (16200.0, "files/s", "16,200 files/s")],
)
def test_numbers(value: float, unit: str, text: str) -> None:
    assert number(value, unit) == text
