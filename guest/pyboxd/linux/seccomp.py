"""System call filters: compiled by libseccomp to BPF, and put into force by the kernel's own call.

The library is loaded when a filter is compiled, never before: compiled filters are kept by their users.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_uint, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from . import constants as k
from .libc import load_library, system_call

# seccomp.h: what happens to a call
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
COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_SCMP_FLTATR_CTL_NNP = 3
_SCMP_FLTATR_CTL_OPTIMIZE = 8
_NR_SCMP_ERROR = -1
_EFAULT, _EINVAL = 14, 22


@dataclass(frozen=True)
class Comparison:
    """A condition on one argument of a call; `second` is the value compared with under the mask `value`."""

    index: int
    operator: str
    value: int
    second: int = 0


@dataclass(frozen=True)
class Rule:
    """What to do with some calls, if all the comparisons hold. `number` is the errno or the tracer's datum."""

    names: tuple[str, ...]
    action: str = "SCMP_ACT_ALLOW"
    number: int = 1
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Filter:
    """A whole filter; `architectures` are those besides the machine's own, in libseccomp's names ("x86")."""

    default_action: str
    default_number: int
    architectures: tuple[str, ...]
    rules: tuple[Rule, ...]


class _ArgCmp(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = (("arg", c_uint), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64))


class _SockFprog(ctypes.Structure):  # struct sock_fprog, linux/filter.h
    _fields_ = (("len", c_uint16), ("filter", c_void_p))


_seccomp = system_call("seccomp", c_uint, c_uint, c_void_p)


def load(program: bytes) -> None:
    """Put a compiled filter into force. Needs CAP_SYS_ADMIN or no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    _seccomp(k.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(header))


def compile_filter(wanted: Filter) -> bytes:
    """The filter as BPF instructions for this machine. OSError if libseccomp refuses it.

    Names that this machine or this libseccomp does not know are left out: nothing can call them by that name.
    """
    library = _library()
    context = library.seccomp_init(_action(wanted.default_action, wanted.default_number))
    if not context:
        raise OSError(_EINVAL, "seccomp_init refused the default action")
    try:
        _check(library.seccomp_attr_set(context, _SCMP_FLTATR_CTL_NNP, 0), "seccomp_attr_set")
        with contextlib.suppress(OSError):  # a binary tree instead of a list; libseccomp before 2.5 has none
            _check(library.seccomp_attr_set(context, _SCMP_FLTATR_CTL_OPTIMIZE, 2), "seccomp_attr_set")
        for architecture in wanted.architectures:
            token = library.seccomp_arch_resolve_name(architecture.encode())
            if token:
                _check(library.seccomp_arch_add(context, token), "seccomp_arch_add", exists_is_fine=True)
        for rule in wanted.rules:
            _add_rule(library, context, rule, wanted)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add_rule(library: ctypes.CDLL, context: int, rule: Rule, wanted: Filter) -> None:
    action = _action(rule.action, rule.number)
    if action == _action(wanted.default_action, wanted.default_number):
        return  # libseccomp refuses a rule that says what happens anyway
    comparisons = (_ArgCmp * max(1, len(rule.comparisons)))(
        *[_ArgCmp(c.index, COMPARISONS[c.operator], c.value, c.second) for c in rule.comparisons]
    )
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _NR_SCMP_ERROR:
            continue
        result = library.seccomp_rule_add_array(context, action, number, len(rule.comparisons), comparisons)
        if result not in (-_EFAULT, -_EINVAL):  # the call does not exist on one of the architectures
            _check(result, f"seccomp_rule_add {name}", exists_is_fine=True)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "seccomp_export_bpf")
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def _action(name: str, number: int) -> int:
    return ACTIONS[name] | (number & 0xFFFF if name in WITH_NUMBER else 0)


def _check(result: int, what: str, exists_is_fine: bool = False) -> None:
    if result < 0 and not (exists_is_fine and result == -17):
        raise OSError(-result, f"{what}: {os.strerror(-result)}")


def _library() -> Any:
    library = load_library("libseccomp.so.2")
    signatures: Iterable[tuple[str, Any, list[Any]]] = (
        ("seccomp_init", c_void_p, [c_uint32]),
        ("seccomp_release", None, [c_void_p]),
        ("seccomp_attr_set", c_int, [c_void_p, c_int, c_uint32]),
        ("seccomp_arch_resolve_name", c_uint32, [c_char_p]),
        ("seccomp_arch_add", c_int, [c_void_p, c_uint32]),
        ("seccomp_syscall_resolve_name", c_int, [c_char_p]),
        ("seccomp_rule_add_array", c_int, [c_void_p, c_uint32, c_int, c_uint, c_void_p]),
        ("seccomp_export_bpf", c_int, [c_void_p, c_int]),
    )
    for name, restype, argtypes in signatures:
        declared = getattr(library, name)
        declared.restype = restype
        declared.argtypes = argtypes
    return library
