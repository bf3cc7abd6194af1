"""Answers to the requests of the guest's kernel that are about the content of files."""

from __future__ import annotations

import os
from errno import EINVAL, EOPNOTSUPP, EPERM
from typing import TypeAlias

from pybox.share import native
from pybox.share import protocol as p
from pybox.share.native import posix
from pybox.share.nodes import Node, NodeTable, error
from pybox.share.protocol import Request

Answer: TypeAlias = bytes | memoryview | None  # None: this request has no reply

_LINUX_O_APPEND = 0o2000  # the guest's number, not this system's
_COPY = 16 << 20  # bytes copied at once: nothing else is answered meanwhile


class Content:
    """Reads and writes files. An answer is valid until the next one; OSError is the error that the guest sees."""

    def __init__(self, table: NodeTable) -> None:
        self._table = table
        self._buffer = memoryview(bytearray(p.MAX_WRITE))

    def read(self, request: Request) -> Answer:
        _, offset, size, *_ = p.READ_IN.unpack_from(request.body)
        descriptor = self._table.file(self._table.node(request.node))
        window = self._buffer[:size]
        return window[: native.read_into(descriptor, window, offset)]

    def write(self, request: Request) -> Answer:
        _, offset, size, write_flags, _, flags, _ = p.WRITE_IN.unpack_from(request.body)
        descriptor = self._table.file(self._target(request.node), write=True)
        data = request.body[p.WRITE_IN.size :][:size]
        if flags & _LINUX_O_APPEND and not write_flags & p.WRITE_CACHE:
            written = native.append(descriptor, data)  # the guest may not know yet what the host appended
        else:
            written = posix.pwrite(descriptor, data, offset)
        return p.WRITE_OUT.pack(written, 0)

    def copy(self, request: Request) -> Answer:
        _, offset, number, _, target_offset, length, _ = p.COPY_IN.unpack_from(request.body)
        into = self._table.file(self._target(number), write=True)
        source = self._table.file(self._table.node(request.node))
        return p.WRITE_OUT.pack(native.copy_range(source, offset, into, target_offset, min(length, _COPY)), 0)

    def sync(self, request: Request) -> Answer:
        _, flags, _ = p.FSYNC_IN.unpack_from(request.body)
        if request.node == p.ROOT_ID:
            return b""
        node = self._table.node(request.node)
        if node.is_directory:
            native.sync_directory(self._table.directory(node))
            return b""
        descriptor = self._table.file(node)
        if flags & p.FSYNC_DATA_ONLY and hasattr(os, "fdatasync"):
            posix.fdatasync(descriptor)
        else:
            os.fsync(descriptor)
        return b""

    def allocate(self, request: Request) -> Answer:
        _, offset, length, mode, _ = p.FALLOCATE_IN.unpack_from(request.body)
        if mode:
            raise error(EOPNOTSUPP)
        native.allocate(self._table.file(self._target(request.node), write=True), offset, length)
        return b""

    def seek(self, request: Request) -> Answer:
        _, offset, whence, _ = p.LSEEK_IN.unpack_from(request.body)
        if whence not in (3, 4):
            raise error(EINVAL)
        return p.LSEEK_OUT.pack(native.seek(self._table.file(self._table.node(request.node)), offset, whence))

    def _target(self, number: int) -> Node:
        if number == p.ROOT_ID:
            raise error(EPERM)
        node = self._table.node(number)
        self._table.check_writable(node)
        return node
