"""The only place that prints: tables, JSON, templates, progress. Quiet in a pipe, pleasant on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from pybox.errors import PyboxError

NARROWEST = 7  # characters of a table's column


def say(text: str = "") -> None:
    """A line of result on standard output."""
    click.echo(text)


def note(text: str) -> None:
    """A line of comment on standard error."""
    click.echo(text, err=True)


def confirm(question: str, what: str) -> None:
    """Ask a person on standard error; no answer is a no. Raises PyboxError, in Docker's words, when the answer is no."""
    click.echo(f"{question} [y/N] ", nl=not sys.stdin.isatty(), err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise PyboxError(f"{what} has been cancelled")


def write(data: bytes, *, error: bool = False) -> None:
    """Bytes of a container's output, untouched."""
    stream = sys.stderr.buffer if error else sys.stdout.buffer
    stream.write(data)
    stream.flush()


def show_error(error: PyboxError) -> None:
    """An error in its three parts."""
    prefix = click.style("Error:", fg="red", bold=True)
    click.echo(f"{prefix} {error.brief}", err=True)
    for line in error.details.splitlines():
        click.echo(f"  {line}", err=True)
    if error.resolution:
        click.echo(error.resolution, err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, narrowest: int = NARROWEST) -> None:
    """Docker's look: headings, columns padded, three spaces apart."""
    for line in table_lines([columns, *rows], narrowest=narrowest):
        say(line)


def table_lines(lines: Sequence[Sequence[str]], *, narrowest: int = NARROWEST) -> list[str]:
    """Rows as lines of text with their columns below each other, each at least so many characters wide."""
    widths = [max(narrowest, *map(len, column)) for column in zip(*lines, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def compact(value: Any) -> str:
    """JSON on one line, as Go writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def listing(
    columns: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    template: str | None,
    *,
    quiet_key: str | None = None,
    headings: Mapping[str, str] | None = None,
) -> None:
    """Rows as a table, as JSON lines (`--format json`), by a Go template, or only one column (`-q`).

    `columns` maps a heading to the key whose text is shown below it; `headings` has those of other keys that a template
    may name, where they are not the key in capitals.
    """
    if quiet_key is not None:
        for row in rows:
            say(str(row[quiet_key]))
    elif template == "json":
        for row in rows:
            say(compact(dict(sorted(row.items()))))
    elif template and template.startswith("table") and template != "table":
        names = {**(headings or {}), **{key: heading for heading, key in columns.items()}}
        _template_table(template.removeprefix("table").strip(), rows, names)
    elif template and template != "table":
        from pybox.cli.template import render

        for row in rows:
            say(render(template, row))
    else:
        table(list(columns), [[str(row[key]) for key in columns.values()] for row in rows])


def _template_table(template: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    from pybox.cli.template import render

    cells = template.replace("\\t", "\t").split("\t")
    heads = [render(cell, _Headings(names)) for cell in cells]
    table(heads, [[render(cell, row) for cell in cells] for row in rows])


class _Headings(dict[str, Any]):
    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__(names)

    def __missing__(self, key: str) -> str:
        return key.upper()


def document(value: Any, template: str | None) -> None:
    """One object or list: indented JSON, `--format json` on one line, or a Go template per object."""
    if template is None:
        say(json.dumps(value, indent=4, ensure_ascii=False))
    elif template == "json":
        say(compact(value))
    else:
        from pybox.cli.template import render

        for item in value if isinstance(value, list) else [value]:
            say(render(template, item))


def size(count: float, *, base: int = 1000, digits: int = 3) -> str:
    """Bytes as Docker shows them ("7.81MB"); base 1024 has four significant digits ("7.629MiB"), as sums have."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"] if base == 1000 else ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    index = 0
    while count >= base and index < len(units) - 1:
        count /= base
        index += 1
    return f"{count:.{4 if base == 1024 else digits}g}{units[index]}"


def ago(seconds: float) -> str:
    """A span in Docker's words: "3 minutes", "About an hour", "2 weeks"."""
    whole = int(seconds)
    steps = (
        (1, "Less than a second"),
        (2, "1 second"),
        (60, f"{whole} seconds"),
        (120, "About a minute"),
        (3600, f"{whole // 60} minutes"),
        (5400, "About an hour"),
        (48 * 3600, f"{round(whole / 3600)} hours"),
        (14 * 86400, f"{whole // 86400} days"),
        (60 * 86400, f"{whole // (7 * 86400)} weeks"),
        (730 * 86400, f"{whole // (30 * 86400)} months"),
    )
    return next((text for limit, text in steps if whole < limit), f"{whole // (365 * 86400)} years")


def moment(text: str) -> datetime:
    """An RFC 3339 time with up to nine fractional digits."""
    head, dot, rest = text.rstrip("Z").partition(".")
    fraction = (rest[:6] if dot else "0").ljust(6, "0")
    return datetime.fromisoformat(f"{head}.{fraction}+00:00")


def since(text: str) -> str:
    return f"{ago((datetime.now(UTC) - moment(text)).total_seconds())} ago"


def reclaimed(count: int) -> None:
    """The last line of a removal of what is unused."""
    say(f"Total reclaimed space: {size(count, digits=4)}")
