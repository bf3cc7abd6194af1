"""Paths inside a directory that stands for `/`: nothing in it, whoever may write there, leads outside.

The kernel resolves the path with links pointing into that root (`RESOLVE_IN_ROOT`, Linux 5.6) and refuses the magic
links of /proc. What is missing is made by a walk that holds a descriptor of every directory on its way and follows
links itself, so a directory that is swapped for a link during the walk changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from . import constants as k
from .mount import openat2

MAX_LINKS = 40  # as the kernel's own limit, include/linux/namei.h
_RETRIES = 8
_IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS

Owner = tuple[int, int]  # user and group


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what `path` leads to inside the root, following links there. OSError."""
    for _ in range(_RETRIES):
        try:
            return openat2(root, path, flags, _IN_ROOT)
        except BlockingIOError:  # something was renamed while the kernel walked over a ".."
            continue
    raise OSError(errno.ELOOP, "openat2: the path keeps changing", path)


def make_in_root(root: int, path: str, *, directory: bool = True, owner: Owner | None = None) -> int:
    """Open a directory or file; what is missing of it is made. O_PATH descriptor, OSError.

    Links are followed inside the root, dangling ones too: Docker mounts over `/etc/resolv.conf` even where the image
    has a link to a file that does not exist. A new directory has the mode 0755, and belongs to `owner`; without one
    the process's umask and its user decide.
    """
    try:
        return open_in_root(root, path)
    except FileNotFoundError:
        return _Walk(root, directory, owner).run(path)


class _Walk:
    """One walk from the root, component by component."""

    def __init__(self, root: int, directory: bool, owner: Owner | None) -> None:
        self._stack = [os.dup(root)]
        self._directory = directory
        self._owner = owner
        self._links = 0

    def run(self, path: str) -> int:
        try:
            todo = components(path)
            while todo:
                name = todo.pop()
                if name == "..":
                    if len(self._stack) > 1:
                        os.close(self._stack.pop())
                    continue
                link = self._enter(name, last=not todo)
                if link is not None:
                    self._follow(link)
                    todo += components(link)
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
            try:
                return os.readlink("", dir_fd=found)
            finally:
                os.close(found)
        self._stack.append(found)
        return None

    def _make(self, name: str, here: int, last: bool) -> None:
        with contextlib.suppress(FileExistsError):  # somebody else has made it meanwhile
            if last and not self._directory:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=here))
            elif self._owner is None:
                os.mkdir(name, 0o755, dir_fd=here)
            else:
                os.mkdir(name, 0o700, dir_fd=here)
                made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                try:
                    os.fchown(made, *self._owner)
                    os.fchmod(made, 0o755)
                finally:
                    os.close(made)

    def _follow(self, link: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)
        if link.startswith("/"):
            while len(self._stack) > 1:
                os.close(self._stack.pop())


def components(path: str) -> list[str]:
    """The names of a path, last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
