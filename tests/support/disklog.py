"""A disk's write log (QEMU's `blklogwrites`, Linux's dm-log-writes): written, read, and replayed to any point of it.

Whatever a power cut can leave on a disk is a replay up to some flush, and an arbitrary part of the writes behind it.
Layout (Linux, drivers/md/dm-log-writes.c): a super block in the first sector, then for each entry one sector that
describes it, and its data behind that. All numbers are little endian.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0x6A736677736872
VERSION = 1
FLUSH, DISCARD = 1, 4
_SUPER = struct.Struct("<QQQI")  # struct log_write_super: magic, version, entries, sector size
_ENTRY = struct.Struct("<QQQQ")  # struct log_write_entry: sector, sectors, flags, bytes of a mark's text
_COPY = 1 << 20

# Takes QEMU's place: the data disk's drive gets the log in front of it, all else stays as pybox wrote it.
_WRAPPER = """#!{python}
import os, sys
DATA = "if=none,id=data,"
def logged(word):
    options = dict(item.split("=", 1) for item in word.replace(",,", "\\0").split(","))
    disk = options.pop("file").replace("\\0", ",,")
    options |= {{"driver": "blklogwrites", "file.driver": options.pop("format"), "file.discard": options["discard"],
                "file.file.driver": "file", "file.file.filename": disk, "log.driver": "file", "log.filename": {log!r}}}
    return ",".join("=".join(pair) for pair in options.items())
os.execv({program!r}, [{program!r}, *(logged(word) if word.startswith(DATA) else word for word in sys.argv[1:])])
"""


def logging_qemu(folder: Path, log: Path) -> Path:
    """A program in `folder` to name in the setting `qemu`: writes to the data disk are noted in `log`, which begins
    anew at every start of the machine."""
    program = shutil.which("qemu-system-x86_64")
    assert program is not None
    log.touch()
    wrapper = folder / "qemu-with-log"
    wrapper.write_text(_WRAPPER.format(python=sys.executable, log=str(log).replace(",", ",,"), program=program))
    wrapper.chmod(0o755)
    return wrapper


@dataclass(frozen=True)
class Entry:
    """One request of the log. `offset` and `size` are bytes of the disk, `data` is where its bytes are in the log."""

    offset: int
    size: int
    flags: int
    data: int

    @property
    def is_flush(self) -> bool:
        return bool(self.flags & FLUSH)


class DiskLog:
    """The log in a file that may still grow."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def count(self) -> int:
        """How many entries it has. QEMU brings the number up to date with every flush, before the guest hears of it.

        ValueError when the file is no such log.
        """
        with self._path.open("rb") as file:
            return _header(file.read(_SUPER.size))[0]

    def entries(self) -> list[Entry]:
        """All entries in their order. ValueError when the log is damaged."""
        with self._path.open("rb") as file:
            count, sector = _header(file.read(_SUPER.size))
            return list(_read(file.fileno(), count, sector))

    def replay(self, entries: Iterable[Entry], disk: Path) -> None:
        """Do to `disk` what the entries say. What is discarded reads as zeros, as QEMU's disks have it."""
        source = os.open(self._path, os.O_RDONLY)
        target = os.open(disk, os.O_RDWR)
        try:
            for entry in entries:
                for start in range(0, entry.size, _COPY):
                    length = min(_COPY, entry.size - start)
                    data = bytes(length) if entry.flags & DISCARD else os.pread(source, length, entry.data + start)
                    if len(data) < length:
                        raise ValueError(f"the log has no data at byte {entry.data + start}")
                    os.pwrite(target, data, entry.offset + start)
        finally:
            os.close(source)
            os.close(target)


def flushes(entries: Sequence[Entry]) -> list[int]:
    """The lengths of log that end with a flush, and with something written since the one before."""
    found = []
    fresh = False
    for number, entry in enumerate(entries, 1):
        fresh = fresh or bool(entry.size)
        if entry.is_flush and fresh:
            found.append(number)
            fresh = False
    return found


def torn(entries: Sequence[Entry], flush: int, chance: random.Random) -> list[Entry]:
    """Some of the requests behind the flush that ends the first `flush` entries and before the next: a power cut
    leaves any of them on the disk."""
    behind = []
    for entry in entries[flush:]:
        if entry.is_flush:
            break
        behind.append(entry)
    return [entry for entry in behind if chance.random() < 0.5]


def spread(points: Sequence[int], most: int) -> list[int]:
    """At most `most` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[number * (len(points) - 1) // (most - 1)] for number in range(most)]


def _header(data: bytes) -> tuple[int, int]:
    if len(data) < _SUPER.size:
        raise ValueError("the log has no super block")
    magic, version, count, sector = _SUPER.unpack(data)
    if magic != MAGIC or version != VERSION or sector < 512:
        raise ValueError(f"not a write log: magic {magic:#x}, version {version}, sectors of {sector} bytes")
    return count, sector


def _read(file: int, count: int, sector: int) -> Iterator[Entry]:
    position = sector
    for _ in range(count):
        data = os.pread(file, _ENTRY.size, position)
        if len(data) < _ENTRY.size:
            raise ValueError(f"the log ends at byte {position}, in the middle of what it announces")
        start, sectors, flags, mark = _ENTRY.unpack(data)
        if mark:
            raise ValueError("the log has a mark, which QEMU does not write")
        position += sector
        yield Entry(start * sector, sectors * sector, flags, position)
        if not flags & DISCARD:
            position += sectors * sector
