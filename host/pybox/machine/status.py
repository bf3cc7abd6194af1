"""What can be said of a machine at one moment, and its JSON for the hostagent's socket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pybox.frozen import as_dict, frozen
from pybox.model import Accelerator, Arch, ForwardedPort, MachineState, Share, Verdict


@frozen
class MachineStatus:
    """A machine, running or not. What only a running one has is None or empty otherwise."""

    name: str
    state: MachineState
    api_socket: Path
    memory_mib: int | None = None
    memory_used: int = 0  # bytes of this computer's memory, for QEMU, the hostagent and the folder server
    cpus: int | None = None
    disk_size: int | None = None  # bytes that the guest sees
    disk_used: int = 0  # bytes on the host
    arch: Arch | None = None
    image_id: str = ""
    accelerator: Accelerator | None = None
    verdicts: tuple[Verdict, ...] = ()
    qemu: str = ""  # program and version
    pid: int | None = None  # of the hostagent
    qemu_pid: int | None = None
    started_at: float | None = None  # seconds since the epoch
    ssh_port: int | None = None  # of 127.0.0.1; None without an ssh server
    ports: tuple[ForwardedPort, ...] = ()
    shares: tuple[Share, ...] = ()
    last_error: str = ""  # why it stopped or began anew by itself
    suspended_at: float | None = None  # seconds since the epoch
    saved_size: int = 0  # bytes on the host that a suspended machine's memory takes
    idle: str = ""  # what it does when nobody uses it (the setting), "" for nothing

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as `pybox status --json` prints them."""
        return {**as_dict(self), "api_socket": str(self.api_socket)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MachineStatus:
        """Take back what `to_json` gave. Raises ValueError, KeyError or TypeError for anything else."""
        arch, accelerator = value["arch"], value["accelerator"]
        return cls(
            **{
                **value,
                "state": MachineState(value["state"]),
                "api_socket": Path(value["api_socket"]),
                "arch": None if arch is None else Arch(arch),
                "accelerator": None if accelerator is None else Accelerator(accelerator),
                "verdicts": tuple(
                    Verdict(Accelerator(item["accelerator"]), item["works"], item["reason"]) for item in value["verdicts"]
                ),
                "ports": tuple(ForwardedPort(**item) for item in value["ports"]),
                "shares": tuple(Share(**item) for item in value["shares"]),
            }
        )
