"""What the compiled filters say to system calls, asked with a small interpreter of BPF."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable

import pytest

from pyboxd import locations
from pyboxd.errors import InvalidArgument
from pyboxd.linux import seccomp
from pyboxd.runtime import seccomp_profile
from pyboxd.runtime.seccomp_profile import make_filter
from pyboxd.runtime.spec import DEFAULT_CAPABILITIES

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS = 1, 38
X86_64 = 0xC000003E  # AUDIT_ARCH_X86_64
CALLS = {"read": 0, "socket": 41, "clone": 56, "ptrace": 101, "mount": 165, "reboot": 169, "personality": 135,
         "keyctl": 250, "unshare": 272, "bpf": 321, "clone3": 435, "io_uring_setup": 425, "open_tree": 428}  # fmt: skip


def run(program: bytes, call: int, *arguments: int, arch: int = X86_64) -> int:
    """The verdict on a call: classic BPF over struct seccomp_data, the instructions that libseccomp emits."""
    data = struct.pack("=iIQ6Q", call, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, index = 0, 0
    jumps: dict[int, Callable[[int, int], bool]] = {
        0x15: lambda a, value: a == value,
        0x25: lambda a, value: a > value,
        0x35: lambda a, value: a >= value,
        0x45: lambda a, value: a & value != 0,
    }
    while True:
        opcode, when_true, when_false, value = code[index]
        index += 1
        if opcode == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif opcode == 0x54:
            accumulator &= value
        elif opcode == 0x05:
            index += value
        elif opcode == 0x06:
            return int(value)
        elif opcode in jumps:
            index += when_true if jumps[opcode](accumulator, value) else when_false
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def compiled(profile: str = "default", capabilities: frozenset[str] = DEFAULT_CAPABILITIES) -> bytes:
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers below are those of x86-64")
    try:
        return seccomp.compile_filter(make_filter(profile, capabilities, "x86_64"))
    except OSError as error:
        pytest.skip(f"needs libseccomp: {error}")


@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("read", (), ALLOW),
        ("ptrace", (), ALLOW),
        ("socket", (2,), ALLOW),  # AF_INET
        ("socket", (10,), ALLOW),  # AF_INET6
        ("socket", (16,), ALLOW),  # AF_NETLINK
        ("socket", (38,), ERRNO | EPERM),  # AF_ALG
        ("socket", (40,), ERRNO | EPERM),  # AF_VSOCK
        ("socket", (46,), ERRNO | EPERM),  # what is yet to come
        ("clone", (0x11,), ALLOW),
        ("clone", (0x10000000,), ERRNO | EPERM),  # CLONE_NEWUSER
        ("clone", (0x00020011,), ERRNO | EPERM),  # CLONE_NEWNS
        ("clone3", (), ERRNO | ENOSYS),
        ("personality", (0x20000,), ALLOW),
        ("personality", (0x40000,), ERRNO | EPERM),  # ADDR_NO_RANDOMIZE
        ("mount", (), ERRNO | EPERM),
        ("unshare", (), ERRNO | EPERM),
        ("reboot", (), ERRNO | EPERM),
        ("bpf", (), ERRNO | EPERM),
        ("keyctl", (), ERRNO | EPERM),
        ("io_uring_setup", (), ERRNO | EPERM),
        ("open_tree", (), ERRNO | EPERM),
    ],
)
def test_the_default_profile(name: str, arguments: tuple[int, ...], verdict: int) -> None:
    assert run(compiled(), CALLS[name], *arguments) == verdict


def test_capabilities_open_what_they_are_for() -> None:
    program = compiled(capabilities=DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN", "CAP_SYS_BOOT"})
    for name in ("mount", "unshare", "clone3", "bpf", "reboot"):
        assert run(program, CALLS[name]) == ALLOW
    assert run(program, CALLS["clone"], 0x10000000) == ALLOW
    assert run(program, CALLS["socket"], 38) == ERRNO | EPERM


def test_an_unknown_architecture_is_refused() -> None:
    assert run(compiled(), 0, arch=0x12345678) & 0xFFFF0000 in (0, KILL, ERRNO)


def test_a_profile_of_the_users() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"name": "socket", "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]},
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
        ],
    }
    program = compiled(json.dumps(profile))
    assert run(program, 83) == ERRNO | 5
    assert run(program, CALLS["socket"], 2) == ERRNO | EPERM
    assert run(program, CALLS["socket"], 10) == ALLOW
    assert run(program, CALLS["mount"]) == ERRNO | EPERM
    assert run(program, CALLS["reboot"]) == ALLOW
    program = compiled(json.dumps(profile), frozenset({"CAP_SYS_ADMIN"}))
    assert run(program, CALLS["mount"]) == ALLOW


@pytest.mark.parametrize(
    "profile",
    ["", "{", "[]", "{}", '{"defaultAction": "NONSENSE"}', '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{}]}'],
)
def test_a_profile_that_is_none_is_refused(profile: str) -> None:
    with pytest.raises(InvalidArgument, match="decoding seccomp profile failed"):
        make_filter(profile, DEFAULT_CAPABILITIES, "x86_64")


def test_the_profile_fits_both_machines() -> None:
    amd, arm = (make_filter("default", DEFAULT_CAPABILITIES, machine) for machine in ("x86_64", "aarch64"))

    def names(made: seccomp.Filter) -> set[str]:
        return {name for rule in made.rules for name in rule.names}

    assert {"arch_prctl", "modify_ldt"} <= names(amd) - names(arm)
    assert {"arm_fadvise64_64", "set_tls"} <= names(arm) - names(amd)
    assert (amd.architectures, arm.architectures) == (("x86", "x32"), ("arm",))


def test_compiled_filters_are_kept(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled()
    monkeypatch.setattr(locations, "RUN", str(tmp_path))
    first = seccomp_profile.program("default", DEFAULT_CAPABILITIES)

    def broken(wanted: seccomp.Filter) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(seccomp_profile, "compile_filter", broken)
    assert seccomp_profile.program("default", DEFAULT_CAPABILITIES) == first
