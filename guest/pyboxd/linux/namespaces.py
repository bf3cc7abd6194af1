"""Namespaces: enter, leave, make; and the one call that makes a process in new ones."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_int, c_size_t, c_uint64, c_void_p

from . import constants as k
from .libc import function, system_call


class _CloneArgs(ctypes.Structure):  # struct clone_args, linux/sched.h
    _fields_ = (
        ("flags", c_uint64),
        ("pidfd", c_uint64),
        ("child_tid", c_uint64),
        ("parent_tid", c_uint64),
        ("exit_signal", c_uint64),
        ("stack", c_uint64),
        ("stack_size", c_uint64),
        ("tls", c_uint64),
        ("set_tid", c_uint64),
        ("set_tid_size", c_uint64),
        ("cgroup", c_uint64),
    )


_unshare = function("unshare", c_int)
_setns = function("setns", c_int, c_int)
_clone3 = system_call("clone3", c_void_p, c_size_t)


def unshare(flags: int) -> None:
    """Give this process new namespaces (`CLONE_NEW…`); a new pid namespace holds its future children only."""
    _unshare(flags)


def setns(descriptor: int, kinds: int = 0) -> None:
    """Enter the namespace behind a descriptor; with a pidfd, all the `kinds` of that process at once."""
    _setns(descriptor, kinds)


def clone(flags: int, cgroup: int | None) -> tuple[int, int]:
    """fork into new namespaces and a cgroup at once: (pid, pidfd) in the parent, (0, -1) in the child.

    `cgroup` is a descriptor of a cgroup's directory. Being born there costs nothing, while moving there makes
    the kernel wait for every processor. Only for a process with a single thread: none of the hooks that
    `os.fork` runs for other threads are run.
    """
    pidfd = c_int(-1)
    arguments = _CloneArgs()
    arguments.flags = flags | k.CLONE_PIDFD
    arguments.pidfd = ctypes.addressof(pidfd)
    arguments.exit_signal = 17  # SIGCHLD
    if cgroup is not None:
        arguments.flags |= k.CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    pid = _clone3(ctypes.byref(arguments), ctypes.sizeof(arguments))
    return (pid, pidfd.value) if pid else (0, -1)


def enter_path(path: str, kind: int) -> None:
    """Enter the namespace of one `kind` that a path names (`/proc/PID/ns/net`, a bind mount of one)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, kind)
    finally:
        os.close(descriptor)
