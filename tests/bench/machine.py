"""What a machine under test can do, whichever engine is in it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.bench.api import Api


@dataclass(frozen=True)
class Port:
    """One way in: publish a container's port at `published`, and reach it at `reached` of this computer's loopback."""

    published: int
    reached: int


@dataclass(frozen=True)
class Memory:
    """PSS of the guest's processes by their names, in MB (1e6 bytes); only those of the engine, no container's own."""

    processes: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.processes.values())


class Machine(Protocol):
    """A running machine with an engine that answers."""

    name: str

    @property
    def api(self) -> Api: ...

    def port(self, number: int) -> Port:
        """Return the way in with this number, 0 to 3."""
        ...

    def memory(self) -> Memory: ...

    def environment(self) -> Mapping[str, str]:
        """Return the environment in which the docker CLI talks to this engine."""
        ...


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [int(item.getsockname()[1]) for item in sockets]
    for item in sockets:
        item.close()
    return found
