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
from collections.abc import Iterator, Mapping

from pyboxd.errors import InvalidArgument
from pyboxd.image.workers import Stop

PIECE = 256 * 1024
MAX_DEPTH = 1000  # directories in one another: each holds a descriptor
END = bytes(1024)
_OPAQUE = "trusted.overlay.opaque"
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NO_ATTRIBUTES: Mapping[str, bytes] = {}
# A ustar header (POSIX.1-1988) without its name, and what fits into its fields.
_NAME = 100  # bytes
_NUMBER = 0o7777777
_SIZE = 0o77777777777
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE)


class Archive:
    """The tar stream of all that a directory holds. After `pieces`, `size` counts the bytes of file content and `end`
    those before the archive's end mark."""

    def __init__(self, upper: str) -> None:
        self._levels = [_Level(os.open(upper, _DIRECTORY), "")]
        self._hard_links: dict[tuple[int, int], str] = {}
        self.size = 0
        self.end = 0

    def pieces(self, stop: Stop) -> Iterator[bytes]:
        """The stream. InvalidArgument for directories nested too deeply."""
        try:
            for piece in self._members():
                stop.check()
                self.end += len(piece)
                yield piece
        finally:
            for level in self._levels:
                os.close(level.fd)
        yield END

    def _members(self) -> Iterator[bytes]:
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
        if stat.S_ISREG(mode):
            yield from self._file(level.fd, base, name)
        elif stat.S_ISDIR(mode):
            yield from self._directory(level.fd, base, name)
        elif stat.S_ISSOCK(mode):  # no archive holds one
            return
        elif _is_whiteout(status):
            yield _mark(f"{level.prefix}.wh.{base}")
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
        attributes = _attributes(opened)
        yield _header(f"{name}/", tarfile.DIRTYPE, os.fstat(opened), attributes=attributes)
        if attributes.get(_OPAQUE) == b"y":
            yield _mark(f"{name}/.wh..wh..opq")

    def _file(self, parent: int, base: str, name: str) -> Iterator[bytes]:
        opened = _opened(base, _FILE, parent)
        if opened is None:
            return
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):  # exchanged since
                return
            if link := self._hard_link(status, name):
                yield link
                return
            size = status.st_size
            self.size += size
            header = _header(name, tarfile.REGTYPE, status, size=size, attributes=_attributes(opened))
            yield from _content(opened, header, size)
        finally:
            os.close(opened)

    def _hard_link(self, status: os.stat_result, name: str) -> bytes:
        """The entry of another name of a file that is in the archive already, or nothing."""
        if status.st_nlink < 2:
            return b""
        first = self._hard_links.setdefault((status.st_dev, status.st_ino), name)
        return b"" if first == name else _header(name, tarfile.LNKTYPE, status, link=first)


class _Level:
    """A directory on the way: its descriptor, and the names in it that are still to come."""

    def __init__(self, fd: int, prefix: str) -> None:
        self.fd = fd
        self.prefix = prefix
        with os.scandir(fd) as entries:
            found = sorted((not _is_removal(entry), entry.name) for entry in entries)  # readers apply them in order
        self.names = iter([name for _, name in found])


def _content(descriptor: int, header: bytes, size: int) -> Iterator[bytes]:
    """A file's header, its bytes, and zeros up to a whole block; a small file is one piece."""
    data = os.read(descriptor, min(PIECE, size)) if size else b""
    left = size - len(data)
    yield b"".join((header, data, bytes(-size % 512 if not left else 0)))
    while left and (data := os.read(descriptor, min(PIECE, left))):
        left -= len(data)
        yield data if left else data + bytes(-size % 512)
    while left:  # shrunk meanwhile; the header promised the size
        padding = min(PIECE, left)
        left -= padding
        yield bytes(padding if left else padding + -size % 512)


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
    link = ""
    if stat.S_ISLNK(mode):
        try:
            kind, link = tarfile.SYMTYPE, os.readlink(base, dir_fd=parent)
        except OSError:  # gone, or exchanged
            return
    elif stat.S_ISFIFO(mode):
        kind = tarfile.FIFOTYPE
    else:
        kind = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
    attributes = _NO_ATTRIBUTES
    with contextlib.suppress(FileNotFoundError):
        attributes = _attributes(f"/proc/self/fd/{parent}/{base}")
    yield _header(name, kind, status, link=link, attributes=attributes)


def _attributes(place: int | str) -> Mapping[str, bytes]:
    """The extended attributes, overlayfs's own included."""
    follow = isinstance(place, int)  # a descriptor is what it is
    keys = os.listxattr(place, follow_symlinks=follow)
    return {key: os.getxattr(place, key, follow_symlinks=follow) for key in keys} if keys else _NO_ATTRIBUTES


def _mark(name: str) -> bytes:
    """The entry of a whiteout."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _header(
    name: str,
    kind: bytes,
    status: os.stat_result,
    *,
    size: int = 0,
    link: str = "",
    attributes: Mapping[str, bytes] = _NO_ATTRIBUTES,
) -> bytes:
    """The entry's block, or blocks. Nearly all entries fit a plain ustar header, which is made here in one go."""
    device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in _DEVICES else (0, 0)
    numbers = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, size, int(status.st_mtime))
    own = {key: value for key, value in attributes.items() if not key.startswith(_OVERLAY)}
    if not own and name.isascii() and link.isascii() and len(name) <= _NAME and len(link) <= _NAME:
        _, uid, gid, _, mtime = numbers
        if uid <= _NUMBER and gid <= _NUMBER and size <= _SIZE and 0 <= mtime <= _SIZE and max(device) <= _NUMBER:
            return _ustar(name.encode(), kind, numbers, link.encode(), device)
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode, info.uid, info.gid, info.size, info.mtime = numbers
    info.devmajor, info.devminor = device
    info.pax_headers = {f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in own.items()}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _ustar(name: bytes, kind: bytes, numbers: tuple[int, ...], link: bytes, device: tuple[int, int]) -> bytes:
    mode, uid, gid, size, mtime = numbers
    start = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(_NAME, b"\0"), mode, uid, gid, size, mtime)
    end = b" %b%bustar\x0000%b" % (kind, link.ljust(_NAME, b"\0"), bytes(64))
    if kind in _DEVICES:
        end += b"%07o\0%07o\0" % device
    total = sum(start) + sum(end) + 7 * 0x20  # the sum's own field counts as blanks
    return (start + b"%06o\0" % total + end).ljust(512, b"\0")
