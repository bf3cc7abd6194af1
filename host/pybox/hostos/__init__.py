"""The only place that asks which system this is. Everything else gets a `HostSystem` from `current()`."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pybox.hostos.interface import Console, HostSystem
    from pybox.paths import Paths


@cache
def current() -> HostSystem:
    """Return the system that this program runs on."""
    if sys.platform == "win32":
        from pybox.hostos.windows import Windows

        return Windows()
    if sys.platform == "darwin":
        from pybox.hostos.macos import MacOS

        return MacOS()
    from pybox.hostos.linux import Linux

    return Linux()


# These two are not methods of `HostSystem`: who only asks the engine something must not wait for the rest of it.


def api_address(paths: Paths, machine: str) -> Path:
    """Return where a machine's Docker API is: a unix socket, or the name of a pipe."""
    if sys.platform == "win32":
        from pybox.hostos.windows import pipe

        return pipe(machine)
    return paths.socket_dir(machine) / "docker.sock"


def agent_address(paths: Paths, machine: str) -> Path:
    """Return where a machine's hostagent answers, in the same form."""
    if sys.platform == "win32":
        from pybox.hostos.windows import pipe

        return pipe(f"{machine}-agent")
    return paths.socket_dir(machine) / "agent.sock"


def console() -> Console:
    """Return the terminal of this program."""
    if sys.platform == "win32":
        from pybox.hostos.windows_terminal import WindowsConsole

        return WindowsConsole()
    from pybox.hostos.posix_terminal import PosixConsole

    return PosixConsole()
