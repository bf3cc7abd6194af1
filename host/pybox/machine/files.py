"""The folder of a machine on the host: which file is what, and the two records that are kept in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pybox import hostos
from pybox.errors import MachineError
from pybox.files import write_atomically
from pybox.frozen import as_dict, frozen
from pybox.hostos.interface import ProcessIdentity
from pybox.paths import Paths
from pybox.settings import Settings

_LOCK_PATIENCE = 2.0  # seconds: somebody who only asks whether it is locked holds it for a moment


@frozen
class MachineFiles:
    """Paths of one machine. Sockets are elsewhere, because their paths must be short."""

    paths: Paths
    name: str

    @property
    def folder(self) -> Path:
        return self.paths.machine_dir(self.name)

    @property
    def sockets(self) -> Path:
        return self.paths.socket_dir(self.name)

    @property
    def api_socket(self) -> Path:
        return hostos.api_address(self.paths, self.name)

    @property
    def agent_socket(self) -> Path:
        return hostos.agent_address(self.paths, self.name)

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def request(self) -> Path:
        """Return the file by which a start hands its wishes to the hostagent."""
        return self.folder / "start.json"

    @property
    def processes(self) -> Path:
        """Return the file that says which processes run the machine; a hint, not the truth."""
        return self.folder / "processes.json"

    @property
    def initrd(self) -> Path:
        """Return the image's initrd with the guest code behind it."""
        return self.folder / "initrd"

    @property
    def data_disk(self) -> Path:
        return self.folder / "data.qcow2"

    @property
    def suspended(self) -> Path:
        """Return the folder with a suspended machine's memory (`suspended.py`)."""
        return self.folder / "suspended"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    @property
    def agent_log(self) -> Path:
        return self.folder / "hostagent.log"

    @property
    def agent_errors(self) -> Path:
        """Return the file with what the hostagent prints: nothing, unless it fails before it can log."""
        return self.folder / "hostagent.err"

    @property
    def qemu_log(self) -> Path:
        return self.folder / "qemu.log"

    @property
    def share_log(self) -> Path:
        return self.folder / "share.log"

    @property
    def share_config(self) -> Path:
        return self.folder / "share.json"

    @property
    def share_nodes(self) -> Path:
        """Return the file in which a folder server leaves what the guest knows of the folders to the next one."""
        return self.folder / "share.nodes"

    def exists(self) -> bool:
        """Say whether the machine was ever started."""
        return self.lock.exists()


@frozen
class StartRequest:
    """What a start asks of the hostagent."""

    settings: Settings
    image: Path  # folder of the guest image

    def write(self, files: MachineFiles) -> None:
        content = {"settings": self.settings.as_json(), "image": str(self.image)}
        write_atomically(files.request, json.dumps(content, indent=1).encode(), 0o600, durable=False)

    @classmethod
    def read(cls, files: MachineFiles) -> StartRequest:
        """Read it back. Raises MachineError when there is none."""
        try:
            found = json.loads(files.request.read_bytes())
            return cls(Settings.from_json(files.paths, found["settings"]), Path(found["image"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MachineError("the start request cannot be read", f"{files.request}: {error}") from None


@frozen
class ProcessRecord:
    """A process that was started for a machine."""

    pid: int
    identity: ProcessIdentity

    @classmethod
    def of(cls, pid: int) -> ProcessRecord | None:
        """Return the record of a living process, None when it has ended already."""
        identity = hostos.current().identify(pid)
        return None if identity is None else cls(pid, identity)

    def lives(self) -> bool:
        """Say whether that very process is still there, and not a later one with its number.

        Its command line may have changed since: a wrapper executes the program.
        """
        now = hostos.current().identify(self.pid)
        return now is not None and now.started == self.identity.started


@frozen
class Processes:
    """Who runs a machine."""

    started_at: float  # seconds since the epoch
    hostagent: ProcessRecord | None = None
    qemu: ProcessRecord | None = None

    def write(self, files: MachineFiles) -> None:
        write_atomically(files.processes, json.dumps(as_dict(self), indent=1).encode(), 0o600, durable=False)

    @classmethod
    def read(cls, files: MachineFiles) -> Processes | None:
        """Return the record, None when there is none that can be read."""
        try:
            found = json.loads(files.processes.read_bytes())
            return cls(float(found["started_at"]), _record(found["hostagent"]), _record(found["qemu"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _record(value: Mapping[str, Any] | None) -> ProcessRecord | None:
    return None if value is None else ProcessRecord(int(value["pid"]), ProcessIdentity(**value["identity"]))


class InUse(MachineError):
    """Another process holds the machine."""


@contextmanager
def locked(files: MachineFiles, patience: float = _LOCK_PATIENCE) -> Iterator[None]:
    """Hold the machine: only the holder may run it, change its disk, or delete it.

    The lock ends with this process, however it ends. Raises InUse when somebody else holds it for
    `patience` seconds.
    """
    files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.lock.open("a+b") as stream:
        deadline = time.monotonic() + patience
        while not hostos.current().try_lock(stream):
            if time.monotonic() > deadline:
                raise InUse(
                    f"the machine {files.name} is in use",
                    "Another process of pybox holds its lock.",
                    f"Wait, or stop it: pybox stop --machine {files.name}.",
                )
            time.sleep(0.02)
        yield


def is_locked(files: MachineFiles) -> bool:
    """Say whether some process holds the machine at this moment."""
    try:
        with files.lock.open("a+b") as stream:
            return not hostos.current().try_lock(stream)
    except FileNotFoundError:
        return False
