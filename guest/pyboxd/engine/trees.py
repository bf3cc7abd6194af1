"""Directory trees of containers and volumes: copy, remove, measure. Blocking; called in worker threads.

Everything goes through descriptors of directories and follows no link, so that what a container put there cannot
lead anywhere else.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


class _Descent:
    """A walk through a tree by one descriptor, however deep it goes: that of the directory it is in."""

    def __init__(self, path: str) -> None:
        self.here = os.open(path, _FLAGS)
        self._above: list[tuple[str, os.stat_result, list[str]]] = []  # of the directories that led here
        self.names: list[str] = []  # what is still to do in this one

    def enter(self, name: str) -> None:
        """Go into a directory."""
        inner = os.open(name, _FLAGS, dir_fd=self.here)
        self._above.append((name, os.fstat(self.here), self.names))
        os.close(self.here)
        self.here = inner
        self.names = os.listdir(inner)

    def leave(self) -> str:
        """Go back up; the name of the directory that was left. OSError when it was moved meanwhile."""
        name, expected, self.names = self._above.pop()
        outer = os.open("..", _FLAGS, dir_fd=self.here)
        os.close(self.here)
        self.here = outer
        if not os.path.samestat(os.fstat(outer), expected):
            raise OSError(errno.EBUSY, "the tree was changed while it was walked", name)
        return name

    @property
    def depth(self) -> int:
        """How many directories the walk is below its start."""
        return len(self._above)

    def close(self) -> None:
        os.close(self.here)


def remove_tree(path: str) -> None:
    """Remove a directory with all it holds; nothing happens when it is not there."""
    parent, top = os.path.split(path)
    try:
        walk = _Descent(parent or "/")
    except FileNotFoundError:
        return
    try:
        if _unlink(walk.here, top):
            return
        walk.enter(top)
        while walk.depth:
            if walk.names:
                name = walk.names.pop()
                if not _unlink(walk.here, name):
                    walk.enter(name)
            else:
                left = walk.leave()
                with suppress(FileNotFoundError):
                    os.rmdir(left, dir_fd=walk.here)
    finally:
        walk.close()


def _unlink(parent: int, name: str) -> bool:
    """Remove a file; False when it is a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        return False
    return True


def tree_size(path: str) -> int:
    """Bytes of all regular files below `path`, each counted once; 0 when it is not there."""
    seen: set[tuple[int, int]] = set()
    total = 0
    parent, top = os.path.split(path)
    try:
        walk = _Descent(parent or "/")
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        walk.enter(top)
        while walk.depth:
            if not walk.names:
                walk.leave()
                continue
            name = walk.names.pop()
            with suppress(FileNotFoundError, NotADirectoryError):  # it may be in use
                status = os.stat(name, dir_fd=walk.here, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    walk.enter(name)
                elif stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_size
    except (FileNotFoundError, NotADirectoryError):
        return total
    finally:
        walk.close()
    return total


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    descriptor = os.open(name, _FLAGS, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def fill_empty(source: int, target: str) -> None:
    """Copy what the directory `source` (a descriptor) holds into `target`, if that is an empty directory.

    Owners, modes, times, extended attributes and hard links are kept; the target itself becomes like the source.
    """
    directory = os.open(target, _FLAGS)
    try:
        if not os.listdir(directory):
            _copy_directory(source, directory, {}, target)
    finally:
        os.close(directory)


def _copy_directory(source: int, target: int, links: dict[tuple[int, int], str], path: str) -> None:
    for name in os.listdir(source):
        _copy_entry(source, target, name, links, f"{path}/{name}")
    _copy_metadata(source, target)


def _copy_entry(source: int, target: int, name: str, links: dict[tuple[int, int], str], path: str) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        with _opened(source, name) as inner, _opened(target, name) as made:
            _copy_directory(inner, made, links, path)
        return
    identity = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and identity in links:
        os.link(links[identity], name, dst_dir_fd=target, follow_symlinks=False)
        return
    links[identity] = path
    if kind == stat.S_IFREG:
        _copy_file(source, target, name)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writing = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, _CHUNK):
                pass
            _copy_metadata(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_metadata(source: int, target: int) -> None:
    """Owner, mode, extended attributes and times of one open file to another."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(_OVERLAY_XATTRS):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
