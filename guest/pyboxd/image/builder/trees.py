"""What COPY reads from: a tree of items, be it an image's file system or an archive that is not unpacked."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from pyboxd.image.builder.places import Root
from pyboxd.image.extract import get_attributes
from pyboxd.image.workers import Stop
from pyboxd.linux.inroot import Owner

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_PIECE = 256 * 1024
_RANGE = 8 * 1024 * 1024  # bytes that the kernel copies in one call
_SMALL = 64 * 1024  # bytes that are copied by hand, in one read and one write
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


class Item(Protocol):
    """One file, directory, link or device of a tree; valid while the tree's walk stands at it."""

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> int:
        """`st_mode`, with the kind."""
        ...

    @property
    def owner(self) -> Owner: ...
    @property
    def device(self) -> int:
        """`st_rdev`."""
        ...

    @property
    def times(self) -> tuple[int, int]:
        """Of access and change, nanoseconds."""
        ...

    @property
    def identity(self) -> object | None:
        """Equal for all names of one file, None if it has only this name."""
        ...

    def link(self) -> str:
        """The text of a symbolic link."""
        ...

    def attributes(self) -> Mapping[str, bytes]:
        """Extended attributes of a file or directory."""
        ...

    def digest(self, stop: Stop) -> bytes:
        """SHA-256 of a regular file's content."""
        ...

    def chunks(self, stop: Stop) -> Iterator[bytes]:
        """A regular file's content."""
        ...

    def write_to(self, target: int, stop: Stop) -> None:
        """Copy a regular file's content into an open empty file."""
        ...

    def children(self) -> Iterator[Item]:
        """What is in a directory, sorted by name."""
        ...


class Tree(Protocol):
    """A root of items; in paths links are followed inside it."""

    def mode(self, path: str) -> int | None:
        """`st_mode` of what the path leads to, None if that is nothing. OSError."""
        ...

    def names(self, folder: str) -> list[str]:
        """Sorted names in a directory; none if it is no directory."""
        ...

    def item(self, path: str) -> contextlib.AbstractContextManager[Item]:
        """What the path leads to. OSError."""
        ...


class RootTree:
    """The tree below a directory of the system."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def mode(self, path: str) -> int | None:
        status = self._root.status(path)
        return None if status is None else status.st_mode

    def names(self, folder: str) -> list[str]:
        try:
            descriptor = self._root.open_directory(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def item(self, path: str) -> Iterator[Item]:
        descriptor = self._root.open(path, _READ)
        found = _SystemItem(os.path.basename(path), os.fstat(descriptor), -1, descriptor)
        try:
            yield found
        finally:
            found.close()


class _SystemItem:
    """An item that the system has; `parent` is a descriptor of its directory."""

    def __init__(self, name: str, status: os.stat_result, parent: int, descriptor: int = -1) -> None:
        self.name = name
        self._status = status
        self._parent = parent
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def mode(self) -> int:
        return self._status.st_mode

    @property
    def owner(self) -> Owner:
        return self._status.st_uid, self._status.st_gid

    @property
    def device(self) -> int:
        return self._status.st_rdev

    @property
    def times(self) -> tuple[int, int]:
        return self._status.st_atime_ns, self._status.st_mtime_ns

    @property
    def identity(self) -> object | None:
        status = self._status
        return (status.st_dev, status.st_ino) if status.st_nlink > 1 else None

    def link(self) -> str:
        return os.readlink(self.name, dir_fd=self._parent)

    def attributes(self) -> Mapping[str, bytes]:
        return get_attributes(self._open())

    def digest(self, stop: Stop) -> bytes:
        found = hashlib.sha256()
        for data in self.chunks(stop):
            found.update(data)
        return found.digest()

    def chunks(self, stop: Stop) -> Iterator[bytes]:
        descriptor = self._open()
        position = 0
        while data := os.pread(descriptor, _PIECE, position):
            stop.check()
            position += len(data)
            yield data

    def write_to(self, target: int, stop: Stop) -> None:
        copy_content(self._open(), 0, self._status.st_size, target, stop)

    def children(self) -> Iterator[Item]:
        here = self._open()
        for name in sorted(os.listdir(here)):
            item = _SystemItem(name, os.stat(name, dir_fd=here, follow_symlinks=False), here)
            try:
                yield item
            finally:
                item.close()

    def _open(self) -> int:
        if self._descriptor < 0:
            self._descriptor = os.open(self.name, _READ | os.O_NOFOLLOW, dir_fd=self._parent)
        return self._descriptor


def copy_content(source: int, offset: int, size: int, target: int, stop: Stop) -> None:
    """Bytes of one open file to the end of another, by the kernel where it can. OSError(EIO) if they are not there."""
    end = offset + size
    for transfer in (_by_hand,) if size <= _SMALL else (_by_range, _by_sendfile, _by_hand):
        try:
            while offset < end:
                stop.check()
                done = transfer(source, offset, min(end - offset, _RANGE), target)
                if not done:
                    raise OSError(errno.EIO, "the file became shorter while it was copied")
                offset += done
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _by_range(source: int, offset: int, size: int, target: int) -> int:
    return os.copy_file_range(source, target, size, offset)


def _by_sendfile(source: int, offset: int, size: int, target: int) -> int:
    return os.sendfile(target, source, offset, size)


def _by_hand(source: int, offset: int, size: int, target: int) -> int:
    data = os.pread(source, min(size, _PIECE), offset)
    left = memoryview(data)
    while left:
        left = left[os.write(target, left) :]
    return len(data)


def is_left_out(mode: int, device: int) -> bool:
    """Sockets, and the device by which overlayfs says "removed", are never copied."""
    return stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and device == 0)


Excluded = Callable[[str], bool]  # by path relative to the copied directory
