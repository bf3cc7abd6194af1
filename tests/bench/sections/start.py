"""Starts: the reference VM's boot, pybox's cold boot, and its start from the golden state, in turn; then
suspend, resume and throw-away machines, which the other has not."""

from __future__ import annotations

from pybox.errors import PyboxError
from tests.bench.bench import Bench
from tests.bench.lines import PYBOX, STOCK
from tests.bench.sections import fresh, suspend


def measure(bench: Bench) -> None:
    """Neither machine runs before or after. One start of each kind comes first: disks are laid out, the state is made."""
    repeats = bench.repeats
    _stock(bench, count=False)
    _pybox(bench, golden=True, count=False)
    for turn in range(max(repeats.boots, repeats.golden)):
        if turn < repeats.golden:
            _pybox(bench, golden=True)
        if turn < repeats.boots:
            _stock(bench)
            _pybox(bench, golden=False)
    suspend.measure(bench)
    fresh.measure(bench)


def _stock(bench: Bench, *, count: bool = True) -> None:
    try:
        seconds = bench.stock.start()
        bench.stock.stop()
    except PyboxError as error:
        bench.fail("start.boot", STOCK, error)
        return
    if count:
        bench.book.add("start.boot", STOCK, seconds)


def _pybox(bench: Bench, *, golden: bool, count: bool = True) -> None:
    series = "start.golden" if golden else "start.cold"
    try:
        start = bench.pybox.start(golden=golden)
        bench.pybox.stop()
    except PyboxError as error:
        bench.fail(series, PYBOX, error)
        return
    if not count:
        return
    if golden and "state" not in start.phases:
        bench.book.skip(series, PYBOX, "the machine booted although a golden state was wanted")
        return
    bench.book.add(series, PYBOX, start.whole)
    for phase, seconds in start.phases.items():  # for bench.json: where the time goes
        bench.book.add(f"{series}.{phase}", PYBOX, seconds)
    if golden and start.from_qemu is not None:
        bench.book.add("start.qemu", PYBOX, start.from_qemu)
