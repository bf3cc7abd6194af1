"""Walking inside a root file system by descriptors, so that no link in it leads out. Needs openat2 (Linux 5.6).

A `Root` is a directory that stands for `/`: an overlay that is mounted nowhere, a layer, or the build context.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from pyboxd.linux import constants as k
from pyboxd.linux import mount as mounts
from pyboxd.linux.mount import Option, make_filesystem, openat2

Owner = tuple[int, int]
_IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS
_MAX_LINKS = 40
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

    def open(self, path: str, flags: int = os.O_PATH) -> int:
        """Open what `path` leads to inside the root, links followed there. OSError."""
        return openat2(self.fd, path.strip("/") or ".", flags, _IN_ROOT)

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

    def make_directories(self, path: str, owner: Owner = (0, 0), mode: int = 0o755) -> int:
        """Open the directory `path`, making what is missing of it; descriptor for reading. OSError.

        Links on the way are followed inside the root, a dangling one at a missing directory too.
        """
        try:
            return self.open_directory(path)
        except FileNotFoundError:
            return _Maker(self.fd, owner, mode).run(path)


class InRoot:
    """Directories of an archive below `folder` of a root (`extract.Parents`); links lead where they lead there."""

    def __init__(self, root: Root, folder: str) -> None:
        self._root = root
        self._folder = folder

    def open(self, path: str, make: bool) -> int:
        whole = f"{self._folder}/{path}"
        return self._root.make_directories(whole) if make else self._root.open_directory(whole)


class _Maker:
    """A walk from the root that makes directories, holding a descriptor of every one on its way."""

    def __init__(self, root: int, owner: Owner, mode: int) -> None:
        self._stack = [os.open(".", _DIRECTORY, dir_fd=root)]
        self._owner = owner
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
                link = self._enter(name)
                if link is not None:
                    todo += _components(link)
            return os.dup(self._stack[-1])
        finally:
            for descriptor in self._stack:
                os.close(descriptor)

    def _enter(self, name: str) -> str | None:
        """Step into `name`; the text of the link if it is one."""
        here = self._stack[-1]
        try:
            self._stack.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here))
            return None
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=here)
            made = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            self._stack.append(made)
            os.fchown(made, *self._owner)
            os.fchmod(made, self._mode)
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            try:
                link = os.readlink(name, dir_fd=here)
            except OSError:
                raise error from None
        self._links += 1
        if self._links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if link.startswith("/"):
            while len(self._stack) > 1:
                os.close(self._stack.pop())
        return link


def _components(path: str) -> list[str]:
    """The names of a path, last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def open_plain(path: str) -> Root:
    """A directory of the engine's own as a root."""
    return Root(os.open(path, _DIRECTORY | os.O_NOFOLLOW))


def open_layers(lower: tuple[str, ...], empty: str) -> Root:
    """Read-only view of layers, top first. `empty` is an empty directory, for an image without layers."""
    if len(lower) < 2:
        return open_plain(lower[0] if lower else empty)
    return _overlay([("lowerdir+", path) for path in lower])


@contextlib.contextmanager
def writable(lower: tuple[str, ...], upper: str, work: str, empty: str) -> Iterator[Root]:
    """The layers with `upper` over them. The overlay is attached nowhere and ends with the block."""
    options: list[Option] = [("lowerdir+", path) for path in lower or (empty,)]
    with _overlay([*options, ("upperdir", upper), ("workdir", work)]) as root:
        yield root


def _overlay(options: list[Option]) -> Root:
    # off, whatever the kernel's defaults are: an upper directory must be complete as a layer
    features: list[Option] = [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")]
    mount = make_filesystem("overlay", [*options, *features])
    try:
        return Root(os.open(".", _DIRECTORY, dir_fd=mount), mount)
    except BaseException:
        os.close(mount)
        raise


def attach(root: Root, place: str) -> None:
    """Make the root visible at the directory `place`, until that is unmounted."""
    copy = mounts.clone_tree("", root.fd)
    try:
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            mounts.attach(copy, target)
        finally:
            os.close(target)
    finally:
        os.close(copy)
