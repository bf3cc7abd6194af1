"""`python -m tests.bench`: arguments, preparation, sections in order, results. `scripts/bench --help` says more."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pybox.errors import PyboxError
from tests.bench import results
from tests.bench.bench import FULL, SHORT, Bench, Measure
from tests.bench.book import Book
from tests.bench.lines import LINES, PYBOX, SECTIONS
from tests.bench.preparation import Options, prepared
from tests.bench.sections import cli, execute, folder, images, memory, net, run, scale, start

_IN_SHORT = ("start", "run", "exec", "cli", "memory", "net")
# Memory first: the machines have just started. Scale last: it fills them.
_LIVE = {
    "memory": memory.measure,
    "run": run.measure,
    "exec": execute.measure,
    "cli": cli.measure,
    "net": net.measure,
    "images": images.measure,
    "scale": scale.measure,
}


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    sections: tuple[str, ...]
    out: Path
    results: bool
    options: Options


def main(arguments: Sequence[str]) -> int:
    """Measure and write; the exit status."""
    request = _parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    began, load = time.monotonic(), os.getloadavg()[0]
    book = Book()
    try:
        with prepared(book, request.options, say) as bench:
            try:
                _measure(bench, request.sections)
            finally:
                if book.series():
                    conditions = results.conditions(bench, load, time.monotonic() - began)
                    command = " ".join(["scripts/bench", *arguments])
                    results.write(book, conditions, command, request.out, request.results, bench.downloads, say)
    except PyboxError as error:
        parts = (f"error: {error.brief}", error.details, error.resolution)
        print("\n".join(part for part in parts if part), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("broken off", file=sys.stderr)
        return 130
    return 0


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def _measure(bench: Bench, sections: Sequence[str]) -> None:
    if "start" in sections:
        _section(bench, "start", start.measure)
    live = [name for name in _LIVE if name in sections]
    if live:
        say("starting both machines")
        bench.pybox.start()
        bench.stock.start()
        for name in live:
            bench.stand_up()
            _section(bench, name, _LIVE[name])
        bench.pybox.stop()
        bench.stock.stop()
    if "folder" in sections:
        _section(bench, "folder", folder.measure)


def _section(bench: Bench, name: str, measure: Measure) -> None:
    """Measure a section. One that fails as a whole does not take the others with it."""
    say(f"{name} ...")
    began = time.monotonic()
    try:
        measure(bench)
    except PyboxError as error:
        say(f"{name} was broken off: {error}\n{error.details}".rstrip())
        for line in LINES:
            if line.section == name:
                bench.book.skip(line.series, PYBOX, f"the section was broken off: {error}")
    say(f"{name}: {time.monotonic() - began:.0f} s")


def _parse(arguments: Sequence[str]) -> Request:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure pybox and the stock engine (Debian's docker.io in a VM of the same size) side by side.",
        epilog="PYBOX_BENCH_CACHE names the folder in which the reference VM and a guest image are kept.",
    )
    parser.add_argument("--only", metavar="SECTIONS", help=f"sections, separated by commas: {', '.join(SECTIONS)}")
    lengths = parser.add_mutually_exclusive_group()
    lengths.add_argument("--short", action="store_true", help=f"under 5 minutes: few repeats of {', '.join(_IN_SHORT)}")
    lengths.add_argument("--long", action="store_true", help="50 containers for the memory, too")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of the results (default: %(default)s)")
    parser.add_argument("--results", action="store_true", help="write the table to tests/bench/RESULTS.md, too")
    parser.add_argument("--rebuild", action="store_true", help="build the guest image and the reference VM anew")
    parser.add_argument("--memory", type=int, default=2048, help="MiB of both machines (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=2, help="of both machines (default: %(default)s)")
    found = parser.parse_args(arguments)
    sections = tuple(found.only.split(",")) if found.only else _IN_SHORT if found.short else SECTIONS
    for name in sections:
        if name not in SECTIONS:
            parser.error(f"there is no section {name!r}; sections are {', '.join(SECTIONS)}")
    repeats = SHORT if found.short else FULL
    return Request(sections, found.out, found.results, Options(found.memory, found.cpus, repeats, found.long, found.rebuild))


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
