"""System call filters: what they say, and putting a compiled one into force. `seccomp_compiler` compiles them."""

from __future__ import annotations

import ctypes
from ctypes import c_uint, c_uint16, c_void_p

from pyboxd.frozen import frozen

from . import constants as k
from .libc import system_call

# linux/seccomp.h under the names that profiles use: what happens to a call
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
COMPARISONS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


@frozen
class Comparison:
    """A condition on one argument of a call, unsigned and 64 bits wide.

    For MASKED_EQ `value` is the mask, and what is left under it is compared with `second`.
    """

    index: int
    operator: str
    value: int
    second: int = 0


@frozen
class Rule:
    """What to do with some calls, if all the comparisons hold. `number` is the errno or the tracer's datum."""

    names: tuple[str, ...]
    action: str = "SCMP_ACT_ALLOW"
    number: int = 1
    comparisons: tuple[Comparison, ...] = ()


@frozen
class Filter:
    """A whole filter for processes of these `machines` ("x86_64", "x86", "aarch64", "arm"); others are killed."""

    default_action: str
    default_number: int
    machines: tuple[str, ...]
    rules: tuple[Rule, ...]


class _SockFprog(ctypes.Structure):  # struct sock_fprog, linux/filter.h
    _fields_ = (("len", c_uint16), ("filter", c_void_p))


_seccomp = system_call("seccomp", c_uint, c_uint, c_void_p)


def verdict(action: str, number: int) -> int:
    """The value that a filter returns for an action."""
    return ACTIONS[action] | (number & 0xFFFF if action in WITH_NUMBER else 0)


def load(program: bytes) -> None:
    """Put a compiled filter into force. Needs CAP_SYS_ADMIN or no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    _seccomp(k.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(header))
