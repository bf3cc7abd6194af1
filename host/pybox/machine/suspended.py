"""The memory of a suspended machine: kept in its folder, bound to its data disk, and taken once.

    store = SuspendedStore(files)
    draft = store.draft()               # QEMU's stream goes to draft.stream, …
    draft.write(record)                 # …what it belongs to beside it
    store.publish(draft, record)        # from now on the machine is suspended
    found = store.find()                # None: it is not
    store.take(found)                   # before the guest goes on; it cannot go on from there a second time

The guest's kernel has parts of the data disk in its memory. It may go on only with the very disk that it left, and
only once: a memory that is older than the disk would destroy it. So the record names the disk's size and time of
change, which every write through the file system moves, and a state is taken out of its place, durably, before the
guest runs. What is killed before `publish` leaves a machine whose power was cut, after what was synced; so does what
is killed after `take`.

Folders: `suspended` is the state; `suspended.new` is not finished, `suspended.taken` is used up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pybox.errors import MachineError
from pybox.files import remove_folder, sync, sync_folder, write_atomically
from pybox.frozen import as_dict, frozen, replace
from pybox.machine.files import MachineFiles
from pybox.model import Accelerator, Share

FORMAT = 1
WAY_OUT = (
    "Give the saved memory up: pybox start --discard. To the containers it is as if the power had failed when the "
    "machine was suspended."
)


class CannotResume(MachineError):
    """A suspended machine that does not go on; its memory is kept."""


@frozen
class Facts:
    """What tells that a file is as it was left."""

    size: int  # bytes
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Raises OSError."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns)


@frozen
class Record:
    """What a saved memory belongs to. It goes on as the machine that it was, whatever settings say today."""

    parts: Mapping[str, str]  # by what it is called: all that must be the same (`hostagent.golden.parts`)
    accelerator: Accelerator
    memory_mib: int
    cpus: int
    shares: tuple[Share, ...]
    disk: Facts
    stream: Facts
    suspended_at: float  # seconds since the epoch

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **as_dict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Take it back. Raises ValueError, KeyError or TypeError for anything else."""
        found: dict[str, Any] = json.loads(data)
        if found.pop("format") != FORMAT:
            raise ValueError("another version of pybox wrote it")
        return cls(
            **{
                **found,
                "accelerator": Accelerator(found["accelerator"]),
                "shares": tuple(Share(**item) for item in found["shares"]),
                "disk": Facts(**found["disk"]),
                "stream": Facts(**found["stream"]),
            }
        )


@frozen
class Place:
    """A folder with a saved memory, whole or not."""

    folder: Path

    @property
    def stream(self) -> Path:
        """Return the file with RAM and devices, as QEMU writes and reads them."""
        return self.folder / "stream"

    @property
    def nodes(self) -> Path:
        """Return the file of the folder server; it is there when the machine had folders."""
        return self.folder / "share.nodes"

    @property
    def record(self) -> Path:
        return self.folder / "record.json"

    def write(self, record: Record) -> None:
        """Put the record beside the rest, durably. Raises OSError."""
        write_atomically(self.record, record.to_json(), 0o600)


@frozen
class Suspended:
    """A machine's saved memory."""

    place: Place
    record: Record


class SuspendedStore:
    """The saved memory of one machine. All but `exists` and `facts` is for the holder of the machine's lock."""

    def __init__(self, files: MachineFiles) -> None:
        self._files = files
        self._place = Place(files.suspended)
        self._draft = Place(files.suspended.with_name("suspended.new"))
        self._taken = Place(files.suspended.with_name("suspended.taken"))

    def exists(self) -> bool:
        """Say whether the machine is suspended, be it in a way that can be used or not."""
        return self._place.folder.exists()

    def facts(self) -> tuple[float | None, int]:
        """Return since when (seconds since the epoch; None: not known) and with how many bytes it is suspended."""
        try:
            size = self._place.stream.stat().st_size
            return Record.from_json(self._place.record.read_bytes()).suspended_at, size
        except (OSError, ValueError, KeyError, TypeError):
            return None, 0

    def draft(self) -> Place:
        """Return an empty place. Raises OSError."""
        self.clean()
        self._draft.folder.mkdir(mode=0o700)
        return self._draft

    def publish(self, draft: Place, record: Record) -> None:
        """Make a whole draft the machine's state, durably, once its QEMU has ended. Raises OSError."""
        if (disk := Facts.of(self._files.data_disk)) != record.disk:  # QEMU had a last word
            draft.write(replace(record, disk=disk))
        sync_folder(draft.folder)
        draft.folder.replace(self._place.folder)
        sync_folder(self._files.folder)

    def find(self) -> Suspended | None:
        """Return the machine's saved memory. Raises CannotResume when there is one that is damaged."""
        if not self.exists():
            return None
        try:
            record = Record.from_json(self._place.record.read_bytes())
            if Facts.of(self._place.stream) != record.stream:
                raise ValueError(f"{self._place.stream} was changed")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CannotResume(
                f"the saved memory of {self._files.name} is damaged", f"{type(error).__name__}: {error}", WAY_OUT
            ) from None
        return Suspended(self._place, record)

    def check(self, found: Suspended, parts: Mapping[str, str]) -> None:
        """Compare with the machine of today: its parts, and its data disk. Raises CannotResume that says what changed."""
        names = sorted({*parts, *found.record.parts})
        changed = [name for name in names if parts.get(name) != found.record.parts.get(name)]
        if changed:
            raise CannotResume(
                f"{self._files.name} cannot be resumed: {' and '.join(changed)} changed since it was suspended",
                "\n".join(f"{name}: {found.record.parts.get(name)} then, {parts.get(name)} now" for name in changed),
                f"Undo that change, and resume it. Or: {WAY_OUT}",
            )
        try:
            disk = Facts.of(self._files.data_disk)
        except OSError as error:
            raise CannotResume(
                f"{self._files.name} cannot be resumed: its data disk cannot be read",
                f"{self._files.data_disk}: {error.strerror}",
                f"Put it back. Or: {WAY_OUT}",
            ) from None
        if disk != found.record.disk:
            raise CannotResume(
                f"{self._files.name} cannot be resumed: its data disk changed since it was suspended",
                f"{self._files.data_disk}\nthen {_words(found.record.disk)}\nnow {_words(disk)}",
                f"Put the disk back as it was. Or: {WAY_OUT}",
            )

    def take(self, found: Suspended) -> Path | None:
        """Use the state up, durably. Raises OSError, and the guest must not go on then.

        Returns the file for the folder server, which stays.
        """
        found.place.folder.replace(self._taken.folder)
        sync_folder(self._files.folder)
        if not self._taken.nodes.exists():
            return None
        return self._taken.nodes.replace(self._files.share_nodes)

    def discard(self) -> bool:
        """Give the saved memory up; False when there was none. Raises OSError."""
        was_there = self.exists()
        if was_there:
            self.clean()
            self._place.folder.replace(self._taken.folder)
            sync_folder(self._files.folder)
        self.clean()
        return was_there

    def clean(self) -> None:
        """Remove what was not finished, and what is used up."""
        for place in (self._draft, self._taken):
            remove_folder(place.folder)


def record(
    parts: Mapping[str, str],
    accelerator: Accelerator,
    memory_mib: int,
    cpus: int,
    shares: tuple[Share, ...],
    disk: Path,
    stream: Path,
) -> Record:
    """Return the record of a memory whose machine has come to a rest. Makes the disk durable. Raises OSError."""
    sync(disk)
    return Record(parts, accelerator, memory_mib, cpus, shares, Facts.of(disk), Facts.of(stream), time.time())


def _words(facts: Facts) -> str:
    seconds, rest = divmod(facts.modified_ns, 10**9)
    return f"{facts.size} bytes, of {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{rest:09}"
