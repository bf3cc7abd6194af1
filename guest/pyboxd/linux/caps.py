"""Capabilities: their names and numbers, and putting a set of them into force on this process."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable
from ctypes import c_int, c_uint32, c_ulong, c_void_p

from . import constants as k
from .libc import function

# linux/capability.h: the position is the number
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}
ALL = frozenset(NUMBERS)
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):  # struct __user_cap_header_struct
    _fields_ = (("version", c_uint32), ("pid", c_int))


class _Data(ctypes.Structure):  # struct __user_cap_data_struct, twice for 64 capabilities
    _fields_ = (("effective", c_uint32), ("permitted", c_uint32), ("inheritable", c_uint32))


_capset = function("capset", c_void_p, c_void_p)
_drop = function("prctl", c_int, c_ulong)  # as few arguments as it takes: it is called for every capability
_capget = function("capget", c_void_p, c_void_p)


def mask_of(names: Iterable[str]) -> int:
    """Bit mask of capability names (`CAP_CHOWN`); KeyError for a name that the kernel does not have."""
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[name]
    return mask


def permitted() -> int:
    """Mask of the capabilities that this process may have."""
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    _capget(ctypes.byref(header), ctypes.byref(data))
    return int(data[0].permitted | data[1].permitted << 32)


def drop_bounding(keep: int) -> None:
    """Take every capability outside the mask `keep` from the bounding set: no exec can give it back."""
    for number in range(len(NAMES)):
        if not keep & (1 << number):
            try:
                _drop(k.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno != errno.EINVAL:  # an older kernel that does not have this one
                    raise


def set_effective(mask: int) -> None:
    """Make the mask the permitted and the effective set, with nothing inheritable.

    Ambient capabilities cannot outlive this: the kernel keeps none that is not inheritable too.
    """
    header = _Header(_LINUX_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    _capset(ctypes.byref(header), ctypes.byref(data))
