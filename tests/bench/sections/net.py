"""TCP through a published port, the last part of the way being QEMU's user network on both sides."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pybox.errors import MachineError, PyboxError
from tests.bench.api import ApiFailure
from tests.bench.bench import Bench, stopwatch
from tests.bench.content import PYTHON
from tests.bench.machine import Machine

_SIZE = 64 << 20  # bytes
_BLOCK = bytes(1 << 18)
_ROUNDS = 20  # connections per value of the latency
_PATIENCE = 60.0  # seconds for a server to listen
# One program for all: the first byte says what the connection is for.
_SERVER = f"""
import socket
server = socket.create_server(("", 9000), backlog=64)
block, buffer = bytes({len(_BLOCK)}), bytearray({len(_BLOCK)})
while True:
    link, _ = server.accept()
    with link:
        what = link.recv(1)
        if what == b"e":
            link.sendall(what)
        elif what == b"i":
            while link.recv_into(buffer):
                pass
            link.sendall(b"done")
        elif what == b"o":
            for _ in range({_SIZE // len(_BLOCK)}):
                link.sendall(block)
"""


def measure(bench: Bench) -> None:
    bench.load(bench.content.python)
    with ExitStack() as stack:
        reached = {machine.name: stack.enter_context(_server(bench, machine)) for machine in bench.machines}
        measures: tuple[tuple[str, Callable[[int], float]], ...] = (
            ("net.in", _upload),
            ("net.out", _download),
            ("net.latency", _latency),
        )
        for series, job in measures:

            def once(machine: Machine, job: Callable[[int], float] = job) -> float:
                port = reached[machine.name]
                if port is None:
                    raise MachineError("the server in the container does not answer")
                return job(port)

            bench.both(series, once, bench.repeats.transfers, warm=1)


@contextmanager
def _server(bench: Bench, machine: Machine) -> Iterator[int | None]:
    """A server in a container; its port on this computer, None when it cannot be reached."""
    port = machine.port(0)
    binding = {"9000/tcp": [{"HostIp": "", "HostPort": str(port.published)}]}
    with ExitStack() as stack:
        answers: int | None = None
        try:
            stack.enter_context(machine.api.container(PYTHON, ["python3", "-I", "-c", _SERVER], {"PortBindings": binding}))
            _wait(port.reached)
            answers = port.reached
        except (ApiFailure, MachineError) as error:
            for series in ("net.in", "net.out", "net.latency"):
                bench.fail(series, machine.name, error)
        yield answers


def _wait(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _latency(port, 1)
        except (OSError, PyboxError):
            if time.monotonic() > deadline:
                raise MachineError("the server in the container does not answer") from None
            time.sleep(0.2)
        else:
            return


def _upload(port: int) -> float:
    with stopwatch() as taken, socket.create_connection(("127.0.0.1", port), timeout=120) as link:
        link.sendall(b"i")
        for _ in range(_SIZE // len(_BLOCK)):
            link.sendall(_BLOCK)
        link.shutdown(socket.SHUT_WR)
        if b"".join(iter(lambda: link.recv(16), b"")) != b"done":
            raise MachineError("the upload was cut off")
    return _SIZE / 1e6 / taken[0]


def _download(port: int) -> float:
    buffer = bytearray(len(_BLOCK))
    received = 0
    with stopwatch() as taken, socket.create_connection(("127.0.0.1", port), timeout=120) as link:
        link.sendall(b"o")
        while count := link.recv_into(buffer):
            received += count
    if received != _SIZE:
        raise MachineError("the download was cut off")
    return _SIZE / 1e6 / taken[0]


def _latency(port: int, rounds: int = _ROUNDS) -> float:
    """Return milliseconds to connect and get a byte back."""
    with stopwatch() as taken:
        for _ in range(rounds):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
                link.sendall(b"e")
                if link.recv(1) != b"e":
                    raise MachineError("no byte came back")
    return taken[0] * 1000 / rounds
