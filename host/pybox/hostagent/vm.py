"""One QEMU process with the sockets between it and the hostagent."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pybox import hostos, process
from pybox.errors import MachineError, PyboxError
from pybox.files import tail
from pybox.hostagent.launch import SOCKETS, Launched, MakeCommand, launch_with_sockets, start
from pybox.machine.files import MachineFiles
from pybox.qemu.command import Channel, Channels, LoopbackPort

if TYPE_CHECKING:
    from pybox.qemu.monitor import Monitor

log = logging.getLogger(__name__)
_QUIT_PATIENCE = 5.0  # seconds for QEMU to end after it was told
_CONNECT_PATIENCE = 10.0  # seconds for QEMU to listen, where it cannot be given listening sockets
_LINES = 15  # of QEMU's words and of the console in an error


class Vm:
    """A running QEMU. It ends with this process, where the system can do that."""

    def __init__(self, child: process.Watched, command: list[str], files: MachineFiles) -> None:
        self._child = child
        self._files = files
        self.command = command

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        """Return how QEMU ended, None while it runs."""
        return self._child.returncode

    async def wait(self) -> int:
        """Wait for QEMU's end and return its status."""
        return await self._child.wait()

    async def end(self, monitor: Monitor | None) -> None:
        """End QEMU whatever the guest does."""
        if monitor is not None and self.status is None:
            await monitor.quit()
        try:
            await asyncio.wait_for(self._child.wait(), _QUIT_PATIENCE if monitor is not None else 0.0)
        except TimeoutError:
            self._child.kill()
            await self._child.wait()

    def failure(self, error: Exception) -> VmFailure:
        """Return an error of this machine together with all that was seen: command, ending, words, console."""
        if isinstance(error, VmFailure):
            return error
        details = error.details if isinstance(error, PyboxError) else ""
        said, console = tail(self._files.qemu_log, _LINES), tail(self._files.console_log, _LINES)
        ending = "still runs" if self.status is None else process.ending(self.status)
        parts = (
            details,
            f"QEMU {ending}: {process.text(self.command)}",
            f"QEMU said:\n{said}" if said else "",
            f"The console's last lines:\n{console}" if console else "The console is empty.",
        )
        resolution = error.resolution if isinstance(error, PyboxError) else ""
        return VmFailure(
            str(error), "\n".join(filter(None, parts)), resolution or f"The console is in {self._files.console_log}."
        )


class VmFailure(MachineError):
    """An error that says all that was seen of the machine."""


async def launch(make_command: MakeCommand, files: MachineFiles) -> Launched:
    """Start QEMU with the command that `make_command` returns for its channels. Raises PyboxError."""
    if hostos.current().passes_sockets:
        return launch_with_sockets(make_command, files)
    return await _launch_with_ports(make_command, files)


async def _launch_with_ports(make_command: MakeCommand, files: MachineFiles) -> Launched:
    """Have QEMU listen on ports of 127.0.0.1. Only this system's lack of a better way excuses it."""
    ports = _free_ports(len(SOCKETS))
    channels: list[Channel] = [LoopbackPort(port) for port in ports]
    command = make_command(Channels(*channels))
    child = start(command, files, [])
    vm = Vm(child, command, files)
    try:
        monitor, control = [await _connect_to_port(port, vm) for port in ports[:2]]
    except OSError as error:
        await vm.end(None)
        raise vm.failure(MachineError("QEMU does not listen", str(error))) from None
    return Launched(child, command, f"127.0.0.1:{ports[2]}", monitor, control)


async def _connect_to_port(port: int, vm: Vm) -> socket.socket:
    deadline = asyncio.get_running_loop().time() + _CONNECT_PATIENCE
    while True:
        connection = socket.socket()
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except OSError:
            connection.close()
            if vm.status is not None or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            return connection


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
