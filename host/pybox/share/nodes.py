"""What the guest's kernel knows of the shared folders: nodes, where they are, and the descriptors behind them.

A node is a file, not a path: a hard link is the same node, and a file that was replaced is another one. How to get to
a node is remembered as places, a directory's node and a name in it; getting there opens each directory relative to
the one above it, follows no link, and then looks whether it is still the same file.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EACCES, EBADF, EISDIR, ENOENT, EPERM, EROFS, ESTALE, ETXTBSY
from pathlib import Path
from typing import TypeAlias

from pybox.model import Share
from pybox.share import native
from pybox.share.protocol import ROOT_ID

DIRECTORIES = 512  # directory descriptors kept open
FILES = 256  # file descriptors kept open
FIRST_SHARE = 2  # the node of the first share; the same in every life of the server
SELF = b"."  # a directory's name in itself
IDLE = 1.0  # seconds after which a program's file is not kept open for writing: it could not be run on the host

_WRITING = (os.O_RDWR, os.O_WRONLY)

Ident: TypeAlias = tuple[int, int, int, int]  # share, device, inode, format
Place: TypeAlias = tuple[int, bytes]  # node of a directory, name in it


def error(errno: int) -> OSError:
    return OSError(errno, os.strerror(errno))


@dataclass(slots=True, eq=False)
class Node:
    """A file that the guest knows."""

    id: int
    share: int  # index
    ident: Ident
    places: list[Place] = field(default_factory=list)
    lookups: int = 0  # how often the kernel was told of it and has not forgotten it
    pinned: int = -1  # descriptor of a file whose last name is gone

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.ident[3])

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.ident[3])


@dataclass(slots=True)
class _OpenFile:
    descriptor: int
    access: int  # O_RDONLY, O_WRONLY or O_RDWR
    used: float


class NodeTable:
    """All nodes of one session, and the open descriptors. Not for threads."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self.shares = tuple(shares)
        self._nodes: dict[int, Node] = {}
        self._idents: dict[Ident, Node] = {}
        self._places: dict[Place, Node] = {}
        self._directories: OrderedDict[int, int] = OrderedDict()
        self._files: OrderedDict[int, _OpenFile] = OrderedDict()
        # Numbers that no earlier life of this server has given: the kernel may still ask for those.
        self._next = time.time_ns()
        self.reset()

    def reset(self) -> None:
        """Close and forget everything, for a kernel that knows nothing."""
        self.close()
        self._nodes.clear()
        self._idents.clear()
        self._places.clear()
        for index in range(len(self.shares)):
            self._nodes[FIRST_SHARE + index] = Node(FIRST_SHARE + index, index, (index, 0, 0, stat.S_IFDIR))

    # -- nodes --------------------------------------------------------------------------------------

    def node(self, number: int) -> Node:
        """The node with a number. Raises OSError ESTALE."""
        found = self._nodes.get(number)
        if found is None:
            raise error(ESTALE)
        return found

    def check_writable(self, node: Node) -> None:
        """Raises OSError EROFS for what is in a read-only share."""
        if self.shares[node.share].readonly:
            raise error(EROFS)

    def share_root(self, name: bytes) -> Node:
        """The node of a share. Raises OSError ENOENT."""
        for index, share in enumerate(self.shares):
            if os.fsencode(share.name) == name:
                return self._nodes[FIRST_SHARE + index]
        raise error(ENOENT)

    def learn(self, parent: Node, name: bytes, status: os.stat_result) -> Node:
        """The node of what was just found in a directory, a new one when it is new."""
        ident = (parent.share, status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode))
        found = self._idents.get(ident)
        if found is None:
            found = Node(self._next, parent.share, ident)
            self._next += 1
            self._nodes[found.id] = self._idents[ident] = found
        self._put((parent.id, name), found)
        return found

    def at(self, parent: Node, name: bytes) -> Node | None:
        """The node last known at a place."""
        return self._places.get((parent.id, name))

    def known(self) -> list[tuple[Node, bool]]:
        """All nodes but those of shares, each with whether its file leads back to it."""
        first = FIRST_SHARE + len(self.shares)
        return [(node, self._idents.get(node.ident) is node) for node in self._nodes.values() if node.id >= first]

    def adopt(self, node: Node, is_of_file: bool) -> None:
        """Take over a node of an earlier life of this server, which the kernel still knows."""
        self._nodes[node.id] = node
        self._next = max(self._next, node.id + 1)
        if is_of_file:
            self._idents[node.ident] = node
        for place in node.places:
            self._places[place] = node

    def forget(self, number: int, count: int) -> None:
        """The kernel drops that many of its lookups; at none the node is gone."""
        node = self._nodes.get(number)
        if node is None:
            return
        node.lookups -= count
        if node.lookups > 0 or number < FIRST_SHARE + len(self.shares):
            return
        del self._nodes[number]
        if self._idents.get(node.ident) is node:
            del self._idents[node.ident]
        for place in node.places:
            del self._places[place]
        self._close_directory(number)
        self._close_file(number)
        if node.pinned >= 0:
            os.close(node.pinned)

    # -- places -------------------------------------------------------------------------------------

    def removed(self, parent: Node, name: bytes) -> None:
        """A name is gone."""
        node = self._places.pop((parent.id, name), None)
        if node is not None:
            node.places.remove((parent.id, name))

    def renamed(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> None:
        """A name has taken the place of another."""
        node = self.at(parent, name)
        if node is not None and node is self.at(new_parent, new_name):
            return  # two names of one file: the system leaves both
        self.removed(parent, name)
        self.removed(new_parent, new_name)
        if node is not None:
            self._put((new_parent.id, new_name), node)

    def exchanged(self, parent: Node, name: bytes, other_parent: Node, other_name: bytes) -> None:
        """Two names have taken each other's place."""
        node, other = self.at(parent, name), self.at(other_parent, other_name)
        self.removed(parent, name)
        self.removed(other_parent, other_name)
        if node is not None:
            self._put((other_parent.id, other_name), node)
        if other is not None:
            self._put((parent.id, name), other)

    def pin(self, node: Node) -> None:
        """Keep the content of a file whose last known name is about to go, until the kernel forgets it."""
        if node.is_file and node.pinned < 0 and len(node.places) < 2:
            opened = self._files.get(node.id)
            with suppress(OSError):
                if opened is not None and opened.access == os.O_RDWR:
                    node.pinned = os.dup(opened.descriptor)
                else:
                    node.pinned, _ = self._open_file(node, (os.O_RDWR, os.O_RDONLY, os.O_WRONLY), as_owner=True)

    def _put(self, place: Place, node: Node) -> None:
        before = self._places.get(place)
        if before is node:
            return
        if before is not None:
            before.places.remove(place)
        for old in [old for old in node.places if old[0] not in self._nodes]:
            del self._places[old]
            node.places.remove(old)
        self._places[place] = node
        node.places.append(place)

    # -- the way to a node --------------------------------------------------------------------------

    def locate(self, node: Node) -> tuple[int, bytes, os.stat_result]:
        """A directory's descriptor, the node's name in it, and its attributes, which say that it is still the same.

        Raises OSError: ENOENT when it is not where it was, ESTALE when something else is there.
        """
        if node.is_directory:
            descriptor = self.directory(node)
            return descriptor, SELF, os.fstat(descriptor)
        failure = ENOENT
        for parent, name in tuple(node.places):
            if parent not in self._nodes:
                continue
            try:
                descriptor = self.directory(self._nodes[parent])
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError as problem:
                failure = problem.errno or failure
                continue
            if _is(node, status):
                return descriptor, name, status
            failure = ESTALE
        raise error(failure)

    def open_status(self, node: Node) -> os.stat_result | None:
        """The attributes of a file that is open here, whatever became of its names; None when it is not."""
        opened = self._files.get(node.id)
        if node.pinned >= 0:
            return os.fstat(node.pinned)
        return None if opened is None else os.fstat(opened.descriptor)

    def directory(self, node: Node) -> int:
        """The descriptor of a directory, to reach what is in it; it stays the table's. Raises OSError."""
        descriptor = self._directories.get(node.id)
        if descriptor is not None:
            self._directories.move_to_end(node.id)
            return descriptor
        if node.id == ROOT_ID or not node.is_directory:
            raise error(ENOENT)
        descriptor = self._open_share(node) if node.id < FIRST_SHARE + len(self.shares) else self._open_directory(node)
        self._directories[node.id] = descriptor
        if len(self._directories) > DIRECTORIES:
            self._close_directory(next(iter(self._directories)))
        return descriptor

    def refresh_share(self, node: Node) -> None:
        """Open a share's folder again when another one has its path now. Raises OSError."""
        status = Path(self.shares[node.share].host_path).stat()
        descriptor = self._directories.get(node.id)
        if descriptor is not None and not os.path.samestat(os.fstat(descriptor), status):
            self._close_directory(node.id)
        self.directory(node)

    def _open_share(self, node: Node) -> int:
        # The one path that is walked, links and all: the user has named it.
        return os.open(self.shares[node.share].host_path, native.OPEN_DIRECTORY & ~native.NO_LINK)

    def _open_directory(self, node: Node) -> int:
        failure = ENOENT
        for parent, name in tuple(node.places):
            if parent not in self._nodes:
                continue
            try:
                above = self.directory(self._nodes[parent])
                descriptor = os.open(name, native.OPEN_DIRECTORY, dir_fd=above)
            except OSError as problem:
                failure = problem.errno or failure
                continue
            if _is(node, os.fstat(descriptor)):
                return descriptor
            os.close(descriptor)
            failure = ESTALE
        raise error(failure)

    # -- content ------------------------------------------------------------------------------------

    def file(self, node: Node, write: bool = False) -> int:
        """The descriptor of a file's content; it stays the table's. Raises OSError.

        A program that has a file open goes on whatever the file's mode has become, and a new file may be written by
        who made it with a mode that forbids just that. Which files programs have open is not known here, as opening is
        not asked for, so a file that belongs to the host's user is opened even against its mode.
        """
        if node.pinned >= 0:
            return node.pinned
        if node.is_directory:
            raise error(EISDIR)
        if not node.is_file:
            raise error(EBADF)
        unwanted = os.O_RDONLY if write else os.O_WRONLY
        opened = self._files.get(node.id)
        if opened is not None and opened.access != unwanted:
            self._files.move_to_end(node.id)
            opened.used = time.monotonic()
            return opened.descriptor
        descriptor, access = self._open_file(node, _WRITING if write else (os.O_RDONLY,), as_owner=True)
        self.keep_file(node, descriptor, access)
        return descriptor

    def file_to_truncate(self, node: Node) -> int:
        """As `file`, for a file that is not open yet: its mode is heeded."""
        if node.pinned >= 0:
            return node.pinned
        descriptor, access = self._open_file(node, _WRITING, as_owner=False)
        self.keep_file(node, descriptor, access)
        return descriptor

    def keep_file(self, node: Node, descriptor: int, access: int) -> None:
        """Give an open file of a node to the table."""
        self._close_file(node.id)
        self._files[node.id] = _OpenFile(descriptor, access, time.monotonic())
        if len(self._files) > FILES:
            self._close_file(next(iter(self._files)))

    def _open_file(self, node: Node, accesses: Sequence[int], as_owner: bool) -> tuple[int, int]:
        """Open a file with the first of these accesses that the system grants."""
        directory, name, status = self.locate(node)
        for access in accesses:
            try:
                descriptor = os.open(name, access | native.OPEN_FILE, dir_fd=directory)
            except OSError as problem:
                if as_owner and problem.errno == EACCES and status.st_uid == native.posix.geteuid():
                    descriptor = _open_against_mode(directory, name, access, stat.S_IMODE(status.st_mode))
                elif access != accesses[-1] and problem.errno in (EACCES, EPERM, EROFS, ETXTBSY):
                    continue
                else:
                    raise
            if _is(node, os.fstat(descriptor)):
                return descriptor, access
            os.close(descriptor)
            break
        raise error(ESTALE)

    def close_idle(self) -> None:
        """Close programs that were written a while ago: nothing can run them while they are open for writing."""
        long_ago = time.monotonic() - IDLE
        for number, opened in tuple(self._files.items()):
            is_old = opened.access != os.O_RDONLY and opened.used < long_ago
            if is_old and os.fstat(opened.descriptor).st_mode & 0o111:
                self._close_file(number)

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every descriptor."""
        for number in tuple(self._directories):
            self._close_directory(number)
        for number in tuple(self._files):
            self._close_file(number)
        for node in self._nodes.values():
            if node.pinned >= 0:
                os.close(node.pinned)
                node.pinned = -1

    def _close_directory(self, number: int) -> None:
        descriptor = self._directories.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)

    def _close_file(self, number: int) -> None:
        opened = self._files.pop(number, None)
        if opened is not None:
            os.close(opened.descriptor)


def _open_against_mode(directory: int, name: bytes, access: int, mode: int) -> int:
    native.change_mode(directory, name, mode | stat.S_IRUSR | stat.S_IWUSR)
    try:
        return os.open(name, access | native.OPEN_FILE, dir_fd=directory)
    finally:
        native.change_mode(directory, name, mode)


def _is(node: Node, status: os.stat_result) -> bool:
    return node.ident[1:] == (status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode))
