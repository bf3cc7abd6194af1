"""A container's whole life over the API, on one kept connection."""

from __future__ import annotations

from pybox.errors import MachineError
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import BUSYBOX
from tests.bench.machine import Machine


def measure(bench: Bench) -> None:
    bench.load(bench.content.busybox)
    for network in ("bridge", "none"):

        def once(machine: Machine, network: str = network) -> float:
            return _run(machine, network)

        bench.both(f"run.{network}", once, bench.repeats.calls)


def _run(machine: Machine, network: str) -> float:
    api = machine.api
    with stopwatch() as taken:
        name = api.create(BUSYBOX, ["true"], {"NetworkMode": network})
        api.start(name)
        status = api.wait(name)
        api.remove(name)
    if status:
        raise MachineError(f"`true` ended with {status}")
    return taken[0]
