"""Whose files are: the host's numbers, and beside them what the guest set and the host would not.

A user who is not root cannot give files away, nor change the mode of what is not his. What a container asked for is
remembered in an extended attribute of the file, or, where it takes none, in notes, and shown to the guest again.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from errno import EPERM

from pybox.model import Share
from pybox.share import native
from pybox.share.nodes import Ident, Node
from pybox.share.notes import Key, Notes, Owner, key_of

ATTRIBUTE = "user.pybox.owner"
_CACHED = 65536  # files
KEEP = -1  # "leave it", in place of a uid or gid


class Owners:
    """The owners to show, and how to change them."""

    def __init__(self, shares: Sequence[Share], notes: Notes) -> None:
        # What was read, and the time of the file's last change by then: writing the attribute is one.
        self._read: OrderedDict[Ident, tuple[int, Owner | None]] = OrderedDict()
        self._shares = tuple(shares)
        self._notes = notes

    def of(self, node: Node, directory: int, name: bytes, status: os.stat_result) -> Owner:
        """The owner to show for what is called `name` in an open directory."""
        return self._remembered(node, directory, name, status) or Owner(status.st_uid, status.st_gid)

    def change(self, node: Node, directory: int, name: bytes, status: os.stat_result, uid: int, gid: int) -> None:
        """chown(2) by a container; either number may be KEEP. Raises OSError."""
        shown = self.of(node, directory, name, status)
        wanted = Owner(shown.uid if uid == KEEP else uid, shown.gid if gid == KEEP else gid, shown.mode)
        if wanted == shown and (status.st_uid, status.st_gid) == shown[:2]:
            return
        try:
            native.posix.chown(name, wanted.uid, wanted.gid, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno != EPERM:
                raise
            self._remember(node, directory, name, status, wanted)
            return
        if (status.st_uid, status.st_gid) != shown[:2]:
            self._remember(node, directory, name, status, wanted)  # what was remembered would hide the real owner

    def change_mode(self, node: Node, directory: int, name: bytes, status: os.stat_result, mode: int) -> None:
        """chmod(2) by a container. Raises OSError."""
        shown = self.of(node, directory, name, status)
        try:
            native.change_mode(directory, name, mode)
        except OSError as error:
            if error.errno != EPERM:
                raise
            self._remember(node, directory, name, status, shown._replace(mode=mode))
            return
        if shown.mode is not None:
            self._remember(node, directory, name, status, shown._replace(mode=None))

    def key(self, parent: Node, directory: int, name: bytes) -> Key | None:
        """What `forget` needs for a name that is about to go; None when there is nothing to forget."""
        if not self._notes:
            return None
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return None
        is_last = stat.S_ISDIR(status.st_mode) or status.st_nlink == 1
        return key_of(self._shares[parent.share].host_path, status) if is_last else None

    def forget(self, key: Key | None) -> None:
        """A file is gone; another may get its number."""
        if key is not None:
            self._notes.put(key, None)

    def _remembered(self, node: Node, directory: int, name: bytes, status: os.stat_result) -> Owner | None:
        if self._notes:
            noted = self._notes.get(key_of(self._shares[node.share].host_path, status))
            if noted is not None:
                return noted
        read = self._read.get(node.ident)
        if read is not None and read[0] == status.st_ctime_ns:
            return read[1]
        owner = _parse(native.get_attribute(directory, name, ATTRIBUTE))
        self._read[node.ident] = (status.st_ctime_ns, owner)
        if len(self._read) > _CACHED:
            self._read.popitem(last=False)
        return owner

    def _remember(self, node: Node, directory: int, name: bytes, status: os.stat_result, owner: Owner) -> None:
        key = key_of(self._shares[node.share].host_path, status)
        text = b"%d:%d" % owner[:2] + (b"" if owner.mode is None else b":%o" % owner.mode)
        is_written = native.set_attribute(directory, name, ATTRIBUTE, text)
        self._read.pop(node.ident, None)  # two changes within one tick of the clock have the same time
        self._notes.put(key, None if is_written else owner)


def _parse(value: bytes | None) -> Owner | None:
    if value is None:
        return None
    try:
        uid, gid, *mode = value.split(b":")
        owner = Owner(int(uid), int(gid), int(mode[0], 8) if mode else None)
    except ValueError:
        return None  # somebody else's
    return owner if all(0 <= number < 1 << 32 for number in owner[:2]) and 0 <= (owner.mode or 0) < 1 << 12 else None
