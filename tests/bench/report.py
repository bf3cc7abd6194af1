"""The results as JSON and as a Markdown table. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.book import Book, Row, Summary
from tests.bench.lines import LINES, Line
from tests.bench.reasons import reason

_HEAD = ("what", "pybox", "other", "ratio", "budget", "reached", "n")


def to_json(book: Book, conditions: Mapping[str, str]) -> str:
    """Return everything: conditions, lines with their summaries, and all single values."""
    rows = book.rows(LINES)
    return json.dumps(
        {"conditions": dict(conditions), "lines": [_object(row) for row in rows], "values": book.series()}, indent=1
    )


def to_markdown(book: Book, conditions: Mapping[str, str], command: str) -> str:
    """Return the page with the table."""
    rows = book.rows(LINES)
    parts = [
        "# Side by side",
        "",
        f"Written by `{command}`. Median (least–most); `ratio` is pybox's cost by the other's, below 1 pybox is better;",
        "`n` counts the measurements of both sides. Times mean nothing between computers: compare within a run.",
        "",
        *(f"* {name}: {value}" for name, value in conditions.items()),
        "",
        "| " + " | ".join(_HEAD) + " |",
        "| " + " | ".join("---" for _ in _HEAD) + " |",
        *("| " + " | ".join(_cells(row)) + " |" for row in rows),
        "",
    ]
    failed = [row for row in rows if row.reached is False]
    if failed:
        parts += ["Not reached, and what the profiles say of it:", ""]
        parts += [f"* {what}: {why}" for why, what in _by_reason(failed).items()]
        parts += [""]
    return "\n".join(parts)


def _by_reason(rows: Sequence[Row]) -> dict[str, str]:
    """Return the names of lines that have a reason in common, by that reason."""
    found: dict[str, list[str]] = {}
    for row in rows:
        name = f"{row.line.what} ({row.line.other})" if row.line.other else row.line.what
        found.setdefault(reason(row.line.series) or "not looked into yet.", []).append(name)
    return {why: "; ".join(names) for why, names in found.items()}


def number(value: float, unit: str) -> str:
    """Return a value with its unit, three digits that matter."""
    if unit == "s" and value < 1:
        value, unit = value * 1000, "ms"
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text} {unit}"


def _cells(row: Row) -> Sequence[str]:
    line = row.line
    return (
        line.what,
        _side(row.ours, line),
        f"{line.other}: {_side(row.theirs, line)}" if line.other and row.theirs else "",
        f"{row.ratio:.3g}" if row.ratio is not None else "",
        line.budget(),
        _verdict(row),
        _counts(row),
    )


def _side(found: Summary | None, line: Line) -> str:
    if found is None:
        return ""
    middle = number(found.median, line.unit)
    if found.count == 1:
        return middle
    return f"{middle} ({number(found.least, line.unit)}–{number(found.most, line.unit)})"


def _verdict(row: Row) -> str:
    if row.missing:
        return f"not measured: {row.missing}" if row.reached is None else f"{_word(row.reached)} ({row.missing})"
    return _word(row.reached)


def _word(reached: bool | None) -> str:
    return {True: "yes", False: "**no**", None: ""}[reached]


def _counts(row: Row) -> str:
    counts = [found.count for found in (row.ours, row.theirs) if found is not None]
    return "/".join(map(str, counts))


def _object(row: Row) -> dict[str, Any]:
    line = row.line
    return {
        "series": line.series,
        "what": line.what,
        "unit": line.unit,
        "other": line.other,
        "pybox": _summary(row.ours),
        "theirs": _summary(row.theirs),
        "ratio": row.ratio,
        "budget": {"ratio": line.ratio, "absolute": line.absolute},
        "reached": row.reached,
        "missing": row.missing,
    }


def _summary(found: Summary | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {"median": found.median, "min": found.least, "max": found.most, "n": found.count}
