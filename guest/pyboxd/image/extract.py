"""Archives unpacked into a folder that they cannot leave. Blocking.

Every entry is made relative to the descriptor of its directory, names are cleaned first, and no link is followed on
the way but by who opens the directories (`Parents`). Extended attributes are limited to those that a
file may carry without changing how the file system is read.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from typing import Protocol

from pyboxd.frozen import frozen
from pyboxd.image.tarread import Kind, TarEntry, TarError, TarReader, clean_name

_ATTRIBUTES = ("user.", "security.capability", "system.posix_acl_")  # never trusted.overlay.…
_LATEST = (1 << 34) - 1  # seconds; ext4's last moment
_WRONG_SHAPE = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOENT, errno.EINVAL)


class Parents(Protocol):
    """Opens directories of the tree that is written, and so decides where links in it lead."""

    def open(self, path: str, make: bool) -> int:
        """A descriptor, the caller's to close, of the directory `path` ("" is the top). OSError."""
        ...


@frozen
class Rules:
    """What of an archive is taken over beside names, contents, modes and times."""

    owners: bool = False  # numeric owners of the archive; else everything belongs to the engine's user
    owner: tuple[int, int] | None = None  # this one for all instead
    devices: bool = False  # character and block devices; else they are left out


def extract(entries: TarReader, parents: Parents, rules: Rules) -> None:
    """Write all entries. TarError for what cannot be written as the archive wants it, OSError for a full disk."""
    extraction = _Extraction(parents, rules)
    for entry in entries:
        name = clean_name(entry.name)
        if not name:
            continue
        try:
            extraction.add(name, entry, entries.payload())
        except OSError as error:
            if error.errno not in _WRONG_SHAPE:
                raise
            raise TarError(f"cannot extract {name[:200]!r}: {error.strerror}") from error
    extraction.finish()


class _Extraction:
    def __init__(self, parents: Parents, rules: Rules) -> None:
        self._parents = parents
        self._rules = rules
        self._directories: dict[str, TarEntry] = {}  # modes and times are set when nothing more is written into them

    def add(self, name: str, entry: TarEntry, payload: Iterable[memoryview]) -> None:
        folder, _, base = name.rpartition("/")
        if entry.kind in (Kind.CHARACTER, Kind.BLOCK) and not self._rules.devices:
            return
        parent = self._parents.open(folder, True)
        try:
            if entry.kind is Kind.DIRECTORY:
                self._directory(parent, base, name)
                self._directories[name] = entry
                return
            if entry.kind is Kind.HARDLINK:
                self._hard_link(parent, base, clean_name(entry.link))
                return
            remove(parent, base)
            if entry.kind is Kind.FILE:
                self._file(parent, base, entry, payload)
            else:
                self._special(parent, base, entry)
        finally:
            os.close(parent)

    def finish(self) -> None:
        for name in sorted(self._directories, reverse=True):
            entry = self._directories[name]
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later entry
                descriptor = self._parents.open(name, False)
                try:
                    self._finish_open(descriptor, entry)
                finally:
                    os.close(descriptor)

    def _directory(self, parent: int, base: str, name: str) -> None:
        try:
            os.mkdir(base, 0o755, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                return
            if stat.S_ISLNK(mode):  # of the tree: a system's /lib is one, and must stay it
                with contextlib.suppress(OSError):
                    os.close(self._parents.open(name, False))
                    return
            os.unlink(base, dir_fd=parent)
            os.mkdir(base, 0o755, dir_fd=parent)

    def _hard_link(self, parent: int, base: str, target: str) -> None:
        if not target:
            raise TarError("invalid hard link in archive: it has no target")
        folder, _, name = target.rpartition("/")
        source = self._parents.open(folder, False)
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                raise TarError(f"invalid hard link in archive: {target[:200]!r} is a directory")
            if not _same(source, name, parent, base):
                remove(parent, base)
                os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _file(self, parent: int, base: str, entry: TarEntry, payload: Iterable[memoryview]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(base, flags, 0o600, dir_fd=parent)
        try:
            for piece in payload:
                left = piece
                while left:
                    left = left[os.write(descriptor, left) :]
            self._finish_open(descriptor, entry)
        finally:
            os.close(descriptor)

    def _special(self, parent: int, base: str, entry: TarEntry) -> None:
        mode = entry.mode & 0o7777
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.link, base, dir_fd=parent)
        elif entry.kind is Kind.FIFO:
            os.mkfifo(base, 0o600, dir_fd=parent)
        else:
            if entry.kind is Kind.CHARACTER and entry.device == (0, 0):
                return  # overlayfs would take it for "removed"
            kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
            os.mknod(base, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
        owner = self._owner(entry)
        if owner:
            os.chown(base, *owner, dir_fd=parent, follow_symlinks=False)
        if entry.kind is not Kind.SYMLINK:
            os.chmod(base, mode, dir_fd=parent)
        time = nanoseconds(entry.mtime)
        os.utime(base, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    def _owner(self, entry: TarEntry) -> tuple[int, int] | None:
        return self._rules.owner or ((entry.uid, entry.gid) if self._rules.owners else None)

    def _finish_open(self, descriptor: int, entry: TarEntry) -> None:
        owner = self._owner(entry)
        if owner:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, entry.mode & 0o7777)  # behind chown, which takes set-user-id away
        set_attributes(descriptor, entry.xattrs)
        time = nanoseconds(entry.mtime)
        os.utime(descriptor, ns=(time, time))


def remove(parent: int, name: str) -> None:
    """Remove whatever `name` is in that directory; nothing is followed. OSError, but not for what is missing."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # unlink(2) of a directory
        shutil.rmtree(name, dir_fd=parent)


def set_attributes(descriptor: int, attributes: Mapping[str, bytes]) -> None:
    """Set those extended attributes that are files' own. What the file system cannot keep is left out."""
    for key, value in attributes.items():
        if key.startswith(_ATTRIBUTES):
            try:
                os.setxattr(descriptor, key, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                    raise


def get_attributes(descriptor: int) -> dict[str, bytes]:
    """Those extended attributes of an open file that `set_attributes` would set."""
    try:
        keys = os.listxattr(descriptor)
    except OSError:
        return {}
    return {key: os.getxattr(descriptor, key) for key in keys if key.startswith(_ATTRIBUTES)}


def nanoseconds(seconds: float) -> int:
    """A time of an archive, moved into what a file system can hold."""
    if math.isnan(seconds):
        return 0
    return int(min(max(seconds, -(1 << 31)), _LATEST) * 1_000_000_000)


def _same(first: int, first_name: str, second: int, second_name: str) -> bool:
    try:
        one = os.stat(first_name, dir_fd=first, follow_symlinks=False)
        other = os.stat(second_name, dir_fd=second, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(one, other)
