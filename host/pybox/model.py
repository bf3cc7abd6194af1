"""Values that several rooms of the host share. Frozen; no behaviour beyond derived properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from pybox.frozen import frozen

Json = Mapping[str, Any]


class Arch(StrEnum):
    """A guest's architecture, in Debian's words."""

    AMD64 = "amd64"
    ARM64 = "arm64"

    @property
    def qemu(self) -> str:
        """Return QEMU's name of it: `qemu-system-NAME`."""
        return {"amd64": "x86_64", "arm64": "aarch64"}[self.value]


class Accelerator(StrEnum):
    """How QEMU runs the guest's instructions; `tcg` is emulation and works everywhere."""

    HVF = "hvf"
    WHPX = "whpx"
    KVM = "kvm"
    TCG = "tcg"


class MachineState(StrEnum):
    """What `pybox status` says of a machine."""

    MISSING = "missing"  # never started
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"  # off, with its memory in a file
    ASLEEP = "asleep"  # off by itself, and the next client of its socket starts it


@frozen
class Share:
    """One folder of this host that a machine sees."""

    name: str  # entry at the top of the machine's FUSE mount
    host_path: str
    guest_path: str  # the path by which bind mounts name it; equals host_path on POSIX
    readonly: bool = False


@frozen
class Phase:
    """One step of a start that has ended. `seconds` counts from the start's beginning."""

    name: str  # qemu | kernel | engine | ready, and what the guest tells between them
    seconds: float


@frozen
class ForwardedPort:
    """A port that the host listens on for a container."""

    protocol: str  # tcp | udp
    host_ip: str
    host_port: int
    guest_port: int


@frozen
class Verdict:
    """What was seen of one accelerator under one QEMU and one kernel of this host."""

    accelerator: Accelerator
    works: bool
    reason: str  # "" when it works


PhaseCallback = Callable[[Phase], None]
