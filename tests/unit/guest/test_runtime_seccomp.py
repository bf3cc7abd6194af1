"""What the compiled filters say to system calls, asked with a small interpreter of BPF."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.linux import caps, seccomp
from pyboxd.linux.libc import load_library
from pyboxd.linux.seccomp_compiler import compile_filter
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
    return compile_filter(make_filter(profile, capabilities, "x86_64"))


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
        ("socket", (41,), ALLOW),
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


def test_the_lists_are_dockers() -> None:
    """System calls and the conditions on them, one for one; the file says where its list is from."""
    listed: dict[str, set[str]] = {}
    condition = ""
    for line in Path(__file__).with_name("docker_seccomp.txt").read_text().splitlines():
        if line.startswith("  "):
            listed[condition] |= set(line.split())
        elif not line.startswith("#"):
            condition = line.removesuffix(":")
            listed[condition] = set()
    ours = json.loads(Path(seccomp_profile.__file__).with_name("seccomp_default.json").read_text())
    found: dict[str, set[str]] = {"always": set(ours["allow"])}
    for rule in ours["rules"]:
        for condition in conditions(rule):
            found.setdefault(condition, set()).update(rule["names"])
    assert found == listed and ours["errno"] == EPERM


def conditions(rule: dict[str, Any]) -> list[str]:
    """When a rule of the project's own form applies, in the words of the list; each of them is enough."""
    words = [f"errno {rule['errno']}"] if "errno" in rule else []
    for key, word in (("caps", "with"), ("without_caps", "without"), ("arches", "on")):
        words += [f"{word} {','.join(sorted(rule[key]))}"] if key in rule else []
    before = " ".join(words)
    for key, operator in (("below", "LT"), ("above", "GT"), ("equal", "EQ"), ("masked_zero", "MASKED_EQ")):
        if key in rule:
            values = rule[key] if isinstance(rule[key], list) else [rule[key]]
            return [f"{before} argument {rule['argument']} {operator} {value}".strip() for value in values]
    return [before]


def test_the_capabilities_are_dockers() -> None:
    """moby, daemon/pkg/oci/caps/defaults.go."""
    names = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    )
    assert {f"CAP_{name}" for name in names.split()} == DEFAULT_CAPABILITIES


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
    assert (amd.machines, arm.machines) == (("x86_64", "x86"), ("aarch64", "arm"))
    program = compile_filter(arm)
    assert run(program, 63, arch=0xC00000B7) == ALLOW  # read
    assert run(program, 198, 40, arch=0xC00000B7) == ERRNO | EPERM  # socket, AF_VSOCK
    assert run(program, 40, arch=0xC00000B7) == ERRNO | EPERM  # mount
    assert run(program, 0, arch=X86_64) == 0


def test_the_default_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seccomp_profile.prepare()
    first = seccomp_profile.program("default", DEFAULT_CAPABILITIES)

    def broken(wanted: seccomp.Filter) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(seccomp_profile, "compile_filter", broken)
    assert seccomp_profile.program("default", DEFAULT_CAPABILITIES) == first


class Reference:
    """libseccomp's own compiler, to compare with."""

    def __init__(self) -> None:
        try:
            self.library = load_library("libseccomp.so.2")
        except OSError as error:
            pytest.skip(f"needs libseccomp: {error}")
        for name, restype, argtypes in (
            ("seccomp_init", c_void_p, [c_uint32]),
            ("seccomp_arch_resolve_name", c_uint32, [c_char_p]),
            ("seccomp_arch_add", c_int, [c_void_p, c_uint32]),
            ("seccomp_syscall_resolve_name", c_int, [c_char_p]),
            ("seccomp_rule_add_array", c_int, [c_void_p, c_uint32, c_int, c_uint32, c_void_p]),
            ("seccomp_export_bpf", c_int, [c_void_p, c_int]),
            ("seccomp_release", None, [c_void_p]),
        ):
            getattr(self.library, name).restype = restype
            getattr(self.library, name).argtypes = argtypes

    def compile(self, wanted: seccomp.Filter) -> tuple[bytes, set[str]]:
        """The program, and the calls that this libseccomp does not know."""
        default = seccomp.verdict(wanted.default_action, wanted.default_number)
        context = self.library.seccomp_init(default)
        for machine in wanted.machines:
            self.library.seccomp_arch_add(context, self.library.seccomp_arch_resolve_name(machine.encode()))
        unknown = set()
        for rule in wanted.rules:
            conditions = b"".join(
                struct.pack("=IIQQ", c.index, OPERATORS.index(c.operator), c.value, c.second) for c in rule.comparisons
            )
            for name in rule.names:
                number = self.library.seccomp_syscall_resolve_name(name.encode())
                if number == -1:
                    unknown.add(name)
                    continue
                verdict = seccomp.verdict(rule.action, rule.number)
                self.library.seccomp_rule_add_array(context, verdict, number, len(rule.comparisons), conditions)
        with tempfile.TemporaryFile() as file:
            self.library.seccomp_export_bpf(context, file.fileno())
            self.library.seccomp_release(context)
            return os.pread(file.fileno(), 1 << 20, 0), unknown


OPERATORS = ["", *(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))]
ODD = {
    "defaultAction": "SCMP_ACT_KILL_PROCESS",
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        *(
            {
                "names": [name],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 7,
                "args": [{"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}],
            }
            for name, index, value, second, operator in (
                ("openat", 1, 5, 0, "NE"),
                ("mkdirat", 2, 1 << 40, 0, "LT"),
                ("fchown", 0, 5 << 32, 0, "LE"),
                ("lseek", 1, (7 << 32) + 9, 0, "EQ"),
                ("fchmod", 1, (1 << 32) + 5, 0, "GE"),
                ("fsync", 0, 0, 0, "GT"),
                ("ioctl", 1, 0xFFFF0000FFFF, 0x12340000AAAA, "MASKED_EQ"),
            )
        ),
        {
            "names": ["kill"],
            "action": "SCMP_ACT_LOG",
            "args": [
                {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 9, "op": "SCMP_CMP_NE"},
            ],
        },
    ],
}
VALUES = (0, 1, 2, 4, 5, 6, 9, 10, 37, 38, 39, 40, 41, 45, 46, 0x11, 0x20000, 0x10000000, 0x02000000, 0xFFFFFFFF,
          1 << 32, (1 << 32) + 5, (5 << 32) - 1, 5 << 32, (5 << 32) + 1, (7 << 32) + 9, 1 << 40, (1 << 40) - 1,
          0x12340000AAAA, 0xF1234FFFFAAAA, 0xFFFFFFFFFFFFFFFF)  # fmt: skip


@pytest.mark.parametrize(
    ("profile", "capabilities"),
    [
        ("default", DEFAULT_CAPABILITIES),
        ("default", frozenset[str]()),
        ("default", caps.ALL),
        (json.dumps(ODD), DEFAULT_CAPABILITIES),
    ],
)
def test_libseccomp_would_say_the_same(profile: str, capabilities: frozenset[str]) -> None:
    wanted = make_filter(profile, capabilities, "x86_64")
    reference, unknown = Reference().compile(wanted)
    ours = compile_filter(wanted)
    assert len(ours) < 3000
    table = json.loads(NUMBERS.read_text())
    missing = [{row[index] for name, row in table["numbers"].items() if name in unknown} for index in range(2)]
    conditional = {name for rule in wanted.rules if rule.comparisons for name in rule.names}
    asked = [{row[index] for name, row in table["numbers"].items() if name in conditional} for index in range(2)]
    # on 32-bit machines libseccomp compares with the low half of a value, so only values that fit can be compared
    for index, arch in enumerate((X86_64, 0x40000003) if profile == "default" else (X86_64,)):
        limit = 1 << 64 if index == 0 else 1 << 32
        for call in set(range(480)) - missing[index] - MULTIPLEXED[index]:
            for value in [value for value in VALUES if value < limit] if call in asked[index] else (0,):
                for arguments in ((value, 0, 0), (value, value, value), (5, value, 0)):
                    verdicts = run(ours, call, *arguments, arch=arch), run(reference, call, *arguments, arch=arch)
                    assert verdicts[0] == verdicts[1], (call, arguments, hex(arch))


NUMBERS = Path(seccomp.__file__).with_name("syscall_numbers.json")
# libseccomp splits these by what they multiplex; here they are calls like others, and the profile allows them whole
MULTIPLEXED: tuple[set[int], set[int]] = (set(), {102, 117})  # socketcall, ipc
