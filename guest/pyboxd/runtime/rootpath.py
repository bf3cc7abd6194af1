"""Places in a container's root for mounts that no link may choose."""

from __future__ import annotations

import contextlib
import errno
import os

from pyboxd.linux import constants as k
from pyboxd.linux.mount import openat2


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
        above = ordinary_directory(root_fd, parent) if parent != "/" else os.dup(root_fd)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
            return openat2(above, name, os.O_PATH | os.O_DIRECTORY, k.RESOLVE_NO_SYMLINKS | k.RESOLVE_BENEATH)
        finally:
            os.close(above)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(error.errno, f'"{path}" must be mounted on ordinary directory') from error
