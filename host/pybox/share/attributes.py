"""The attributes of nodes as the guest sees them, and how it changes them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence

from pybox.share import native
from pybox.share import protocol as p
from pybox.share.native import posix
from pybox.share.nodes import Node, NodeTable
from pybox.share.notes import Notes
from pybox.share.owners import KEEP, Owners


class Attributes:
    """Reads and changes them. What it remembers outlives the table of one session."""

    def __init__(self, table: NodeTable, notes: Notes) -> None:
        self.table = table
        self.owners = Owners(table.shares, notes)
        self._devices: dict[int, int] = {}

    def of(self, node: Node) -> tuple[int, ...]:
        """The fields of `struct fuse_attr`. Raises OSError when the node is gone."""
        if node.pinned < 0:
            try:
                directory, name, status = self.table.locate(node)
                return self.at(node, directory, name, status)
            except OSError:
                if self.table.open_status(node) is None:
                    raise
        opened = self.table.open_status(node)
        assert opened is not None
        return p.attributes(opened, self.inode(opened.st_dev, opened.st_ino), opened.st_uid, opened.st_gid)

    def at(self, node: Node, directory: int, name: bytes, status: os.stat_result) -> tuple[int, ...]:
        """The same for a node that was just found in an open directory."""
        owner = self.owners.of(node, directory, name, status)
        return p.attributes(status, self.inode(status.st_dev, status.st_ino), *owner)

    def inode(self, device: int, inode: int) -> int:
        """The number that tells a file from all others, on whatever disk of the host it is."""
        number = self._devices.setdefault(device, len(self._devices))
        return inode ^ number << 48

    def may(self, node: Node, mask: int, is_root: bool) -> bool:
        """Whether access(2) grants `mask`. The guest's root may also what the owner of a file could grant himself."""
        directory, name, status = self.table.locate(node)
        if stat.S_ISLNK(status.st_mode):
            return True
        if is_root and node.is_file and status.st_uid == posix.geteuid():
            return not mask & os.X_OK or bool(status.st_mode & 0o111)
        return native.may(directory, name, mask)

    def change(self, node: Node, fields: Sequence[int]) -> None:
        """Do what a SETATTR with these fields asks for. Raises OSError."""
        valid, size, mode, uid, gid = (fields[index] for index in (0, 3, 11, 13, 14))
        if valid & (p.SET_UID | p.SET_GID):
            self._chown(node, uid if valid & p.SET_UID else KEEP, gid if valid & p.SET_GID else KEEP)
        if valid & p.SET_MODE:
            self._chmod(node, stat.S_IMODE(mode))
        if valid & p.SET_SIZE:
            is_open = valid & p.SET_OPEN_FILE
            os.ftruncate(self.table.file(node, write=True) if is_open else self.table.file_to_truncate(node), size)
        if valid & (p.SET_ATIME | p.SET_MTIME):
            self._set_times(node, valid, (fields[5], fields[8]), (fields[6], fields[9]))

    def _chown(self, node: Node, uid: int, gid: int) -> None:
        if node.pinned >= 0:
            posix.fchown(node.pinned, uid, gid)
        else:
            self.owners.change(node, *self.table.locate(node), uid, gid)

    def _chmod(self, node: Node, mode: int) -> None:
        if node.pinned >= 0:
            posix.fchmod(node.pinned, mode)
        else:
            self.owners.change_mode(node, *self.table.locate(node), mode)

    def _set_times(self, node: Node, valid: int, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
        opened = self.table.open_status(node) if node.pinned >= 0 else None
        directory, name, status = (-1, b"", opened) if opened is not None else self.table.locate(node)
        now = p.SET_ATIME_NOW | p.SET_MTIME_NOW
        times = None  # both now: who may write but does not own may set this, and nothing else
        if valid & now != now:
            times = (
                _nanoseconds(valid & p.SET_ATIME, valid & p.SET_ATIME_NOW, atime, status.st_atime_ns),
                _nanoseconds(valid & p.SET_MTIME, valid & p.SET_MTIME_NOW, mtime, status.st_mtime_ns),
            )
        native.set_times(node.pinned if opened is not None else name, directory, times)


def _nanoseconds(is_set: int, is_now: int, value: tuple[int, int], before: int) -> int:
    if not is_set:
        return before
    if is_now:
        return time.time_ns()
    seconds = value[0] - (1 << 64) if value[0] >= 1 << 63 else value[0]
    return seconds * 1_000_000_000 + value[1]
