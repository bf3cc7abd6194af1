"""The only door to C: one `CDLL`, argument types declared once, every failure an `OSError`.

A failing call raises the subclass of `OSError` that belongs to its errno, with the name of the call in the
message and the path that was passed, if any: `[Errno 2] mount: No such file or directory: '/x'`. Nobody has to
look at a return value. What the calls mean is said by the modules beside this one (`mount`, `namespaces`,
`process`, …); constants are in `constants` under the kernel's names.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_int, c_long
from typing import Any

Call = Callable[..., int]

_libc = ctypes.CDLL(None, use_errno=True)

# Calls that glibc has no wrapper for, or has it only in some releases. From 424 on the numbers are the same on
# every architecture (include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl).
_NUMBERS_BY_MACHINE = {
    "x86_64": {"pivot_root": 155, "keyctl": 250, "finit_module": 313, "seccomp": 317, "bpf": 321},
    "aarch64": {"pivot_root": 41, "keyctl": 219, "finit_module": 273, "seccomp": 277, "bpf": 280},
}
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}


def load_library(name: str) -> ctypes.CDLL:
    """Load a shared library by its soname (`libnftables.so.1`), errno kept per call. OSError if it is missing."""
    return ctypes.CDLL(name, use_errno=True)


def syscall_number(name: str) -> int:
    """Number of a system call on this machine. OSError(ENOSYS) on a machine that the tables do not know."""
    number = _NUMBERS.get(name) or _NUMBERS_BY_MACHINE.get(os.uname().machine, {}).get(name)
    if number is None:
        raise OSError(38, f"{name}: no number known for {os.uname().machine}")
    return number


def function(name: str, *argtypes: Any, path: int | None = None) -> Call:
    """Declare a C function that answers a negative number and sets errno when it fails.

    `path` is the index of the argument that an error shall show.
    """
    prototype = ctypes.CFUNCTYPE(c_int, *argtypes, use_errno=True)
    call: Any = prototype((name, _libc))
    call.errcheck = _checker(name, path)
    declared: Call = call
    return declared


def system_call(name: str, *argtypes: Any, path: int | None = None) -> Call:
    """Declare a system call that is made by number; the arguments are those of the kernel."""
    prototype = ctypes.CFUNCTYPE(c_long, c_long, *argtypes, use_errno=True)
    call: Any = prototype(("syscall", _libc))
    call.errcheck = _checker(name, None if path is None else path + 1)
    number = syscall_number(name)

    def numbered(*arguments: Any) -> int:
        result: int = call(number, *arguments)
        return result

    return numbered


def _checker(name: str, path: int | None) -> Callable[[int, Any, tuple[Any, ...]], int]:
    def check(result: int, _function: Any, arguments: tuple[Any, ...]) -> int:
        if result < 0:
            errno = ctypes.get_errno()
            shown = arguments[path] if path is not None else None
            text = f"{name}: {os.strerror(errno)}"
            raise OSError(errno, text, os.fsdecode(shown)) if shown else OSError(errno, text)
        return result

    return check
