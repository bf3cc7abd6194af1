"""Files and trees copied between two roots, as COPY does it. Blocking; everything goes through descriptors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.modes import ModeChange
from pyboxd.image.builder.places import Owner, Root
from pyboxd.image.extract import get_attributes, remove, set_attributes
from pyboxd.image.workers import Stop

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PIECE = 8 * 1024 * 1024
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


@dataclass(frozen=True)
class CopyRules:
    """How copies differ from their originals."""

    owner: Owner | None = None  # None keeps the original's
    mode: ModeChange | None = None  # None keeps the original's
    excluded: Callable[[str], bool] = lambda _: False  # by path relative to the copied directory


class TreeCopier:
    """Copies into `target`. Hard links among what one copier copies stay hard links."""

    def __init__(self, source: Root, target: Root, rules: CopyRules, stop: Stop) -> None:
        self._source = source
        self._target = target
        self._rules = rules
        self._stop = stop
        self._linked: dict[tuple[int, int], tuple[str, str]] = {}  # inode -> (directory, name) of its first copy

    def file(self, source: int, folder: str, base: str) -> None:
        """Copy an open regular file to `folder`/`base`; `folder` is made."""
        self._stop.check()
        into = self._target.make_directories(folder, self._rules.owner or (0, 0))
        try:
            status = os.fstat(source)
            if not self._link(status, into, base):
                self._clear(into, base, folder)
                self._content(source, into, base)
                self._remember(status, folder, base)
        finally:
            os.close(into)

    def contents(self, source: int, folder: str, *, take_over: bool) -> None:
        """Copy what is in the open directory `source` into `folder`.

        With `take_over` a directory that has to be made gets mode, owner and times of the source.
        """
        existed = self._target.status(folder)
        if existed is not None and not stat.S_ISDIR(existed.st_mode):
            raise InvalidArgument(f"cannot copy to non-directory: {folder}")
        into = self._target.make_directories(folder, self._rules.owner or (0, 0))
        try:
            self._children(source, "", into, folder)
            if take_over and existed is None:
                self._finish(source, into, os.fstat(source))
        finally:
            os.close(into)

    def _children(self, source: int, path: str, into: int, folder: str) -> None:
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            inner = f"{path}/{name}" if path else name
            if not self._rules.excluded(inner):
                self._entry(source, name, inner, into, folder, name)

    def _entry(self, parent: int, name: str, path: str, into: int, folder: str, base: str) -> None:
        self._stop.check()
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self._directory(parent, name, path, into, f"{folder}/{base}", base)
        elif stat.S_ISREG(mode):
            if not self._link(status, into, base):
                self._clear(into, base, folder)
                self._regular(parent, name, into, base)
                self._remember(status, folder, base)
        elif not _left_out(status) and not self._link(status, into, base):
            self._clear(into, base, folder)
            self._special(parent, name, status, into, base)
            self._remember(status, folder, base)

    def _directory(self, parent: int, name: str, path: str, into: int, folder: str, base: str) -> None:
        source = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            inner = self._inner_directory(into, folder, base)
            try:
                self._children(source, path, inner, folder)
                self._finish(source, inner, os.fstat(source))
            finally:
                os.close(inner)
        finally:
            os.close(source)

    def _inner_directory(self, into: int, folder: str, base: str) -> int:
        """The directory to copy into, made if it is missing; a link to a directory stands for it."""
        try:
            os.mkdir(base, 0o755, dir_fd=into)
        except FileExistsError:
            found = os.stat(base, dir_fd=into, follow_symlinks=False).st_mode
            if stat.S_ISLNK(found):
                there = self._target.status(folder)
                if there is not None and stat.S_ISDIR(there.st_mode):
                    return self._target.open_directory(folder)
            if not stat.S_ISDIR(found):
                raise InvalidArgument(f"cannot copy to non-directory: {folder}") from None
        return os.open(base, _DIRECTORY, dir_fd=into)

    def _clear(self, into: int, base: str, folder: str) -> None:
        try:
            found = os.stat(base, dir_fd=into, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise InvalidArgument(f"cannot copy to directory: {folder}/{base} is a directory")
        remove(into, base)

    def _link(self, status: os.stat_result, into: int, base: str) -> bool:
        first = self._linked.get((status.st_dev, status.st_ino)) if status.st_nlink > 1 else None
        if first is None:
            return False
        folder, name = first
        directory = self._target.open_directory(folder)
        try:
            remove(into, base)
            os.link(name, base, src_dir_fd=directory, dst_dir_fd=into, follow_symlinks=False)
        except FileNotFoundError:  # the first copy was overwritten since
            return False
        finally:
            os.close(directory)
        return True

    def _remember(self, status: os.stat_result, folder: str, base: str) -> None:
        if status.st_nlink > 1:
            self._linked[status.st_dev, status.st_ino] = (folder, base)

    def _regular(self, parent: int, name: str, into: int, base: str) -> None:
        source = os.open(name, _READ, dir_fd=parent)
        try:
            self._content(source, into, base)
        finally:
            os.close(source)

    def _content(self, source: int, into: int, base: str) -> None:
        target = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=into)
        try:
            copy_content(source, target, self._stop)
            self._finish(source, target, os.fstat(source))
        finally:
            os.close(target)

    def _special(self, parent: int, name: str, status: os.stat_result, into: int, base: str) -> None:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent), base, dir_fd=into)
        else:
            os.mknod(base, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=into)
        uid, gid = self._rules.owner or (status.st_uid, status.st_gid)
        os.chown(base, uid, gid, dir_fd=into, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(base, self._mode(status), dir_fd=into)
        os.utime(base, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=into, follow_symlinks=False)

    def _finish(self, source: int, target: int, status: os.stat_result) -> None:
        uid, gid = self._rules.owner or (status.st_uid, status.st_gid)
        os.fchown(target, uid, gid)
        os.fchmod(target, self._mode(status))
        set_attributes(target, get_attributes(source))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _mode(self, status: os.stat_result) -> int:
        mode = stat.S_IMODE(status.st_mode)
        if self._rules.mode is None:
            return mode
        return self._rules.mode.apply(mode, directory=stat.S_ISDIR(status.st_mode))


def _left_out(status: os.stat_result) -> bool:
    """Sockets, and the device that overlayfs writes for what was removed."""
    return stat.S_ISSOCK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == 0)


def copy_content(source: int, target: int, stop: Stop) -> None:
    """All bytes of one open file into another, by the kernel where it can."""
    for transfer in (_by_range, _by_sendfile):
        try:
            while transfer(source, target):
                stop.check()
            return
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
    while data := os.read(source, 1 << 20):
        stop.check()
        left = memoryview(data)
        while left:
            left = left[os.write(target, left) :]


def _by_range(source: int, target: int) -> int:
    return os.copy_file_range(source, target, _PIECE)


def _by_sendfile(source: int, target: int) -> int:
    return os.sendfile(target, source, None, _PIECE)
