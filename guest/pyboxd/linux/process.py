"""Calls about this process or the whole machine: prctl, descriptors, host name, modules, power."""

from __future__ import annotations

from ctypes import c_char_p, c_int, c_size_t, c_uint, c_ulong

from . import constants as k
from .libc import function, system_call

_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_set_name = function("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_close_range = system_call("close_range", c_uint, c_uint, c_uint)
_sethostname = function("sethostname", c_char_p, c_size_t)
_setdomainname = function("setdomainname", c_char_p, c_size_t)
_reboot = function("reboot", c_int)
_finit_module = system_call("finit_module", c_int, c_char_p, c_int)
_keyctl = system_call("keyctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """prctl(2) for options whose arguments are numbers."""
    return _prctl(option, value, third, 0, 0)


def set_name(name: str) -> None:
    """Name shown by `ps` and /proc/PID/comm; the kernel keeps 15 bytes."""
    _set_name(k.PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def mark_close_on_exec(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec."""
    _close_range(first, 0xFFFFFFFF, k.CLOSE_RANGE_CLOEXEC)


def close_from(first: int, keep: int = -1) -> None:
    """Close every descriptor from `first` on, except `keep`."""
    if keep < first:
        _close_range(first, 0xFFFFFFFF, 0)
        return
    if keep > first:
        _close_range(first, keep - 1, 0)
    _close_range(keep + 1, 0xFFFFFFFF, 0)


def sethostname(name: str) -> None:
    """Set the host name of this uts namespace."""
    encoded = name.encode()
    _sethostname(encoded, len(encoded))


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this uts namespace, which is what Docker's `--domainname` sets."""
    encoded = name.encode()
    _setdomainname(encoded, len(encoded))


def reboot(command: int) -> None:
    """reboot(2) with one of LINUX_REBOOT_CMD_…; does not return when it ends the machine."""
    _reboot(command if command < 0x80000000 else command - (1 << 32))


def finit_module(descriptor: int, parameters: str = "", compressed: bool = False) -> None:
    """Load a kernel module from an open file; FileExistsError if it is loaded already."""
    _finit_module(descriptor, parameters.encode(), k.MODULE_INIT_COMPRESSED_FILE if compressed else 0)


def new_session_keyring() -> None:
    """Leave the keyring that this process shares with its parents."""
    _keyctl(k.KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
