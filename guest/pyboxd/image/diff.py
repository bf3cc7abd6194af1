"""An overlay's upper directory as a layer: what changed, in the tar form of image-spec `layer.md`.

Whiteouts (character devices 0:0) become `.wh.NAME`, opaque directories get `.wh..wh..opq`. Deterministic: sorted by
name, so the same tree gives the same bytes. Blocking, for a worker thread.

The tree may belong to a container that runs and changes it meanwhile (`docker commit --pause=false`). Everything is
opened relative to its directory's descriptor and without following a link, so nothing outside of the tree is read
whatever is exchanged; what is gone when its turn comes is left out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Iterator

from pyboxd.errors import InvalidArgument
from pyboxd.image.workers import Stop

PIECE = 256 * 1024
MAX_DEPTH = 1000  # directories in one another: each holds a descriptor
_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def archive(upper: str, stop: Stop) -> Iterator[bytes]:
    """The tar stream of all that `upper` holds. InvalidArgument for directories nested too deeply."""
    with contextlib.closing(_Archiver(upper)) as archiver:
        for piece in archiver.pieces():
            stop.check()
            yield piece
    yield bytes(1024)


class _Archiver:
    def __init__(self, upper: str) -> None:
        self._levels = [_Level(os.open(upper, _DIRECTORY), "")]
        self._hard_links: dict[tuple[int, int], str] = {}

    def close(self) -> None:
        for level in self._levels:
            os.close(level.fd)

    def pieces(self) -> Iterator[bytes]:
        while self._levels:
            level = self._levels[-1]
            base = next(level.names, None)
            if base is None:
                os.close(self._levels.pop().fd)
                continue
            try:
                status = os.stat(base, dir_fd=level.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield from self._member(level, base, status)

    def _member(self, level: _Level, base: str, status: os.stat_result) -> Iterator[bytes]:
        name = level.prefix + base
        mode = status.st_mode
        if stat.S_ISSOCK(mode):  # no archive holds one
            return
        if _is_whiteout(status):
            yield _header(_info(f"{level.prefix}.wh.{base}", 0o644))
        elif stat.S_ISDIR(mode):
            yield from self._directory(level.fd, base, name)
        elif stat.S_ISREG(mode):
            yield from self._file(level.fd, base, name)
        elif link := self._hard_link(status, name):
            yield link
        else:
            yield from _special(level.fd, base, name, status)

    def _directory(self, parent: int, base: str, name: str) -> Iterator[bytes]:
        if len(self._levels) >= MAX_DEPTH:
            raise InvalidArgument(f"the directories are nested too deeply: {name[:80]}…")
        opened = _opened(base, _DIRECTORY, parent)
        if opened is None:
            return
        self._levels.append(_Level(opened, f"{name}/"))
        info = _described(name, os.fstat(opened))
        info.type = tarfile.DIRTYPE
        opaque = _attributes(opened, info).get(_OPAQUE) == b"y"
        yield _header(info)
        if opaque:
            yield _header(_info(f"{name}/.wh..wh..opq", 0o644))

    def _file(self, parent: int, base: str, name: str) -> Iterator[bytes]:
        opened = _opened(base, _FILE, parent)
        if opened is None:
            return
        with os.fdopen(opened, "rb", buffering=0) as file:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):  # exchanged since
                return
            if link := self._hard_link(status, name):
                yield link
                return
            info = _described(name, status)
            info.size = status.st_size
            _attributes(opened, info)
            yield _header(info)
            left = info.size
            while left and (data := file.read(min(PIECE, left))):
                left -= len(data)
                yield data
        while left:  # shrunk meanwhile; the header promised the size
            padding = bytes(min(PIECE, left))
            left -= len(padding)
            yield padding
        if info.size % 512:
            yield bytes(-info.size % 512)

    def _hard_link(self, status: os.stat_result, name: str) -> bytes:
        """The entry of another name of a file that is in the archive already, or nothing."""
        if status.st_nlink < 2:
            return b""
        first = self._hard_links.setdefault((status.st_dev, status.st_ino), name)
        if first == name:
            return b""
        info = _described(name, status)
        info.type, info.linkname = tarfile.LNKTYPE, first
        return _header(info)


class _Level:
    """A directory on the way: its descriptor, and the names in it that are still to come."""

    def __init__(self, fd: int, prefix: str) -> None:
        self.fd = fd
        self.prefix = prefix
        with os.scandir(fd) as entries:
            found = sorted((not _is_removal(entry), entry.name) for entry in entries)  # readers apply them in order
        self.names = iter([name for _, name in found])


def _opened(name: str, flags: int, parent: int) -> int | None:
    """A descriptor, or None for what is gone or something else by now."""
    try:
        return os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.ENODEV):
            return None
        raise


def _is_removal(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return False
    try:
        return _is_whiteout(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _special(parent: int, base: str, name: str, status: os.stat_result) -> Iterator[bytes]:
    """Symbolic links, devices, pipes."""
    mode = status.st_mode
    info = _described(name, status)
    if stat.S_ISLNK(mode):
        try:
            info.type, info.linkname = tarfile.SYMTYPE, os.readlink(base, dir_fd=parent)
        except OSError:  # gone, or exchanged
            return
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    else:
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    with contextlib.suppress(FileNotFoundError):
        _attributes(f"/proc/self/fd/{parent}/{base}", info)
    yield _header(info)


def _attributes(place: int | str, info: tarfile.TarInfo) -> dict[str, bytes]:
    """Put the file's extended attributes into the header; all of them, overlayfs's own included, are returned."""
    follow = isinstance(place, int)  # a descriptor is what it is
    keys = os.listxattr(place, follow_symlinks=follow)
    found = {key: os.getxattr(place, key, follow_symlinks=follow) for key in keys}
    own = {key: value for key, value in found.items() if not key.startswith(_OVERLAY)}
    info.pax_headers = {f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in own.items()}
    return found


def _described(name: str, status: os.stat_result) -> tarfile.TarInfo:
    info = _info(name, stat.S_IMODE(status.st_mode))
    info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    return info


def _info(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info


def _header(info: tarfile.TarInfo) -> bytes:
    if info.type == tarfile.DIRTYPE:
        info.name += "/" if not info.name.endswith("/") else ""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
