"""Start QEMU, with the sockets between it and the hostagent. No event loop is needed, so none is waited for."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from pybox import hostos, process
from pybox.frozen import frozen
from pybox.machine.files import MachineFiles, Processes, ProcessRecord
from pybox.machine.orphans import MONITOR_SOCKET
from pybox.qemu.command import Channels, InheritedSocket

FUSE_SOCKET = "fuse.sock"
SOCKETS = (MONITOR_SOCKET, "control.sock", FUSE_SOCKET, "bulk.sock")
MakeCommand = Callable[[Channels], list[str]]


@frozen
class Launched:
    """A QEMU that was just started: it may not have come far yet, but its sockets can be used."""

    child: process.Watched
    command: list[str]
    share_address: str  # where the folder server connects: a path, or HOST:PORT
    monitor_socket: socket.socket
    control_socket: socket.socket


def launch_with_sockets(make_command: MakeCommand, files: MachineFiles) -> Launched:
    """Start QEMU with the command that `make_command` returns for its channels. Raises PyboxError, OSError.

    What listens for QEMU is there before it: nothing has to wait until it listens. For systems that pass sockets.
    """
    host = hostos.current()
    with ExitStack() as listeners, ExitStack() as connections:
        opened = [listeners.enter_context(host.listen(files.sockets / name)) for name in SOCKETS]
        numbers = [listener.fileno() for listener in opened]
        command = make_command(Channels(*(InheritedSocket(number) for number in numbers)))
        monitor, control = (connections.enter_context(host.dial(files.sockets / name)) for name in SOCKETS[:2])
        child = start(command, files, numbers)
        connections.pop_all()
        for connection in (monitor, control):
            connection.setblocking(False)
        return Launched(child, command, str(files.sockets / FUSE_SOCKET), monitor, control)


def start(command: list[str], files: MachineFiles, numbers: Sequence[int]) -> process.Watched:
    """Start QEMU, which ends with this process where that can be, and write down who it is. Raises PyboxError."""
    for log_file in (files.qemu_log, files.console_log):
        if log_file.exists():
            log_file.replace(log_file.with_name(log_file.name + ".old"))
    host = hostos.current()
    child = process.start(host.with_parent(command), output=files.qemu_log, pass_fds=numbers)
    host.adopt(child.pid)
    Processes(time.time(), ProcessRecord.of(os.getpid()), ProcessRecord.of(child.pid)).write(files)
    return child
