"""A command in a running container: create, start with its stream read to the end, inspect."""

from __future__ import annotations

from contextlib import ExitStack

from pybox.errors import MachineError
from tests.bench.api import Api
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import BUSYBOX
from tests.bench.machine import Machine


def measure(bench: Bench) -> None:
    bench.load(bench.content.busybox)
    with ExitStack() as stack:
        containers = {
            machine.name: stack.enter_context(machine.api.container(BUSYBOX, ["sleep", "inf"])) for machine in bench.machines
        }

        def once(machine: Machine) -> float:
            return _exec(machine.api, containers[machine.name])

        bench.both("exec.true", once, bench.repeats.calls)


def _exec(api: Api, container: str) -> float:
    with stopwatch() as taken:
        status = api.exec(container, ["true"])
    if status:
        raise MachineError(f"`true` ended with {status}")
    return taken[0]
