"""The device program, asked with a small interpreter of the instructions it is made of."""

from __future__ import annotations

import struct

import pytest

from pyboxd.linux.bpf_devices import AllowRule, assemble
from pyboxd.runtime.devices import allow_rules
from pyboxd.runtime.spec import ContainerSpec, Device, DeviceRule, RootFilesystem

READ, WRITE, MKNOD = 2, 4, 1
BLOCK, CHAR = 1, 2


def run(program: bytes, kind: int, major: int, minor: int, access: int) -> int:
    """What the kernel would answer: 1 allows."""
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    code = list(struct.iter_unpack("<BBhi", program))
    index = 0
    while True:
        opcode, packed, offset, immediate = code[index]
        dst, src = packed & 15, packed >> 4
        index += 1
        if opcode == 0x61:
            assert src == 1
            (registers[dst],) = struct.unpack_from("=I", context, offset)
        elif opcode == 0xBC:
            registers[dst] = registers[src]
        elif opcode == 0xB4:
            registers[dst] = immediate
        elif opcode == 0x54:
            registers[dst] &= immediate & 0xFFFFFFFF
        elif opcode == 0x74:
            registers[dst] >>= immediate
        elif opcode == 0x56:
            index += offset if registers[dst] != immediate else 0
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"opcode {opcode:#x}")


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        (CHAR, 1, 3, READ | WRITE, 1),
        (CHAR, 1, 3, READ | WRITE | MKNOD, 1),
        (CHAR, 1, 11, READ, 0),
        (CHAR, 1, 11, MKNOD, 1),
        (CHAR, 7, 5, READ, 1),
        (CHAR, 7, 6, READ, 1),
        (CHAR, 7, 6, WRITE, 0),
        (BLOCK, 7, 6, READ, 0),
        (BLOCK, 254, 0, READ, 1),
        (BLOCK, 254, 0, READ | WRITE, 0),
        (BLOCK, 8, 0, MKNOD, 0),
    ],
)
def test_rules(kind: int, major: int, minor: int, access: int, allowed: int) -> None:
    rules = (
        AllowRule("c", None, None, "m"),
        AllowRule("c", 1, 3),
        AllowRule("c", 7, None, "r"),
        AllowRule("b", 254, 0, "r"),
    )
    assert run(assemble(rules), kind, major, minor, access) == allowed


def test_no_rule_is_no_device() -> None:
    assert run(assemble(()), CHAR, 1, 3, READ) == 0


def test_any_device() -> None:
    assert run(assemble((AllowRule("a", None, None),)), BLOCK, 1, 1, READ | WRITE | MKNOD) == 1


def test_a_containers_rules() -> None:
    spec = ContainerSpec(
        "c",
        RootFilesystem((), "", ""),
        ("sh",),
        "/run",
        devices=(Device("/dev/full", "/dev/other", "r"),),
        device_rules=(DeviceRule("b", 200, None, "rw"),),
    )
    program = assemble(allow_rules(spec))
    for device in ((1, 3), (1, 5), (1, 8), (1, 9), (5, 0), (5, 2), (136, 7)):
        assert run(program, CHAR, *device, READ | WRITE) == 1
    assert run(program, CHAR, 1, 1, READ) == 0  # /dev/mem
    assert run(program, CHAR, 10, 229, READ) == 0  # /dev/fuse
    assert run(program, BLOCK, 254, 0, READ) == 0
    assert run(program, BLOCK, 200, 9, READ | WRITE) == 1
