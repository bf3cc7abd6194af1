"""Which devices a cgroup may use: a small eBPF program, assembled here and attached to the cgroup.

The kernel calls the program with (access type and device type, major, minor) for every open and mknod; 1 allows.
The program is a list of rules: the first one that matches decides, and nothing matching means no.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from ctypes import c_char, c_char_p, c_int, c_uint32, c_uint64, c_void_p

from pyboxd.frozen import frozen

from . import constants as k
from .libc import system_call

ANY: int | None = None
_TYPES = {"b": k.BPF_DEVCG_DEV_BLOCK, "c": k.BPF_DEVCG_DEV_CHAR}
_ACCESS = {"r": k.BPF_DEVCG_ACC_READ, "w": k.BPF_DEVCG_ACC_WRITE, "m": k.BPF_DEVCG_ACC_MKNOD}

# linux/bpf.h, linux/bpf_common.h: opcodes used below
_LDX_W = 0x61  # dst = *(u32 *)(src + offset)
_MOV_REG = 0xBC  # 32 bit: dst = src
_MOV_IMM = 0xB4
_AND_IMM = 0x54
_RSH_IMM = 0x74
_JNE_IMM = 0x56  # 32 bit comparisons, JMP32
_EXIT = 0x95
_INSTRUCTION = struct.Struct("<BBhi")
_R0, _R1, _R2, _R3, _R4, _R5 = range(6)


@frozen
class AllowRule:
    """Devices that may be used; `kind` is "a" (any), "b" or "c"; None is any number; `access` of "rwm"."""

    kind: str
    major: int | None
    minor: int | None
    access: str = "rwm"


class _LoadAttr(ctypes.Structure):  # union bpf_attr, BPF_PROG_LOAD
    _fields_ = (
        ("prog_type", c_uint32),
        ("insn_cnt", c_uint32),
        ("insns", c_uint64),
        ("license", c_uint64),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_uint64),
        ("kern_version", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_name", c_char * 16),
    )


class _AttachAttr(ctypes.Structure):  # union bpf_attr, BPF_PROG_ATTACH
    _fields_ = (
        ("target_fd", c_uint32),
        ("attach_bpf_fd", c_uint32),
        ("attach_type", c_uint32),
        ("attach_flags", c_uint32),
    )


_bpf = system_call("bpf", c_int, c_void_p, c_uint32)


def assemble(rules: Iterable[AllowRule]) -> bytes:
    """The program for a list of rules."""
    code = [
        _instruction(_LDX_W, _R2, _R1, 0),  # access << 16 | type
        _instruction(_MOV_REG, _R3, _R2),
        _instruction(_RSH_IMM, _R3, immediate=16),  # r3: the access that is asked for
        _instruction(_AND_IMM, _R2, immediate=0xFFFF),  # r2: block or character
        _instruction(_LDX_W, _R4, _R1, 4),  # r4: major
        _instruction(_LDX_W, _R5, _R1, 8),  # r5: minor
    ]
    for rule in rules:
        code += _block(rule)
    code += [_instruction(_MOV_IMM, _R0, immediate=0), _instruction(_EXIT)]
    return b"".join(code)


def _block(rule: AllowRule) -> list[bytes]:
    """Instructions that end the program with 1 if the rule matches, and run on behind themselves if not."""
    tests: list[tuple[int, int]] = []  # register, value it must have
    prepare: list[bytes] = []
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    if access != 7:
        # what is asked for beyond what is granted must be nothing
        prepare = [_instruction(_MOV_REG, _R0, _R3), _instruction(_AND_IMM, _R0, immediate=7 & ~access)]
        tests.append((_R0, 0))
    if rule.kind != "a":
        tests.append((_R2, _TYPES[rule.kind]))
    tests += [(_R4, rule.major)] if rule.major is not None else []
    tests += [(_R5, rule.minor)] if rule.minor is not None else []
    block = list(prepare)
    for index, (register, value) in enumerate(tests):
        behind = len(tests) - index - 1 + 2  # the other tests, and the two instructions of success
        block.append(_instruction(_JNE_IMM, register, offset=behind, immediate=value))
    return [*block, _instruction(_MOV_IMM, _R0, immediate=1), _instruction(_EXIT)]


def _instruction(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, src << 4 | dst, offset, immediate)


def load(program: bytes) -> int:
    """Load an assembled program; its descriptor."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = c_char_p(b"GPL")
    attributes = _LoadAttr()
    attributes.prog_type = k.BPF_PROG_TYPE_CGROUP_DEVICE
    attributes.insn_cnt = len(program) // _INSTRUCTION.size
    attributes.insns = ctypes.addressof(code)
    attributes.license = ctypes.cast(licence, c_void_p).value
    attributes.prog_name = b"devices"
    return _bpf(k.BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes))


def attach(program_fd: int, cgroup_fd: int) -> None:
    """Make the program decide for a cgroup and all below it, together with the programs above it."""
    attributes = _AttachAttr(cgroup_fd, program_fd, k.BPF_CGROUP_DEVICE, k.BPF_F_ALLOW_MULTI)
    _bpf(k.BPF_PROG_ATTACH, ctypes.byref(attributes), ctypes.sizeof(attributes))
