"""Answers to the requests of the guest's kernel: each a few calls relative to an open directory.

Requests for the content of files are in `content`.
What the guest may do is what the user of the host may do; a read-only share refuses every change. `OSError` from here
becomes the error that the guest sees.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from errno import EACCES, EINVAL, ENOENT, ENOSYS, ENOTTY, EPERM, EROFS, EXDEV
from pathlib import Path
from typing import TypeAlias

from pybox.model import Share
from pybox.share import native
from pybox.share import protocol as p
from pybox.share.attributes import Attributes
from pybox.share.content import Answer, Content
from pybox.share.listing import Listings, Name, read_names
from pybox.share.native import posix
from pybox.share.nodes import FIRST_SHARE, Node, NodeTable, error
from pybox.share.notes import Notes
from pybox.share.owners import KEEP
from pybox.share.protocol import Opcode, Request

LIFETIME = 1  # seconds for which the guest believes names and attributes: how late it sees the host's changes
_GOOD_NAME_LENGTH = 255

Handler: TypeAlias = Callable[[Request], Answer]

_MADE = (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK)


def _refuse(errno: int) -> Handler:
    def handler(_: Request) -> Answer:
        raise error(errno)

    return handler


def _accept(_: Request) -> Answer:
    return b""


class Session:
    """What one guest kernel does with the shares, from its INIT to the next one's. Not for threads.

    `notes` is the file for the owners of what takes no extended attribute.
    """

    def __init__(self, shares: Sequence[Share], notes: Path | None = None) -> None:
        self._shares = tuple(shares)
        self.table = NodeTable(self._shares)
        self._attributes = Attributes(self.table, Notes(notes))
        self._content = Content(self.table)
        self._listings = Listings()
        self._user = posix.geteuid()
        self._handlers = self._make_handlers()

    def answer(self, request: Request) -> Answer:
        """Do what a request asks for. Raises OSError; the answer is valid until the next request."""
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise error(ENOSYS)
        return handler(request)

    def _make_handlers(self) -> dict[int, Handler]:
        return {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget_many,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.READLINK: self._readlink,
            Opcode.SYMLINK: self._symlink,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.CREATE: self._create,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename2,
            Opcode.LINK: self._link,
            Opcode.READ: self._content.read,
            Opcode.WRITE: self._content.write,
            Opcode.FSYNC: self._content.sync,
            Opcode.FSYNCDIR: self._content.sync,
            Opcode.FALLOCATE: self._content.allocate,
            Opcode.LSEEK: self._content.seek,
            Opcode.COPY_FILE_RANGE: self._content.copy,
            Opcode.ACCESS: self._access,
            Opcode.STATFS: self._statfs,
            Opcode.OPENDIR: lambda _: _OPENED,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdir,
            Opcode.INTERRUPT: lambda _: None,
            Opcode.RELEASE: _accept,
            Opcode.RELEASEDIR: _accept,
            Opcode.DESTROY: _accept,
            Opcode.IOCTL: _refuse(ENOTTY),
        }

    def _init(self, request: Request) -> Answer:
        self.table.reset()
        self._listings = Listings()
        try:
            return p.init_answer(request.body)
        except p.ProtocolError as problem:
            raise error(EINVAL) from problem

    # -- names --------------------------------------------------------------------------------------

    def _lookup(self, request: Request) -> Answer:
        (name,) = p.names(request.body, 0, 1)
        if request.node == p.ROOT_ID:
            return self._share_entry(self.table.share_root(name))
        parent, directory = self._inside(request, name)
        return self._entry(parent, directory, name)

    def _share_entry(self, node: Node) -> bytes:
        self.table.refresh_share(node)
        return p.entry(node.id, LIFETIME, self._attributes.of(node))

    def _entry(self, parent: Node, directory: int, name: bytes) -> bytes:
        """Find a name and count it as one the kernel knows."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        node = self.table.learn(parent, name, status)
        node.lookups += 1
        return p.entry(node.id, LIFETIME, self._attributes.at(node, directory, name, status))

    def _inside(self, request: Request, name: bytes, change: bool = False) -> tuple[Node, int]:
        """The directory of a request, open, and safe to be asked for a name. Raises OSError."""
        if request.node == p.ROOT_ID:
            raise error(EPERM if change else ENOENT)
        if not name or name in (b".", b"..") or b"/" in name:
            raise error(EINVAL)  # no kernel asks for these: they would lead out of the directory
        node = self.table.node(request.node)
        if change:
            self.table.check_writable(node)
        return node, self.table.directory(node)

    def _check_same_share(self, one: int, other: int) -> None:
        if p.ROOT_ID in (one, other):
            raise error(EPERM)
        if self.table.node(one).share != self.table.node(other).share:
            raise error(EXDEV)  # two file systems, as far as programs need to know

    def _target(self, request: Request) -> Node:
        """The node of a request that changes it."""
        if request.node == p.ROOT_ID:
            raise error(EPERM)
        node = self.table.node(request.node)
        self.table.check_writable(node)
        return node

    def _forget(self, request: Request) -> Answer:
        self.table.forget(request.node, p.FORGET_IN.unpack_from(request.body)[0])
        return None

    def _forget_many(self, request: Request) -> Answer:
        count, _ = p.BATCH_FORGET_IN.unpack_from(request.body)
        known = request.body[p.BATCH_FORGET_IN.size :][: count * p.FORGET_ONE.size]
        for number, lookups in p.FORGET_ONE.iter_unpack(known):
            self.table.forget(number, lookups)
        return None

    # -- attributes ---------------------------------------------------------------------------------

    def _getattr(self, request: Request) -> Answer:
        if request.node == p.ROOT_ID:
            return p.ATTR_OUT.pack(LIFETIME, 0, 0, *self._root_attributes())
        return p.ATTR_OUT.pack(LIFETIME, 0, 0, *self._attributes.of(self.table.node(request.node)))

    def _access(self, request: Request) -> Answer:
        """access(2), and chdir: what is true is what the operations themselves would allow."""
        mask, _ = p.ACCESS_IN.unpack_from(request.body)
        if request.node == p.ROOT_ID:
            if mask & os.W_OK:
                raise error(EROFS)
            return b""
        node = self.table.node(request.node)
        if mask & os.W_OK:
            self.table.check_writable(node)
        if not self._attributes.may(node, mask, is_root=request.uid == 0):
            raise error(EACCES)
        return b""

    def _root_attributes(self) -> tuple[int, ...]:
        mode = stat.S_IFDIR | 0o555
        return (p.ROOT_ID, 0, 0, 0, 0, 0, 0, 0, 0, mode, 2 + len(self._shares), 0, 0, 0, 4096, 0)

    def _setattr(self, request: Request) -> Answer:
        node = self._target(request)
        self._attributes.change(node, p.SETATTR_IN.unpack_from(request.body))
        return p.ATTR_OUT.pack(LIFETIME, 0, 0, *self._attributes.of(node))

    def _statfs(self, request: Request) -> Answer:
        if request.node == p.ROOT_ID:
            return p.STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, _GOOD_NAME_LENGTH, 4096, *(0,) * 7)
        node = self.table.node(request.node)
        directory = self.table.directory(node if node.is_directory else self.table.node(FIRST_SHARE + node.share))
        found = posix.fstatvfs(directory)
        return p.STATFS_OUT.pack(
            *(found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree),
            *(found.f_bsize, found.f_namemax, found.f_frsize),
            *(0,) * 7,
        )

    # -- new and gone names -------------------------------------------------------------------------

    def _created(self, request: Request, parent: Node, directory: int, name: bytes) -> bytes:
        """Give what was just made to the process that asked for it, and tell the kernel of it."""
        if request.uid not in (0, self._user):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            inherits = os.fstat(directory).st_mode & stat.S_ISGID
            node = self.table.learn(parent, name, status)
            self._attributes.owners.change(node, directory, name, status, request.uid, KEEP if inherits else request.gid)
        return self._entry(parent, directory, name)

    def _mknod(self, request: Request) -> Answer:
        mode, *_ = p.MKNOD_IN.unpack_from(request.body)
        (name,) = p.names(request.body, p.MKNOD_IN.size, 1)
        parent, directory = self._inside(request, name, change=True)
        if (stat.S_IFMT(mode) or stat.S_IFREG) not in _MADE:
            raise error(EPERM)  # a device of the guest would be one of the host
        posix.mknod(name, mode, dir_fd=directory)
        return self._created(request, parent, directory, name)

    def _mkdir(self, request: Request) -> Answer:
        mode, _ = p.MKDIR_IN.unpack_from(request.body)
        (name,) = p.names(request.body, p.MKDIR_IN.size, 1)
        parent, directory = self._inside(request, name, change=True)
        os.mkdir(name, mode, dir_fd=directory)
        return self._created(request, parent, directory, name)

    def _symlink(self, request: Request) -> Answer:
        name, target = p.names(request.body, 0, 2)
        parent, directory = self._inside(request, name, change=True)
        os.symlink(target, name, dir_fd=directory)
        return self._created(request, parent, directory, name)

    def _create(self, request: Request) -> Answer:
        flags, mode, *_ = p.CREATE_IN.unpack_from(request.body)
        (name,) = p.names(request.body, p.CREATE_IN.size, 1)
        parent, directory = self._inside(request, name, change=True)
        try:
            descriptor = os.open(
                name, os.O_RDWR | os.O_CREAT | os.O_EXCL | native.OPEN_FILE, stat.S_IMODE(mode), dir_fd=directory
            )
        except FileExistsError:
            if flags & _LINUX_O_EXCL:
                raise
            entry = self._entry(parent, directory, name)  # the host was faster
            node = self.table.at(parent, name)
            if flags & _LINUX_O_TRUNC and node is not None and node.is_file:
                os.ftruncate(self.table.file_to_truncate(node), 0)
            return entry + _OPENED
        try:
            entry = self._created(request, parent, directory, name)
        except OSError:
            os.close(descriptor)
            raise
        node = self.table.at(parent, name)
        assert node is not None
        self.table.keep_file(node, descriptor, os.O_RDWR)
        return entry + _OPENED

    def _link(self, request: Request) -> Answer:
        (source,) = p.LINK_IN.unpack_from(request.body)
        (name,) = p.names(request.body, p.LINK_IN.size, 1)
        self._check_same_share(request.node, source)
        parent, _ = self._inside(request, name, change=True)
        node = self.table.node(source)
        old_directory, old_name, _ = self.table.locate(node)
        directory = self.table.directory(parent)
        os.link(old_name, name, src_dir_fd=old_directory, dst_dir_fd=directory, follow_symlinks=False)
        return self._entry(parent, directory, name)

    def _unlink(self, request: Request) -> Answer:
        (name,) = p.names(request.body, 0, 1)
        parent, directory = self._inside(request, name, change=True)
        node = self.table.at(parent, name)
        if node is not None:
            self.table.pin(node)
        owner = self._attributes.owners.key(parent, directory, name)
        os.unlink(name, dir_fd=directory)
        self._attributes.owners.forget(owner)
        self.table.removed(parent, name)
        return b""

    def _rmdir(self, request: Request) -> Answer:
        (name,) = p.names(request.body, 0, 1)
        parent, directory = self._inside(request, name, change=True)
        owner = self._attributes.owners.key(parent, directory, name)
        os.rmdir(name, dir_fd=directory)
        self._attributes.owners.forget(owner)
        self.table.removed(parent, name)
        return b""

    def _rename(self, request: Request) -> Answer:
        (target,) = p.RENAME_IN.unpack_from(request.body)
        return self._move(request, target, p.names(request.body, p.RENAME_IN.size, 2), 0)

    def _rename2(self, request: Request) -> Answer:
        target, flags, _ = p.RENAME2_IN.unpack_from(request.body)
        return self._move(request, target, p.names(request.body, p.RENAME2_IN.size, 2), flags)

    def _move(self, request: Request, target: int, names: Sequence[bytes], flags: int) -> Answer:
        name, new_name = names
        self._check_same_share(request.node, target)
        parent, directory = self._inside(request, name, change=True)
        new_parent, new_directory = self._inside(request._replace(node=target), new_name, change=True)
        directory = self.table.directory(parent)  # opening the other may have closed it
        if flags not in (0, p.RENAME_NOREPLACE, p.RENAME_EXCHANGE):
            raise error(EINVAL)
        if flags == p.RENAME_EXCHANGE:
            native.exchange(directory, name, new_directory, new_name)
            self.table.exchanged(parent, name, new_parent, new_name)
            return b""
        replaced = self.table.at(new_parent, new_name)
        if flags:
            native.rename_no_replace(directory, name, new_directory, new_name)
        else:
            if replaced is not None and replaced is not self.table.at(parent, name):
                self.table.pin(replaced)
            owner = self._attributes.owners.key(new_parent, new_directory, new_name)
            os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
            self._attributes.owners.forget(owner)
        self.table.renamed(parent, name, new_parent, new_name)
        return b""

    def _readlink(self, request: Request) -> Answer:
        directory, name, _ = self.table.locate(self.table.node(request.node))
        return os.readlink(name, dir_fd=directory)

    # -- listings -----------------------------------------------------------------------------------

    def _readdir(self, request: Request) -> Answer:
        _, offset, size, *_ = p.READ_IN.unpack_from(request.body)
        is_root = request.node == p.ROOT_ID
        node = None if is_root else self.table.node(request.node)
        directory = -1 if node is None else self.table.directory(node)
        listing = self._listings.find(request.node, offset) if offset else None
        if listing is None:
            listing = self._listings.make(request.node, self._root_names() if node is None else read_names(directory))
        device = 0 if node is None else os.fstat(directory).st_dev
        plus = request.opcode == Opcode.READDIRPLUS
        found = bytearray()
        for index in range(offset & 0xFFFF_FFFF, len(listing.names)):
            name = listing.names[index]
            inode = name.inode if node is None else self._attributes.inode(device, name.inode)
            entry = p.directory_entry(inode, listing.cookie(index), name.mode, name.name)
            if len(found) + len(entry) + (p.ENTRY_OUT.size if plus else 0) > size:
                break
            found += (self._plus(node, directory, name.name) if plus else b"") + entry
        return bytes(found)

    def _root_names(self) -> tuple[Name, ...]:
        shares = (Name(os.fsencode(share.name), FIRST_SHARE + i, stat.S_IFDIR) for i, share in enumerate(self._shares))
        return (Name(b".", p.ROOT_ID, stat.S_IFDIR), Name(b"..", p.ROOT_ID, stat.S_IFDIR), *shares)

    def _plus(self, node: Node | None, directory: int, name: bytes) -> bytes:
        """The attributes of one entry of a listing; zeros where the kernel shall ask when it wants them."""
        if name in (b".", b".."):
            return _NO_ENTRY
        try:
            if node is None:
                return self._share_entry(self.table.share_root(name))
            return self._entry(node, directory, name)
        except OSError:
            return _NO_ENTRY


_OPENED = p.OPEN_OUT.pack(0, 0, 0)  # listings are known by their offsets
_NO_ENTRY = bytes(p.ENTRY_OUT.size)
_LINUX_O_EXCL, _LINUX_O_TRUNC = 0o200, 0o1000  # the guest's numbers, not this system's
