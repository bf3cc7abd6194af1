"""The store of golden states: machines that were booted once, saved before they knew anything, and start from there.

    store = GoldenStore(paths.golden_dir)
    found = store.find(key)         # None: boot a machine for it, and save
    draft = store.draft(key)        # …its RAM is draft.memory, its devices go to draft.devices
    store.publish(draft)            # from now on it is found

A state is a folder with `ram` (a sparse file that QEMU maps), `devices` (what QEMU calls the migration stream) and
`state.json` (what belongs to it, with sums). What is noticed, and when:

* `devices`: its sum is compared at every start.
* `ram`: its size, inode and both times are compared at every start, so every write through the file system is noticed
  before the next start, one byte in the middle too; a file whose times differ is believed only after its sum was
  compared (a copy from a backup is such a one). Decay of the disk below the file system changes no time: the sum is
  compared beside a start when that was last done a day ago.

What does not fit is removed, and a new one is made: slower, never wrong.

All machines from one state begin with the same bytes, so `configure` brings fresh entropy, from which the kernel and the
engine draw again, the time, keys and names. What stays alike is the address layout and the hash seed of the processes
that ran when the state was saved: process 1, relay, engine, spawner, and the monitors that are forked from it; and the
names of the two spare network namespaces. Programs in containers are started later, and have their own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from pybox.files import remove_folder, write_atomically
from pybox.frozen import as_dict, frozen

log = logging.getLogger(__name__)
FORMAT = 1
KEPT = 4  # states; one takes some 350 MB of disk
_ROOM = 1 << 30  # bytes
_DRAFT = "draft-"
_REFUSED = ".refused"
_DRAFT_AGE = 3600.0  # seconds after which a draft that nobody finished is removed
_VERIFIED_FOR = 24 * 3600.0  # seconds
_BLOCK = 64 * 1024  # bytes


@frozen
class FileFacts:
    """What tells that a file is the one that was saved."""

    size: int
    inode: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileFacts:
        found = path.stat()
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)


@frozen
class GoldenState:
    """A state that machines can start from, or one that is being made."""

    key: str
    folder: Path

    @property
    def memory(self) -> Path:
        return self.folder / "ram"

    @property
    def devices(self) -> Path:
        return self.folder / "devices"

    @property
    def record(self) -> Path:
        return self.folder / "state.json"


@frozen
class _Record:
    """Content of `state.json`."""

    format: int
    key: str
    memory: FileFacts
    memory_sum: str
    devices_sum: str
    verified_at: float  # seconds since the epoch: when `memory_sum` was last compared

    def write(self, state: GoldenState) -> None:
        write_atomically(state.record, json.dumps(as_dict(self), indent=1).encode(), 0o600)

    @classmethod
    def read(cls, state: GoldenState) -> _Record:
        """Raises OSError, ValueError, KeyError or TypeError when there is none that can be understood."""
        found = json.loads(state.record.read_bytes())
        return cls(**{**found, "memory": FileFacts(**found["memory"])})


class GoldenStore:
    """All states of one installation. Any number of processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> GoldenState | None:
        """Return the state for a key when there is nothing to say against it. One that does not fit is removed."""
        state = GoldenState(key, self._folder / key)
        if not os.path.lexists(state.folder):
            return None
        try:
            self._check(state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.discard(state, str(error) or type(error).__name__)
            return None
        os.utime(state.folder)  # when it was last used
        return state

    def draft(self, key: str) -> GoldenState:
        """Return a place for a new state. OSError when there is none.

        A guest whose RAM's file finds no place on the disk would be killed, so there must be some.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        import shutil  # only for a state that is made

        if (free := shutil.disk_usage(self._folder).free) < _ROOM:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {free >> 20} MiB are free", str(self._folder))
        draft = GoldenState(key, self._folder / f"{_DRAFT}{os.urandom(6).hex()}")
        draft.folder.mkdir(mode=0o700)
        return draft

    def publish(self, draft: GoldenState) -> None:
        """Make a draft, whose machine has ended, the state of its key. Takes a second or two; OSError.

        Machines that run from it go on. Where another process was faster, its state stays.
        """
        for path in (draft.memory, draft.devices):
            _sync(path)
        facts = FileFacts.of(draft.memory)
        now = time.time()
        _Record(FORMAT, draft.key, facts, _sparse_sum(draft.memory), _sum(draft.devices), now).write(draft)
        try:
            draft.folder.rename(self._folder / draft.key)
        except OSError:
            remove_folder(draft.folder)
            if not (self._folder / draft.key).exists():
                raise
            log.warning("there is a golden state %s already, which stays", draft.key)
        self.collect()

    def discard(self, state: GoldenState, reason: str) -> None:
        """Remove a state or a draft. Machines that run from it go on."""
        log.warning("the golden state %s is removed: %s", state.folder.name, reason)
        remove_folder(state.folder)
        with suppress(OSError):  # a file or a link in its place
            state.folder.unlink()

    def verify_in_time(self, state: GoldenState) -> bool:
        """Compare the sum of the RAM when that was not done for a day; False, and the state is gone, when it differs.

        For a thread beside a start: it reads some hundred MB.
        """
        try:
            record = _Record.read(state)
            if time.time() - record.verified_at < _VERIFIED_FOR:
                return True
            if _sparse_sum(state.memory) == record.memory_sum:
                _Record(**{**record.__dict__, "verified_at": time.time()}).write(state)
                return True
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.info("the golden state %s cannot be verified: %s", state.key, error)
            return True  # another process removed or replaced it
        self.discard(state, "the disk does not give back what was written to it")
        return False

    def refuse(self, key: str, reason: str) -> None:
        """Remember that machines of this key do not start from a state that was just made: it is not tried again."""
        write_atomically(self._folder / f"{key}{_REFUSED}", reason.encode())

    def is_refused(self, key: str) -> bool:
        return (self._folder / f"{key}{_REFUSED}").exists()

    def collect(self) -> None:
        """Keep the states that were used last, and no draft that was given up."""
        states, now = [], time.time()
        for path in self._folder.iterdir():
            try:
                used = path.stat().st_mtime
            except OSError:  # another process was faster
                continue
            if path.name.startswith(_DRAFT):
                if now - used > _DRAFT_AGE:
                    remove_folder(path)
            elif path.is_dir():
                states.append((used, path))
        for _used, path in sorted(states, reverse=True)[KEPT:]:
            remove_folder(path)

    def _check(self, state: GoldenState) -> None:
        """Raise ValueError with the reason not to use a state."""
        record = _Record.read(state)
        if record.format != FORMAT or record.key != state.key:
            raise ValueError("it is of another kind")
        if _sum(state.devices) != record.devices_sum:
            raise ValueError("the devices' state was changed")
        facts = FileFacts.of(state.memory)
        if facts == record.memory:
            return
        if facts.size != record.memory.size or _sparse_sum(state.memory) != record.memory_sum:
            raise ValueError("the RAM was changed")
        _Record(**{**record.__dict__, "memory": facts, "verified_at": time.time()}).write(state)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sparse_sum(path: Path) -> str:
    """Return a sum over a file that does not depend on which of its zeros are holes. Holes are not read."""
    digest = hashlib.blake2b()
    zeros = bytes(_BLOCK)
    with path.open("rb", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        position = 0
        while position < end:
            position, stop = _extent(file.fileno(), position, end)
            position = position // _BLOCK * _BLOCK
            while position < stop:
                file.seek(position)
                block = file.read(_BLOCK)
                if block != zeros:
                    digest.update(position.to_bytes(8))
                    digest.update(block)
                position += _BLOCK
    return digest.hexdigest()


def _extent(descriptor: int, position: int, end: int) -> tuple[int, int]:
    """Return the next part with data: from where to where. `end` to `end` when there is none."""
    to_data, to_hole = (getattr(os, name, None) for name in ("SEEK_DATA", "SEEK_HOLE"))
    if to_data is None or to_hole is None:
        return position, end
    try:
        start = os.lseek(descriptor, position, to_data)
    except OSError:  # ENXIO: only a hole is left
        return end, end
    return start, min(end, os.lseek(descriptor, start, to_hole))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
