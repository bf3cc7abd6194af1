"""The only place that asks which system this is. Everything else gets a `HostSystem` from `current()`."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pybox.hostos.interface import Console, HostSystem


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


def console() -> Console:
    """Return the terminal of this program."""
    if sys.platform == "win32":
        from pybox.hostos.windows_terminal import WindowsConsole

        return WindowsConsole()
    from pybox.hostos.posix_terminal import PosixConsole

    return PosixConsole()
