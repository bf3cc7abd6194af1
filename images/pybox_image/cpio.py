"""The cpio format of the Linux initramfs ("newc"): a writer, and a reader for tests and tools.

Archives may be laid one behind the other; the kernel unpacks them in turn and later entries win.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_HEADER = 110


@dataclass(frozen=True)
class Entry:
    """One file. `path` has no leading slash; `mode` holds type and permission bits; `data` is the content of a
    regular file or the target of a link; `device` is (major, minor) of a device node."""

    path: str
    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)


def folder(path: str, mode: int = 0o755) -> Entry:
    """Return a folder entry."""
    return Entry(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """Return a regular file entry."""
    return Entry(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Entry:
    """Return a symbolic link entry."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def pack(entries: Iterable[Entry]) -> bytes:
    """Return the archive. Times are zero and inode numbers count up, so the same entries give the same bytes."""
    parts: list[bytes] = []
    number = 0
    for number, entry in enumerate(entries, 1):  # the trailer takes the number after the last
        _append(parts, entry, number)
    _append(parts, Entry(_TRAILER, 0), number + 1)
    return b"".join(parts)


def _append(parts: list[bytes], entry: Entry, number: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    values = (number, entry.mode, entry.uid, entry.gid, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    parts.append(_MAGIC + "".join(f"{value:08x}" for value in values).encode())
    parts.append(name)
    parts.append(bytes(-(_HEADER + len(name)) % 4))
    parts.append(entry.data)
    parts.append(bytes(-len(entry.data) % 4))


def unpack(archive: bytes) -> Iterator[Entry]:
    """Yield the entries of one or several archives laid one behind the other. Raises ValueError on other bytes."""
    position = 0
    while position < len(archive):
        if archive[position] == 0:  # the kernel allows any number of zeros between two archives
            position += 1
            continue
        header = archive[position : position + _HEADER]
        if header[:6] != _MAGIC or len(header) < _HEADER:
            raise ValueError(f"no cpio header at byte {position}")
        value = [int(header[start : start + 8], 16) for start in range(6, _HEADER, 8)]
        name_end = position + _HEADER + value[11]
        name = archive[position + _HEADER : name_end - 1].decode()
        start = name_end + -name_end % 4
        end = start + value[6]
        if end > len(archive):
            raise ValueError("the archive is cut short")
        position = end + -end % 4
        if name != _TRAILER:
            yield Entry(name, value[1], archive[start:end], value[2], value[3], (value[9], value[10]))
