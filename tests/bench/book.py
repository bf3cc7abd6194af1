"""What was measured, and what could not be and why. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.lines import PYBOX, Line

Place = tuple[str, str]  # series, side


@dataclass(frozen=True)
class Summary:
    """The values of one series on one side."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)

    @property
    def count(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Row:
    """A line with what was measured. `reached` is None when the line has no budget or nothing can be said."""

    line: Line
    ours: Summary | None
    theirs: Summary | None
    ratio: float | None
    reached: bool | None
    missing: str  # why a side is empty; "" when none is


class Book:
    """Collects values by series and side."""

    def __init__(self) -> None:
        self._values: dict[Place, list[float]] = {}
        self._reasons: dict[Place, str] = {}

    def add(self, series: str, side: str, *values: float) -> None:
        self._values.setdefault((series, side), []).extend(values)

    def skip(self, series: str, side: str, reason: str) -> None:
        """Say why there is no (further) value of a series. A series that has values keeps them."""
        self._reasons.setdefault((series, side), reason)

    def summary(self, series: str, side: str) -> Summary | None:
        values = self._values.get((series, side))
        return Summary(tuple(values)) if values else None

    def reason(self, series: str, side: str) -> str:
        return self._reasons.get((series, side), "")

    def series(self) -> dict[str, dict[str, list[float]]]:
        """Return all values by series and side."""
        found: dict[str, dict[str, list[float]]] = {}
        for (series, side), values in sorted(self._values.items()):
            found.setdefault(series, {})[side] = values
        return found

    def rows(self, lines: Sequence[Line]) -> list[Row]:
        """Return the lines of which something was measured, or was to be."""
        rows = (self._row(line) for line in lines)
        return [row for row in rows if row.ours or row.theirs or row.missing]

    def _row(self, line: Line) -> Row:
        ours = self.summary(line.series, PYBOX)
        theirs = self.summary(line.theirs, line.other) if line.other else None
        ratio = None
        if ours and theirs and ours.median and theirs.median:
            ratio = ours.median / theirs.median
            if line.more_is_better:
                ratio = 1 / ratio
        places = [(line.series, PYBOX, ours), *([(line.theirs, line.other, theirs)] if line.other else [])]
        reasons = [f"{side}: {self.reason(series, side)}" for series, side, found in places if not found]
        missing = "; ".join(reason for reason in reasons if not reason.endswith(": "))
        return Row(line, ours, theirs, ratio, _reached(line, ours, ratio), missing)


def _reached(line: Line, ours: Summary | None, ratio: float | None) -> bool | None:
    checks: list[bool] = []
    if line.ratio is not None:
        if ratio is None:
            return None
        checks.append(ratio <= line.ratio)
    if line.absolute is not None:
        if ours is None:
            return None
        checks.append(ours.median >= line.absolute if line.more_is_better else ours.median <= line.absolute)
    return all(checks) if checks else None
