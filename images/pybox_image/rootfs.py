"""The guest's root as a tree in memory: paths, modes and owners never depend on the host's file system."""

from __future__ import annotations

import posixpath
import re
import stat
import tarfile
from collections.abc import Iterable
from fnmatch import translate
from pathlib import Path

from pybox_image import cpio
from pybox_image.errors import ImageError

# Debian's merged /usr: what a package puts below these goes below /usr.
_MERGED = ("bin", "sbin", "lib", "lib64")


class Tree:
    """Files by path (no leading slash, no merged-/usr alias). Folders above a file appear by themselves."""

    def __init__(self, exclude: Iterable[str] = ()) -> None:
        """`exclude` are shell patterns of whole paths in which `*` also matches slashes, as for dpkg's path-exclude."""
        self._entries: dict[str, cpio.Entry] = {}
        patterns = [translate(pattern) for pattern in exclude]
        self._excluded = re.compile("|".join(patterns) if patterns else r"(?!)")
        for name in _MERGED:
            self._entries[name] = cpio.link(name, f"usr/{name}")
            self.folder(f"usr/{name}")

    def add_package(self, archive: tarfile.TarFile) -> None:
        """Lay the files of a package over the tree. A hard link becomes a symbolic link to its first name."""
        for member in archive:
            path = self._path(member.name)
            if not path or path in _MERGED or self._excluded.match(path):
                continue
            self._add_member(archive, member, path)

    def _add_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        mode = member.mode & 0o7777
        if member.isdir():
            self._put(cpio.Entry(path, stat.S_IFDIR | mode, b"", member.uid, member.gid))
        elif member.issym():
            self._put(cpio.Entry(path, stat.S_IFLNK | 0o777, member.linkname.encode(), member.uid, member.gid))
        elif member.islnk():
            self.link(path, "/" + self._path(member.linkname))
        elif member.isreg():
            content = archive.extractfile(member)
            data = content.read() if content is not None else b""
            self._put(cpio.Entry(path, stat.S_IFREG | mode, data, member.uid, member.gid))
        else:
            raise ImageError("a package cannot be unpacked", f"{member.name} is a device or something else unusual")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file that belongs to root."""
        self._put(cpio.file(self._path(path), data, mode))

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Make a folder, or change the mode of one that is there."""
        self._put(cpio.folder(self._path(path), mode))

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link; what was at `path` is replaced."""
        self._put(cpio.link(self._path(path), target))

    def read(self, path: str) -> bytes:
        """Return the content of a file, following no link. Raises ImageError when there is no such file."""
        entry = self._entries.get(self._path(path))
        if entry is None or not stat.S_ISREG(entry.mode):
            raise ImageError("the guest's root is not complete", f"no file {path}")
        return entry.data

    def matching(self, pattern: str) -> list[cpio.Entry]:
        """Return the entries whose path matches a shell pattern, sorted by path."""
        match = re.compile(translate(pattern)).match
        return [entry for path, entry in sorted(self._entries.items()) if match(path)]

    def entries(self) -> list[cpio.Entry]:
        """Return everything, folders before what is in them."""
        return [entry for _path, entry in sorted(self._entries.items())]

    def write(self, into: Path) -> None:
        """Write everything below the folder `into`, as the calling user; owners are not kept.

        What is there already is replaced, links are not followed.
        """
        for entry in self.entries():
            path = into / entry.path
            if stat.S_ISDIR(entry.mode):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if stat.S_ISLNK(entry.mode):
                path.symlink_to(entry.data.decode())
            else:
                path.write_bytes(entry.data)
                path.chmod(stat.S_IMODE(entry.mode) & 0o777)

    def __contains__(self, path: str) -> bool:
        return self._path(path) in self._entries

    def _put(self, entry: cpio.Entry) -> None:
        parent = posixpath.dirname(entry.path)
        if parent:
            if parent not in self._entries:
                self.folder(parent)
            elif not stat.S_ISDIR(self._entries[parent].mode):
                raise ImageError("a package cannot be unpacked", f"{entry.path} is below something that is no folder")
        self._entries[entry.path] = entry

    def _path(self, name: str) -> str:
        path = posixpath.normpath("/" + name).lstrip("/")
        first, slash, _rest = path.partition("/")
        return f"usr/{path}" if slash and first in _MERGED else path
