"""Files of a tar stream, put into a folder of this computer. The stream comes from a container, so it is not trusted:
no name leads out of the folder, neither by itself nor through a link that came before it.
"""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pybox.errors import PyboxError

_CHUNK = 256 * 1024


def extract(stream: BinaryIO, target: Path, *, inside: bool) -> list[str]:
    """Put an archive at `target`; names of what this computer cannot have (devices, sockets) come back.

    `inside`: the archive's top is a folder whose content goes into `target`. Otherwise `target` is what the top becomes,
    whatever that is called. What is there is replaced, but no folder by a file, or the other way round. Owners are not
    taken over, and of permissions not those that would give a program its owner's rights. Raises PyboxError, OSError.
    """
    tree = _Tree(target, depth=0 if inside else 1)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
        for member in archive:
            tree.put(archive, member)
    tree.finish()
    return tree.left_out


class _Tree:
    def __init__(self, target: Path, depth: int) -> None:
        self._target = target
        self._depth = depth
        self._known: set[Path] = set()  # folders that are no links
        self._folders: dict[Path, tarfile.TarInfo] = {}
        self.left_out: list[str] = []

    def put(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._place(member.name)
        self._make_way(path, folder=member.isdir())
        if member.isdir():
            self._folder(path, member)
        elif member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            self._hard_link(path, self._place(member.linkname))
        elif member.isreg():
            self._file(archive, path, member)
        elif not (member.isfifo() and _make_pipe(path)):
            self.left_out.append(member.name)

    def finish(self) -> None:
        """Give folders their permissions and times, which their content would have changed."""
        for path, member in reversed(self._folders.items()):
            path.chmod(member.mode & 0o777)
            os.utime(path, (member.mtime, member.mtime))

    def _place(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        plain = all(os.path.basename(part) == part for part in parts)  # noqa: PTH119 - Windows has more separators
        if not plain or PurePosixPath(name).is_absolute() or ".." in parts or len(parts) < self._depth:
            raise PyboxError("the archive names a file outside of itself", name)
        return self._target.joinpath(*parts[self._depth :])

    def _make_way(self, path: Path, *, folder: bool) -> None:
        """See that the folders above are there, and nothing that will be replaced."""
        if path != self._target:
            self._make_parents(path)
        there = path.is_dir() and not path.is_symlink()
        if not os.path.lexists(path) or (there and folder):
            return
        if there:
            raise PyboxError(f'cannot overwrite directory "{path}" with non-directory')
        if folder:
            raise PyboxError(f'cannot overwrite non-directory "{path}" with directory')
        path.unlink()

    def _make_parents(self, path: Path) -> None:
        missing = []
        for parent in path.parents:
            if parent in self._known:
                break
            if parent.is_symlink():
                raise PyboxError("the archive names a file behind a link", f"{parent} is a link")
            missing.append(parent)
            if parent == self._target:
                break
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            self._known.add(parent)

    def _folder(self, path: Path, member: tarfile.TarInfo) -> None:
        new = not path.is_dir()
        if new:
            path.mkdir(mode=0o700)
        if new or path != self._target:  # the folder that things are put into keeps what it has
            self._folders[path] = member

    def _hard_link(self, path: Path, source: Path) -> None:
        self._make_parents(source)
        if source.is_symlink():  # some systems would link to what it points at
            path.symlink_to(source.readlink())
        else:
            path.hardlink_to(source)

    def _file(self, archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member)
        assert content is not None  # it is a regular file
        with open(path, "xb", opener=_private) as file:
            while data := content.read(_CHUNK):
                file.write(data)
        path.chmod(member.mode & 0o777)
        os.utime(path, (member.mtime, member.mtime))


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _make_pipe(path: Path) -> bool:
    make = getattr(os, "mkfifo", None)  # not every system has them
    with suppress(OSError):
        if make is not None:
            make(path)
            return True
    return False
