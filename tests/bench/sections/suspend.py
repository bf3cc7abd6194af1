"""Suspend and resume of a machine with a running container."""

from __future__ import annotations

from pybox.errors import MachineError, PyboxError
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import BUSYBOX
from tests.bench.lines import PYBOX
from tests.bench.pybox_vm import PyboxVm


def measure(bench: Bench) -> None:
    """The machine does not run before or after. A resume ends with an answered call that sees the container."""
    pybox = bench.pybox
    try:
        pybox.start()
        bench.load(bench.content.busybox, [pybox])
        with pybox.api.container(BUSYBOX, ["sleep", "inf"]) as container:
            for turn in range(1 + bench.repeats.commands):
                suspended, resumed = _once(pybox, container)
                if turn:
                    bench.book.add("start.suspend", PYBOX, suspended)
                    bench.book.add("start.resume", PYBOX, resumed)
        pybox.stop()
    except PyboxError as error:
        for series in ("start.suspend", "start.resume"):
            bench.fail(series, PYBOX, error)


def _once(pybox: PyboxVm, container: str) -> tuple[float, float]:
    pybox.api.close()
    with stopwatch() as suspended:
        pybox.run("suspend")
    with stopwatch() as resumed:
        pybox.run("resume")
        found = pybox.api.call("GET", f"/containers/{container}/json")
    if not found["State"]["Running"]:
        raise MachineError("the container does not run after the resume")
    return suspended[0], resumed[0]
