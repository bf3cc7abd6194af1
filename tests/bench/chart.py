"""The chart: a bar for each ratio on a logarithmic scale, and the curves over the number of containers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.bench.book import Book, Row
from tests.bench.drawing import Box, Colour, Curve, Picture, Shape, Text, stacked
from tests.bench.lines import LINES, PYBOX, SCALE, STOCK

_WIDTH = 1180
_LABELS = 660  # pixels for the words at the left of a bar
_RIGHT = 90
_ROW = 22
_TOP = 60
_LEAST, _MOST = 0.01, 10.0  # ratios at the ends of the scale
_GOOD: Colour = (46, 139, 87)
_BAD: Colour = (200, 60, 50)
_OTHER: Colour = (150, 160, 175)
_GRID: Colour = (224, 224, 224)
_MARK: Colour = (20, 20, 20)
_SIDES: dict[str, Colour] = {PYBOX: _GOOD, STOCK: (90, 110, 190)}
_PLOT = 240  # pixels of a curve's height


def chart(book: Book) -> Picture | None:
    """Return the chart; None when there is nothing to draw."""
    pictures: list[Picture] = []
    rows = [row for row in book.rows(LINES) if row.ratio is not None]
    if rows:
        pictures.append(_bars(rows))
    starts = {side: _starts(book, side) for side in _SIDES}
    if any(len(values) > 1 for values in starts.values()):
        pictures.append(_curves(starts))
    return stacked(pictures) if pictures else None


def _bars(rows: Sequence[Row]) -> Picture:
    bottom = _TOP + _ROW * len(rows)
    shapes: list[Shape] = [
        Text(16, 24, "pybox's cost by the other's: left of 1 pybox is better. The black mark is the budget."),
    ]
    for ratio in (0.01, 0.1, 1.0, 10.0):
        shapes.append(Box(_position(ratio), _TOP - 6, 1, bottom - _TOP + 6, _OTHER if ratio == 1 else _GRID))
        shapes.append(Text(_position(ratio), _TOP - 12, f"{ratio:g}", "middle"))
    for number, row in enumerate(rows):
        shapes += _bar(row, _TOP + number * _ROW)
    return Picture(_WIDTH, bottom + 24, tuple(shapes))


def _bar(row: Row, top: float) -> list[Shape]:
    assert row.ratio is not None
    one, end = _position(1.0), _position(row.ratio)
    colour = {True: _GOOD, False: _BAD, None: _OTHER}[row.reached]
    shapes: list[Shape] = [
        Text(_LABELS - 12, top + 15, f"{row.line.what} / {row.line.other}", "end"),
        Box(min(one, end), top + 4, max(abs(end - one), 2), _ROW - 8, colour),
        Text(_WIDTH - 12, top + 15, f"{row.ratio:.3g}", "end"),
    ]
    if row.line.ratio is not None:
        shapes.append(Box(_position(row.line.ratio) - 1, top + 1, 3, _ROW - 2, _MARK))
    return shapes


def _position(ratio: float) -> float:
    span = math.log(_MOST / _LEAST)
    share = math.log(min(max(ratio, _LEAST), _MOST) / _LEAST) / span
    return _LABELS + share * (_WIDTH - _LABELS - _RIGHT)


def _starts(book: Book, side: str) -> list[float]:
    """Return the seconds of each start, in the order of the containers."""
    found = [book.summary(f"scale.start.{count}", side) for count in SCALE]
    return [value for summary in found if summary is not None for value in summary.values]


def _curves(sides: dict[str, list[float]]) -> Picture:
    left, right, top = 80, _WIDTH - _RIGHT, 50
    bottom = top + _PLOT
    longest = max(len(values) for values in sides.values())
    highest = max(max(values, default=0.0) for values in sides.values()) or 1.0
    shapes: list[Shape] = [
        Text(16, 24, "Start of one more container, seconds, by the number of running containers"),
        Box(left, bottom, right - left, 1, _OTHER),
        Box(left, top, 1, bottom - top, _OTHER),
        Text(left - 8, top + 8, f"{highest:.2g}", "end"),
        Text(left - 8, bottom, "0", "end"),
        Text(right, bottom + 20, str(longest), "end"),
    ]
    for number, (side, values) in enumerate(sides.items()):
        if not values:
            continue
        points = tuple(
            (left + (right - left) * index / max(1, longest - 1), bottom - (bottom - top) * value / highest)
            for index, value in enumerate(values)
        )
        shapes.append(Curve(points, _SIDES[side]))
        shapes.append(Text(left + 20 + 120 * number, bottom + 20, side, colour=_SIDES[side]))
    return Picture(_WIDTH, bottom + 40, tuple(shapes))
