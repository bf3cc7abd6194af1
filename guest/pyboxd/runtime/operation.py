"""One step of making a container, and what the steps hand on to each other."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field

from .users import ROOT, Identity


@dataclass
class Context:
    """State of a container in the making; lives in its first process only. Descriptors, -1 while there is none."""

    handshake: socket.socket
    container_fd: int = -1  # pidfd of the container that an exec joins
    root_fd: int = -1
    null_fd: int = -1  # the guest's own /dev/null, a mount of its own
    blank_fd: int = -1  # an empty read-only directory, a mount of its own
    attached: set[int] = field(default_factory=set)  # those of the two that are in use
    dev_fd: int = -1  # root of the container's /dev
    pts_fd: int = -1  # root of the container's /dev/pts
    proc_fd: int = -1  # root of the container's /proc
    binds: dict[int, int] = field(default_factory=dict)  # number of a bind -> its detached mount
    nodes: list[tuple[str, os.stat_result]] = field(default_factory=list)  # path in the container, node to copy
    terminal_fd: int = -1
    identity: Identity = ROOT


class Operation:
    """A step. Subclasses are frozen values, so that a plan can be compared, printed and tested."""

    def describe(self) -> str:
        """One line for a person."""
        raise NotImplementedError

    def execute(self, context: Context) -> None:
        """Do it, in the container's first process. OSError or PyboxdError ends the container."""
        raise NotImplementedError

    def failing(self) -> str:
        """What an error message says was being done."""
        return self.describe()
