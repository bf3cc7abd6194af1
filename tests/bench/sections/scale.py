"""Many idle containers: how a start, a list, an event and the memory grow with their number."""

from __future__ import annotations

import json
import time

from pybox.errors import MachineError, PyboxError
from tests.bench.api import Api
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import BUSYBOX
from tests.bench.lines import STOCK
from tests.bench.machine import Machine

# 200 shims of 9 MB and their containers do not fit into the machine of 2 GiB beside the daemons.
STOCK_AT_MOST = 50
_LISTS = 5
_SERIES = ("start", "ps", "event", "memory")


def measure(bench: Bench) -> None:
    """One machine after the other: the containers of both would not leave each other alone."""
    bench.load(bench.content.busybox)
    for machine in bench.machines:
        goals = [goal for goal in bench.repeats.scale if machine.name != STOCK or goal <= STOCK_AT_MOST]
        for goal in bench.repeats.scale:
            if goal not in goals:
                for series in _SERIES:
                    bench.book.skip(f"scale.{series}.{goal}", machine.name, f"not tried beyond {STOCK_AT_MOST} containers")
        _grow(bench, machine, goals)


def _grow(bench: Bench, machine: Machine, goals: list[int]) -> None:
    names: list[str] = []
    reached = 0
    try:
        for goal in goals:
            reached = goal
            while len(names) < goal:
                names.append(machine.api.create(BUSYBOX, ["sleep", "inf"]))
                with stopwatch() as taken:
                    machine.api.start(names[-1])
                bench.book.add(f"scale.start.{goal}", machine.name, taken[0])
            for _ in range(_LISTS):
                with stopwatch() as taken:
                    machine.api.call("GET", "/containers/json")
                bench.book.add(f"scale.ps.{goal}", machine.name, taken[0] * 1000)
            bench.book.add(f"scale.event.{goal}", machine.name, _event(machine.api, names.pop()) * 1000)
            bench.book.add(f"scale.memory.{goal}", machine.name, machine.memory().total)
    except (PyboxError, OSError) as error:
        for series in _SERIES:
            bench.fail(f"scale.{series}.{reached}", machine.name, error)
    finally:
        machine.api.discard(*names)


def _event(api: Api, container: str) -> float:
    """Kill and remove a container; seconds from the call to the event that it died."""
    filters = json.dumps({"container": [container], "event": ["die"]}).replace('"', "%22").replace(" ", "")
    with api.address.dial() as listener:
        listener.settimeout(60)
        listener.sendall(f"GET /events?filters={filters} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += listener.recv(4096)
        began = time.monotonic()
        api.call("POST", f"/containers/{container}/kill")
        while b'"die"' not in seen:
            more = listener.recv(4096)
            if not more:
                raise MachineError("the stream of events ended")
            seen += more
        seconds = time.monotonic() - began
    api.remove(container)
    return seconds
