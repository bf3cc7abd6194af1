"""What host systems do differently, asked of `os` itself: no system is named here."""

from __future__ import annotations

import importlib
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from errno import EEXIST, EOPNOTSUPP
from pathlib import Path
from typing import Any

# The calls that every system has on which `can_serve` is true; type checkers look at this code for others too.
posix: Any = os

_PATH: int = getattr(os, "O_PATH", 0)
_DIRECTORY: int = getattr(os, "O_DIRECTORY", 0)
NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
BINARY: int = getattr(os, "O_CLOEXEC", 0) | NO_LINK | getattr(os, "O_NOCTTY", 0)
OPEN_DIRECTORY = BINARY | _DIRECTORY | _PATH  # to reach what is in it
LIST_DIRECTORY = BINARY | _DIRECTORY
OPEN_FILE: int = BINARY | getattr(os, "O_NONBLOCK", 0)  # never waits: not for a fifo that took a file's place

_SEEK_HOLE = (getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None))
_xattr: Any = os if hasattr(os, "setxattr") else None


def can_serve() -> bool:
    """Say whether this system has calls relative to a directory.

    Windows has none. Without them a path is walked anew for every request, and whoever can put a link on it leads the
    guest out of its folders; a server by paths would have to be another driver, with another way to prevent that.
    """
    return os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd


def raise_limit() -> None:
    """Allow this process as many descriptors as its user may have."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1 << 20
    for limit in (wanted, 65536, 10240):  # some systems state a hard limit that they do not grant
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, wanted), hard))
            return


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """pread(2) into a buffer; the bytes read."""
    if hasattr(os, "preadv"):
        count: int = posix.preadv(descriptor, [buffer], offset)
        return count
    data: bytes = posix.pread(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def append(descriptor: int, data: memoryview) -> int:
    """Write behind the end of a file, wherever it is by now; the bytes written. Raises OSError."""
    written: int
    if hasattr(os, "RWF_APPEND"):
        written = posix.pwritev(descriptor, [data], 0, posix.RWF_APPEND)
    else:
        written = posix.pwrite(descriptor, data, os.fstat(descriptor).st_size)
    return written


def copy_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> int:
    """copy_file_range(2); the bytes copied. Raises OSError, EOPNOTSUPP where there is none."""
    if not hasattr(os, "copy_file_range"):
        raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
    copied: int = posix.copy_file_range(source, target, length, source_offset, target_offset)
    return copied


def may(directory: int, name: bytes, mask: int) -> bool:
    """access(2) of one name in a directory that is no link."""
    return os.access(name, mask, dir_fd=directory, follow_symlinks=os.access not in os.supports_follow_symlinks)


def change_mode(directory: int, name: bytes, mode: int) -> None:
    """chmod of one name in a directory that follows no link. Raises OSError."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, mode, dir_fd=directory, follow_symlinks=False)
        return
    if not _PATH:
        _with_descriptor(directory, name, os.O_RDONLY | OPEN_FILE, lambda fd: posix.fchmod(fd, mode))
        return
    # A descriptor of the thing itself, whatever it is; the magic link leads to it and to nothing else.
    _with_descriptor(directory, name, _PATH | BINARY, lambda fd: Path(f"/proc/self/fd/{fd}").chmod(mode))


def set_times(target: int | bytes, directory: int, times: tuple[int, int] | None) -> None:
    """Set access and modification time, in ns or both to now, of a descriptor or a name in a directory. OSError."""
    where: dict[str, Any] = {} if isinstance(target, int) else {"dir_fd": directory, "follow_symlinks": False}
    if times is None:
        os.utime(target, **where)
    else:
        os.utime(target, ns=times, **where)


def _with_descriptor(directory: int, name: bytes, flags: int, action: Callable[[int], None]) -> None:
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        action(descriptor)
    finally:
        os.close(descriptor)


def get_attribute(directory: int, name: bytes, attribute: str) -> bytes | None:
    """An extended attribute of one name in a directory; None when there is none, or none on this system."""
    if _xattr is None:
        return None
    try:
        value: bytes = _xattr.getxattr(_entry(directory, name), attribute, follow_symlinks=False)
    except OSError:
        return None
    return value


def set_attribute(directory: int, name: bytes, attribute: str, value: bytes) -> bool:
    """Write an extended attribute; False where that cannot be."""
    if _xattr is None:
        return False
    try:
        _xattr.setxattr(_entry(directory, name), attribute, value, follow_symlinks=False)
    except OSError:
        return False
    return True


def _entry(directory: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (directory, name)


def seek(descriptor: int, offset: int, whence: int) -> int:
    """lseek(2) for the next data or hole, by the numbers that Linux has for them (3 and 4). Raises OSError."""
    native = _SEEK_HOLE[whence - 3]
    if native is None:
        raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
    return os.lseek(descriptor, offset, native)


def allocate(descriptor: int, offset: int, length: int) -> None:
    """posix_fallocate(3). Raises OSError, EOPNOTSUPP where there is none."""
    if not hasattr(os, "posix_fallocate"):
        raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
    posix.posix_fallocate(descriptor, offset, length)


def wait_until_taken(connection: socket.socket, seconds: float) -> None:
    """Wait until the other side has taken all that was sent; no longer than `seconds`, and not where nobody can tell."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
        request: int = importlib.import_module("termios").TIOCOUTQ
        deadline = time.monotonic() + seconds
        while any(fcntl.ioctl(connection, request, bytes(4))) and time.monotonic() < deadline:
            time.sleep(0.001)
    except (ImportError, AttributeError, OSError):
        return


def sync_directory(directory: int) -> None:
    """fsync(2) of an open directory. Raises OSError."""
    readable = os.open(b".", LIST_DIRECTORY, dir_fd=directory)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def rename_no_replace(directory: int, name: bytes, new_directory: int, new_name: bytes) -> None:
    """Rename only to a name that is free: exactly so for files, as well as can be for directories. Raises OSError."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        os.link(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory, follow_symlinks=False)
        os.unlink(name, dir_fd=directory)
        return
    try:
        os.stat(new_name, dir_fd=new_directory, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=new_directory)
        return
    raise OSError(EEXIST, os.strerror(EEXIST))


def exchange(directory: int, name: bytes, other_directory: int, other_name: bytes) -> None:
    """Exchange two names by three renames; to the guest it is one, to others on the host a name is gone for a moment."""
    aside = b".pybox-exchange-%s" % os.urandom(8).hex().encode()
    os.stat(other_name, dir_fd=other_directory, follow_symlinks=False)
    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    try:
        os.rename(other_name, name, src_dir_fd=other_directory, dst_dir_fd=directory)
        try:
            os.rename(aside, other_name, src_dir_fd=directory, dst_dir_fd=other_directory)
        except OSError:
            os.rename(name, other_name, src_dir_fd=directory, dst_dir_fd=other_directory)
            raise
    except OSError:
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
        raise
