"""Whose files are: the host's numbers, and beside them the owners that the guest set and the host would not.

A user who is not root cannot give files away. What a container asked for is remembered in an extended attribute of
the file, or, where there is none, in memory for as long as the server lives, and shown to the guest again.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from errno import EPERM

from pybox.share import native
from pybox.share.nodes import Ident, Node

ATTRIBUTE = "user.pybox.owner"
_CACHED = 65536  # files
KEEP = -1  # "leave it", in place of a uid or gid


class Owners:
    """The owners to show, and how to change them."""

    def __init__(self) -> None:
        # By file and time of its last change, which writing the attribute is too.
        self._read: OrderedDict[tuple[Ident, int], tuple[int, int] | None] = OrderedDict()
        self._unwritable: dict[Ident, tuple[int, int]] = {}

    def of(self, node: Node, directory: int, name: bytes, status: os.stat_result) -> tuple[int, int]:
        """The owner and group to show for what is called `name` in an open directory."""
        if self._unwritable and node.ident in self._unwritable:
            return self._unwritable[node.ident]
        key = (node.ident, status.st_ctime_ns)
        if key in self._read:
            remembered = self._read[key]
        else:
            remembered = self._read[key] = _parse(native.get_attribute(directory, name, ATTRIBUTE))
            if len(self._read) > _CACHED:
                self._read.popitem(last=False)
        return remembered or (status.st_uid, status.st_gid)

    def change(self, node: Node, directory: int, name: bytes, status: os.stat_result, uid: int, gid: int) -> None:
        """chown(2) by a container; either number may be KEEP. Raises OSError."""
        shown_uid, shown_gid = self.of(node, directory, name, status)
        wanted = (shown_uid if uid == KEEP else uid, shown_gid if gid == KEEP else gid)
        if wanted == (status.st_uid, status.st_gid) == (shown_uid, shown_gid):
            return
        try:
            os.chown(name, *wanted, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno != EPERM:
                raise
            self._remember(node, directory, name, wanted)
            return
        if (status.st_uid, status.st_gid) != (shown_uid, shown_gid):
            self._remember(node, directory, name, wanted)  # what was remembered would hide the real owner

    def _remember(self, node: Node, directory: int, name: bytes, owner: tuple[int, int]) -> None:
        if native.set_attribute(directory, name, ATTRIBUTE, b"%d:%d" % owner):
            self._unwritable.pop(node.ident, None)
        else:
            self._unwritable[node.ident] = owner


def _parse(value: bytes | None) -> tuple[int, int] | None:
    if value is None:
        return None
    uid, _, gid = value.partition(b":")
    if not (uid.isdigit() and gid.isdigit()) or max(int(uid), int(gid)) >= 1 << 32:
        return None  # somebody else's
    return int(uid), int(gid)
