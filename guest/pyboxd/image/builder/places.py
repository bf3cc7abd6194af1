"""Walking inside a root file system by descriptors, so that no link in it leads out.

A `Root` is a directory that stands for `/`: an overlay that is mounted nowhere, a layer, or the build context.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from pyboxd.linux import mount as mounts
from pyboxd.linux.inroot import Owner, make_in_root, open_in_root

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Root:
    """An open root directory; close it, or use `with`."""

    def __init__(self, descriptor: int, mount: int | None = None) -> None:
        self.fd = descriptor
        self._mount = mount  # keeps a mount that is attached nowhere

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)
        if self._mount is not None:
            os.close(self._mount)

    @property
    def path(self) -> str:
        """A name of the root for this process, as long as it is open."""
        return f"/proc/self/fd/{self.fd}/."

    def attach(self, place: str) -> None:
        """Make the root visible at the directory `place`, until that is unmounted. Once. OSError.

        A mount that is attached nowhere is attached itself: the kernel copies only attached ones (before Linux 6.15).
        """
        with contextlib.ExitStack() as opened:
            mount = self._mount
            if mount is None:
                mount = mounts.clone_tree("", self.fd)
                opened.callback(os.close, mount)
            target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            opened.callback(os.close, target)
            mounts.attach(mount, target)

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what `path` leads to inside the root, links followed there. OSError."""
        return open_in_root(self.fd, path.strip("/") or ".", flags)

    def open_directory(self, path: str) -> int:
        """The same for a directory that will be read."""
        return self.open(path, _DIRECTORY)

    def status(self, path: str) -> os.stat_result | None:
        """What `path` leads to; None if nothing is there."""
        try:
            descriptor = self.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def read_link(self, folder: str, name: str) -> str | None:
        """The text of the link `name` in `folder`; None if there is none."""
        try:
            directory = self.open(folder, os.O_PATH | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.readlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            return None
        finally:
            os.close(directory)

    def read_file(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes of a regular file; nothing if it is not there or is something else."""
        try:
            descriptor = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return b""
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""

    def make_directories(self, path: str, owner: Owner = (0, 0)) -> int:
        """Open the directory `path`, making what is missing of it (see `make_in_root`); descriptor for reading. OSError."""
        found = make_in_root(self.fd, path.strip("/") or ".", owner=owner)
        try:
            return os.open(".", _DIRECTORY, dir_fd=found)
        finally:
            os.close(found)


class InRoot:
    """Directories of an archive below `folder` of a root (`extract.Parents`); links lead where they lead there."""

    def __init__(self, root: Root, folder: str) -> None:
        self._root = root
        self._folder = folder

    def open(self, path: str, make: bool) -> int:
        whole = f"{self._folder}/{path}"
        return self._root.make_directories(whole) if make else self._root.open_directory(whole)


def open_plain(path: str) -> Root:
    """A directory of the engine's own as a root."""
    return Root(os.open(path, _DIRECTORY | os.O_NOFOLLOW))


def open_layers(lower: tuple[str, ...], empty: str) -> Root:
    """Read-only view of layers, top first. `empty` is an empty directory, for an image without layers."""
    if len(lower) < 2:
        return open_plain(lower[0] if lower else empty)
    return _root_of(mounts.make_overlay(lower))


@contextlib.contextmanager
def writable(lower: tuple[str, ...], upper: str, work: str, empty: str) -> Iterator[Root]:
    """The layers with `upper` over them. The overlay is attached nowhere and ends with the block."""
    with _root_of(mounts.make_overlay(lower or (empty,), upper, work)) as root:
        yield root


def _root_of(mount: int) -> Root:
    try:
        return Root(os.open(".", _DIRECTORY, dir_fd=mount), mount)
    except OSError:
        os.close(mount)
        raise
