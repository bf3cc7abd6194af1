"""Paths inside a container's root, opened so that nothing in the container can lead outside.

Every function takes a descriptor of the root. The kernel resolves the path with links pointing into that root
(`RESOLVE_IN_ROOT`) and refuses the magic links of /proc; what is missing is made by a walk that holds a
descriptor of every directory on its way and follows links itself, so a directory that is swapped for a link
during the walk changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from pyboxd.linux import constants as k
from pyboxd.linux.mount import openat2

_MAX_LINKS = 40  # as the kernel's own limit, include/linux/namei.h
_RETRIES = 8
_IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what `path` leads to inside the root, following links there. OSError."""
    for _ in range(_RETRIES):
        try:
            return openat2(root_fd, path, flags, _IN_ROOT)
        except BlockingIOError:  # something was renamed while the kernel walked over a ".."
            continue
    raise OSError(errno.ELOOP, "openat2: the path keeps changing", path)


def open_plain(directory_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a path that has no link in it at all; `OSError(ELOOP)` if there is one."""
    return openat2(directory_fd, path, flags, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_SYMLINKS)


def ordinary_directory(root_fd: int, path: str) -> int:
    """Open the directory for one of the runtime's own mounts, made if it is missing. OSError.

    An image that has a link in its place could otherwise choose where /proc or /dev is mounted.
    """
    try:
        return open_plain(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        parent, name = os.path.split(path.rstrip("/"))
        with _opened(ordinary_directory(root_fd, parent) if parent != "/" else os.dup(root_fd)) as above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
            return openat2(above, name, os.O_PATH | os.O_DIRECTORY, k.RESOLVE_NO_SYMLINKS | k.RESOLVE_BENEATH)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(error.errno, f'"{path}" must be mounted on ordinary directory') from error


def target(root_fd: int, path: str, directory: bool, mode: int = 0o755) -> int:
    """Open a directory or file of the container; what is missing of it is made. O_PATH descriptor, OSError.

    Links are followed inside the root, dangling ones too: Docker mounts over `/etc/resolv.conf` even where the
    image has a link to a file that does not exist.
    """
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        return _Walk(root_fd, directory, mode).run(path)


class _Walk:
    """One walk from the root, component by component."""

    def __init__(self, root_fd: int, directory: bool, mode: int) -> None:
        self._stack = [os.dup(root_fd)]
        self._directory = directory
        self._mode = mode
        self._links = 0

    def run(self, path: str) -> int:
        try:
            todo = _components(path)
            while todo:
                name = todo.pop()
                if name == "..":
                    if len(self._stack) > 1:
                        os.close(self._stack.pop())
                    continue
                link = self._enter(name, last=not todo)
                if link is not None:
                    self._follow(link)
                    todo += _components(link)
            return os.dup(self._stack[-1])
        finally:
            for descriptor in self._stack:
                os.close(descriptor)

    def _enter(self, name: str, last: bool) -> str | None:
        """Step into `name`, made if it is missing; the link's text if it is a link."""
        here = self._stack[-1]
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            found = os.open(name, flags, dir_fd=here)
        except FileNotFoundError:
            self._make(name, here, last)
            found = os.open(name, flags, dir_fd=here)
        if stat.S_ISLNK(os.fstat(found).st_mode):
            with _opened(found):
                return os.readlink("", dir_fd=found)
        self._stack.append(found)
        return None

    def _make(self, name: str, here: int, last: bool) -> None:
        with contextlib.suppress(FileExistsError):
            if last and not self._directory:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=here))
            else:
                os.mkdir(name, self._mode, dir_fd=here)

    def _follow(self, link: str) -> None:
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)
        if link.startswith("/"):
            while len(self._stack) > 1:
                os.close(self._stack.pop())


def _components(path: str) -> list[str]:
    """The names of a path, last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)
