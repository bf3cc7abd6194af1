"""PSS of the engine's own processes in the guest: after boot, after some calls, per idle container."""

from __future__ import annotations

import time
from collections.abc import Callable

from pybox.errors import PyboxError
from tests.bench.bench import Bench
from tests.bench.content import BUSYBOX
from tests.bench.machine import Machine

_CALLS = 25  # of each of two
_SETTLE = 2.0  # seconds for what goes on behind a start
_MANY = 10
_MANY_IN_LONG = 50
_FIRST_PORT = 20000  # published in the guest; nobody connects


def measure(bench: Bench) -> None:
    """Both machines have just started."""
    for machine in bench.machines:
        _note(bench, "memory.boot", machine, lambda machine: machine.memory().total)
        _note(bench, "memory.idle", machine, _after_calls)
    bench.load(bench.content.busybox)
    count = _MANY_IN_LONG if bench.long else _MANY
    for machine in bench.machines:
        _note(bench, "memory.container", machine, lambda machine: _per_container(machine, count))


def _note(bench: Bench, series: str, machine: Machine, job: Callable[[Machine], float]) -> None:
    try:
        bench.book.add(series, machine.name, job(machine))
    except (PyboxError, OSError) as error:
        bench.fail(series, machine.name, error)


def _after_calls(machine: Machine) -> float:
    for _ in range(_CALLS):
        machine.api.call("GET", "/containers/json?all=1")
        machine.api.call("GET", "/images/json")
    return machine.memory().total


def _per_container(machine: Machine, count: int) -> float:
    """Return the growth from the first to the last of `count` containers, by container."""
    api = machine.api
    names: list[str] = []
    try:
        for number in range(count):
            port = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(_FIRST_PORT + number)}]}
            names.append(api.create(BUSYBOX, ["sleep", "inf"], {"PortBindings": port}))
            api.start(names[-1])
            if number == 0:
                time.sleep(_SETTLE)
                first = machine.memory().total
        time.sleep(_SETTLE)
        return (machine.memory().total - first) / (count - 1)
    finally:
        api.discard(*names)
